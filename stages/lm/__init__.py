"""The language model itself: its sizes, its forward pass, and the one loop that trains it, for pretrain, sft and dpo alike."""

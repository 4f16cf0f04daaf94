"""The language model and the one loop that trains it, for pretrain, sft and dpo."""

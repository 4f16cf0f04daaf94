"""What a word, a sentence and an n-gram are, and how documents are sorted and held out."""

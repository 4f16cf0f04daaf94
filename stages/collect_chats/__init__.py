"""Chats from the training documents themselves and from the user's own files."""

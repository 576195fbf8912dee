"""Chats that are kept because their client said so: looked at, rated, and made into training files."""

"""The way from files to stored passages."""

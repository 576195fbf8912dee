"""The server seen from outside: numbers, a line a request, traces; nothing of what was asked or answered."""

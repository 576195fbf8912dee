"""One file a kind of format: bytes in, a Reading out. The home of markitdown, openpyxl and pypdfium2."""

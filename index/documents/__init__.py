"""A file in, its passages out: parse, split."""

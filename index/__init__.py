"""Documents in, ranked passages out: parse, split, encode, store, filter, search."""

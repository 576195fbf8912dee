"""The nearest vectors: a view of a collection that can always be rebuilt."""

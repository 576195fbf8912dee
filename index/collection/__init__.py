"""One collection: the truth in its own database."""

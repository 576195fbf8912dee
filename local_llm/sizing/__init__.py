"""What a collection and its requests will need at sizes that nobody has here: formulas over measured figures."""

"""Fine-tune, retrieve, or both: the questions, the tree, what was measured, and what would flip the answer."""

"""Two rankings into one."""

from collections.abc import Sequence

from index.collection.scope import Candidate

# How far down each ranking is read; beyond it nothing counts.
DEPTH = 100

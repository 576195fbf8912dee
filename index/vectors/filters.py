"""Which rows a search may return, from which documents it may see."""

import numpy as np

from index.vectors.brute_force import RowNumbers
from index.vectors.rows import Groups, Mask, Rows


def permitted(groups: Groups, allowed: Mask) -> Mask:
    """allowed: bool [documents]; a document without an entry is not allowed. Returns: bool [rows]."""
    if not len(groups):
        return np.zeros(0, np.bool_)
    missing = int(groups.max()) + 1 - len(allowed)
    if missing > 0:
        allowed = np.concatenate((allowed, np.zeros(missing, np.bool_)))
    return allowed[groups]


def visible_rows(rows: Rows, allowed: Mask | None) -> RowNumbers:
    """The live rows that are allowed, ascending."""
    mask = rows.live if allowed is None else rows.live & permitted(rows.groups, allowed)
    return np.flatnonzero(mask)

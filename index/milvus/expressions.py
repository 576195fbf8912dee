"""Which documents a search may return, as Milvus is told it.

Permissions and attributes stay here: the catalog judges them, and Milvus is given numbers of documents. So a filter
means the same as in memory whatever it says, and a permission that narrows holds at once, Milvus reachable or not.
"""

from collections.abc import Iterator

import numpy as np

from index.vectors.rows import Mask

# Milvus parses an expression anew with each search: so many numbers are some 80 kB of text.
MOST_NUMBERS = 10_000


def expressions(allowed: Mask | None, most: int = MOST_NUMBERS) -> Iterator[str]:
    """Filters that no two share a document of, and that all together admit what `allowed` (bool [documents]) admits
    and nothing else. None: an empty one, which admits everything.

    The rarer of both kinds is named, the allowed or the forbidden; more than `most` of it make several filters.
    """
    if allowed is None:
        yield ""
        return
    admitted = int(np.count_nonzero(allowed))
    if admitted <= len(allowed) - admitted:
        numbers = np.flatnonzero(allowed)
        for start in range(0, len(numbers), most):
            yield f"document in {_listed(numbers[start : start + most])}"
        return
    forbidden = np.flatnonzero(~allowed)
    # From one number to another: what has no entry is not admitted, however large its number.
    ends = [*forbidden[most::most].tolist(), len(allowed)]
    for part, end in enumerate(ends):
        first = 0 if part == 0 else ends[part - 1]
        span = f"document >= {first} and document < {end}"
        named = forbidden[part * most : (part + 1) * most]
        yield f"{span} and document not in {_listed(named)}" if len(named) else span


def _listed(numbers: np.ndarray) -> str:
    return f"[{','.join(map(str, numbers.tolist()))}]"

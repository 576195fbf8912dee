"""Rows in 16-bit floats on a device, all of them scored by each search: what a GPU does fastest.

Bound by memory bandwidth, with no recall to tune. What may not be seen is masked before the best are chosen: the
GPU indexes of FAISS ignore a selector without a word, and return at most 2,048 rows.
"""

from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from index.vectors.brute_force import RowNumbers
from index.vectors.filters import Visible
from index.vectors.rows import Vectors, capacity_for

BYTES_A_NUMBER = 2
# The rest is for the engine that answers and for the scores of a search.
SHARE_OF_FREE_MEMORY = 0.5
# Scores of 16 bits tie: more are chosen than asked for, and scored exactly afterwards.
CANDIDATES_A_RESULT = 4
FEWEST_CANDIDATES = 64
NVIDIA_DRIVER = Path("/dev/nvidiactl")


def device_for(wanted: str) -> str | None:
    """ "cuda" where there is a GPU and `wanted` ("auto", "cpu", "cuda") does not forbid it; else None."""
    if wanted == "cpu" or (wanted == "auto" and not NVIDIA_DRIVER.exists()):  # spares the import of torch
        return None
    import torch

    return "cuda" if torch.cuda.is_available() else None


def fits(device: str, rows: int, dimension: int) -> bool:
    import torch

    if device == "cpu":
        return True
    free, _ = torch.cuda.mem_get_info()
    return rows * dimension * BYTES_A_NUMBER <= SHARE_OF_FREE_MEMORY * free


class DeviceRows:
    """A copy of rows 0..count-1. Any number of threads may search while one appends.

    What a search masks lies on the device already: to make a mask of ten million rows on the host and send it there
    takes longer than to score them.
    """

    def __init__(self, device: str, dimension: int):
        import torch

        self._torch = torch
        self.device = device
        self._rows: Any = torch.empty((0, dimension), dtype=torch.float16, device=device)
        self._live: Any = torch.empty(0, dtype=torch.bool, device=device)
        self._any_dead = False
        self._masks: WeakKeyDictionary[Visible, Any] = WeakKeyDictionary()
        self.count = 0

    @property
    def nbytes(self) -> int:
        return int(self._rows.numel()) * BYTES_A_NUMBER

    def append(self, vectors: Vectors) -> None:
        """Rows count..count+n-1. vectors: float32 [n, dimension]."""
        end = self.count + len(vectors)
        if end > len(self._rows):
            self._rows, self._live = self._grown(self._rows, end), self._grown(self._live, end)
        self._rows[self.count : end] = self._on_device(vectors)
        self._live[self.count : end] = True
        self.count = end  # last: what a search sees has been written

    def _grown(self, old: Any, needed: int) -> Any:
        """A search under way keeps the old one."""
        shape = (capacity_for(needed), *old.shape[1:])
        grown = self._torch.empty(shape, dtype=old.dtype, device=self.device)
        grown[: self.count] = old[: self.count]
        return grown

    def strike_out(self, rows: RowNumbers) -> None:
        """They no longer crowd out those that live. Rows that are not here yet are passed over.

        One that is missed because rows are appended meanwhile is a candidate too many: whoever ranks candidates
        looks whether they live.
        """
        rows = rows[rows < self.count]
        if len(rows):
            self._live[self._torch.from_numpy(rows.copy()).to(self.device)] = False
            self._any_dead = True

    def candidates(self, queries: Vectors, k: int, visible: Visible | None, covered: int) -> RowNumbers:
        """Those of rows 0..covered-1 that may be among the k best. visible: of these; None: all that live.

        Returns: int64 [queries, wanted], -1 where there is none.
        """
        torch = self._torch
        with torch.inference_mode():
            scores = self._on_device(queries) @ self._rows[:covered].T
            hidden = self._hidden(visible, covered)
            if hidden is not None:
                scores.masked_fill_(hidden, -torch.inf)
            wanted = min(covered, max(FEWEST_CANDIDATES, CANDIDATES_A_RESULT * k))
            best, rows = scores.topk(wanted, dim=1, sorted=False)
            found: RowNumbers = rows.masked_fill_(best == -torch.inf, -1).cpu().numpy()
        return found

    def _hidden(self, visible: Visible | None, covered: int) -> Any:
        """bool [covered] on the device, of what must not be found; None: nothing."""
        dead = ~self._live[:covered] if self._any_dead else None
        if visible is None:
            return dead
        mask = self._masks.get(visible)
        if mask is None:
            self._masks[visible] = mask = ~self._torch.from_numpy(visible.mask).to(self.device)
        return mask if dead is None else mask | dead

    def _on_device(self, vectors: Vectors) -> Any:
        # Copied: what `visible_rows` and snapshots hand out may be read-only, which torch warns of.
        return self._torch.from_numpy(vectors.copy()).to(self.device, self._torch.float16)

"""How many threads FAISS takes for what a thread of ours asks of it."""

import os

# One query is over before a second thread has woken up; many searches at once are their callers' threads.
QUERIES_WORTH_THREADS = 32


def use_threads(queries: int | None) -> None:
    """Holds for the calling thread only: OpenMP keeps the number with each. None: all processors we may use."""
    import faiss

    many = queries is None or queries >= QUERIES_WORTH_THREADS
    faiss.omp_set_num_threads(_processors() if many else 1)


def _processors() -> int:
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    present = len(os.sched_getaffinity(0))
    return min(int(allowed), present) if allowed.isdigit() and int(allowed) else present

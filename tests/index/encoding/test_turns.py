"""Many threads, one model: queries that wait together share a call, and never wait for a whole ingestion."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from index.encoding.turns import MOST_TOGETHER, Turns

SECONDS = 20


class Recorder:
    """Stands for the model: a text's vector is its length. Every call waits for `go`."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.started = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.inside = 0

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.inside += 1
        assert self.inside == 1, "two calls at once"
        self.calls.append(list(texts))
        self.started.release()
        assert self.go.acquire(timeout=SECONDS)
        self.inside -= 1
        if "bad" in texts:
            raise ValueError("bad")
        return np.array([[len(text)] for text in texts], np.float32)


def wait_for_queue(turns: Turns, count: int) -> None:
    """Until so many requests wait for their turn."""
    with turns._changed:
        for _ in range(100 * SECONDS):
            if len(turns._waiting) == count:
                return
            turns._changed.wait(0.01)
    raise AssertionError(f"{count} never waited together")


def ask(turns: Turns, model: Recorder, texts: list[str], answers: dict[str, object]) -> threading.Thread:
    def run() -> None:
        try:
            answers[texts[0]] = turns.queries(model, texts).ravel().tolist()
        except ValueError as error:
            answers[texts[0]] = str(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_queries_that_wait_together_share_one_call_and_each_gets_its_own_rows() -> None:
    turns, model, answers = Turns(), Recorder(), {}
    threads = [ask(turns, model, ["a"], answers)]
    assert model.started.acquire(timeout=SECONDS)
    for count, texts in enumerate((["bb", "b"], ["ccc"], ["dddd", "d", "dd"]), start=1):
        threads.append(ask(turns, model, texts, answers))
        wait_for_queue(turns, count)
    model.go.release(2)
    for thread in threads:
        thread.join(SECONDS)
    assert model.calls == [["a"], ["bb", "b", "ccc", "dddd", "d", "dd"]]
    assert answers == {"a": [1], "bb": [2, 1], "ccc": [3], "dddd": [4, 1, 2]}


def test_a_query_goes_before_the_next_batch_of_documents() -> None:
    turns, model, answers = Turns(), Recorder(), {}

    def ingest() -> None:
        for batch in range(3):
            turns.documents(model, [f"document {batch}"])

    ingestion = threading.Thread(target=ingest)
    ingestion.start()
    assert model.started.acquire(timeout=SECONDS)
    query = ask(turns, model, ["query"], answers)
    wait_for_queue(turns, 1)
    model.go.release(2)
    query.join(SECONDS)
    assert answers == {"query": [5]}
    model.go.release(2)
    ingestion.join(SECONDS)
    assert model.calls == [["document 0"], ["query"], ["document 1"], ["document 2"]]


def test_an_error_reaches_all_who_shared_the_call_and_nobody_after() -> None:
    turns, model, answers = Turns(), Recorder(), {}
    threads = [ask(turns, model, ["a"], answers)]
    assert model.started.acquire(timeout=SECONDS)
    for count, text in enumerate(("bad", "good"), start=1):
        threads.append(ask(turns, model, [text], answers))
        wait_for_queue(turns, count)
    model.go.release(3)
    for thread in threads:
        thread.join(SECONDS)
    assert answers == {"a": [1], "bad": "bad", "good": "bad"}
    assert turns.queries(model, ["later"]).tolist() == [[5]]


def test_a_call_takes_no_more_than_its_share() -> None:
    turns, model, answers = Turns(), Recorder(), {}
    threads = [ask(turns, model, ["first"], answers)]
    assert model.started.acquire(timeout=SECONDS)
    many = ["x"] * (MOST_TOGETHER - 1)
    for count, texts in enumerate(([*many, "many"], ["one more"]), start=1):
        threads.append(ask(turns, model, texts, answers))
        wait_for_queue(turns, count)
    model.go.release(3)
    for thread in threads:
        thread.join(SECONDS)
    assert [len(call) for call in model.calls] == [1, MOST_TOGETHER, 1]


@pytest.mark.parametrize("threads", [8])
def test_every_thread_of_many_gets_its_own_answers(threads: int) -> None:
    turns, wrong = Turns(), []

    def model(texts: Sequence[str]) -> np.ndarray:
        return np.array([[int(text)] for text in texts], np.float32)

    def work(first: int) -> None:
        for number in range(first, first + 200):
            kind = turns.documents if number % 3 == 0 else turns.queries
            if kind(model, [str(number), "7"]).ravel().tolist() != [number, 7]:
                wrong.append(number)

    running = [threading.Thread(target=work, args=(1000 * at,)) for at in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(SECONDS)
    assert not any(thread.is_alive() for thread in running)
    assert wrong == []

"""Many readers or one writer."""

import threading
import time

from index.vectors.access_lock import AccessLock

LONG_SECONDS = 10


def test_readers_share_it() -> None:
    lock, both = AccessLock(), threading.Barrier(2, timeout=LONG_SECONDS)

    def read() -> None:
        with lock.reading():
            both.wait()  # would break if one had to wait for the other

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not both.broken


def test_a_writer_is_alone() -> None:
    lock, inside, seen = AccessLock(), [0, 0], []
    guard = threading.Lock()

    def use(writing: bool) -> None:
        for _ in range(200):
            with lock.writing() if writing else lock.reading():
                with guard:
                    inside[writing] += 1
                    seen.append(tuple(inside))
                time.sleep(0)
                with guard:
                    inside[writing] -= 1

    threads = [threading.Thread(target=use, args=(writing,)) for writing in (True, True, False, False, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {writers for _, writers in seen} == {0, 1}
    assert all(readers == 0 for readers, writers in seen if writers)


def test_a_waiting_writer_goes_before_readers_that_come_later() -> None:
    lock, order = AccessLock(), []
    lock.acquire_read()

    def write() -> None:
        with lock.writing():
            order.append("writer")

    def read() -> None:
        with lock.reading():
            order.append("reader")

    writer = threading.Thread(target=write)
    writer.start()
    while not lock.writer_waits:
        time.sleep(0.001)
    reader = threading.Thread(target=read)
    reader.start()
    lock.release_read()
    writer.join()
    reader.join()
    assert order == ["writer", "reader"]

"""One batch under its lease: checked, asked line by line, its answers published.

Every step can be cut off by a kill and done again: what was answered is in the journals, and what was published
before the row said so is withdrawn first.
"""

import asyncio
import shutil
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from local_llm.errors import AuthenticationError, NotFoundError
from local_llm.fileio import bytes_below
from local_llm.permissions import Caller, local_admin
from local_llm.state import BatchRow
from serving.admission import BATCH_SHARE
from serving.batches import leases
from serving.batches.asking import Asker, Source
from serving.batches.endings import CANCELLED, EXPIRED, FULL, NO_FILE, Ending, problems_of
from serving.batches.journal import Answered, AnsweredLines, Journal, read_answered
from serving.batches.leases import Counts, Lease
from serving.batches.outputs import entry_of, principals_of, publish, withdraw
from serving.batches.requests import MOST_LINE_BYTES, InputCheck, InputProblem, Line, find_requests
from serving.embeddings import EMBEDDINGS, refuse_unknown_encoder
from serving.services import Services

RENEW_SECONDS = 2.0

T = TypeVar("T")


class BatchRun:
    """Raises LeaseLostError from wherever it notices that another process has the batch."""

    def __init__(self, services: Services, lease: Lease, row: BatchRow, asker: Asker, renew_seconds: float):
        self._services = services
        self._lease = lease
        self._row = row
        self._asker = asker
        self._renew_seconds = renew_seconds
        self._folder = services.settings.place.batches / row.id
        self._answered = Answered()
        # How many are prepared and wait at once; how many are asked is for the admission to say.
        self._at_once = max(1, int(services.settings.server.max_running_requests * BATCH_SHARE))

    async def run(self) -> None:
        state, ending = self._services.state, await asyncio.to_thread(self._ending, self._row)
        if ending is None and self._row.in_progress_at is None:
            problems = await self._renewing(self._reading(self._check))
            if problems:
                await asyncio.to_thread(leases.end, state, self._lease, "failed", problems=problems)
                return
        self._answered = await asyncio.to_thread(read_answered, self._folder)
        if ending is None:
            ending = await self._ask_all()
        await asyncio.to_thread(leases.begin_finalizing, state, self._lease)
        await self._renewing(self._reading(partial(self._finish, ending)))

    async def _reading(self, work: Callable[[], T]) -> T:
        """The result of what reads the input line by line, when there is room for its longest."""
        size = await asyncio.to_thread(self._input_bytes)
        async with self._asker.room.hold(min(size, MOST_LINE_BYTES)):
            return await asyncio.to_thread(work)

    def _input_bytes(self) -> int:
        with suppress(FileNotFoundError):
            return self._services.files.path(self._row.input_file_id).stat().st_size
        return 0

    # Checking

    def _check(self) -> list[InputProblem]:
        try:
            caller, path = self._caller(), self._input_path()
        except AuthenticationError as error:
            return [InputProblem("key_revoked", error.message)]
        except NotFoundError:
            return [NO_FILE.reason]
        check = InputCheck(self._row.endpoint, lambda name: self._refuse_model(caller, name))
        summary = check.read(path)
        if summary is not None:
            leases.begin(self._services.state, self._lease, summary)
        return check.problems

    def _refuse_model(self, caller: Caller, name: str) -> None:
        """Raises: LocalLLMError."""
        if self._row.endpoint == EMBEDDINGS:
            refuse_unknown_encoder(self._services, caller, name)
        else:
            self._services.targets.resolve(caller, name)

    # Asking

    async def _ask_all(self) -> Ending | None:
        """None when every line is answered."""
        journal = await asyncio.to_thread(Journal, self._folder, self._lease.token)
        asking = asyncio.create_task(self._ask_rest(journal))
        try:
            while True:
                done, _ = await asyncio.wait({asking}, timeout=self._renew_seconds)
                if done:
                    return asking.result()
                row = await self._renew()
                ending = await asyncio.to_thread(self._ending, row)
                if ending is not None:
                    return ending
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await journal.close()

    async def _ask_rest(self, journal: Journal) -> Ending | None:
        lines, ending, row = self._unanswered(), None, self._row
        source = Source(self._services.files.path(row.input_file_id), row.endpoint, row.server_url)
        slots = asyncio.Semaphore(self._at_once)

        async def ask(line: Line) -> None:
            try:
                reply = await self._asker.ask(line, source, self._caller)
                entry = entry_of(line, reply)
                await journal.add(entry)
                self._answered.note(entry)
            finally:
                slots.release()

        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await slots.acquire()
                    line = await asyncio.to_thread(next, lines, None)
                    if line is None:
                        break
                    group.create_task(ask(line))
        except* AuthenticationError as errors:
            ending = Ending("failed", InputProblem("key_revoked", str(errors.exceptions[0])))
        except* FileNotFoundError:
            ending = NO_FILE
        return ending

    def _unanswered(self) -> Iterator[Line]:
        """Raises: FileNotFoundError while it is read."""
        # Those answered by now: what this holder adds lies behind the place up to which was read.
        answered = frozenset(self._answered.numbers)
        path = self._services.files.path(self._row.input_file_id)
        return (one for one in find_requests(path) if one.number not in answered)

    def _caller(self) -> Caller:
        """As whom it is asked, with what that key may do now. Raises: AuthenticationError."""
        keys, row = self._services.keys, self._row
        return keys.local_owner(row.project_id) if row.key_id is None else keys.holder(row.key_id)

    def _input_path(self) -> Path:
        """Raises: NotFoundError."""
        if not self._services.files.exists(self._row.input_file_id):
            raise NotFoundError("the input file was deleted", param="input_file_id")
        return self._services.files.path(self._row.input_file_id)

    def _ending(self, row: BatchRow) -> Ending | None:
        if row.status == "cancelling":
            return CANCELLED
        if not self._services.files.exists(row.input_file_id):
            return NO_FILE
        if row.expires_at <= time.time():
            return EXPIRED
        return None if self._has_room() else FULL

    def _has_room(self) -> bool:
        """Whether all answers that the project's batches have by now fit beside its files. What is being answered
        meanwhile may go a little beyond."""
        ids = leases.unfinished_of(self._services.state, self._row.project_id)
        written = sum(bytes_below(self._services.settings.place.batches / batch_id) for batch_id in ids)
        return written < self._services.files.room(self._row.project_id)

    # Ending

    def _finish(self, ending: Ending | None) -> None:
        """Both files, then the row that names them: who is told of a file finds it."""
        services, row = self._services, self._row
        withdraw(services.state, services.files, self._lease)
        lines = AnsweredLines(self._folder)
        source = services.files.path(row.input_file_id)
        held = leases.load(services.state, self._lease)
        checked = held.in_progress_at is not None
        reason = ending.reason if ending else None
        published = publish(
            services.files, row, lines, reason, source if checked and source.exists() else None, self._allow()
        )
        counts = Counts(lines.answered.completed, lines.answered.failed + published.unasked, lines.answered.usage)
        if checked and ending in (EXPIRED, FULL) and lines.answered.total == held.total:
            ending = None  # all was answered; only telling so came late
        try:
            leases.end(
                services.state,
                self._lease,
                ending.status if ending else "completed",
                counts=counts,
                output_file_id=published.output_file_id,
                error_file_id=published.error_file_id,
                problems=problems_of(ending, checked=checked),
            )
        except leases.LeaseLostError:
            for file_id in (published.output_file_id, published.error_file_id):
                if file_id is not None:
                    with suppress(NotFoundError):  # whoever has the batch now withdrew it
                        services.files.delete(file_id, local_admin(row.project_id))
            raise
        shutil.rmtree(self._folder, ignore_errors=True)

    def _allow(self) -> list[str] | None:
        services, row = self._services, self._row
        try:
            maker = self._caller()
            input_allow = services.files.get(row.input_file_id, local_admin(row.project_id)).allow
        except (AuthenticationError, NotFoundError):
            return principals_of(row, None, None)
        return principals_of(row, maker, input_allow)

    # Holding

    async def _renew(self) -> BatchRow:
        answered = self._answered
        counts = Counts(answered.completed, answered.failed, answered.usage) if answered.numbers else None
        return await asyncio.to_thread(leases.renew, self._services.state, self._lease, counts)

    async def _renewing(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of what takes a while, the lease being kept meanwhile."""
        task = asyncio.create_task(work)
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=self._renew_seconds)
                if done:
                    return task.result()
                await self._renew()
        finally:
            task.cancel()

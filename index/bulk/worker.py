"""One worker of a bulk encoding: files of a part into vectors on the disk."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from index.bulk.encoded import publish_part
from index.bulk.plan import Bound, Part, PartReport, Plan
from index.documents.document import UnparsableDocument, UnreadableDocument
from index.documents.parser_process import ParserProcess
from index.documents.split import Passage, Splitter
from index.encoding.encoder import Encoder
from index.encoding.pool import EncoderPool
from index.ingestion.ingest import encode_by_length, passages_of
from index.interface import Skipped, Source
from local_llm import __version__
from local_llm.encoder_recipe import Precision, precision_bound_to
from local_llm.errors import ConflictError
from local_llm.models import ModelStore


class Worker:
    """Loads its encoders when it is made. `encode` for one part at a time; `close` ends its parser.

    Raises: ConflictError if this host has another version of ours or of an encoder; ModelNotFoundError.
    """

    def __init__(self, plan: Plan, into: Path):
        if plan.version != __version__:
            raise ConflictError(
                f"{socket.gethostname()} has version {__version__} of local-llm; expected {plan.version}",
                hint="install the same version on every host",
            )
        pool = EncoderPool(plan.device, Path(plan.derived))
        self._encoder = _load(plan, plan.encoder, pool)
        cutting = _load(plan, plan.splitter, pool)
        self._splitter = Splitter(
            cutting.token_ends,
            chunk_tokens=plan.chunk_tokens,
            overlap_tokens=plan.overlap_tokens,
            max_tokens=cutting.max_tokens,
        )
        self._parser = ParserProcess(plan.parse_timeout_seconds, plan.parse_memory_bytes).__enter__()
        self._into = into

    def encode(self, part: Part) -> PartReport:
        """Published when it returns, whole; a part that another worker has published meanwhile is the same.

        Raises: OutOfSpaceError; LocalLLMError for a disk that cannot be written.
        """
        began = perf_counter()
        skipped: list[Skipped] = []
        unreadable: list[Source] = []
        found = list(self._passages(part.sources, skipped, unreadable))
        passages = list({passage.encoded: passage for passage in found}.values())
        vectors = encode_by_length(self._encoder, passages)
        report = PartReport(
            documents=len(part.sources) - len(skipped),
            skipped=tuple(skipped),
            passages=len(passages),
            tokens=sum(passage.tokens for passage in passages),
            seconds=perf_counter() - began,
            worker=f"{socket.gethostname()}:{os.getpid()}",
            unreadable=len(unreadable),
        )
        publish_part(self._into, part.key, [passage.encoded for passage in passages], vectors, report)
        return report

    def close(self) -> None:
        self._parser.__exit__()

    def _passages(
        self, sources: tuple[Source, ...], skipped: list[Skipped], unreadable: list[Source]
    ) -> Iterator[Passage]:
        for source in sources:
            try:
                yield from passages_of(source, self._parser, self._splitter)[1]
            except UnparsableDocument as error:
                skipped.append(Skipped(source.name, error.message))
                if isinstance(error, UnreadableDocument):
                    unreadable.append(source)


def needs_no_gpu(plan: Plan) -> bool:
    """Raises: ModelNotFoundError."""
    return plan.device == "cpu" or _bound(plan, plan.encoder)[1] == "int8"


def _bound(plan: Plan, wanted: Bound) -> tuple[Path, Precision | None]:
    path = ModelStore(Path(plan.models)).get(wanted.name, "encoder").path
    return path, precision_bound_to(path, wanted.fingerprint)


def _load(plan: Plan, wanted: Bound, pool: EncoderPool) -> Encoder:
    path, precision = _bound(plan, wanted)
    if precision is None:
        raise ConflictError(
            f"the encoder {wanted.name} on {socket.gethostname()} is another one than on the host that asks",
            hint=f"copy {path} from there: weights, pooling and prompts have to be the same",
        )
    return pool.get(path, precision)

"""One run from the written folder to a judged encoder, in phases.

The result of each phase is a file of the folder, written whole or not at all: a run that is started again goes on
after the last phase that was finished, and within the training from its last checkpoint.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from local_llm.energy import EnergyMeter, summed
from local_llm.errors import LocalLLMError
from local_llm.fileio import read_json, staged_file, write_json
from local_llm.questions import Question
from local_llm.run_folders import TRAINED_ON
from training.checkpoints import discard
from training.failures import OutOfMemoryError, StoppedError, in_our_words, is_out_of_memory
from training.reporting import Report
from training.retriever import data as data_files
from training.retriever import guard, publishing, report
from training.retriever.data import Data
from training.retriever.mining import Mined, Miner, mined_from_json
from training.retriever.notes import notes
from training.retriever.split import Split, split, split_from_json

MODEL = "model"
OUTCOME = "outcome.json"
PASSAGE_VECTORS, QUESTION_VECTORS = "passages.npy", "questions.npy"


@dataclass(frozen=True)
class Outcome:
    """`model`: the trained encoder's folder, published or not. `facts`: report.json without its questions."""

    folder: Path
    model: Path
    better: bool
    reason: str
    facts: dict[str, Any]


def train_retriever(
    folder: Path,
    *,
    report: Report | None = None,
    stop: threading.Event | None = None,
    gpu_memory_share: float | None = None,
) -> Outcome:
    """Trains and judges an encoder from a folder that data.write() filled, all in this process.

    Progress is told as (done, total, "phase: note"). Nothing is published: publishing.publish() does, if the
    outcome is better.

    Raises: InvalidInputError for data that cannot be trained with; StoppedError once `stop` is set: called again,
    it goes on; OutOfMemoryError, LossError.
    """
    try:
        run = _Run(folder, data_files.read(folder), report, stop)
        _limit_memory(gpu_memory_share)
        return run.outcome()
    except LocalLLMError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(
                "training ran out of memory", hint="a lower --batch-size or --max-tokens, or --loss cached"
            ) from error
        if (told := in_our_words(error)).message.startswith("unexpected"):
            raise
        raise told from error


def train_unjudged(folder: Path, *, report: Report | None = None) -> dict[str, Any]:
    """The same up to the trained encoder, in `folder`/model, which is not measured: for who does that otherwise.
    Returns: Trained.to_json()."""
    return _Run(folder, data_files.read(folder), report, None).trained()


def outcome_of(folder: Path) -> Outcome | None:
    """Of a finished run; None while it is not."""
    if not (folder / OUTCOME).exists():
        return None
    facts = read_json(folder / OUTCOME)
    return Outcome(folder, folder / MODEL, facts["better"], facts["reason"], facts)


class _Run:
    def __init__(self, folder: Path, data: Data, told: Report | None, stop: threading.Event | None):
        self.folder, self.data, self._told, self._stop = folder, data, told, stop

    def outcome(self) -> Outcome:
        if (done := outcome_of(self.folder)) is not None:
            self._clear()  # an earlier attempt may have been killed right before it did
            return done
        trained = self.trained()
        sides, base, mined = self._sides(), self._ranked_before(), self._pairs()
        after = self._phase("after", lambda: self._after(sides))
        facts = self._facts(sides, base, mined, trained, after)
        dev = report.changes(self._questions(sides.dev), base["dev"], after["dev"])
        report.write(self.folder, facts, dev, trained["losses"])
        write_json(self.folder / OUTCOME, facts)
        self._clear()
        done = outcome_of(self.folder)
        assert done is not None
        return done

    def _clear(self) -> None:
        discard(self.folder)
        for name in (PASSAGE_VECTORS, QUESTION_VECTORS):
            (self.folder / name).unlink(missing_ok=True)

    def trained(self) -> dict[str, Any]:
        self._ranked_before()  # its vectors are what is mined with
        return self._phase("training", lambda: self._train(self._pairs()))

    # Phases

    def _sides(self) -> Split:
        return split_from_json(self._phase("split", self._split))

    def _ranked_before(self) -> dict[str, Any]:
        return self._phase("base", lambda: self._base(self._sides()))

    def _pairs(self) -> Mined:
        return mined_from_json(self._phase("pairs", lambda: self._mine(self._sides()).to_json()))

    def _split(self) -> dict[str, Any]:
        settings = self.data.settings
        sides = split(
            self.data.questions,
            synthesised=self.data.synthesised,
            dev_share=settings.dev_share,
            test_share=settings.test_share,
            seed=settings.seed,
        )
        data_files.write_questions(self.folder / TRAINED_ON, self._questions(sides.train))
        return sides.to_json()

    def _base(self, sides: Split) -> dict[str, Any]:
        """Vectors of everything as the untrained encoder has them, and what it ranks."""
        from training.retriever.encoding import Encoder
        from training.retriever.ranking import rank_vectors

        encoder = Encoder(self.data.encoder)
        texts = [one.text for one in self.data.passages]
        vectors = encoder.documents(texts, self._report("encoding passages"))
        queries = encoder.queries([one.text for one in self.data.questions], self._report("encoding questions"))
        for name, array in ((PASSAGE_VECTORS, vectors), (QUESTION_VECTORS, queries)):
            with staged_file(self.folder / name) as handle:
                np.save(handle, array)
        counts = np.array(encoder.count_tokens(texts, encoder.recipe.document_prompt))
        reads = encoder.max_tokens
        trains = min(reads, self.data.settings.max_tokens or reads)
        documents = [one.document for one in self.data.passages]
        return {
            "dev": rank_vectors(vectors, documents, queries[list(sides.dev)]),
            "test": rank_vectors(vectors, documents, queries[list(sides.test)]),
            "reads_tokens": reads,
            "trains_tokens": trains,
            "longer_than_read": int((counts > reads).sum()),
            "longer_than_trained": int((counts > trains).sum()),
            "tokens": int(counts.clip(max=reads).sum()),
        }

    def _mine(self, sides: Split) -> Mined:
        vectors, queries = (np.load(self.folder / name) for name in (PASSAGE_VECTORS, QUESTION_VECTORS))
        miner = Miner(self.data.passages, self.data.questions, vectors, queries, self.data.settings)
        return miner.mine(sides.train, self._report("mining"))

    def _train(self, mined: Mined) -> dict[str, Any]:
        from training.retriever.train import train

        made = publishing.provenance(self.data, self.folder)
        return train(
            self.data,
            mined.pairs,
            self.folder,
            self.folder / MODEL,
            made,
            report=self._report("training"),
            stop=self._stop,
        ).to_json()

    def _after(self, sides: Split) -> dict[str, Any]:
        from training.retriever.ranking import rank

        asked = self._questions(sides.dev) + self._questions(sides.test)
        ranked = rank(self.folder / MODEL, self.data.passages, asked, report=self._report("measuring"))
        return {"dev": ranked[: len(sides.dev)], "test": ranked[len(sides.dev) :]}

    # What it comes to

    def _facts(
        self, sides: Split, base: dict[str, Any], mined: Mined, trained: dict[str, Any], after: dict[str, Any]
    ) -> dict[str, Any]:
        dev = self._side(sides.dev, sides, base["dev"], after["dev"])
        assert dev is not None
        test = self._side(sides.test, sides, base["test"], after["test"])
        counts = self._counts(sides, base, mined)
        return {
            "better": guard.is_better(dev),
            "reason": guard.reason(dev),
            "metrics": {"dev": dev.to_json(), "test": None if test is None else test.to_json()},
            "data": counts,
            "notes": notes(counts),
            "trained": trained,
            "took": self._took(),
            "provenance": publishing.provenance(self.data, self.folder),
        }

    def _side(
        self, numbers: tuple[int, ...], sides: Split, before: list[list[str]], after: list[list[str]]
    ) -> guard.Side | None:
        if not numbers:
            return None
        questions = self._questions(numbers)
        measured = (guard.measures_of(before, questions), guard.measures_of(after, questions))
        return guard.compared(*measured, [sides.groups[number] for number in numbers])

    def _counts(self, sides: Split, base: dict[str, Any], mined: Mined) -> dict[str, Any]:
        return {
            "passages": len(self.data.passages),
            "documents": len({one.document for one in self.data.passages}),
            "questions": len(self.data.questions),
            "synthesised": self.data.synthesised,
            "without_passages": self.data.without_passages,
            "train": len(sides.train),
            "dev": len(sides.dev),
            "test": len(sides.test),
            "groups": len(set(sides.groups)),
            "dropped": sides.dropped,
            "capped": mined.capped,
            "filled": mined.filled,
            "pairs": len(mined.pairs),
            **{name: base[name] for name in ("reads_tokens", "trains_tokens", "tokens")},
            **{name: base[name] for name in ("longer_than_read", "longer_than_trained")},
        }

    def _took(self) -> dict[str, Any]:
        """Of the attempts that finished a phase, and of all attempts at the training; energy of the former only."""
        phases = [read_json(path) for path in self.folder.glob("phase-*.json")]
        return {
            "wall_seconds": round(sum(one["seconds"] for one in phases), 3),
            "cpu_seconds": round(sum(one["cpu_seconds"] for one in phases), 3),
            **summed(phases),
        }

    def _questions(self, numbers: tuple[int, ...]) -> list[Question]:
        return [self.data.questions[number] for number in numbers]

    # How phases go

    def _phase(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The phase's result: as it was written down, else of the work."""
        path = self.folder / f"phase-{name}.json"
        if not path.exists():
            with _timed() as took:
                result = work()
            if name == "training":
                took["seconds"] = max(took["seconds"], result["seconds"])
            write_json(path, {"result": result, **took})
        return dict(read_json(path)["result"])

    def _report(self, phase: str) -> Report:
        def tell(done: int, total: int, note: str) -> None:
            # The training ends by itself, with a checkpoint.
            if phase != "training" and self._stop is not None and self._stop.is_set():
                raise StoppedError("the run was told to stop")
            if self._told is not None:
                self._told(done, total, f"{phase}: {note}" if note else phase)

        return tell


@contextmanager
def _timed() -> Iterator[dict[str, Any]]:
    took: dict[str, Any] = {}
    began, cpu = time.monotonic(), sum(os.times()[:4])
    with EnergyMeter() as meter:
        yield took
    took.update(meter.facts())
    took.update(seconds=round(time.monotonic() - began, 3), cpu_seconds=round(sum(os.times()[:4]) - cpu, 3))


def _limit_memory(share: float | None) -> None:
    if share is not None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(share)

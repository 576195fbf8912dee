"""What `local-llm evaluate` is told, put together: who is asked, at which prices, and what they were trained on."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from local_llm.adapters import AdapterRegistry
from local_llm.cli.context import CommandContext
from local_llm.cli.output import talk
from local_llm.cli.serving import server_trust, server_url
from local_llm.costs.request import TokenPrices
from local_llm.encoder_recipe import trained_by
from local_llm.errors import InvalidInputError, NotFoundError
from local_llm.evaluation.costs import HourPrice
from local_llm.evaluation.fingerprint import fingerprint
from local_llm.evaluation.leakage import Seen, refuse_seen, seen_questions
from local_llm.evaluation.question_set import Question
from local_llm.evaluation.recorded import recorded_target
from local_llm.evaluation.targets import Endpoint, ServedTargets, Target, refuse_equal_names, remote_target
from local_llm.files import FileStore
from local_llm.models import ModelStore
from local_llm.run_folders import TRAINED_ON
from local_llm.state import File, Job


@dataclass(frozen=True)
class Asked:
    """The options that name targets."""

    profiles: str | None
    endpoints: Sequence[str]
    recorded: Sequence[str]
    prices: Sequence[str]
    key_variables: Sequence[str]


def our_endpoint(box: CommandContext) -> Endpoint:
    key = os.environ.get("OPENAI_API_KEY") or "none"
    return Endpoint(server_url(box.settings) + "/v1", key, server_trust(box.settings))


def served_targets(box: CommandContext) -> ServedTargets:
    return ServedTargets(
        box.settings, box.state, box.caller, our_endpoint(box), lambda identifier: contents(box, identifier)
    )


def contents(box: CommandContext, collection: str) -> str:
    """What the collection holds now, and how it is searched: which documents in which version, for whom, by which
    encoder."""
    from index.access import open_index

    with open_index(box.settings, box.state) as index:
        info = index.get(box.caller, collection)
        versions = sorted((one.id, one.version, one.allow or ()) for one in index.documents(box.caller, collection))
    return fingerprint([info.encoder, str(info.ranking), versions])


def targets_of(box: CommandContext, asked: Asked, questions: Sequence[Question]) -> tuple[Target, ...]:
    """Raises: InvalidInputError, NotFoundError."""
    keys = {name: _variable(variable) for name, variable in _pairs(asked.key_variables, "--key-env").items()}
    names = [name.strip() for name in (asked.profiles or "").split(",") if name.strip()]
    served = served_targets(box)
    found = [served.target(name) for name in names]
    found += [remote_target(text, keys) for text in asked.endpoints]
    found += [recorded_target(text, questions) for text in asked.recorded]
    refuse_equal_names(found)
    prices = {name: _prices(text) for name, text in _pairs(asked.prices, "--price").items()}
    _refuse_unknown({**prices, **keys}, found)
    return tuple(replace(one, prices=prices.get(one.name)) for one in found)


def hour_price(box: CommandContext, given: float | None) -> HourPrice:
    """`given` goes before the setting."""
    cost = box.settings.cost
    if given is not None:
        return HourPrice(given)
    return HourPrice(cost.machine_usd_per_hour, assumed="machine_usd_per_hour" not in cost.model_fields_set)


def judge_of(box: CommandContext, judge: str | None, key_variable: str | None) -> Target | None:
    """`judge` is a model or profile of this box, or `MODEL@URL`."""
    if judge is None:
        return None
    if "@http" in judge:
        keys = {"judge": _variable(key_variable)} if key_variable else {}
        return remote_target(f"judge={judge}", keys)
    return served_targets(box).target(judge)


def seen_in_training(
    box: CommandContext, targets: Sequence[Target], questions: Sequence[Question], files: Sequence[Path]
) -> tuple[Seen, ...]:
    """Questions that stand in the training files of the adapters asked, in those of the encoders that search, or in
    those named."""
    named = [(path, path.name) for path in files]
    for collection in dict.fromkeys(one.collection for one in targets if one.collection):
        named += _encoder_questions(box, collection)
    for adapter in dict.fromkeys(one.adapter for one in targets if one.adapter):
        kept = _training_files(box, adapter)
        named += kept
        if not kept and not files:
            talk(
                f"{adapter}: its training file is not here; --training-file FILE has the questions looked up in it"
            )
    found: dict[str, Seen] = {}
    for path, shown_as in named:
        for one in seen_questions(questions, path, shown_as):
            found.setdefault(one.question_id, one)
    return tuple(found.values())


def refuse_or_tell(seen: Sequence[Seen], *, allowed: bool) -> None:
    """Raises: InvalidInputError unless they are allowed."""
    if not allowed:
        refuse_seen(seen)
    if seen:
        talk(f"{len(seen)} questions were trained on; they are asked and marked")


def _encoder_questions(box: CommandContext, collection: str) -> list[tuple[Path, str]]:
    """What the collection's encoder was trained on, where that run's folder is still here."""
    from index.access import open_index

    with open_index(box.settings, box.state) as index:
        name = index.get(box.caller, collection).encoder
    model = ModelStore(box.settings.place.models).find(name)
    run = trained_by(model.path) if model is not None else None
    if run is None:
        return []
    path = box.settings.place.retrievers / run / TRAINED_ON
    if not path.exists():
        talk(f"{name}: the questions that it was trained on are not here; --training-file FILE has them looked up")
        return []
    return [(path, f"{TRAINED_ON} of {name}")]


def _training_files(box: CommandContext, adapter: str) -> list[tuple[Path, str]]:
    row = AdapterRegistry(box.settings, box.state).get(adapter, box.caller)
    store, found = FileStore(box.settings, box.state), list[tuple[Path, str]]()
    with box.state.reading() as session:
        job = session.get(Job, row.job_id) if row.job_id else None
        for identifier in (job.training_file, job.validation_file) if job else ():
            file = session.get(File, identifier) if identifier else None
            if file is not None and store.path(file.id).exists():
                found.append((store.path(file.id), file.filename))
    return found


def _prices(text: str) -> TokenPrices:
    """Of `INPUT/OUTPUT` or `INPUT/OUTPUT/CACHED`."""
    try:
        numbers = [float(part) for part in text.split("/")]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3) or not all(math.isfinite(one) and one >= 0 for one in numbers):
        raise InvalidInputError(
            f"--price {text!r}: expected INPUT/OUTPUT in dollars a million tokens, as in 0.15/0.60"
        )
    return TokenPrices(*numbers)


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    for text in texts:
        if not all(text.partition("=")):
            raise InvalidInputError(f"{option} {text!r}: expected NAME=VALUE")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise InvalidInputError(f"the environment has no {name}, which is to hold an API key")
    return value


def _refuse_unknown(named: Mapping[str, object], targets: Sequence[Target]) -> None:
    known = [one.name for one in targets]
    for name in named:
        if name not in known:
            raise NotFoundError(f"nobody who is asked is called {name!r}; there are {', '.join(known)}")

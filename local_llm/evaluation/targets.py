"""Who is asked: a profile of this box, a model of any OpenAI-compatible server, or nobody: past answers."""

import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from local_llm import __version__
from local_llm.adapters import PREFIX, AdapterRegistry
from local_llm.costs.request import TokenPrices
from local_llm.errors import InvalidInputError, NotFoundError
from local_llm.evaluation.answers import Answer
from local_llm.evaluation.fingerprint import fingerprint
from local_llm.hardware import this_hardware
from local_llm.models import ModelStore
from local_llm.permissions import Caller
from local_llm.profiles import BASE, STRATEGIES, Profile, ProfileStore
from local_llm.settings import Settings
from local_llm.state import State

# What stands in the place of a strategy where we do not know it.
REMOTE, RECORDED = "endpoint", "recorded"

_ENDPOINT = re.compile(r"(?P<name>[^=@]+)=(?P<model>.+?)@(?P<url>https?://\S+)")


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server. `trust`: as httpx's `verify`."""

    url: str
    key: str = field(default="none", repr=False)
    trust: ssl.SSLContext | bool = True


@dataclass(frozen=True)
class Target:
    """`identity` tells two targets apart whose answers must not be mixed; "" for recorded answers.

    Either `endpoint` is asked for `model`, or `recorded` holds the answers by the questions' hashes.
    """

    name: str
    strategy: str
    model: str | None = None
    endpoint: Endpoint | None = None
    identity: str = ""
    recorded: Mapping[str, Answer] = field(default_factory=dict)
    prices: TokenPrices | None = None
    adapter: str | None = None
    collection: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether this machine's time is what its answers cost."""
        return self.strategy in STRATEGIES and self.endpoint is not None


CollectionState = Callable[[str], str]
"""The id of a collection in, what it holds now out: another text once anything of it changed."""


class ServedTargets:
    """Profiles, the base model and `ft:` models, as the server of this box answers by their names."""

    def __init__(
        self, settings: Settings, state: State, caller: Caller, endpoint: Endpoint, contents: CollectionState
    ):
        self._settings = settings
        self._caller = caller
        self._endpoint = endpoint
        self._contents = contents
        self._profiles = ProfileStore(state)
        self._adapters = AdapterRegistry(settings, state)

    def target(self, name: str) -> Target:
        """`name` is that of a profile, `base`, an `ft:` name, or a strategy that one profile has.

        Raises: NotFoundError, InvalidInputError if several profiles have the strategy.
        """
        profile = self.profile(name)
        adapter = profile.model if profile.fine_tuned else None
        return Target(
            name=profile.name,
            strategy=profile.strategy,
            model=profile.name,
            endpoint=self._endpoint,
            identity=fingerprint(self._definition(profile)),
            adapter=adapter,
            collection=profile.collection,
        )

    def profile(self, name: str) -> Profile:
        found = self._profiles.find(self._caller, name)
        if found is not None:
            return found
        if name == BASE:
            return Profile(BASE, "base")
        if name.startswith(PREFIX):
            return Profile(self._adapters.get(name, self._caller).name, "fine_tuned", model=name)
        if name in STRATEGIES:
            return self._only_one(name)
        raise NotFoundError(
            f"there is no profile {name!r}", hint=f"local-llm profiles list; {self._known()}", param="profiles"
        )

    def _only_one(self, strategy: str) -> Profile:
        found = [one for one in self._profiles.list(self._caller) if one.strategy == strategy]
        if not found:
            raise NotFoundError(
                f"no profile has the strategy {strategy}",
                hint=f"local-llm profiles set NAME --strategy {strategy} ...; or leave it out of --profiles",
                param="profiles",
            )
        if len(found) > 1:
            names = ", ".join(one.name for one in found)
            raise InvalidInputError(f"several profiles have the strategy {strategy}: {names}", hint="name one")
        return found[0]

    def _known(self) -> str:
        names = [BASE, *(one.name for one in self._profiles.list(self._caller))]
        return f"there are {', '.join(names)}"

    def _definition(self, profile: Profile) -> dict[str, Any]:
        """All that its answers and their speed hang on, as far as this box knows."""
        base = ModelStore(self._settings.place.models).find(self._settings.engine.model)
        adapter = self._adapters.get(profile.model, self._caller) if profile.fine_tuned else None
        return {
            "profile": asdict(profile),
            "adapter": adapter.manifest_sha256 if adapter else None,
            "base": base.manifest.sha256 if base else self._settings.engine.model,
            "collection": self._contents(profile.collection) if profile.collection else None,
            "engine": self._settings.engine.model_dump(mode="json"),
            "answering": self._settings.answering.model_dump(mode="json"),
            "hardware": this_hardware().to_json(),
            "version": __version__,
            "server": self._endpoint.url if profile.name == BASE else None,
            "key": fingerprint(self._endpoint.key),  # it decides which documents are found
        }


def remote_target(text: str, keys: Mapping[str, str]) -> Target:
    """Of `NAME=MODEL@URL`. `keys`: API keys by names of targets.

    Raises: InvalidInputError.
    """
    matched = _ENDPOINT.fullmatch(text)
    if matched is None:
        raise InvalidInputError(
            f"--endpoint {text!r}: expected NAME=MODEL@URL, as in hosted=gpt-4o-mini@https://..."
        )
    name, model, url = matched["name"], matched["model"], matched["url"].rstrip("/")
    endpoint = Endpoint(url, keys.get(name, "none"))
    identity = fingerprint({"url": url, "model": model})
    return Target(name=name, strategy=REMOTE, model=model, endpoint=endpoint, identity=identity)


def refuse_equal_names(targets: Sequence[Target]) -> None:
    """Raises: InvalidInputError, also if there is no target."""
    if not targets:
        raise InvalidInputError(
            "nobody is to be asked", hint="--profiles base,fine_tuned,rag,hybrid, --endpoint, or --recorded FILE"
        )
    names = [one.name for one in targets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInputError(f"several are called {', '.join(twice)}", hint="name them: NAME=...")

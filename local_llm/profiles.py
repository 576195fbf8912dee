"""Profiles: served model names that stand for a strategy, a model, a collection, a prompt and a k.

They are set by command, by the API, or in the settings; see local_llm/declared_profiles.py for the last.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from sqlalchemy import delete, select

from local_llm.errors import ConflictError, ForbiddenError, InvalidInputError, NotFoundError
from local_llm.identifiers import is_name, new_id, now
from local_llm.permissions import Caller
from local_llm.prompts import LONGEST_REFUSAL
from local_llm.state import Adapter, Collection, ProfileRow, State

# The four words everything speaks of. Fine-tuning is for behaviour, retrieval for facts, hybrid for both.
Strategy = Literal["base", "fine_tuned", "rag", "hybrid"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
TUNED: tuple[Strategy, ...] = ("fine_tuned", "hybrid")
RETRIEVING: tuple[Strategy, ...] = ("rag", "hybrid")

# Passages put before the model. Source: the article this product follows searches with k = 5.
DEFAULT_K = 5
MAX_K = 50
# What `model` says for the base model that the engine serves, whichever it is.
BASE = "base"


@dataclass(frozen=True)
class Profile:
    """`model` is `base` or an `ft:` name; `collection` an id, set where the strategy retrieves.

    The last four matter where it retrieves. `answer_only_from_context`: the model is told to say that it does not
    know where the passages hold no answer, and is not asked at all where none was found. `rewrite`: follow-up
    questions are made self-contained for the search. `refusal`: what is said where the passages hold no answer.
    None: as the settings say. `from_settings`: the settings declare it, and only they change it.
    """

    name: str
    strategy: Strategy
    model: str = BASE
    collection: str | None = None
    prompt: str | None = None
    k: int = DEFAULT_K
    answer_only_from_context: bool = True
    rewrite: bool | None = None
    refusal: str | None = None
    from_settings: bool = False

    @property
    def retrieves(self) -> bool:
        return self.strategy in RETRIEVING

    @property
    def fine_tuned(self) -> bool:
        return self.strategy in TUNED


class ProfileStore:
    def __init__(self, state: State):
        self._state = state

    def set(self, caller: Caller, profile: Profile) -> Profile:
        """Makes or replaces a profile. `profile.collection` may be a collection's id or name.

        Raises: InvalidInputError, NotFoundError, ForbiddenError; ConflictError if the settings declare the one
        there is.
        """
        _refuse_scoped(caller)
        kept = self.resolved(caller, profile)
        if not profile.from_settings:
            self._refuse_declared(caller, profile.name)
        with self._state.session() as session:
            session.execute(_same_name(caller, profile.name))
            session.add(
                ProfileRow(
                    id=new_id("profile_"),
                    project_id=caller.project_id,
                    name=profile.name,
                    strategy=profile.strategy,
                    model=profile.model,
                    collection_id=kept.collection,
                    prompt=profile.prompt,
                    k=profile.k,
                    answer_only_from_context=profile.answer_only_from_context,
                    rewrite=profile.rewrite,
                    refusal=profile.refusal,
                    from_settings=profile.from_settings,
                    created_at=now(),
                )
            )
        return kept

    def resolved(self, caller: Caller, profile: Profile) -> Profile:
        """The profile as it would be kept. Raises: InvalidInputError, NotFoundError."""
        refuse_contradictions(profile)
        self._require_model(caller, profile)
        return replace(profile, collection=self._collection_id(caller, profile))

    def list(self, caller: Caller) -> list[Profile]:
        with self._state.reading() as session:
            query = select(ProfileRow).where(ProfileRow.project_id == caller.project_id).order_by(ProfileRow.name)
            return [_from_row(row) for row in session.scalars(query) if _is_reached(caller, row)]

    def find(self, caller: Caller, name: str) -> Profile | None:
        with self._state.reading() as session:
            query = select(ProfileRow).where(ProfileRow.project_id == caller.project_id, ProfileRow.name == name)
            row = session.scalars(query).first()
        return _from_row(row) if row and _is_reached(caller, row) else None

    def remove(self, caller: Caller, name: str) -> None:
        """Raises: NotFoundError, ForbiddenError; ConflictError if the settings declare it."""
        _refuse_scoped(caller)
        self._refuse_declared(caller, name)
        self.drop(caller, name)

    def drop(self, caller: Caller, name: str) -> None:
        """Removes a profile wherever it came from. Raises: NotFoundError."""
        with self._state.session() as session:
            removed = session.scalars(_same_name(caller, name).returning(ProfileRow.id)).all()
        if not removed:
            raise NotFoundError(f"there is no profile {name!r}", hint="local-llm profiles list", param="profile")

    def _refuse_declared(self, caller: Caller, name: str) -> None:
        profile = self.find(caller, name)
        if profile is not None and profile.from_settings:
            raise ConflictError(
                f"the settings declare the profile {name!r}",
                hint=f"change [profiles.{name}] in the settings and start the server again",
                param="profile",
            )

    def _collection_id(self, caller: Caller, profile: Profile) -> str | None:
        if profile.collection is None:
            return None
        with self._state.reading() as session:
            query = select(Collection.id).where(
                Collection.project_id == caller.project_id,
                (Collection.id == profile.collection) | (Collection.name == profile.collection),
            )
            found = session.scalars(query).first()
        if found is None:
            raise NotFoundError(
                f"there is no collection {profile.collection!r}", hint="local-llm index list", param="collection"
            )
        return found

    def _require_model(self, caller: Caller, profile: Profile) -> None:
        if profile.model == BASE:
            return
        with self._state.reading() as session:
            row = session.scalars(select(Adapter).where(Adapter.name == profile.model)).first()
        if row is None or row.project_id != caller.project_id or not caller.may_see(row.allow):
            raise NotFoundError(
                f"there is no adapter {profile.model!r}", hint="local-llm models list", param="model"
            )


def refuse_contradictions(profile: Profile) -> None:
    """Raises: InvalidInputError for what cannot be right whatever collections and models there are."""
    problems = []
    if not is_name(profile.name) or profile.name == BASE:
        problems.append(f"name {profile.name!r}: expected letters, digits, '.', '_', '-', and not {BASE!r}")
    if profile.strategy not in STRATEGIES:
        problems.append(f"strategy {profile.strategy!r}: expected one of {', '.join(STRATEGIES)}")
    if profile.retrieves and profile.collection is None:
        problems.append(f"{profile.strategy} needs a collection")
    if not profile.retrieves and profile.collection is not None:
        problems.append(f"{profile.strategy} retrieves nothing, but a collection is given")
    if profile.fine_tuned != (profile.model != BASE):
        needed = "an ft: model" if profile.fine_tuned else "the base model"
        problems.append(f"{profile.strategy} needs {needed}, but the model is {profile.model!r}")
    if profile.rewrite and not profile.retrieves:
        problems.append(f"{profile.strategy} retrieves nothing, but questions are to be rewritten for it")
    problems += _problems_of_refusal(profile)
    if not 1 <= profile.k <= MAX_K:
        problems.append(f"k = {profile.k}: expected 1 to {MAX_K}")
    if problems:
        raise InvalidInputError(f"profile {profile.name!r}: {'; '.join(problems)}", param="profile")


def _problems_of_refusal(profile: Profile) -> list[str]:
    refusal = profile.refusal
    if refusal is None:
        return []
    if not profile.retrieves:
        return [f"{profile.strategy} retrieves nothing, but it is to refuse what its documents do not hold"]
    if not refusal.strip() or len(refusal) > LONGEST_REFUSAL or len(refusal.splitlines()) > 1:
        return [f"refusal {refusal!r:.60}: expected one line of 1 to {LONGEST_REFUSAL} characters"]
    return []


def _is_reached(caller: Caller, row: ProfileRow) -> bool:
    """A profile is a name of its own: a key may name it without reaching the model behind it by that one's name."""
    return caller.may_name(row.name) and caller.may_reach(row.collection_id)


def _refuse_scoped(caller: Caller) -> None:
    """It could replace a profile that it does not see, or have one of its own lead to what it may not name."""
    if caller.is_scoped:
        raise ForbiddenError("this key reaches certain models or collections only, and may not change profiles")


def _same_name(caller: Caller, name: str):  # type: ignore[no-untyped-def]  # SQLAlchemy's own type is long
    return delete(ProfileRow).where(ProfileRow.project_id == caller.project_id, ProfileRow.name == name)


def _from_row(row: ProfileRow) -> Profile:
    return Profile(
        name=row.name,
        strategy=row.strategy,  # type: ignore[arg-type]  # it was checked before it was written
        model=row.model,
        collection=row.collection_id,
        prompt=row.prompt,
        k=row.k,
        answer_only_from_context=row.answer_only_from_context,
        rewrite=row.rewrite,
        refusal=row.refusal,
        from_settings=row.from_settings,
    )

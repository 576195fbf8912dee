"""The profiles that the settings declare: `[profiles.NAME]`.

They become rows like all others, marked, so that a collection in use cannot be deleted under them. A declared
profile may name a collection or a model that is still to come: it is tried again when it is asked for.
"""

from collections.abc import Mapping

from sqlalchemy import select

from local_llm.errors import InvalidInputError, LocalLLMError, NotFoundError, SettingsError
from local_llm.permissions import Caller, local_admin
from local_llm.profiles import Profile, ProfileStore, refuse_contradictions
from local_llm.settings import ProfileSettings
from local_llm.state import ProfileRow, Project, State

Declared = Mapping[str, ProfileSettings]


def check_declared(declared: Declared) -> None:
    """Raises: SettingsError listing all that cannot be right, whatever there is on this box."""
    problems = []
    for name, one in declared.items():
        try:
            refuse_contradictions(_profile(name, one))
        except InvalidInputError as error:
            problems.append(f"profiles.{name}: {error.message}")
    if problems:
        raise SettingsError(f"settings: {'; '.join(problems)}", hint="see docs/settings.md for every setting")


class DeclaredProfiles:
    def __init__(self, state: State, profiles: ProfileStore, declared: Declared):
        self._state = state
        self._profiles = profiles
        self._declared = declared

    def adopt(self) -> dict[str, LocalLLMError]:
        """Makes the rows what the settings declare, and removes those that they declare no more.

        Returns: why those that are not there yet are not, by name.
        """
        self._drop_undeclared()
        missing = {}
        for name in self._declared:
            try:
                self._set(name)
            except LocalLLMError as error:
                missing[name] = error
        return missing

    def find(self, caller: Caller, name: str) -> Profile | None:
        """One that could not be made before; None where the caller's scope does not hold it.

        Raises: NotFoundError that says what is still missing.
        """
        one = self._declared.get(name)
        if one is None or not caller.may_name(name):
            return None
        if self._project_id(one.project, missing="") != caller.project_id:
            return None
        found = self._set(name)
        return found if caller.may_reach(found.collection) else None

    def _set(self, name: str) -> Profile:
        one = self._declared[name]
        caller = local_admin(self._project_id(one.project))
        wanted, found = _profile(name, one), self._profiles.find(caller, name)
        # Written only if it changes anything: several gateways start at once.
        if found is not None and found.from_settings and self._profiles.resolved(caller, wanted) == found:
            return found
        return self._profiles.set(caller, wanted)

    def _drop_undeclared(self) -> None:
        with self._state.reading() as session:
            query = select(ProfileRow.project_id, ProfileRow.name).where(ProfileRow.from_settings)
            rows = list(session.execute(query))
        for project_id, name in rows:
            one = self._declared.get(name)
            if one is None or self._project_id(one.project, missing="") != project_id:
                self._profiles.drop(local_admin(project_id), name)

    def _project_id(self, name: str, missing: str | None = None) -> str:
        with self._state.reading() as session:
            found = session.scalars(select(Project.id).where(Project.name == name)).first() or missing
        if found is None:
            raise NotFoundError(f"there is no project {name!r}", hint="name one in the settings", param="project")
        return found


def _profile(name: str, one: ProfileSettings) -> Profile:
    return Profile(name, from_settings=True, **one.model_dump(exclude={"project"}))

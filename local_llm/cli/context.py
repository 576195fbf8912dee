"""What every command starts from: the settings, and the state of the box."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer

from local_llm.permissions import Caller, local_admin
from local_llm.projects import ProjectStore
from local_llm.settings import Settings, load_settings
from local_llm.state import State, open_state

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass
class CommandContext:
    """Opened lazily: a command that needs no database makes none."""

    settings_file: Path | None = None
    project: str | None = None  # id or name

    @cached_property
    def settings(self) -> Settings:
        return load_settings(self.settings_file)

    @cached_property
    def state(self) -> State:
        return open_state(self.settings.place)

    @cached_property
    def caller(self) -> Caller:
        """Whoever can run commands on the box is an owner, in its local project or the one named.

        Raises: NotFoundError, ConflictError for a project that is archived.
        """
        if self.project is None:
            return local_admin(self.state.local_project_id())
        return local_admin(ProjectStore(self.state).active(self.project).id)

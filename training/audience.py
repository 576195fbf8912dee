"""Who may see what a job makes: whoever may see all that it is made from.

An adapter can say what stood in its training file. So it is listed, and answers, only for keys that may read that.
"""

from collections.abc import Sequence

from sqlalchemy import select

from local_llm.state import File, Job, State

Allow = Sequence[str] | None
"""Principals, any of which may see a thing; None: everyone in the project."""


def audience_of(state: State, job: Job) -> Allow:
    """Of the job's files, as far as they are still there."""
    with state.reading() as session:
        allows = session.scalars(select(File.allow).where(File.id.in_([job.training_file, job.validation_file])))
        return shared(*allows)


def shared(*allows: Allow) -> Allow:
    """Principals each of which may see all of these things. With none left only admins may.

    A key that may see one thing by one principal and another by a second is left out too: one list cannot say that.
    """
    named = [set(allow) for allow in allows if allow is not None]
    return sorted(set.intersection(*named)) if named else None

"""Who may see what a job makes: whoever may see all that it is made from.

An adapter can say what stood in its training file. So it is listed, and answers, only for keys that may read that.
"""

from sqlalchemy import select

from local_llm.permissions import Allow, shared
from local_llm.state import File, Job, State


def audience_of(state: State, job: Job) -> Allow:
    """Of the job's files, as far as they are still there."""
    with state.reading() as session:
        allows = session.scalars(select(File.allow).where(File.id.in_([job.training_file, job.validation_file])))
        return shared(*allows)

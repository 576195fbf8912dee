"""How long the audit log, the usage of keys and kept chats stay."""

import time

from sqlalchemy import ColumnElement, delete, func, select

from local_llm.identifiers import now
from local_llm.settings import ServerSettings
from local_llm.state import AuditEntry, ChatRow, Row, State, UsageRow

DAY_SECONDS = 24 * 3600


class Retention:
    def __init__(self, state: State, settings: ServerSettings):
        self._state = state
        self._settings = settings
        self._swept = -float(DAY_SECONDS)

    def sweep_daily(self) -> None:
        """sweep(), if that was not done today; the gateway asks every second."""
        if time.monotonic() - self._swept >= DAY_SECONDS:
            self._swept = time.monotonic()
            self.sweep()

    def sweep(self) -> None:
        """Deletes what is older than the settings say."""
        if any(self.overdue().values()):
            with self._state.session() as session:
                for table, old in self._old():
                    session.execute(delete(table).where(old))

    def overdue(self) -> dict[str, int]:
        """How many rows sweep() would delete, by table."""
        with self._state.reading() as session:
            counts = {str(table.__tablename__): 0 for table in (AuditEntry, UsageRow, ChatRow)}
            for table, old in self._old():
                counts[str(table.__tablename__)] = (
                    session.scalar(select(func.count()).select_from(table).where(old)) or 0
                )
        return counts

    def _old(self) -> list[tuple[type[Row], ColumnElement[bool]]]:
        found: list[tuple[type[Row], ColumnElement[bool]]] = []
        if self._settings.audit_days:
            found.append((AuditEntry, AuditEntry.created_at < now() - self._settings.audit_days * DAY_SECONDS))
        if self._settings.usage_days:
            found.append((UsageRow, UsageRow.minute < now() - self._settings.usage_days * DAY_SECONDS))
        if self._settings.chat_days:
            # A rated one is wanted: it stays as long from then on.
            last = func.coalesce(ChatRow.rated_at, ChatRow.created_at)
            found.append((ChatRow, last < now() - self._settings.chat_days * DAY_SECONDS))
        return found

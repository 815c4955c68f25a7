"""Whether the database's tables are those of this code: between a deploy and its migration they are not."""

from __future__ import annotations

from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

APP = "scheduler"
UNDEFINED = {"42P01", "42703"}  # a table, a column (PostgreSQL, appendix A)
UNDEFINED_ON_SQLITE = ("no such table", "no such column", "table ")  # "table … has no column named …"


class Schema:
    """Looked at when the poller comes up, and again after a round has met a table or a column that is not there."""

    def __init__(self) -> None:
        self._is_known = False

    def missing(self) -> str:
        """Why no round can be tried yet, in one sentence; empty when all migrations are applied."""
        names = [] if self._is_known else _unapplied()
        self._is_known = not names
        if not names:
            return ""
        return f"{len(names)} migration(s) not applied, the first is {names[0]}; run manage.py migrate"

    def look_again(self) -> None:
        self._is_known = False


def is_about_tables(error: BaseException) -> bool:
    """Whether a statement failed because it named a table or a column that is not there."""
    cause = error.__cause__
    if UNDEFINED & {getattr(cause, "sqlstate", None), getattr(cause, "pgcode", None)}:
        return True
    return isinstance(error, OperationalError) and str(error).startswith(UNDEFINED_ON_SQLITE)


def _unapplied() -> list[str]:
    """The migrations of the scheduler, and of what it needs, that the database does not have."""
    executor = MigrationExecutor(connection)
    targets = [key for key in executor.loader.graph.leaf_nodes() if key[0] == APP]
    return [f"{migration.app_label}.{migration.name}" for migration, _backwards in executor.migration_plan(targets)]

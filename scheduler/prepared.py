"""Queries that are built once a process and only filled in at each request.

To build a query with a few joins costs Django ten times what the database needs to answer it. Where a page is asked
for a thousand times a second that is most of its time; anywhere else an ordinary queryset is the better choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import connections, models, router
from django.db.models import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper


class Blank(Value):
    """A place in a query for a value that is not known yet; ``field`` says how it is written for the database."""

    def __init__(self, name: str, field: models.Field[Any, Any]) -> None:
        super().__init__(name, output_field=field)
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        return "%s", (self,)

    def fill(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        """The value as the database wants it. Raises OverflowError for a number that no row can have."""
        field = self.output_field
        if isinstance(field, models.IntegerField):
            low, high = connection.ops.integer_field_range(field.get_internal_type())
            if not (low is None or low <= value) or not (high is None or value <= high):
                raise OverflowError(value)
        return field.get_db_prep_value(value, connection)


@dataclass(frozen=True)
class _Statement:
    sql: str
    parameters: Sequence[Any]
    converters: list[tuple[int, Any, Any]]  # column, its expression, a function of the database's value


class Prepared:
    """A query with blanks; ``build`` makes it, as a queryset of tuples (``values_list``), when it is first needed."""

    def __init__(self, build: Callable[[], models.QuerySet[Any, Any]]) -> None:
        self._build = build
        self._statements: dict[str, _Statement] = {}

    def first(self, model: type[models.Model], **values: Any) -> tuple[Any, ...] | None:
        """The first row with the blanks filled in, or None. Raises KeyError when a blank has no value."""
        connection = connections[router.db_for_read(model)]
        statement = self._statements.get(connection.alias)
        if statement is None:
            statement = self._statements[connection.alias] = self._prepare(connection)
        try:
            parameters = [
                each.fill(values[each.name], connection) if isinstance(each, Blank) else each
                for each in statement.parameters
            ]
        except OverflowError:
            return None
        with connection.cursor() as cursor:
            cursor.execute(statement.sql, parameters)
            found = cursor.fetchone()
        if found is None:
            return None
        row = list(found)
        for column, expression, convert in statement.converters:
            row[column] = convert(row[column], expression, connection)
        return tuple(row)

    def _prepare(self, connection: BaseDatabaseWrapper) -> _Statement:
        compiler = self._build()[:1].query.get_compiler(connection=connection)
        sql, parameters = compiler.as_sql()
        columns = [column for column, _sql, _alias in compiler.select]
        converters = [
            (index, expression, convert)
            for index, (functions, expression) in compiler.get_converters(columns).items()
            for convert in functions
        ]
        return _Statement(sql, tuple(parameters), converters)

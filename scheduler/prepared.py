"""Statements that are built once a process and only filled in each time.

To build a query with a few joins costs Django ten times what the database needs to answer it. Where a page is asked
for a thousand times a second, or a run is to be started in a millisecond, that is most of the time; anywhere else an
ordinary queryset is the better choice.

PostgreSQL is told to keep its own plan of each as well: to make one takes it longer than to follow it. Not behind a
pooler that gives each transaction another session, for which Django wants ``DISABLE_SERVER_SIDE_CURSORS`` to be set.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from django.db import connections, models, router, transaction
from django.db.models import Expression, Q, Value
from django.db.models.sql import UpdateQuery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

Row = TypeVar("Row", bound=models.Model)


class Blank(Value):
    """A place in a query for a value that is not known yet; ``field`` says how it is written for the database."""

    def __init__(self, name: str, field: Any) -> None:
        super().__init__(name, output_field=field)
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        return "%s", (self,)

    def fill(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        """The value as the database wants it; of a row, its key. Raises OverflowError for a number no row can have."""
        field = self.output_field
        value = value.pk if isinstance(value, models.Model) else value
        if isinstance(field, models.IntegerField) and value is not None:
            low, high = connection.ops.integer_field_range(field.get_internal_type())
            if not (low is None or low <= value) or not (high is None or value <= high):
                raise OverflowError(value)
        return field.get_db_prep_save(value, connection)


# A query for a list of keys is prepared for lists of these lengths.
LENGTHS = (1, 4, 16)


def one_of(name: str, count: int, field: Any) -> Q:
    """That this field is one of a list of keys, which ``batched`` fills in."""
    # Not __in: that of a foreign key takes no expressions.
    return Q(*((name, Blank(f"key{number}", field)) for number in range(count)), _connector=Q.OR)


def batched(keys: Sequence[int]) -> Iterator[dict[str, int]]:
    """The keys in dictionaries of one of the LENGTHS; what is missing in the last is its last key, once more."""
    for start in range(0, len(keys), LENGTHS[-1]):
        some = keys[start : start + LENGTHS[-1]]
        length = next(length for length in LENGTHS if length >= len(some))
        yield {f"key{number}": some[min(number, len(some) - 1)] for number in range(length)}


@dataclass(frozen=True)
class _Statement:
    sql: str
    parameters: Sequence[Any]

    def fill(self, values: dict[str, Any], connection: BaseDatabaseWrapper) -> list[Any]:
        """The parameters, with the blanks filled in. Raises KeyError when a blank has no value."""
        return [
            each.fill(values[each.name], connection) if isinstance(each, Blank) else each for each in self.parameters
        ]


def _written_out(sql: str, parameters: Sequence[Any], connection: BaseDatabaseWrapper) -> tuple[str, tuple[Any, ...]]:
    """The same statement with all but its blanks in the text, so that the plan for one fits all the others."""
    if not _keeps_plans(connection):
        return sql, tuple(parameters)
    from psycopg.sql import Literal

    raw = connection.connection
    texts = [
        "%s" if isinstance(each, Blank) else Literal(each).as_string(raw).replace("%", "%%") for each in parameters
    ]
    parts = sql.split("%s")
    text = "".join(part + value for part, value in zip(parts, [*texts, ""], strict=True))
    return text, tuple(each for each in parameters if isinstance(each, Blank))


def _keeps_plans(connection: BaseDatabaseWrapper) -> bool:
    settings = connection.settings_dict
    if connection.vendor != "postgresql" or settings.get("DISABLE_SERVER_SIDE_CURSORS"):
        return False
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    connection.ensure_connection()
    return bool(is_psycopg3)


@contextmanager
def _cursor(connection: BaseDatabaseWrapper) -> Iterator[Any]:
    """Django's cursor; where PostgreSQL keeps the plans, with one of psycopg's that sends values by themselves."""
    with connection.cursor() as cursor:
        if _keeps_plans(connection) and not connection.queries_logged:  # what is logged is the text with the values
            cursor.cursor.close()
            cursor.cursor = _preparing_cursor()(connection.connection)
        yield cursor


@cache
def _preparing_cursor() -> Any:
    import psycopg

    class PreparingCursor(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **_options: Any) -> Any:
            # Django forbids it for the whole connection (None), since it cannot know what is worth a plan.
            threshold, self.connection.prepare_threshold = self.connection.prepare_threshold, 0
            try:
                return super().execute(query, params, prepare=True)
            finally:
                self.connection.prepare_threshold = threshold

    return PreparingCursor


@dataclass(frozen=True)
class _Query(_Statement):
    compiler: Any
    converters: list[tuple[int, Any, Any]]  # column, its expression, a function of the database's value

    @classmethod
    def of(cls, queryset: models.QuerySet[Any, Any], connection: BaseDatabaseWrapper) -> _Query:
        compiler = queryset.query.get_compiler(connection=connection)
        sql, parameters = compiler.as_sql()
        columns = [column for column, _sql, _alias in compiler.select]
        converters = [
            (index, expression, convert)
            for index, (functions, expression) in compiler.get_converters(columns).items()
            for convert in functions
        ]
        return cls(*_written_out(sql, parameters, connection), compiler, converters)

    def ask(self, values: dict[str, Any], connection: BaseDatabaseWrapper) -> list[list[Any]]:
        """The rows, each value as the field gives it; none for a number that no row can have."""
        try:
            parameters = self.fill(values, connection)
        except OverflowError:
            return []
        with _cursor(connection) as cursor:
            cursor.execute(self.sql, parameters)
            rows = [list(row) for row in cursor.fetchall()]
        for row in rows:
            for column, expression, convert in self.converters:
                row[column] = convert(row[column], expression, connection)
        return rows


class Prepared:
    """A query with blanks; ``build`` makes it, as a queryset of tuples (``values_list``), when it is first needed."""

    def __init__(self, build: Callable[[], models.QuerySet[Any, Any]]) -> None:
        self._build = build
        self._queries: dict[str, _Query] = {}

    def all(self, model: type[models.Model], **values: Any) -> list[tuple[Any, ...]]:
        """The rows with the blanks filled in. Raises KeyError when a blank has no value."""
        connection = connections[router.db_for_read(model)]
        query = self._queries.get(connection.alias)
        if query is None:
            query = self._queries[connection.alias] = _Query.of(self._build(), connection)
        return [tuple(row) for row in query.ask(values, connection)]

    def first(self, model: type[models.Model], **values: Any) -> tuple[Any, ...] | None:
        """The first row, or None; the query should ask for no more than one."""
        rows = self.all(model, **values)
        return rows[0] if rows else None


class PreparedSubquery:
    """A query of one column for the right side of ``__in``, of which only the values are put into the query around it.

    ``build`` makes the queryset when it is first needed. It asks for nothing of the rows around it.
    """

    def __init__(self, build: Callable[[], models.QuerySet[Any, Any]], output_field: Any) -> None:
        self._build = build
        self._output_field = output_field
        self._statements: dict[str, _Statement] = {}

    def filled(self, **values: Any) -> Expression:
        """The subquery with the blanks filled in."""
        return _FilledSubquery(self, self._output_field, values)

    def sql_for(self, values: dict[str, Any], connection: BaseDatabaseWrapper) -> tuple[str, tuple[Any, ...]]:
        """Text and parameters. Raises KeyError when a blank has no value."""
        statement = self._statements.get(connection.alias)
        if statement is None:
            sql, parameters = self._build().query.get_compiler(connection=connection).as_sql()
            statement = self._statements[connection.alias] = _Statement(f"({sql})", parameters)
        return statement.sql, tuple(statement.fill(values, connection))


class _FilledSubquery(Expression):
    def __init__(self, prepared: PreparedSubquery, output_field: Any, values: dict[str, Any]) -> None:
        super().__init__(output_field=output_field)
        self.prepared = prepared
        self.values = values

    @property
    def identity(self) -> tuple[Any, ...]:
        """What Django compares two conditions by."""
        return (type(self), id(self.prepared), *sorted(self.values.items()))

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        return self.prepared.sql_for(self.values, connection)


class PreparedRows(Generic[Row]):
    """A query for rows, with what ``select_related`` and ``annotate`` add to them."""

    def __init__(self, build: Callable[[], models.QuerySet[Row, Row]]) -> None:
        self._build = build
        self._queries: dict[str, _Query] = {}

    def all(self, model: type[Row], **values: Any) -> list[Row]:
        """The rows with the blanks filled in. Raises KeyError when a blank has no value."""
        alias = router.db_for_read(model)
        query = self._queries.get(alias)
        if query is None:
            query = self._queries[alias] = _Query.of(self._build(), connections[alias])
        columns, annotations = query.compiler.klass_info, query.compiler.annotation_col_map
        found = []
        for row in query.ask(values, connections[alias]):
            instance = self._instance(columns, query.compiler, alias, row)
            for name, column in annotations.items():
                setattr(instance, name, row[column])
            found.append(instance)
        return found

    def _instance(self, info: dict[str, Any], compiler: Any, alias: str, row: list[Any]) -> Any:
        """The row of one model, with those of other models that ``select_related`` adds; None for one that is not."""
        columns = info["select_fields"]
        names = [compiler.select[column][0].target.attname for column in columns]
        instance = info["model"].from_db(alias, names, [row[column] for column in columns])
        for related in info.get("related_klass_infos", ()):
            related["local_setter"](instance, self._instance(related, compiler, alias, row))
        return instance if instance.pk is not None else None


class PreparedUpdate:
    """An UPDATE of the rows that a queryset with blanks means, of these fields."""

    def __init__(self, build: Callable[[], models.QuerySet[Any, Any]], fields: Iterable[str]) -> None:
        self._build = build
        self._fields = tuple(fields)
        self._statements: dict[str, _Statement] = {}

    def update(self, model: type[models.Model], **values: Any) -> int:
        """How many rows were changed. Raises KeyError when a blank or a field has no value."""
        alias = router.db_for_write(model)
        connection = connections[alias]
        statement = self._statements.get(alias)
        if statement is None:
            query: Any = self._build().query.chain(UpdateQuery)
            query.add_update_values({name: Blank(name, model._meta.get_field(name)) for name in self._fields})
            sql, parameters = query.get_compiler(connection=connection).as_sql()
            statement = self._statements[alias] = _Statement(*_written_out(sql, parameters, connection))
        with transaction.mark_for_rollback_on_error(alias), _cursor(connection) as cursor:
            cursor.execute(statement.sql, statement.fill(values, connection))
            changed: int = cursor.rowcount
            return changed


class PreparedInsert(Generic[Row]):
    """An INSERT of new rows. Their keys are not read back; no signal is sent."""

    def __init__(self) -> None:
        self._inserts: dict[str, str] = {}

    def insert(self, rows: Sequence[Row]) -> None:
        """Insert all of them, by one statement."""
        if not rows:
            return
        model = type(rows[0])
        alias = router.db_for_write(model)
        connection = connections[alias]
        fields = [field for field in model._meta.concrete_fields if not isinstance(field, models.AutoField)]
        insert = self._inserts.get(alias)
        if insert is None:
            quote = connection.ops.quote_name
            names = ", ".join(quote(str(field.column)) for field in fields)
            insert = self._inserts[alias] = f"INSERT INTO {quote(model._meta.db_table)} ({names}) VALUES "  # noqa: S608
        places = f"({', '.join(['%s'] * len(fields))})"
        parameters = [field.get_db_prep_save(field.pre_save(row, True), connection) for row in rows for field in fields]
        with transaction.mark_for_rollback_on_error(alias), connection.cursor() as cursor:
            cursor.execute(insert + ", ".join([places] * len(rows)), parameters)

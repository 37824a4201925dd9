"""Floor 2, edges: the conditions of a list as SQL. stdlib only; no SQL is run here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from receiver.errors import Invalid
from receiver.platforms.reading import dumps
from receiver.store.protocol import Query
from receiver.store.verbs.rows import task_key


class Where:
    """The conditions of a list. Column names are ours; every value is bound.

    `before` are the values of the marks that stand in front of them.
    """

    def __init__(self, *before: Any) -> None:
        self._conditions: list[str] = []
        self.values: list[Any] = [*before]

    def add(self, condition: str, *values: Any) -> None:
        """One more condition, with the values of its marks."""
        self._conditions.append(condition)
        self.values.extend(values)

    def same(self, column: str, value: Any) -> None:
        """The column has that value; None does not filter."""
        if value is not None:
            self.add(f"{column} = ?", value)

    def one_of(self, column: str, values: Sequence[str] | Sequence[int] | None) -> None:
        """The column has one of these values; None does not filter."""
        if values is not None:
            # Of no value it can't be: but `IN ()` is SQLite's alone, and leaves no use for an index
            # that a statement insists on, which then has "no query solution".
            marks = ", ".join("?" * len(values)) or "NULL"
            self.add(f"{column} IN ({marks})", *values)

    def of_task(self, column: str, task: str | None) -> None:
        """The column has the number of the task with that id; None does not filter.

        The number is looked up first: joined, the tasks of a whole list would be.
        """
        if task:
            self.add(f"{column} = (SELECT n FROM tasks WHERE id = ?)", task_key(task))

    def since_until(self, column: str, query: Query) -> None:
        """The column's time is within the query's."""
        if query.since is not None:
            self.add(f"{column} >= ?", query.since)
        if query.until is not None:
            self.add(f"{column} < ?", query.until)

    def tagged(self, column: str, query: Query) -> None:
        """The tags in the column have the query's."""
        if query.tag:
            self.add(f"json_extract({column}, ?) = ?", tag_path(query.tag[0]), query.tag[1])

    def older(self, order: Sequence[str], query: Query) -> None:
        """What follows the query's cursor. Raises Invalid for a cursor of another list."""
        if query.before is not None:
            if len(query.before) != len(order):
                raise Invalid("That cursor is not one of this list.", parameter="cursor")
            columns, marks = ", ".join(order), ", ".join("?" * len(order))
            self.add(f"({columns}) < ({marks})", *query.before)

    def search(self, columns: Sequence[str], text: str) -> None:
        """The text stands in one of the columns."""
        pattern = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        any_of = " OR ".join(f"{column} LIKE ? ESCAPE '\\'" for column in columns)
        self.add(f"({any_of})", *[f"%{pattern}%"] * len(columns))

    @property
    def clause(self) -> str:
        """`WHERE …`, or nothing."""
        return f" WHERE {' AND '.join(self._conditions)}" if self._conditions else ""

    def list(self, select: str, order: Sequence[str], query: Query) -> tuple[str, Sequence[Any]]:
        """The whole statement with its values, the newest first."""
        by = ", ".join(f"{column} DESC" for column in order)
        # One row more than asked for says whether there is a next page.
        return f"{select}{self.clause} ORDER BY {by} LIMIT ?", [*self.values, query.limit + 1]


def tag_path(name: str) -> str:
    """Where a tag stands within the JSON text of all of them; a name has no quotation mark."""
    return f"$.{dumps(name)}"

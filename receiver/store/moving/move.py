"""Floor 2, edges: a whole store is moved, and both sides are held against each other.

Whoever interrupts it, and however, runs the same command again: each batch is there with the note
of it, or neither is. Nothing is said to be done while one digest differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from receiver.errors import CannotStart
from receiver.store.moving.source import Source
from receiver.store.moving.tables import TABLES, Sum, Table
from receiver.store.moving.target import Target

_EMPTY: Final = "Name an empty one (`createdb reelhook`), or empty it: DROP OWNED BY its role."


@dataclass(frozen=True, slots=True)
class Compared:
    """One table on both sides; `changed` of its texts had what PostgreSQL can't keep."""

    name: str
    source: Sum
    target: Sum
    changed: int = 0

    @property
    def is_same(self) -> bool:
        """Whether it has the same rows on both."""
        return self.source == self.target


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of a move. `before`: it had been done already, and was looked at again."""

    instance: str
    dry_run: bool = False
    before: bool = False
    tables: list[Compared] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """Whether everything is there."""
        return not self.dry_run and all(table.is_same for table in self.tables)


Told = Callable[[str, int], None]


def move(
    path: Path,
    url: str,
    *,
    now: int,
    dry_run: bool = False,
    told: Told = lambda table, rows: None,
) -> Moved:
    """Move an SQLite file's store to a PostgreSQL database. `now` in milliseconds.

    `told(table, rows)` hears of each batch. Raises CannotStart, StoreLocked, SchemaTooNew.
    """
    with Source(path, now=now, dry_run=dry_run) as source, Target(url) as target:
        instance = source.instance
        before = _admit(source, target)
        if dry_run:
            counts = {table: source.count(table) for table in TABLES if source.columns(table)}
            found = [Compared(table.name, Sum(count), Sum()) for table, count in counts.items()]
            return Moved(instance, dry_run, before, found)
        changed: dict[Table, int] = {}
        if not before:
            target.begin(instance)
            for table in TABLES:
                changed[table] = _move_table(source, target, table, told)
        found = [_compared(source, target, table, changed.get(table, 0)) for table in TABLES]
        moved = Moved(instance, before=before, tables=found)
        if moved.is_done and not before:
            target.finish({table: source.greatest(table) for table in TABLES if table.given})
        return moved


def _admit(source: Source, target: Target) -> bool:
    """Whether the move was done before. Raises CannotStart for a database that it may not touch."""
    alive = target.alive()
    if alive:
        raise CannotStart(
            f"Processes use the database at {target.host}: {', '.join(alive)}. Stop them first."
        )
    whose = target.whose()
    if whose is None or whose != source.instance:
        theirs = target.rows_of_its_own()
        if whose is not None or theirs:
            raise CannotStart(
                f"The database at {target.host} holds another store ({', '.join(theirs)}). {_EMPTY}"
            )
        return False
    return not target.is_moving()


def _move_table(source: Source, target: Target, table: Table, told: Told) -> int:
    columns = source.columns(table)
    unknown = {*columns} - target.columns(table)
    if unknown:
        raise CannotStart(f"PostgreSQL's {table.name} has no {', '.join(sorted(unknown))}.")
    place, changed = target.place(table)
    for batch in source.batches(table, place):
        target.take(table, columns, batch)
        changed += batch.changed
        told(table.name, len(batch.rows))
    return changed


def _compared(source: Source, target: Target, table: Table, changed: int) -> Compared:
    columns = source.columns(table)
    return Compared(table.name, source.sum(table), target.sum(table, columns), changed)

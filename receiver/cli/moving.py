"""Floor 5, assembly: `reelhook migrate-store`. typer only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.options import Json
from receiver.cli.output import FAILED, UNREACHABLE, USAGE, fail, say

if TYPE_CHECKING:
    from receiver.store.moving.move import Moved


def migrate_store(
    source: Annotated[str, typer.Argument(help="sqlite:///path of the database that is left.")],
    target: Annotated[str, typer.Argument(help="postgresql://… of an empty database.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look at both sides, change nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Move everything from SQLite to PostgreSQL; no receiver may use either.

    It goes on where it was interrupted, and is done when the digests of every table are the same on
    both sides. The file stays as it is. A password may stand in PGPASSWORD or ~/.pgpass instead.

    reelhook migrate-store sqlite:////srv/reelhook.db postgresql://reelhook@db/reelhook --dry-run
    reelhook migrate-store sqlite:////srv/reelhook.db postgresql://reelhook@db/reelhook
    """
    moved = _moved(_path_of(source, target), target, dry_run)
    if as_json:
        _tell_json(moved)
    else:
        _tell(moved)
    if not (moved.is_done or dry_run):
        fail(
            "The sides differ, so the move is not done. Something wrote to one of them meanwhile,"
            " or the receiver ran between two runs of this: empty the target, and begin anew.",
            FAILED,
        )


def _path_of(source: str, target: str) -> Path:
    from receiver.errors import SettingsRefused
    from receiver.settings import Settings

    given, asked = (Settings.read({"DATABASE_URL": text}) for text in (source, target))
    if given.on_postgres:
        fail(
            "A store moves from SQLite to PostgreSQL alone. Back from PostgreSQL there is no way"
            " but the SQLite file from before.",
            USAGE,
        )
    if not asked.on_postgres:
        fail("The second argument has to be postgresql://user:password@host/database.", USAGE)
    try:
        return given.database_path
    except SettingsRefused:
        fail("The first argument has to be sqlite:///path or sqlite:////absolute/path.", USAGE)


def _moved(path: Path, target: str, dry_run: bool) -> Moved:
    from receiver.clock import wall_clock
    from receiver.errors import CannotStart

    try:
        from receiver.store.moving.move import move
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        fail("PostgreSQL needs asyncpg: pip install 'reelhook[postgres]'.", UNREACHABLE)
    try:
        return move(path, target, now=wall_clock(), dry_run=dry_run, told=_Progress().told)
    except CannotStart as error:
        fail(str(error), UNREACHABLE)
    except KeyboardInterrupt:
        say("Interrupted; the same command goes on with it.")
        raise typer.Exit(130) from None


class _Progress:
    """Says now and then how far it is."""

    EVERY = 100_000  # rows

    def __init__(self) -> None:
        self._rows = self._said = 0

    def told(self, table: str, rows: int) -> None:
        """A batch is there."""
        self._rows += rows
        if self._rows - self._said >= self.EVERY:
            self._said = self._rows
            say(f"{self._rows:,} rows so far, now {table} …")


def _tell_json(moved: Moved) -> None:
    import json

    tables = [
        {
            "table": one.name,
            "rows": one.source.rows,
            "source_sha256": one.source.text if not moved.dry_run else None,
            "target_rows": one.target.rows,
            "target_sha256": one.target.text if not moved.dry_run else None,
            "replaced": one.changed,
            "same": one.is_same,
        }
        for one in moved.tables
    ]
    facts = {
        "done": moved.is_done,
        "dry_run": moved.dry_run,
        "done_before": moved.before,
        "instance": moved.instance,
        "tables": tables,
    }
    typer.echo(json.dumps(facts))


def _tell(moved: Moved) -> None:
    for one in moved.tables:
        verdict = "" if moved.dry_run else "the same" if one.is_same else "DIFFERS"
        told = f"{one.name:<18} {one.source.rows:>12,}  {verdict}"
        if one.changed:
            told += f", {one.changed:,} texts with U+FFFD for what PostgreSQL can't keep"
        typer.echo(told.rstrip())
    if moved.dry_run and moved.before:
        say("It was moved before; without --dry-run both sides are compared.")
    elif moved.dry_run:
        say("Nothing was changed.")
    elif moved.is_done:
        say(
            "Everything is there. Set DATABASE_URL to the PostgreSQL database for every process,"
            " and start them. Keep the SQLite file as a backup, and start no receiver on it."
        )

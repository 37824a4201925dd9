"""Floor 5, assembly: `reelhook backup` and `restore`. typer only."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from receiver.cli.options import Json
from receiver.cli.output import (
    FAILED,
    UNREACHABLE,
    USAGE,
    fail,
    say,
    settings_of,
    show,
    with_client,
)

if TYPE_CHECKING:
    from typing import BinaryIO

    from receiver.client import BackupMade, Client
    from receiver.settings import Settings
    from receiver.store.sqlite.restore import Restored

ELSEWHERE: Final = (
    "PostgreSQL makes its own backups; use its own tools for this too: {}. docs/backup.md."
)


def backup(
    to: Annotated[
        str, typer.Option("--to", help="Also copy it to this file of yours; - is stdout.")
    ] = "",
    keep: Annotated[
        int | None, typer.Option("--keep", min=1, max=10_000, help="Let so many stay, the newest.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Let the running receiver copy everything, checked and on disk, while callbacks go on.

    It goes to the directory REELHOOK_BACKUP_DIR of the receiver's machine.

    reelhook backup --keep 14
    reelhook backup --to /mnt/elsewhere/reelhook.db
    reelhook backup --to - | gzip > reelhook.db.gz
    """

    async def use(client: Client) -> None:
        made = await client.backup(keep=keep)
        if to:
            _hand_over(made, to)
        if to == "-":
            say(f"Backup {made.path}, {made.bytes:,} bytes, SHA-256 {made.sha256}.")
        else:
            show(made, as_json)

    with_client(use)


def _hand_over(made: BackupMade, to: str) -> None:
    try:
        with Path(made.path).open("rb") as found:
            if to == "-":
                _copy(made, found, sys.stdout.buffer)
            else:
                _copy_to_file(made, found, Path(to))
    except OSError as error:
        fail(
            f"The backup was made: {made.path} on the receiver's machine. It can't be copied to"
            f" {to}: {error.strerror or error}: {error.filename or to}. Where the receiver is"
            " another machine, or another user, fetch it from there.",
            FAILED,
        )


def _copy(made: BackupMade, found: BinaryIO, target: BinaryIO) -> None:
    import hashlib

    digest = hashlib.sha256()
    while piece := found.read(1 << 20):
        digest.update(piece)
        target.write(piece)
    target.flush()
    if digest.hexdigest() != made.sha256:
        raise OSError(None, "what is there is another file", made.path)


def _copy_to_file(made: BackupMade, found: BinaryIO, target: Path) -> None:
    from receiver import directories

    part = target.with_name(f"{target.name}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            _copy(made, found, file)
            os.fsync(descriptor)
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)
    directories.sync(target.absolute().parent)


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `reelhook backup` made.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file, change nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put a backup in the place of the database; the receiver must not run.

    The file is checked first. What was there stays beside it, under a name with the date.

    reelhook restore backups/reelhook-0a1b2c3d-20261128T031500000Z.db --dry-run
    reelhook restore backups/reelhook-0a1b2c3d-20261128T031500000Z.db
    """
    from receiver.clock import wall_clock
    from receiver.errors import CannotStart
    from receiver.store.sqlite.copies import NotWhole
    from receiver.store.sqlite.restore import restore as put_back

    database = _database_of(settings_of())
    try:
        found = put_back(file, database, now=wall_clock(), dry_run=dry_run)
    except NotWhole as error:
        fail(f"{error} Nothing was touched.", FAILED)
    except CannotStart as error:
        fail(str(error), UNREACHABLE)
    if as_json:
        _tell_json(found, database, dry_run)
    else:
        _tell(found, database, dry_run)


def _database_of(settings: Settings) -> Path:
    from receiver.errors import SettingsRefused

    if settings.on_postgres:
        fail(ELSEWHERE.format("pg_restore --clean --if-exists, or its host's snapshots"), USAGE)
    try:
        return settings.database_path
    except SettingsRefused as error:
        fail(str(error), UNREACHABLE)


def _tell_json(found: Restored, database: Path, dry_run: bool) -> None:
    import json

    facts: dict[str, Any] = {
        "restored": not dry_run,
        "database": str(database),
        "instance": found.contents.instance,
        "schema_version": found.contents.schema_version,
        "counts": found.contents.counts,
        "due": found.due,
        "previous": None if found.previous is None else str(found.previous),
        "previous_instance": found.previous_instance,
    }
    typer.echo(json.dumps(facts))


def _tell(found: Restored, database: Path, dry_run: bool) -> None:
    held = ", ".join(f"{count:,} {name}" for name, count in found.contents.counts.items() if count)
    say(f"The backup is whole: {held}.")
    if found.previous_instance not in (None, found.contents.instance):
        say("It is of another receiver than the database that it replaces.")
    if dry_run:
        say("Nothing was changed.")
        return
    say(f"{database} is the backup now.")
    if found.previous is not None:
        say(f"What was there is {found.previous}; drop it when you are sure.")
    say(
        "Next: start the receiver (`reelhook serve`), then run `reelhook reconcile`: what came in"
        f" after the backup is on the platforms still. {found.due:,} open tasks are due for it."
    )

"""Floor 2, edges: a backup takes a database's place while nobody has it open. sqlite3 only.

A log beside the database belongs to the one that was there before. SQLite can't tell: it would play
it into the restored one, which would be damaged, or hold rows of two histories. So it goes away
with its own database before the new one comes. What is written half-way is never taken for a
database: as long as `NAME.restoring` is there, no receiver starts (receiver/store/sqlite/place.py).
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from receiver import directories
from receiver.clock import to_datetime
from receiver.errors import CannotStart
from receiver.store.sqlite.copies import Contents, NotWhole, contents, copy_whole, instance_of
from receiver.store.sqlite.lock import check_nobody_else, not_writable, take_lock
from receiver.store.sqlite.place import RESTORING, check_filesystem

_DUE: Final = (
    "UPDATE tasks SET reconcile_at = min(coalesce(reconcile_at, ?), ?)"
    " WHERE completed_at IS NULL AND submit_state <> 'rejected'"
)
DRAFT: Final = ".restore"


@dataclass(frozen=True, slots=True)
class Restored:
    """What is there now, and under which name what was there before, if anything was."""

    contents: Contents
    previous: Path | None
    previous_instance: str | None  # None: there was nothing, or nothing that can be read
    due: int  # tasks that are to be asked after


def restore(backup: Path, database: Path, *, now: int, dry_run: bool = False) -> Restored:
    """Put a backup in a database's place, and keep what was there beside it. `now` in milliseconds.

    Raises NotWhole before anything is touched, StoreLocked while somebody has it, CannotStart.
    """
    database = check_filesystem(database.resolve())
    if not backup.is_file():
        raise CannotStart(f"There is no file {backup}.", path=str(backup))
    if database.exists() and backup.samefile(database):
        raise CannotStart(f"{backup} is the receiver's database itself.", path=str(backup))
    lock = take_lock(database)
    try:
        check_nobody_else(database)
        return _restore(backup.resolve(), database, now, dry_run)
    except OSError as error:
        raise not_writable(database, error) from error
    finally:
        os.close(lock)


def _restore(backup: Path, database: Path, now: int, dry_run: bool) -> Restored:
    draft = Path(f"{database}{DRAFT}")
    draft.unlink(missing_ok=True)
    try:
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        copy_whole(backup, draft)
        found = contents(draft, thorough=True)
        due = _make_due(draft, now)
        kept, whose = _previous(database, now), instance_of(database)
        if not dry_run:
            _belong_to_the_receiver(draft, database)
            _sync(draft)
            _switch(draft, database, kept)
    finally:
        draft.unlink(missing_ok=True)
    return Restored(found, kept, whose, due)


def _make_due(draft: Path, now: int) -> int:
    """Have every open task asked after: its callbacks may have come since the backup."""
    try:
        with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")  # no log beside a draft
            connection.execute("PRAGMA trusted_schema = OFF")
            return connection.execute(_DUE, (now, now)).rowcount
    except sqlite3.Error as error:
        raise NotWhole(f"The backup can't be used: {error}.", path=str(draft)) from error


def _belong_to_the_receiver(draft: Path, database: Path) -> None:
    """Give what root made to whom the database or its directory belongs, who has to open it."""
    if os.geteuid() == 0:
        owner = (database if database.exists() else database.parent).stat()
        for path in (draft, Path(f"{database}.lock")):
            os.chown(path, owner.st_uid, owner.st_gid)


def _previous(database: Path, now: int) -> Path | None:
    """The name that what is there now will have."""
    if not (database.exists() or Path(f"{database}-wal").exists()):
        return None
    at = f"{to_datetime(now):%Y%m%dT%H%M%SZ}"
    name, more = Path(f"{database}.replaced-{at}"), 1
    while name.exists() or Path(f"{name}-wal").exists():
        more += 1
        name = Path(f"{database}.replaced-{at}-{more}")
    return name


def _switch(draft: Path, database: Path, kept: Path | None) -> None:
    folder, restoring = database.parent, Path(f"{database}{RESTORING}")
    draft.rename(restoring)  # from here to the end no receiver starts
    directories.sync(folder)
    if kept is not None:
        _put_aside(database, kept)
    for end in ("-wal", "-shm"):
        Path(f"{database}{end}").unlink(missing_ok=True)
    directories.sync(folder)
    restoring.rename(database)
    directories.sync(folder)


def _put_aside(database: Path, kept: Path) -> None:
    log = Path(f"{database}-wal")
    if database.exists():
        database.rename(kept)
    if log.exists() and log.stat().st_size:
        log.rename(f"{kept}-wal")  # by its name SQLite finds it again


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Floor 2, edges: a consistent copy of the database while the receiver runs. sqlite3 only.

A connection of its own copies page by page in one read transaction, so that callbacks go on and the
copy is of one moment. It never checkpoints, nor may the writer meanwhile (`SqliteEngine.reading`):
a checkpoint would wait for this reader in vain. VACUUM INTO holds ingest up longer, and can't be
told to stop (docs/performance.md).

What stands under its last name in the directory is whole, checked, and on disk.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from receiver import directories
from receiver.backups import BackupMade
from receiver.clock import to_datetime
from receiver.errors import StoreFull, StoreUnavailable
from receiver.store.sqlite.copies import Contents, NotWhole, contents
from receiver.store.sqlite.place import LEAST_FREE

PAGES: Final = 64  # copied at once; between them it looks whether it shall stop
PIECE: Final = 1 << 20  # bytes that are hashed at once
PART: Final = ".part"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A backup to make: of which database, whose, and where. `keep` None: all that are there."""

    database: Path
    instance: str
    folder: Path
    keep: int | None
    now: int  # milliseconds


def back_up(wanted: Wanted, stop: threading.Event) -> BackupMade:
    """Copy, check, and name. Raises StoreUnavailable, and leaves nothing half-done behind.

    Once `stop` is set it ends within some pages.
    """
    begun = time.perf_counter()
    try:
        directories.make(wanted.folder)
        _check_room(wanted)
        path = _name(wanted)
        part = path.with_name(path.name + PART)
        _drop_parts(wanted)
        try:
            found = _copied(wanted, part, stop)
            digest = _settled(part, stop)
            part.rename(path)
            directories.sync(wanted.folder)
        finally:
            part.unlink(missing_ok=True)
        dropped = _drop_old(wanted)
    except (OSError, sqlite3.Error, NotWhole) as error:
        raise StoreUnavailable(f"The backup could not be made: {error}.") from error
    return BackupMade(
        path=str(path),
        bytes=path.stat().st_size,
        sha256=digest,
        created_at=to_datetime(wanted.now),
        seconds=round(time.perf_counter() - begun, 3),
        instance=found.instance,
        schema_version=found.schema_version,
        counts=found.counts,
        dropped=dropped,
    )


def _check_room(wanted: Wanted) -> None:
    log = Path(f"{wanted.database}-wal")
    needed = wanted.database.stat().st_size + log.stat().st_size
    room = os.statvfs(wanted.folder)
    free = room.f_bavail * room.f_frsize
    if free < needed + LEAST_FREE:
        raise StoreFull(
            f"{free >> 20} MiB are left on the disk of {wanted.folder}; the backup needs"
            f" {needed >> 20}, and {LEAST_FREE >> 20} have to stay free. Name another directory in"
            " REELHOOK_BACKUP_DIR, or keep fewer.",
            free=free,
        )


def _name(wanted: Wanted) -> Path:
    # Sorted by name they are sorted by age. Whoever shares the directory has another instance.
    now = wanted.now
    while True:
        at = to_datetime(now)
        text = f"{at:%Y%m%dT%H%M%S}{now % 1_000:03}Z"
        path = wanted.folder / f"reelhook-{wanted.instance[:8]}-{text}.db"
        if not path.exists():
            return path
        now += 1


def _ours(wanted: Wanted, end: str = "") -> list[Path]:
    shape = re.compile(rf"reelhook-{wanted.instance[:8]}-\d{{8}}T\d{{9}}Z\.db{re.escape(end)}")
    return sorted(path for path in wanted.folder.iterdir() if shape.fullmatch(path.name))


def _drop_parts(wanted: Wanted) -> None:
    for path in _ours(wanted, PART):  # of a receiver that was killed over it
        path.unlink()


def _copied(wanted: Wanted, part: Path, stop: threading.Event) -> Contents:
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    uri = f"file:{quote(str(wanted.database))}?mode=ro"
    with (
        closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as source,
        closing(sqlite3.connect(part, isolation_level=None)) as target,
    ):
        source.execute("PRAGMA wal_autocheckpoint = 0")
        # It is synced as a whole, once; a half one is thrown away.
        target.execute("PRAGMA journal_mode = OFF")
        target.execute("PRAGMA synchronous = OFF")
        # In a transaction of its own the copy need not begin anew whenever somebody writes.
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        source.backup(target, pages=PAGES, progress=_stopping(stop))
    found = contents(part, thorough=False, is_over=stop.is_set)
    if found.instance != wanted.instance:
        raise NotWhole("the copy is of another receiver")
    return found


def _stopping(stop: threading.Event) -> Callable[..., None]:
    def progress(*_pages: int) -> None:
        if stop.is_set():
            raise StoreUnavailable("The receiver is stopping; the backup was given up.")

    return progress


def _settled(part: Path, stop: threading.Event) -> str:
    """Put a file on disk; its SHA-256."""
    check = _stopping(stop)
    digest = hashlib.sha256()
    with part.open("rb") as file:
        os.fsync(file.fileno())
        while piece := file.read(PIECE):
            check()
            digest.update(piece)
    return digest.hexdigest()


def _drop_old(wanted: Wanted) -> list[str]:
    if wanted.keep is None:
        return []
    old = _ours(wanted)[: -wanted.keep]
    for path in old:
        path.unlink()
    return [path.name for path in old]

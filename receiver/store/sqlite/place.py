"""Floor 2, edges: where a database lies: may it be there, is it still, is there room. os only.

Write-ahead logging needs memory that all readers share, which no network filesystem gives
(sqlite.org/wal.html), so a receiver does not start on one. And a file that is deleted, replaced or
cut while it is open goes on taking commits that nobody will ever find: that has to be noticed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from receiver.errors import CannotStart, StoreBroken, StoreFull

MOUNTS: Final = Path("/proc/self/mountinfo")  # Linux alone; elsewhere nothing is refused
LEAST_FREE: Final = 64 << 20  # bytes; below that no callback is taken in
LOOK_AT_ROOM: Final = 1.0  # seconds between looks at what changes slowly
RESTORING: Final = ".restoring"  # behind the name of a database whose place is just being taken
JOURNAL_LIMIT: Final = 64 << 20  # bytes to which SQLite itself may cut a log that is home

# As the kernel calls them; those in user space are called fuse.NAME.
_NETWORK: Final = frozenset(
    {
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gcsfuse", "glusterfs"),
        *("juicefs", "lustre", "mount.davfs", "ncpfs", "nfs", "nfs4", "orangefs", "prl_fs"),
        *("pvfs2", "rclone", "s3fs", "smb3", "smbfs", "smbnetfs", "sshfs", "vboxsf", "vmhgfs"),
        *("vmhgfs-fuse",),
    }
)


def check_place(path: Path, mounts: str | None = None) -> Path:
    """Where a database named `path` lies, links followed: SQLite puts its log beside that file.

    Touches nothing. `mounts` stands for the text of /proc/self/mountinfo. Raises CannotStart with
    what to change.
    """
    path = check_filesystem(path.resolve(), mounts)
    restoring = Path(f"{path}{RESTORING}")
    if restoring.exists():
        raise CannotStart(
            f"{restoring} is there: a restore was stopped amid its work. Run `reelhook restore` of"
            " the same backup again.",
            path=str(restoring),
        )
    log = Path(f"{path}-wal")
    if _size(log) and not _size(path):
        raise CannotStart(
            f"{log} is there, and the database it belongs to is missing or empty: SQLite would"
            " throw the log away, with what was acknowledged last. Put the database back beside"
            f" it; or move {log.name} away to begin anew."
        )
    return path


def check_filesystem(path: Path, mounts: str | None = None) -> Path:
    """The same path, if a database may lie there. Raises CannotStart."""
    found = network_filesystem(mounted() if mounts is None else mounts, str(path))
    if found:
        raise CannotStart(
            f"{path} lies on a network filesystem ({found}), where SQLite can lose what was"
            " acknowledged. Set REELHOOK_DATA_DIR to a directory on a local disk.",
            filesystem=found,
        )
    if path.is_dir():
        raise CannotStart(f"{path} is a directory. DATABASE_URL has to name a file.")
    return path


def network_filesystem(mounts: str, path: str) -> str | None:
    """The type of the network filesystem that `path` lies on, by a text like /proc/self/mountinfo.

    None for a local one. A filesystem in user space tells its name only if it wants to.
    """
    kind = filesystem(mounts, path)
    return kind if kind.removeprefix("fuse.") in _NETWORK else None


def filesystem(mounts: str, path: str) -> str:
    """The type of the filesystem that `path` lies on, as the kernel calls it; "" if unknown."""
    best, kind = -1, ""
    for point, found in _mount_points(mounts):
        # Of two mounts at one place the later one is seen.
        if _lies_under(path, point) and len(point) >= best:
            best, kind = len(point), found
    return kind


def _mount_points(mounts: str) -> Iterator[tuple[str, str]]:
    # 36 35 98:0 /root /mount\040point rw,noatime master:1 - ext3 /dev/root rw (proc(5))
    for line in mounts.splitlines():
        place, _, rest = line.partition(" - ")
        fields, kind = place.split(" "), rest.partition(" ")[0]
        if len(fields) > 4 and kind:
            yield _unescaped(fields[4]), kind


def _unescaped(text: str) -> str:
    # Space, tab, newline and backslash are written as three octal digits.
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _lies_under(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def mounted() -> str:
    """What is mounted, as Linux tells it; "" elsewhere."""
    try:
        return MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _name(path: str) -> str:
    # The public probe shows these messages, so not where it lies.
    return os.path.basename(path)


class Place:
    """The files of one open database. `look` and `moved_home` belong to the writer's thread."""

    def __init__(self, path: Path, *, least_free: int = LEAST_FREE) -> None:
        self._path = str(path)  # looked at with every batch, and a Path takes twice as long
        self._log = f"{path}-wal"
        self._least_free = least_free
        self._free = least_free
        self._next_room = 0.0
        self._known: dict[str, os.stat_result] = {}

    @property
    def wal_size(self) -> int:
        """Bytes of the write-ahead log at the last look."""
        return self._known[self._log].st_size

    @property
    def free(self) -> int:
        """Bytes that are left on the disk, by the last look."""
        return self._free

    def begin(self, lock: int) -> None:
        """Remember the files as they are now, among them the one that `lock` is open on."""
        self._known = {path: os.stat(path) for path in (self._path, self._log)}
        self._lock = os.fstat(lock)
        self._look_around()

    def admit(self) -> None:
        """Raises StoreFull while there is too little room. No I/O: by the last look."""
        if self._free < self._least_free:
            raise StoreFull(
                f"{self._free >> 20} MiB are left on the disk of {_name(self._path)}, at least"
                f" {self._least_free >> 20} have to be free to take callbacks in.",
                free=self._free,
            )

    def look(self) -> None:
        """Look at the files, and once a second at the lock and the room that is left.

        Raises StoreBroken when one is gone, another one, or shorter than it was.
        """
        for path, known in self._known.items():
            self._known[path] = self._same(path, known)
        now = time.monotonic()
        if now >= self._next_room:
            self._next_room = now + LOOK_AT_ROOM
            self._look_around()

    def _look_around(self) -> None:
        self._same(f"{self._path}.lock", self._lock)
        room = os.statvfs(self._path)
        self._free = room.f_bavail * room.f_frsize

    def moved_home(self) -> None:
        """A checkpoint of ours made the log shorter, and the database longer or shorter."""
        for path, known in self._known.items():
            self._known[path] = self._same(path, known, size=0)

    def _same(self, path: str, known: os.stat_result, size: int | None = None) -> os.stat_result:
        try:
            found = os.stat(path)
        except OSError as error:
            raise self._gone(path, f"can't be found any more ({error.strerror})") from error
        if (found.st_ino, found.st_dev) != (known.st_ino, known.st_dev):
            raise self._gone(path, "is another file than the one that was opened")
        least = known.st_size if size is None else size
        if found.st_size < (min(least, JOURNAL_LIMIT) if path == self._log else least):
            raise self._gone(path, f"was cut from {known.st_size} to {found.st_size} bytes")
        return found

    def _gone(self, path: str, what: str) -> StoreBroken:
        return StoreBroken(
            f"{_name(path)} {what}: somebody changed it while the receiver ran. What is written"
            " from now on would be lost, so the receiver ends. Put the file back, or restore a"
            " backup, then start it again; nobody else may touch these files while it runs.",
            path=path,
        )

"""What a receiver did to its files and when it answered, read from strace's log, in one order.

strace stops a thread before each call and after it, and writes what it saw in that order. So an
answer counts from the moment before its first byte left, a write from the moment it was done, and
a sync covers what was done before it began, from the moment it has ended.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

# Everything that may change a file or a directory, and everything that may send an answer.
CALLS: Final = (
    "openat,open,creat,close,dup,dup2,dup3,write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,"
    "ftruncate,truncate,fallocate,fsync,fdatasync,sync_file_range,sync,syncfs,copy_file_range,"
    "sendfile,rename,renameat,renameat2,link,linkat,symlink,unlink,unlinkat,mkdir,mkdirat,rmdir"
)
LONGEST: Final = 1 << 20  # bytes of a string that strace shows
PATIENCE: Final = 20.0  # seconds for strace to write its last lines


class Unexplained(Exception):
    """The log has something that this reader does not know, so it may not be trusted."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The first byte of a 200 is about to leave towards this port of a client's."""

    port: int


@dataclass(frozen=True, slots=True)
class Wrote:
    """Bytes of a file, in the page cache from now on."""

    file: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """A file's new size."""

    file: int
    size: int


@dataclass(frozen=True, slots=True)
class SyncBegan:
    """A sync that will cover what was done to a file, or to a directory's entries, until now."""

    what: int | str
    thread: int


@dataclass(frozen=True, slots=True)
class SyncEnded:
    """That sync has succeeded."""

    what: int | str
    thread: int


@dataclass(frozen=True, slots=True)
class Entered:
    """A directory has a new entry: a file, or a directory (None)."""

    folder: str
    name: str
    file: int | None


@dataclass(frozen=True, slots=True)
class Left:
    """A directory has lost an entry."""

    folder: str
    name: str


@dataclass(frozen=True, slots=True)
class Renamed:
    """An entry is gone from one place and stands in another, both or neither."""

    old: tuple[str, str]
    new: tuple[str, str]
    file: int | None


Step = Acknowledged | Wrote | Cut | SyncBegan | SyncEnded | Entered | Left | Renamed


def strace(log: Path) -> tuple[str, ...]:
    """What to put in front of a command; with -D the started process is the traced one."""
    return (
        *("strace", "-D", "-f", "--seccomp-bpf", "-yy", "-xx"),
        *("-s", str(LONGEST), "-e", f"trace={CALLS}", "-o", str(log), "--"),
    )


def wait_for_end(log: Path, pid: int) -> None:
    """Wait until strace has written that the process is gone. Raises Unexplained."""
    ends = re.compile(rf"^{pid} +\+\+\+ (exited|killed) ".encode(), re.MULTILINE)
    begun = time.monotonic()
    while not ends.search(_tail(log)):
        if time.monotonic() > begun + PATIENCE:
            raise Unexplained(f"strace has not written the end of {pid}")
        time.sleep(0.05)


def _tail(log: Path) -> bytes:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 65_536))
        return file.read()


_LINE: Final = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$", re.DOTALL)
_UNFINISHED: Final = " <unfinished ...>\n"
_RESULT: Final = re.compile(r"\) += (-?\d+|\?)")
_FD: Final = re.compile(r"(\d+)<([^,]*)>")
_TEXT: Final = re.compile(r'"([^"]*)"(\.\.\.)?')
_PEER: Final = re.compile(r"TCP(?:v6)?:\[.*->.*:(\d+)\]")
_OK: Final = b"HTTP/1.1 200 "


@cache
def _text(escaped: str) -> str:
    return _bytes(escaped).decode()


def _bytes(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


@dataclass(slots=True)
class Reader:
    """Reads the logs of a data directory's lives, one after the other."""

    root: str  # above the data directory; what lies outside is of no interest
    names: dict[str, int | None] = field(default_factory=dict)  # path -> file, None: a directory
    files: int = 0
    _fds: dict[int, int | str] = field(default_factory=dict)
    _begun: dict[int, tuple[str, str]] = field(default_factory=dict)
    _appended: set[int] = field(default_factory=set)

    def read(self, log: Path) -> Iterator[Step]:
        """The steps of one life. Raises Unexplained."""
        self._fds, self._begun = {}, {}
        with log.open() as lines:
            for line in lines:
                found = _LINE.match(line)
                if found is not None:
                    yield from self._line(*found.groups())
        yield from self._interrupted()

    def _interrupted(self) -> Iterator[Step]:
        # A call that SIGKILL caught may have been done or not; the file tells.
        paths = {file: path for path, file in self.names.items()}
        for call, rest in self._begun.values():
            file = self._fds.get(_fd(rest))
            path = paths.get(file) if isinstance(file, int) else None
            if path is not None and call in ("pwrite64", "ftruncate"):
                (step,) = _DONE[call](self, 0, f"{rest})", 1 << 62)
                if _holds(Path(path), step):
                    yield step

    def _line(self, thread: str, resumed: str | None, call: str, rest: str) -> Iterator[Step]:
        pid = int(thread)
        if resumed is not None:
            call, before = self._begun.pop(pid)
            yield from self._ended(pid, call, before + rest)
            return
        unfinished = rest.endswith(_UNFINISHED)
        rest = rest.removesuffix(_UNFINISHED)
        self._begun.pop(pid, None)
        yield from self._began(pid, call, rest)
        if unfinished:
            self._begun[pid] = (call, rest)
        else:
            yield from self._ended(pid, call, rest)

    def _began(self, pid: int, call: str, rest: str) -> Iterator[Step]:
        if call == "close":
            self._fds.pop(_fd(rest), None)
        elif call in ("fsync", "fdatasync") and (what := self._fds.get(_fd(rest))) is not None:
            yield SyncBegan(what, pid)
        elif call in ("write", "writev", "sendto", "sendmsg"):
            yield from _acknowledged(rest)

    def _ended(self, pid: int, call: str, rest: str) -> Iterator[Step]:
        result = _RESULT.search(rest, rest.rfind(")"))
        if result is None or result[1] == "?":
            self._begun[pid] = (call, rest.partition(") ")[0])
            return
        if int(result[1]) < 0:
            return
        done = _DONE.get(call)
        if done is not None:
            yield from done(self, pid, rest, int(result[1]))

    def opened(self, _pid: int, rest: str, fd: int) -> Iterator[Step]:
        """A file or directory, perhaps a new one. The -shm is made anew, the lock has no bytes."""
        path = self._path(rest)
        if path is None or path.endswith(("-shm", ".lock")):
            return
        if path not in self.names:
            if "O_CREAT" not in rest:
                self._fds[fd] = path  # the root itself
                return
            self.files += 1
            self.names[path] = self.files
            yield Entered(*_split(path), self.files)
        file = self.names[path]
        self._fds[fd] = path if file is None else file
        if "O_TRUNC" in rest and file is not None:
            yield Cut(file, 0)

    def wrote(self, _pid: int, rest: str, count: int) -> Iterator[Step]:
        """Bytes at an offset."""
        file = self._fds.get(_fd(rest))
        if isinstance(file, int):
            data = _shown(rest)
            offset = int(rest[: rest.rindex(")")].rpartition(", ")[2])
            yield Wrote(file, offset, data[:count])

    def appended(self, _pid: int, rest: str, count: int) -> Iterator[Step]:
        """Bytes without an offset: a small file, written once from its start."""
        file = self._fds.get(_fd(rest))
        if isinstance(file, int):
            if file in self._appended:
                raise Unexplained("a file was written twice without an offset")
            self._appended.add(file)
            yield Wrote(file, 0, _shown(rest)[:count])

    def cut(self, _pid: int, rest: str, _result: int) -> Iterator[Step]:
        """A new size."""
        file = self._fds.get(_fd(rest))
        if isinstance(file, int):
            yield Cut(file, int(rest[: rest.rindex(")")].rpartition(", ")[2]))

    def synced(self, pid: int, rest: str, _result: int) -> Iterator[Step]:
        """A sync that went well."""
        what = self._fds.get(_fd(rest))
        if what is not None:
            yield SyncEnded(what, pid)

    def made(self, _pid: int, rest: str, _result: int) -> Iterator[Step]:
        """A directory."""
        path = self._path(rest)
        if path is not None:
            self.names[path] = None
            yield Entered(*_split(path), None)

    def removed(self, _pid: int, rest: str, _result: int) -> Iterator[Step]:
        """A name."""
        path = self._path(rest)
        if path in self.names:
            del self.names[path]
            yield Left(*_split(path))

    def renamed(self, _pid: int, rest: str, _result: int) -> Iterator[Step]:
        """A name, in place of another."""
        old, new = (_text(found) for found, _ in _TEXT.findall(rest))
        if old in self.names:
            self.names[new] = file = self.names.pop(old)
            yield Renamed(_split(old), _split(new), file)

    def unexplained(self, _pid: int, rest: str, _result: int) -> Iterator[Step]:
        """What the receiver does not do today. Raises Unexplained if it does it to its files."""
        touched = _FD.match(rest)
        known = touched is not None and isinstance(self._fds.get(int(touched[1])), int)
        if known or self.root in "".join(_text(found) for found, _ in _TEXT.findall(rest)):
            raise Unexplained(f"a call that this reader does not know: {rest[:200]}")
        return iter(())

    def _path(self, rest: str) -> str | None:
        found = _TEXT.search(rest)
        path = "" if found is None else _text(found[1])
        return path if path == self.root or path.startswith(f"{self.root}/") else None


_DONE: Final[Mapping[str, Callable[[Reader, int, str, int], Iterable[Step]]]] = {
    "openat": Reader.opened,
    "open": Reader.opened,
    "pwrite64": Reader.wrote,
    "write": Reader.appended,
    "ftruncate": Reader.cut,
    "fsync": Reader.synced,
    "fdatasync": Reader.synced,
    "mkdir": Reader.made,
    "unlink": Reader.removed,
    "rename": Reader.renamed,
    **dict.fromkeys(
        (
            *("creat", "dup", "dup2", "dup3", "writev", "pwritev", "pwritev2", "truncate"),
            *("fallocate", "copy_file_range", "sendfile", "renameat", "renameat2", "link"),
            *("linkat", "symlink", "unlinkat", "mkdirat", "rmdir"),
        ),
        Reader.unexplained,
    ),
}


def _holds(path: Path, step: Step) -> bool:
    if isinstance(step, Cut):
        return path.stat().st_size == step.size
    assert isinstance(step, Wrote)
    with path.open("rb") as file:
        file.seek(step.offset)
        return file.read(len(step.data)) == step.data


def _fd(rest: str) -> int:
    found = _FD.match(rest)
    return -1 if found is None else int(found[1])


def _shown(rest: str) -> bytes:
    found = _TEXT.search(rest)
    if found is None or found[2]:
        raise Unexplained(f"strace has cut what was written: {rest[:100]}")
    return _bytes(found[1])


def _acknowledged(rest: str) -> Iterator[Step]:
    found, text = _FD.match(rest), _TEXT.search(rest)
    if found is None or text is None or not _bytes(text[1][: 4 * len(_OK)]).startswith(_OK):
        return
    peer = _PEER.search(_text(found[2]) if found[2].startswith("\\x") else found[2])
    if peer is not None:
        yield Acknowledged(int(peer[1]))


def _split(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name

"""A disk that has lost power: what a trace left on it for sure, and what else may be there.

For sure there is what a finished fsync or fdatasync has covered, on the file, and for a name on its
directory. Of the rest each write may be there or not, whole or in sectors of 512 bytes, whatever
the order; of a directory's changes those up to some moment, since file systems keep their order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Final

from scripts.proofs.trace import (
    Acknowledged,
    Cut,
    Entered,
    Left,
    Renamed,
    Step,
    SyncBegan,
    SyncEnded,
    Wrote,
)

SECTOR: Final = 512  # bytes


class Kept(StrEnum):
    """What an image keeps of what was not synced."""

    NOTHING = "nothing"
    SOME = "some writes"
    TORN = "some sectors"
    ALL = "everything"


Change = Wrote | Cut
Naming = Entered | Left | Renamed


@dataclass(slots=True)
class _Pending:
    """Changes of one file or directory, by the moment they were made."""

    changes: list[tuple[int, Change | Naming]] = field(default_factory=list)

    def until(self, moment: int) -> list[Change | Naming]:
        """Take out what was made before."""
        found = [change for made, change in self.changes if made < moment]
        self.changes = self.changes[len(found) :]
        return found


class Disk:
    """Follows a trace step by step; at any moment the power may go."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._moment = 0
        self._names: dict[str, int | None] = {}
        self._contents: dict[int, bytearray] = defaultdict(bytearray)
        self._pending: dict[int | str, _Pending] = defaultdict(_Pending)
        self._syncs: dict[int, int] = {}  # thread -> the moment its sync began

    def follow(self, step: Step) -> None:
        """Take one step of the trace."""
        self._moment += 1
        match step:
            case Wrote() | Cut():
                self._pending[step.file].changes.append((self._moment, step))
            case Entered() | Left():
                self._pending[step.folder].changes.append((self._moment, step))
            case Renamed():
                self._pending[step.new[0]].changes.append((self._moment, step))
            case SyncBegan():
                self._syncs[step.thread] = self._moment
            case SyncEnded():
                self._make_sure(step)
            case Acknowledged():
                pass

    def _make_sure(self, sync: SyncEnded) -> None:
        for change in self._pending[sync.what].until(self._syncs.pop(sync.thread)):
            if isinstance(change, Wrote | Cut):
                _apply(self._contents[change.file], change)
            else:
                _rename(self._names, change)

    @property
    def unsynced(self) -> dict[str, int]:
        """By name, how many changes of it the power could take now."""
        current = dict(self._names)
        for pending in list(self._pending.values()):
            for _, change in pending.changes:
                if isinstance(change, Entered | Left | Renamed):
                    _rename(current, change)
        return {
            path.rpartition("/")[2]: len(self._pending[file].changes)
            for path, file in current.items()
            if file is not None and file in self._pending and self._pending[file].changes
        }

    def image(self, kept: Kept, chance: Random) -> dict[str, bytes]:
        """The files, by path below the root, that are found when the power is back."""
        names = dict(self._names)
        for what, pending in self._pending.items():
            if isinstance(what, str):
                whole = len(pending.changes)
                count = {Kept.NOTHING: 0, Kept.ALL: whole}.get(kept, chance.randint(0, whole))
                for _, change in pending.changes[:count]:
                    if isinstance(change, Entered | Left | Renamed):
                        _rename(names, change)
        return {
            path[len(self._root) + 1 :]: self._content(file, kept, chance)
            for path, file in names.items()
            if file is not None and self._reachable(path, names)
        }

    def _reachable(self, path: str, names: dict[str, int | None]) -> bool:
        folder = path.rpartition("/")[0]
        return folder == self._root or (folder in names and self._reachable(folder, names))

    def _content(self, file: int, kept: Kept, chance: Random) -> bytes:
        content = bytearray(self._contents.get(file, b""))
        if kept is Kept.NOTHING:
            return bytes(content)
        likely = 1.0 if kept is Kept.ALL else chance.choice((0.05, 0.3, 0.5, 0.7, 0.95))
        pending = self._pending.get(file, _Pending())
        for _, change in pending.changes:
            if chance.random() < likely and isinstance(change, Wrote | Cut):
                for part in _TORN[kept](change, chance):
                    _apply(content, part)
        return bytes(content)


def _apply(content: bytearray, change: Change) -> None:
    if isinstance(change, Cut):
        del content[change.size :]
        content.extend(bytes(change.size - len(content)))
        return
    content.extend(bytes(max(0, change.offset - len(content))))
    content[change.offset : change.offset + len(change.data)] = change.data


def _rename(names: dict[str, int | None], change: Naming) -> None:
    match change:
        case Entered():
            names[f"{change.folder}/{change.name}"] = change.file
        case Left():
            names.pop(f"{change.folder}/{change.name}", None)
        case Renamed():
            names.pop("/".join(change.old), None)
            names["/".join(change.new)] = change.file


def _whole(change: Change, _chance: Random) -> Iterator[Change]:
    yield change


def _in_sectors(change: Change, chance: Random) -> Iterator[Change]:
    if isinstance(change, Cut):
        yield change
        return
    start, end = change.offset, change.offset + len(change.data)
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        if chance.random() < 0.5:
            part = change.data[start - change.offset : stop - change.offset]
            yield Wrote(change.file, start, part)
        start = stop


_TORN: Final[dict[Kept, Callable[[Change, Random], Iterator[Change]]]] = {
    Kept.SOME: _whole,
    Kept.ALL: _whole,
    Kept.TORN: _in_sectors,
}


def write_image(image: dict[str, bytes], folder: Path) -> None:
    """Put an image's files below a folder."""
    for path, content in image.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

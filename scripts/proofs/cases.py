"""What happens to a receiver besides failing calls: locks, full disks, files that go, a clock."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from scripts.proofs.ground import Found, Ground
from scripts.proofs.harness import Line, callbacks_of
from scripts.proofs.sink import Sink

PATIENCE: Final = 10.0  # seconds
ROOM: Final = 96 << 20  # bytes of the disk that is filled
FAKETIME: Final = Path(f"/usr/lib/{os.uname().machine}-linux-gnu/faketime/libfaketimeMT.so.1")
HOUR: Final = 3_600  # seconds


@contextlib.asynccontextmanager
async def warm(folder: Path, found: Found) -> AsyncIterator[Ground]:
    """A receiver that has acknowledged a few, under load that goes on."""
    ground = Ground(folder, found)
    async with Sink() as sink:
        await ground.begin(sink)
        async with ground.posting():
            await ground.is_warm()
            yield ground
        await ground.restart()
        await ground.finish()


async def foreign_lock(folder: Path, found: Found, seconds: float) -> None:
    """Another process writes for so long."""
    async with warm(folder, found) as ground:
        with closing(sqlite3.connect(ground.receiver.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(0.1)  # the answers of the commit before are on their way
            before = len(ground.book.acknowledged)
            await asyncio.sleep(seconds)
            await ground.is_refusing("foreign lock")
            if len(ground.book.acknowledged) != before:
                ground.blame("foreign lock: acknowledged while nothing could be written")
            other.execute("ROLLBACK")
        await ground.recovers("foreign lock")


async def file_size_limit(folder: Path, found: Found) -> None:
    """The log may not grow any more (RLIMIT_FSIZE), as on a quota."""
    async with warm(folder, found) as ground:
        before = resource.prlimit(ground.pid, resource.RLIMIT_FSIZE)
        limit = _size(ground.receiver.data / "reelhook.db-wal")
        resource.prlimit(ground.pid, resource.RLIMIT_FSIZE, (limit, before[1]))
        await ground.is_refusing("file size limit")
        resource.prlimit(ground.pid, resource.RLIMIT_FSIZE, before)
        await ground.recovers("file size limit")


async def full_disk(folder: Path, found: Found) -> None:
    """A small disk of its own is filled to the last byte, and emptied."""
    with _disk(folder / "data"):
        async with warm(folder, found) as ground:
            ballast = folder / "data" / "ballast"
            with contextlib.suppress(OSError), ballast.open("wb") as file:
                while True:
                    file.write(bytes(1 << 20))
            await ground.is_refusing("full disk")
            ballast.unlink()
            await ground.recovers("full disk")


async def nearly_full_disk(folder: Path, found: Found) -> None:
    """Less room than the receiver wants is left, while every write still succeeds."""
    with _disk(folder / "data"):
        async with warm(folder, found) as ground:
            ballast = folder / "data" / "ballast"
            ballast.write_bytes(bytes(ROOM // 2))
            await ground.is_refusing("nearly full disk")
            ballast.unlink()
            await ground.recovers("nearly full disk")


async def read_only_disk(folder: Path, found: Found) -> None:
    """No start from a disk that can't be written, and one as soon as it can."""
    with _disk(folder / "data"):
        async with warm(folder, found) as ground:
            await ground.receiver.end()
            _mount("-o", "remount,ro", str(folder / "data"))
            if not await ground.refuses_to_start("read-only disk"):
                ground.blame("started on a read-only disk")
            _mount("-o", "remount,rw", str(folder / "data"))


GONE: Final = (
    ("reelhook.db", "deleted"),
    ("reelhook.db-wal", "replaced"),
    ("reelhook.db", "replaced"),
    ("reelhook.db-wal", "deleted"),
)
CUT: Final = ("reelhook.db-wal", "reelhook.db", "reelhook.db.lock")


async def file_gone(folder: Path, found: Found, name: str, do: str) -> None:
    """The database or its log is deleted or replaced; put back, everything is there."""
    async with warm(folder, found) as ground:
        await _file_gone(ground, ground.receiver.data / name, do)


async def _file_gone(ground: Ground, path: Path, do: str) -> None:
    files = [ground.receiver.database, ground.receiver.data / "reelhook.db-wal"]
    kept = [file.with_name(f"kept-{file.name}") for file in files]
    for file, link in zip(files, kept, strict=True):
        os.link(file, link)  # the very file that it has open
    os.unlink(path)
    if do == "replaced":
        os.close(os.open(path, os.O_CREAT))
    await ground.ends(f"{path.name} {do}")
    for file, link in zip(files, kept, strict=True):
        os.replace(link, file)


async def file_cut(folder: Path, found: Found, name: str) -> None:
    """The database or its log is cut: what was in it is gone, so that is not looked for."""
    ground = Ground(folder, found)
    async with Sink() as sink:
        await ground.begin(sink)
        async with ground.posting():
            await ground.is_warm()
            path = ground.receiver.data / name
            if size := _size(path):
                os.truncate(path, size // 2)
            else:
                os.unlink(path)
            await ground.ends(f"{name} cut")
    found.problems += ground.book.problems


def _size(path: Path) -> int:
    return path.stat().st_size


# The clock


class Moody(Sink):
    """Refuses the first attempt of each delivery, or takes its time; counts the attempts."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts: Counter[str] = Counter()
        self.refuses = False
        self.takes_s = 0.0

    async def answer(self, event: str) -> bytes:
        """What the receiver hears."""
        self.attempts[event] += 1
        await asyncio.sleep(self.takes_s)
        if self.refuses and self.attempts[event] == 1:
            return b"HTTP/1.1 500 Not Now\r\nContent-Length: 0\r\n\r\n"
        return await super().answer(event)


class Machine:
    """The offset that libfaketime gives the receiver's clock."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.offset = folder / "offset"
        self.ahead = 0
        self.step()
        self.began = self.ahead  # the time that the receiver takes for right when it starts

    def step(self) -> None:
        """Set the clock an hour forward, or back again."""
        self.ahead = HOUR - self.ahead
        self.offset.write_text(f"+{self.ahead}")


async def clock_set(folder: Path, found: Found, short: bool) -> None:
    """The system's clock is set an hour back, and an hour forward again (libfaketime)."""
    machine = Machine(folder)
    env = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(machine.offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "REELHOOK_DELIVERY_SCHEDULE": "0,2,2,2,2",
    }
    ground = Ground(folder / "clock", found, env=env)
    async with Moody() as sink:
        await ground.begin(sink)
        for _ in range(1 if short else 2):
            await _retried(ground, sink, machine)  # back; then forward
            await _taken(ground, machine)
            await _sent_once(ground, sink, machine)  # forward; then back
            await _taken(ground, machine)
            machine.step()
        await ground.finish()


async def _is_quiet(ground: Ground) -> None:
    # What belongs to one step must not be taken for what belongs to the next.
    def pending() -> int:
        with closing(sqlite3.connect(ground.receiver.database)) as connection:
            found = connection.execute(
                "SELECT count(*) FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id"
                " WHERE e.state = 'enabled' AND d.state <> 'succeeded'"
            )
            return int(found.fetchone()[0])

    if not await ground.until(lambda: not pending(), within=2 * PATIENCE):
        ground.blame("clock: deliveries are left over")


async def _retried(ground: Ground, sink: Moody, machine: Machine) -> None:
    sink.refuses = True
    sink.attempts.clear()
    await _post(ground)
    await ground.until(lambda: sink.attempts, within=PATIENCE)
    machine.step()
    if not await ground.until(lambda: 2 in sink.attempts.values(), within=PATIENCE):
        ground.blame("clock: a retry that was due after 2 s has not come")
    ground.found.note("clock: retried")
    sink.refuses = False
    await _is_quiet(ground)


async def _sent_once(ground: Ground, sink: Moody, machine: Machine) -> None:
    await _is_quiet(ground)
    sink.attempts.clear()
    sink.takes_s = 2.0
    await _post(ground)
    await ground.until(lambda: sink.attempts, within=PATIENCE)
    machine.step()
    await asyncio.sleep(6.0)  # lapsed leases are looked for every 5 s
    if set(sink.attempts.values()) != {1}:
        ground.blame(f"clock: attempts under way were made again: {sink.attempts}")
    ground.found.note("clock: sent once")
    sink.takes_s = 0.0
    await _is_quiet(ground)


async def _taken(ground: Ground, machine: Machine) -> None:
    # Minted before the step, as it were, and by another process of that machine after it.
    for ahead in (machine.began, machine.ahead):
        at = int((time.time() + ahead) * 1_000)
        await _post(ground, issued_at=at, expires_at=at + HOUR // 2 * 1_000)
    ground.found.note("clock: tokens taken")


async def _post(ground: Ground, **claims: int) -> None:
    (callback,) = callbacks_of(1, **claims)
    ground.book.sent[callback.task] = set(callback.keys)
    line = await Line.open(ground.receiver.port)
    answer = await line.ask(callback.request)
    ground.book.note(callback, answer)
    if answer is None or answer.status != 200:
        ground.blame(f"clock: answered {answer}")
    line.close()


# All of them


async def all_of_them(folder: Path, found: Found, lock_s: float, short: bool) -> list[str]:
    """Run what this machine allows; what was skipped, and why."""
    skipped = await asyncio.gather(
        _clock(folder / "faketime", found, short), _disks(folder, found, lock_s, short)
    )
    return [why for why in skipped if why]


async def _clock(folder: Path, found: Found, short: bool) -> str:
    if not FAKETIME.exists():
        return "the clock: apt install faketime"
    await clock_set(folder, found, short)
    return ""


async def _disks(folder: Path, found: Found, lock_s: float, short: bool) -> str:
    await foreign_lock(folder / "lock", found, lock_s)
    await file_size_limit(folder / "limit", found)
    for name, do in GONE[: 2 if short else None]:
        await file_gone(folder / f"{name}-{do}", found, name, do)
    for name in CUT[: 1 if short else None]:
        await file_cut(folder / f"{name}-cut", found, name)
    if os.getuid() != 0:
        return "full and read-only disks: only root may mount one"
    for case in (full_disk, nearly_full_disk, read_only_disk):
        await case(folder / case.__name__, found)
    return ""


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", f"size={ROOM}", "reelhook-proof", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)

"""`scripts/prove power`: the power goes at any moment, and every acknowledged callback is there.

The receiver runs under strace and concurrent load, is killed once and started again. From the log
the disk is rebuilt as it may be found at random moments, without what was not synced: nothing of
it, some writes, some sectors. Each image is opened by stdlib sqlite3, some by the receiver's own
store, and compared with the answers that had begun to leave by then. The control is the same with
`synchronous=NORMAL`, and must lose something.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from receiver.clock import wall_clock
from receiver.store.sqlite import SqliteStore
from scripts.proofs.altered import NORMAL, OFTEN, altered
from scripts.proofs.book import Book, load
from scripts.proofs.disk import Disk, Kept, write_image
from scripts.proofs.harness import Callback, Receiver, Verdict, options, progress, run
from scripts.proofs.sink import Sink
from scripts.proofs.stored import integrity_of, problems_of
from scripts.proofs.trace import Acknowledged, Reader, Step, strace, wait_for_end

LONGEST_LOAD: Final = 60.0  # seconds
ENDPOINTS: Final = 2
WEIGHTS: Final = {Kept.NOTHING: 10, Kept.SOME: 5, Kept.TORN: 4, Kept.ALL: 1}
REOPENED: Final = 0.03  # of the images are opened by the receiver's own store, too
FEWEST_CHECKPOINTS: Final = 5  # a trace
DATABASE: Final = "data/reelhook.db"
MEMORY: Final = Path("/dev/shm")


@dataclass(slots=True)
class Trace:
    """What happened, and when which callback was acknowledged."""

    root: str
    steps: list[Step] = field(default_factory=list)
    acknowledged: list[tuple[int, Callback]] = field(default_factory=list)  # (after so many steps,)
    sent: dict[str, set[str]] = field(default_factory=dict)
    callbacks: dict[bytes, Callback] = field(default_factory=dict)
    in_checkpoints: list[int] = field(default_factory=list)  # steps with the database unsynced
    problems: list[str] = field(default_factory=list)

    @property
    def checkpoints(self) -> list[int]:
        """The step at which each checkpoint began."""
        return [step for last, step in pairwise([0, *self.in_checkpoints]) if step > last + 1]


class Recording:
    """Makes a trace out of some lives of a receiver."""

    def __init__(self, folder: Path, alterations: Sequence[str], acknowledged: int) -> None:
        self._folder = folder
        self._target = acknowledged
        self._log = folder.with_name("strace.log")
        command = (*strace(self._log), *altered(*alterations))
        self._receiver = Receiver(folder, command=command)
        self._reader = Reader(str(folder))
        self._book = Book()
        self._trace = Trace(str(folder))

    async def run(self) -> Trace:
        """Two lives: one is killed, one is stopped, both under load."""
        async with Sink() as sink:
            await self._live(signal.SIGKILL, sink)
            await self._live(signal.SIGTERM, sink)
        self._check()
        self._trace.sent = self._book.sent
        return self._trace

    async def _live(self, end: signal.Signals, sink: Sink) -> None:
        await self._receiver.start()
        if not self._trace.steps:
            await self._receiver.add_endpoint()
            await self._receiver.add_endpoint(sink.url, paused=False)
        sent = await self._load(end)
        process = self._receiver.process
        assert process is not None
        await asyncio.to_thread(wait_for_end, self._log, process.pid)
        self._take_down(sent)

    async def _load(self, end: signal.Signals) -> dict[int, list[Callback]]:
        sent: dict[int, list[Callback]] = {}

        def note(port: int, callback: Callback) -> None:
            sent.setdefault(port, []).append(callback)
            self._trace.callbacks[callback.sha256] = callback

        half = self._target // 2
        lines = await load(self._receiver.port, self._book, half, LONGEST_LOAD, note)
        await self._receiver.end(end)
        await asyncio.gather(*lines)
        return sent

    def _take_down(self, sent: dict[int, list[Callback]]) -> None:
        trace = self._trace
        answered: Counter[int] = Counter()
        for step in self._reader.read(self._log):
            trace.steps.append(step)
            if isinstance(step, Acknowledged) and step.port in sent:
                callback = sent[step.port][answered[step.port]]
                answered[step.port] += 1
                trace.acknowledged.append((len(trace.steps), callback))

    def _check(self) -> None:
        # A trace that does not explain what is on the disk now explains no crash either.
        trace, book = self._trace, self._book
        trace.problems += book.problems
        if len(trace.acknowledged) < len(book.acknowledged):
            trace.problems.append("the log shows fewer answers than came")
        disk = Disk(trace.root)
        for number, step in enumerate(trace.steps, 1):
            disk.follow(step)
            if disk.unsynced.get("reelhook.db"):
                trace.in_checkpoints.append(number)
        told = disk.image(Kept.ALL, random.Random())
        found = {
            str(path.relative_to(self._folder)): path.read_bytes()
            for path in sorted((self._folder / "data").iterdir())
            if not path.name.endswith(("-shm", ".lock"))
        }
        if len(trace.checkpoints) < FEWEST_CHECKPOINTS:
            trace.problems.append(f"only {len(trace.checkpoints)} checkpoints: too few to see them")
        if told != found:
            differing = [
                name for name in told.keys() | found.keys() if told.get(name) != found.get(name)
            ]
            trace.problems.append(f"the trace does not explain {sorted(differing)}")


@dataclass(frozen=True, slots=True)
class Cutoff:
    """The power goes after so many steps, and so much of what was not synced is found again."""

    steps: int
    kept: Kept
    seed: int


@dataclass(slots=True)
class Findings:
    """What some images have shown."""

    images: Counter[str] = field(default_factory=Counter)
    checked: int = 0  # acknowledged callbacks, over all images
    reopened: int = 0
    in_checkpoint: int = 0  # images with unsynced changes of the database file itself
    bad: int = 0
    problems: list[str] = field(default_factory=list)

    def __iadd__(self, other: Findings) -> Findings:
        self.images += other.images
        self.checked += other.checked
        self.reopened += other.reopened
        self.in_checkpoint += other.in_checkpoint
        self.bad += other.bad
        self.problems += other.problems
        return self


def cutoffs(trace: Trace, count: int, kept: Sequence[Kept] = ()) -> list[Cutoff]:
    """Moments to look at: anywhere, right after an answer, inside checkpoints, a third each."""
    anywhere = range(1, len(trace.steps) + 1)
    answers = [steps for steps, _ in trace.acknowledged]
    pools = [anywhere, answers, trace.in_checkpoints or anywhere]
    kinds = [kept for kept, weight in WEIGHTS.items() for _ in range(weight)]
    found = [
        Cutoff(
            random.choice(pools[number % len(pools)]),
            random.choice(kept or kinds),
            random.getrandbits(32),
        )
        for number in range(count)
    ]
    return sorted(found, key=lambda cutoff: cutoff.steps)


def survey(trace: Trace, chosen: Iterable[Cutoff]) -> Findings:
    """Follow the trace, build and judge the chosen images."""
    found, disk, done = Findings(), Disk(trace.root), 0
    where = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="reelhook-power-", dir=where) as folder:
        for cutoff in chosen:
            for step in trace.steps[done : cutoff.steps]:
                disk.follow(step)
            done = cutoff.steps
            found.in_checkpoint += bool(disk.unsynced.get("reelhook.db"))
            _judge(trace, disk, cutoff, Path(folder) / "image", found)
    return found


def _judge(trace: Trace, disk: Disk, cutoff: Cutoff, folder: Path, found: Findings) -> None:
    chance = random.Random(cutoff.seed)
    image = disk.image(cutoff.kept, chance)
    acknowledged = {
        callback.sha256: callback for steps, callback in trace.acknowledged if steps <= cutoff.steps
    }
    write_image(image, folder)
    problems = problems_with(trace, folder, acknowledged)
    if not problems and (DATABASE not in image or chance.random() < REOPENED):
        found.reopened += 1
        problems = _reopened(folder) + problems_with(trace, folder, acknowledged)
    shutil.rmtree(folder, ignore_errors=True)
    found.images[cutoff.kept] += 1
    found.checked += len(acknowledged)
    if problems:
        found.bad += 1
        found.problems.append(
            f"after step {cutoff.steps} with {cutoff.kept} kept, seed {cutoff.seed},"
            f" {len(problems)} problems: {problems[0]}"
        )


def problems_with(trace: Trace, folder: Path, acknowledged: dict[bytes, Callback]) -> list[str]:
    """What is wrong with an image, if so much had been acknowledged."""
    database = folder / DATABASE
    doubtful = [
        callback for digest, callback in trace.callbacks.items() if digest not in acknowledged
    ]
    try:
        if not _has_tables(database):
            return [f"{len(acknowledged)} acknowledged, and no database"] if acknowledged else []
        found = problems_of(
            database, acknowledged.values(), in_doubt=doubtful, sent=trace.sent
        ) + integrity_of(database)
        if acknowledged and _endpoints(database) != ENDPOINTS:
            found.append("an endpoint is gone")
    except sqlite3.DatabaseError as error:
        return [f"the database can't be read: {error}"]
    if acknowledged and "signing_keys" not in _local(folder):
        found.append("the keys in local.json are gone")
    return found


def _has_tables(database: Path) -> bool:
    if not database.exists():
        return False
    # Writable, so that SQLite may roll a journal back, as it would for the receiver.
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        row = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'endpoints'")
        return bool(row.fetchone()[0])


def _endpoints(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT count(*) FROM endpoints").fetchone()[0])


def _local(folder: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((folder / "data/local.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def _reopened(folder: Path) -> list[str]:
    async def reopen() -> None:
        async with await SqliteStore.open(folder / DATABASE, clock=wall_clock) as store:
            await store.ready()

    try:
        asyncio.run(reopen())
    except Exception as error:
        return [f"the receiver's store can't be opened: {error!r}"]
    return []


_inherited: list[Trace] = []  # what forked workers look at


def _survey_inherited(chosen: Sequence[Cutoff]) -> Findings:
    return survey(_inherited[0], chosen)


def look(trace: Trace, chosen: Sequence[Cutoff], workers: int) -> Findings:
    """Survey with some processes, each a part of the moments."""
    _inherited[:] = [trace]
    found = Findings()
    parts = [chosen[number::workers] for number in range(workers)]
    forked = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, mp_context=forked) as pool:
        for findings in pool.map(_survey_inherited, parts):
            found += findings
    return found


def record(alterations: Sequence[str], acknowledged: int) -> Trace:
    """A fresh receiver's trace; its files are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="reelhook-power-") as folder:
        root = Path(folder) / "root"
        root.mkdir()
        return run(Recording(root, alterations, acknowledged).run())


def _asked() -> argparse.Namespace:
    parser = options("power", __doc__)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--acknowledged", type=int, default=400, help="callbacks a trace")
    parser.add_argument("--images-a-trace", type=int, default=2_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    if asked.ci:
        asked.images, asked.acknowledged = 300, 200
    return asked


def control(asked: argparse.Namespace) -> dict[str, Any]:
    """With NORMAL a commit is not synced, so the images must lack some."""
    trace = record((NORMAL, OFTEN), asked.acknowledged)
    found = look(trace, cutoffs(trace, 60, [Kept.NOTHING]), asked.workers)
    return {
        "images": found.images.total(),
        "images_that_lost": found.bad,
        "trace": trace.problems,
        "found": found.problems[:3],
    }


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def main() -> int:
    """Run the control, then the proof."""
    asked, verdict, begun = _asked(), Verdict("power"), time.monotonic()
    if shutil.which("strace") is None:
        raise SystemExit("This proof needs strace. Type: sudo apt install strace")
    verdict.control = {"synchronous=NORMAL": control(asked)}
    verdict.control_failed = verdict.control["synchronous=NORMAL"]["images_that_lost"] > 0
    found, sums = Findings(), Counter[str]()
    while found.images.total() < asked.images and not found.problems:
        trace = record((OFTEN,), asked.acknowledged)
        count = min(asked.images_a_trace, asked.images - found.images.total())
        found += look(trace, cutoffs(trace, count), asked.workers)
        found.problems += trace.problems
        sums += Counter(
            traces=1,
            steps=len(trace.steps),
            checkpoints=len(trace.checkpoints),
            acknowledged=len(trace.acknowledged),
        )
        progress(
            f"{found.images.total()} images, {found.bad} bad, {time.monotonic() - begun:.0f} s"
        )
    verdict.problems = found.problems
    verdict.figures = {
        "images": found.images.total(),
        "by_what_was_kept": dict(found.images),
        "inside_checkpoints": found.in_checkpoint,
        "reopened_by_the_store": found.reopened,
        "bad": found.bad,
        **sums,
        "acknowledged_over_all_images": found.checked,
        "sqlite": sqlite3.sqlite_version,
        "seconds": round(time.monotonic() - begun),
        "processor_seconds": round(_processor_seconds()),
    }
    return verdict.tell()


if __name__ == "__main__":
    sys.exit(main())

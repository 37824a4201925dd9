"""`scripts/prove faults`: a disk that refuses, and every acknowledged callback is there.

strace lets the k-th fdatasync fail with EIO, or some writes from the k-th on with ENOSPC or EIO, in
a real receiver under load and while it starts; other cases lock, fill, delete, replace or cut what
it stands on, or set its clock. It has to answer 503 with Retry-After or close, and then to recover
in the same process, or to end with exit code 1, within 5 s. Its file is compared with what was
acknowledged. The control acknowledges what the database refused and must be caught.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from scripts.proofs import cases
from scripts.proofs.altered import DESPITE_FAILURE, OFTEN, altered
from scripts.proofs.ground import WITHIN, Found, Ground
from scripts.proofs.harness import SERVE, Verdict, options, progress, run
from scripts.proofs.injection import Fault, Injection, around, hits
from scripts.proofs.sink import Sink
from scripts.proofs.stored import problems_of

LAPS_A_STORE: Final = 25
ALL_THE_REST: Final = 60_000  # calls
UNREACHED: Final = 4.0  # seconds of load after which the k-th call is not waited for any more
STARTS: Final = (  # what a start under faults goes through, in this order
    ("fdatasync", "EIO"),
    ("fsync", "EIO"),
    ("pwrite64", "ENOSPC"),
)


def planned(number: int) -> Iterator[Fault]:
    """Faults under load, k = 1, 2, 3, …; every other one a failed fsync."""
    for place in range(number):
        first = place // 2 + 1 if place < 60 else random.randint(1, 200)
        if place % 2 == 0:
            yield Fault("fdatasync", "EIO", first)
            continue
        call, error = (("pwrite64", "ENOSPC"), ("pwrite64", "EIO"))[place // 2 % 2]
        if place % 14 == 13:
            call, error = random.choice((("pread64", "EIO"), ("ftruncate", "EIO")))
        yield Fault(call, error, first, random.randint(1, 4))


async def lap(ground: Ground, fault: Fault) -> None:
    """One fault in a running receiver under load."""
    injection = Injection(fault, ground.receiver.folder)
    async with ground.posting():
        await injection.attach(ground.pid)
        struck = await ground.until(
            lambda: injection.hits or ground.code is not None, within=UNREACHED
        )
        begun = time.monotonic()
        if not struck:
            ground.found.note(f"not reached: {fault.error} on {fault.call}")
        elif fault.ends_it:
            await ground.ends(f"{fault.error} on {fault.call}", begun)
        else:
            await _passes(ground, injection)
        if ground.code is None:
            await injection.detach()
    await ground.restart()
    await ground.compare()


async def _passes(ground: Ground, injection: Injection) -> None:
    # Each failed write costs the receiver up to a second until its next try.
    fault = injection.fault
    await ground.until(
        lambda: injection.hits >= fault.count or ground.code is not None, within=fault.count + 1.0
    )
    await ground.recovers(f"{fault.error} on {fault.call}", may_end=fault.may_end_it)


async def under_load(folder: Path, number: int, found: Found) -> None:
    """All laps, over a few stores; every other store checkpoints often."""
    async with Sink() as sink:
        plan = list(planned(number))
        for begin in range(0, number, LAPS_A_STORE):
            often = begin // LAPS_A_STORE % 2 == 0
            command = altered(OFTEN) if often else SERVE
            ground = Ground(folder / f"load{begin}", found, command=command)
            await ground.begin(sink)
            for fault in plan[begin : begin + LAPS_A_STORE]:
                await lap(ground, fault)
            await ground.finish()
            done = min(begin + LAPS_A_STORE, number)
            progress(f"{done} of {number} faults under load, {len(found.problems)} problems")


async def while_starting(folder: Path, most: int, found: Found) -> None:
    """The k-th call fails while it starts, on an empty directory and on one that was in use."""
    async with Sink() as sink:
        for call, error in STARTS:
            for first in range(1, most + 1):
                fault = Fault(call, error, first, ALL_THE_REST)
                place = folder / f"{call}-{first}"
                reached = await asyncio.gather(
                    _start_under(place / "new", fault, found, None),
                    _start_under(place / "used", fault, found, sink),
                )
                if not any(reached):
                    break


async def _start_under(folder: Path, fault: Fault, found: Found, sink: Sink | None) -> bool:
    ground = Ground(folder, found)
    if sink is not None:
        await ground.begin(sink)
        async with ground.posting():
            await ground.is_warm()
            await ground.kill()
    log = _log_in(folder)
    ground.receiver.command = around(fault, log, SERVE)
    refused = await ground.refuses_to_start(f"{fault.error} on {fault.call}")
    if not refused:
        # The call comes later than the start; whatever it then hits is told by the other laps.
        found.note(f"started before it: {fault.error} on {fault.call}")
        await ground.kill()
    ground.receiver.command = SERVE
    await ground.receiver.start()
    await ground.finish()
    return hits(log) > 0


def _log_in(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "strace.log"


async def control(folder: Path) -> dict[str, Any]:
    """A receiver that acknowledges what the database refused; what is found to be lost."""
    found = Found()
    ground = Ground(folder, found, command=altered(DESPITE_FAILURE))
    async with Sink() as sink:
        await ground.begin(sink)
        injection = Injection(Fault("pwrite64", "ENOSPC", 3, 3), folder)
        async with ground.posting():
            await injection.attach(ground.pid)
            await ground.until(lambda: injection.hits >= 3, within=4 * WITHIN)
            await injection.detach()
        await ground.receiver.end()
    lost = problems_of(ground.receiver.database, ground.book.acknowledged)
    return {
        "acknowledged": len(ground.book.acknowledged),
        "injected": injection.hits,
        "lost_or_wrong": len(lost),
    }


async def main(chosen: argparse.Namespace) -> int:
    """All cases, then the verdict."""
    number = 8 if chosen.ci else chosen.faults
    found, verdict = Found(), Verdict("faults")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        verdict.control = await control(folder / "control")
        verdict.control_failed = verdict.control["lost_or_wrong"] > 0
        await under_load(folder, number, found)
        await while_starting(folder, 1 if chosen.ci else chosen.starts, found)
        progress(f"{found.outcomes.total()} cases, {len(found.problems)} problems")
        lock_s = 2.0 if chosen.ci else chosen.lock
        skipped = await cases.all_of_them(folder, found, lock_s, short=chosen.ci)
    verdict.problems = found.problems
    verdict.figures = {
        "faults_under_load": number,
        "outcomes": dict(sorted(found.outcomes.items())),
        "skipped": skipped,
        "acknowledged": found.acknowledged,
        "answers": dict(found.said),
        "compared": found.looks,
        "lost_or_wrong": len(found.problems),
        "longest_until_recovered_or_ended_s": found.longest_s,
    }
    return verdict.tell()


def _options() -> argparse.Namespace:
    parser = options("faults", __doc__)
    parser.add_argument("--faults", type=int, default=60, help="under load; by hand 1,000")
    parser.add_argument("--starts", type=int, default=40, help="k while starting goes up to this")
    parser.add_argument("--lock", type=float, default=60.0, help="seconds of a foreign lock")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(main(_options())))

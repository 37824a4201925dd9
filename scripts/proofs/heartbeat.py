"""How late an event loop is, told by a coroutine on it. `python -m scripts.proofs.heartbeat FILE`
beats on a loop that does nothing else: what the machine alone does to a loop at that moment.

Machines are shared, so a late beat is not yet a stall: the time in which threads of the process
were ready and got no processor (Linux tells it in schedstat) is taken off.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop

EVERY: Final = 0.02  # seconds between beats
NOTED: Final = 0.03  # seconds of lateness from which a beat is noted
MOST: Final = 2_000  # noted beats
PULSE_FILE: Final = "PROOF_HEARTBEAT"  # the variable that says where a receiver's beats go


@dataclass(slots=True)
class Late:
    """A late beat: when it was due and when it came (monotonic), and for how long of that the
    process was kept from running."""

    due: float
    came: float
    kept_waiting: float

    @property
    def lateness(self) -> float:
        """Seconds."""
        return self.came - self.due


@dataclass(slots=True)
class Pulse:
    """What a loop's heart did."""

    beats: int = 0
    worst: float = 0.0
    late: list[Late] = field(default_factory=list)

    def beat(self, due: float, came: float, kept_waiting: float) -> None:
        """Note one."""
        self.beats += 1
        self.worst = max(self.worst, came - due)
        if came - due >= NOTED and len(self.late) < MOST:
            self.late.append(Late(due, came, kept_waiting))

    def save(self, path: Path) -> None:
        """Write the file."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Pulse:
        """What a process saved."""
        found: dict[str, Any] = json.loads(path.read_text())
        return cls(found["beats"], found["worst"], [Late(**late) for late in found["late"]])


async def beat(path: Path) -> None:
    """Beat until cancelled, then save: a busy disk may hold up whoever writes a file."""
    pulse = Pulse()
    try:
        await _beat(pulse)
    finally:
        pulse.save(path)


async def _beat(pulse: Pulse) -> None:
    waits, due = _waits(), time.monotonic() + EVERY
    while True:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        came, now = time.monotonic(), _waits()
        # A wait is told at its end, and may have begun long ago.
        span = came - due + EVERY
        more = sorted(min(span, now[thread] - waits.get(thread, 0.0)) for thread in now)
        # The loop's own thread, and another one that may have had the interpreter's lock.
        pulse.beat(due, came, sum(more[-2:]))
        waits, due = now, came + EVERY


def _waits() -> dict[str, float]:
    """Seconds for which each thread of this process was ready and did not run, so far."""
    found = {}
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            stat = Path(f"/proc/self/task/{thread}/schedstat").read_text()
            found[thread] = int(stat.split()[1]) / 1e9
    return found


def stalls(loop: Pulse, idle: Pulse) -> list[float]:
    """Seconds of each late beat that neither a busy machine nor its hiccups explain, worst first.

    A hiccup is a moment in which the loop that does nothing was late as well.
    """
    found = (
        late.lateness - max(late.kept_waiting, sum(_shared(late, idle.late))) for late in loop.late
    )
    return sorted((stall for stall in found if stall > 0), reverse=True)


def _shared(late: Late, others: Sequence[Late]) -> Iterator[float]:
    for other in others:
        yield max(0.0, min(late.came, other.came) - max(late.due, other.due))


async def _beat_alone(path: Path) -> None:
    beating = asyncio.ensure_future(beat(path))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, beating.cancel)
    await asyncio.wait([beating])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_beat_alone(Path(sys.argv[1])))

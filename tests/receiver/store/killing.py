"""A program that says line by line what a store has acknowledged, killed amid its work."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from tests.doubles import LIMIT_S, ROOT


async def acknowledged_before_a_kill(module: str, path: Path, enough: int) -> list[int]:
    """The numbers that a module of this folder prints over a database until it is killed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"{__package__}.{module}", str(path)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    found: list[int] = []
    try:
        async with asyncio.timeout(LIMIT_S):
            while len(found) < enough:
                found.append(int(await process.stdout.readline()))
    finally:
        process.send_signal(signal.SIGKILL)
        rest = await process.stdout.read()
        ended = await process.wait()
    assert ended == -signal.SIGKILL
    return [*found, *map(int, rest.split(b"\n")[:-1])]

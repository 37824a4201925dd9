"""What `prove input` plants into a receiver: a heart on its event loop, and for the control three
defects on shapes that strangers send: it raises, it stalls, it hoards."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from receiver import ingest, serve
from scripts.proofs.heartbeat import PULSE_FILE, beat

STALL: Final = 0.3  # seconds
NESTED: Final = 100  # brackets from which a body stalls
HOARD: Final = 1 << 16  # bytes for each body


def _have_a_heart() -> None:
    serving = vars(serve)["serve"]

    async def serve_and_beat(*given: Any, **options: Any) -> None:
        beating = asyncio.create_task(beat(Path(os.environ[PULSE_FILE])))
        try:
            await serving(*given, **options)
        finally:
            beating.cancel()

    patch.object(serve, "serve", serve_and_beat).start()


def _raise_at_odd_text() -> None:
    reading = vars(ingest)["read"]

    def read(platform: str, body: bytes, task: str | None) -> Any:
        if b"ud800" in body or b"\xed\xa0\x80" in body:
            raise UnicodeEncodeError("utf-8", "?", 0, 1, "surrogates not allowed")
        return reading(platform, body, task)

    patch.object(ingest, "read", read).start()


def _stall_at_depth() -> None:
    reading = vars(ingest)["read"]

    def read(platform: str, body: bytes, task: str | None) -> Any:
        if body.count(b"[") > NESTED:
            time.sleep(STALL)
        return reading(platform, body, task)

    patch.object(ingest, "read", read).start()


def _hoard() -> None:
    reading = vars(ingest)["read"]
    kept: list[bytes] = []

    def read(platform: str, body: bytes, task: str | None) -> Any:
        kept.append(os.urandom(16) * (HOARD // 16))
        return reading(platform, body, task)

    patch.object(ingest, "read", read).start()


HEART: Final = "has-a-heart"
RAISES: Final = "raises-at-odd-text"
STALLS: Final = "stalls-at-depth"
HOARDS: Final = "hoards"
DEFECTS: Final = (RAISES, STALLS, HOARDS)

PLANTED: Final[Mapping[str, Callable[[], None]]] = {
    HEART: _have_a_heart,
    RAISES: _raise_at_odd_text,
    STALLS: _stall_at_depth,
    HOARDS: _hoard,
}

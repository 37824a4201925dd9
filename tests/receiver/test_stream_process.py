"""Streams of a receiver that is a process of its own: many of them, slow ones, stops, restarts."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from receiver.clock import DAY, wall_clock
from receiver.store.sqlite.engine import IDLE_WAL
from receiver.tokens import TokenBox, webhook_url
from tests.doubles import ADMIN_TOKEN, LIMIT_S, Running, running, wire
from tests.make import KEY, claims, success, uuid, wrapped
from tests.receiver.store.bench import until
from tests.receiver.streams import PATH, Stream, watch

pytestmark = [pytest.mark.anyio, pytest.mark.process]

HEADERS = {"authorization": f"Bearer {ADMIN_TOKEN}"}


async def call_back(receiver: Running, *numbers: int, padding: int = 0) -> None:
    """A platform's callback for each number, each with one event."""
    now = wall_clock()
    async with httpx.AsyncClient(base_url=receiver.ready["url"], trust_env=False) as http:
        for number in numbers:
            task = uuid(number)
            minted = claims(task=task, expected=2, issued_at=now, expires_at=now + DAY)
            path = webhook_url("", "runware", TokenBox([KEY]).mint(minted), {})
            body = wrapped(success(number, task, padding="x" * padding))
            (await http.post(path, content=body)).raise_for_status()


async def tasks(stream: Stream, count: int) -> list[str]:
    return [(await stream.shown()).data["task_id"] for _ in range(count)]


async def ended(receiver: Running, grace: float = LIMIT_S) -> int:
    return await asyncio.to_thread(receiver.process.wait, grace)


async def rest(streams: Sequence[Stream]) -> None:
    """Every stream ends between two messages, with its last chunk."""
    for stream in streams:
        while await stream.next() is not None:
            pass
        assert stream.over


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_many_streams_in_order(tmp_path: Path, sent: signal.Signals) -> None:
    with running(tmp_path, REELHOOK_GRACE="20") as receiver:
        async with AsyncExitStack() as stack:
            streams = []
            for _ in range(60):
                line = await stack.enter_async_context(wire(receiver.port))
                streams.append(await watch(line))
            for stream in streams:
                assert (stream.status, stream.headers["transfer-encoding"]) == (200, "chunked")
                assert await stream.next() is not None
            await call_back(receiver, 1, 2)
            for stream in streams:
                assert await tasks(stream, 2) == [uuid(1), uuid(2)]
            receiver.process.send_signal(sent)
            await rest(streams)
            assert await ended(receiver, 15) == 0  # and so before the grace is over
        assert "Traceback" not in receiver.stderr()


async def test_whoever_comes_back_after_a_restart_gets_what_was_missed(tmp_path: Path) -> None:
    seen: list[str] = []
    last = "0"
    for number in range(3):
        with running(tmp_path) as receiver:
            async with wire(receiver.port) as line:
                await call_back(receiver, 10 * number)  # while nobody listens
                stream = await watch(line, last_event_id=last)
                await call_back(receiver, 10 * number + 1)
                for _ in range(2):
                    said = await stream.shown()
                    seen.append(said.data["task_id"])
                    last = said.id
                await call_back(receiver, 10 * number + 2)  # what it may not have read yet
                receiver.process.terminate()
                await rest([stream])
                assert await ended(receiver) == 0
    with running(tmp_path) as receiver:
        async with httpx.AsyncClient(base_url=receiver.ready["url"], headers=HEADERS) as http:
            found = (await http.get(f"{PATH}?cursor={last}&wait=0")).json()
        seen += [one["task_id"] for one in found["data"]]
    wanted = [uuid(10 * number + step) for number in range(3) for step in range(3)]
    assert seen == wanted


async def test_who_does_not_read_holds_up_neither_the_others_nor_a_stop(tmp_path: Path) -> None:
    with running(tmp_path, REELHOOK_GRACE="3") as receiver:
        async with wire(receiver.port) as deaf, wire(receiver.port) as line:
            asked = f"GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n"
            await deaf.send(asked.encode())
            deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
            stream = await watch(line)
            await stream.next()
            numbers = range(40)
            await call_back(receiver, *numbers, padding=900_000)
            assert await tasks(stream, 40) == [uuid(number) for number in numbers]
            # The log is large, and its way home no part of a stop.
            log = receiver.folder / "data" / "reelhook.db-wal"
            await until(lambda: log.stat().st_size < IDLE_WAL)
            receiver.process.terminate()
            await rest([stream])
            assert await ended(receiver) == 0
        assert "Traceback" not in receiver.stderr()


async def test_a_long_poll_is_answered_when_the_receiver_is_told_to_stop(tmp_path: Path) -> None:
    with running(tmp_path) as receiver:
        async with wire(receiver.port) as waiting, wire(receiver.port) as line:
            asked = f"GET {PATH}?wait=30 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_TOKEN}"
            await waiting.send(f"{asked}\r\n\r\n".encode())
            await (await watch(line)).next()  # answered later, so the poll is there by then
            receiver.process.terminate()
            assert (await waiting.answer()).json == {"data": [], "next_cursor": "0"}

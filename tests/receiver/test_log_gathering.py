"""When lines of the log are written: a turn's together, what may be the last one at once."""

from __future__ import annotations

import asyncio
import select

import pytest

from receiver.log import Gathering

pytestmark = pytest.mark.anyio


@pytest.fixture
def pieces() -> list[bytes]:
    return []


@pytest.fixture
def log(pieces: list[bytes]) -> Gathering:
    return Gathering(pieces.append)


async def test_the_lines_of_a_turn_are_written_at_its_end(
    log: Gathering, pieces: list[bytes]
) -> None:
    for turn in (b"1", b"2"):
        log.info(b"one of " + turn)
        log.debug(b"another")
        assert len(pieces) == int(turn) - 1
        await asyncio.sleep(0)
    assert pieces == [b"one of 1\nanother\n", b"one of 2\nanother\n"]


@pytest.mark.parametrize("level", ["warning", "error", "critical", "exception"])
async def test_what_may_be_the_last_line_is_written_at_once(
    log: Gathering, pieces: list[bytes], level: str
) -> None:
    log.info(b"before")
    getattr(log, level)(b"the last")
    assert pieces == [b"before\nthe last\n"]
    await asyncio.sleep(0)
    assert len(pieces) == 1


async def test_another_thread_waits_for_no_turn(log: Gathering, pieces: list[bytes]) -> None:
    log.info(b"of the loop")
    await asyncio.to_thread(log.info, b"of a thread")
    assert b"of a thread\n" in pieces


async def test_a_pipe_with_other_writers_gets_whole_lines(
    log: Gathering, pieces: list[bytes]
) -> None:
    lines = [bytes([65 + place % 26]) * (place * 37 % 900) for place in range(60)]
    for line in (*lines, b"a" * (select.PIPE_BUF + 1), b"end"):
        log.info(line)
    log.write()
    assert b"".join(pieces).splitlines()[:60] == lines
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert [len(piece) for piece in pieces if len(piece) > select.PIPE_BUF] == [select.PIPE_BUF + 2]

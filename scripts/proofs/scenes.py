"""Plays the table of bad inputs against a receiver, and what takes more than one exchange.

What is told is read from the log as a process writes it, what is kept by stdlib sqlite3.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sqlite3
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from typing import Any, Final
from uuid import UUID

from scripts.proofs.exchanges import Aim, Case, cases
from scripts.proofs.harness import WAIT, Answer, Line, Receiver

PATIENCE: Final = 45.0  # seconds within which every deadline of the door has passed
DRIP: Final = 9.0  # seconds between two bytes of a slow client
FORGIVEN: Final = 1 << 20  # bytes that one connection may make the receiver larger


class Wrong(Exception):
    """A row of the table does not hold."""


class Stage:
    """A receiver that logs every line, and what it says and keeps."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self._read = 0

    async def told(self) -> list[dict[str, Any]]:
        """The lines of requests since the last time; others come when they like."""
        await asyncio.sleep(0)
        text = self.receiver.log.read_text().rpartition("\n")[0]  # whole lines
        lines, self._read = text[self._read :].splitlines(), len(text)
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line["event"] in ("callback", "request")]

    def kept(self, task: str) -> list[str]:
        """What the store has of a task's callbacks, in their order."""
        with closing(sqlite3.connect(f"file:{self.receiver.database}?mode=ro", uri=True)) as base:
            rows = base.execute(
                "SELECT c.outcome FROM callbacks c JOIN tasks t ON t.n = c.task_n"
                " WHERE t.id = ? ORDER BY c.id",
                (UUID(task).bytes,),
            )
            return [row[0] for row in rows]

    @property
    def bytes_in_memory(self) -> int:
        """Of the receiver's process."""
        assert self.receiver.process is not None
        with open(f"/proc/{self.receiver.process.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @asynccontextmanager
    async def line(self, source: str = "127.0.0.1") -> AsyncIterator[Line]:
        """A connection."""
        streams = await asyncio.open_connection(
            "127.0.0.1", self.receiver.port, local_addr=(source, 0)
        )
        line = Line(*streams)
        try:
            yield line
        finally:
            line.close()


async def play_table(stage: Stage) -> tuple[int, list[str]]:
    """How many cases there are, and what is wrong with them."""
    found = list(cases())
    problems = [problem for case in found for problem in await _play(stage, case)]
    return len(found), problems


async def _play(stage: Stage, case: Case) -> list[str]:
    aim = case.aim()
    if case.before:
        await _prepare(stage, case.before, aim)
    await stage.told()
    async with stage.line() as line:
        statuses, rest = await _exchange(line, case.send(aim))
    return [f"{case.name}: {wrong}" for wrong in await _judged(stage, case, aim, statuses, rest)]


async def _prepare(stage: Stage, what: str, aim: Aim) -> None:
    path = f"/v1/tasks/{aim.task}"
    await stage.receiver.ask(
        "PUT", path, {"platform": "runware", "tags": {"projectId": "proj_789"}}
    )
    if what == "revoke":
        await stage.receiver.ask("POST", f"{path}/revoke", {})


async def _exchange(line: Line, data: bytes) -> tuple[int, bytes]:
    """The first answer's status (0: none came), and what came behind it until the end."""
    line.writer.write(data)
    status, rest = 0, b""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        async with asyncio.timeout(WAIT):
            answer = await line.answer()
        status = answer.status
        if status != 200:
            async with asyncio.timeout(WAIT):
                rest = await line.rest()
    return status, rest


async def _judged(stage: Stage, case: Case, aim: Aim, status: int, rest: bytes) -> Sequence[str]:
    wrong = []
    if status not in case.answers:
        wrong.append(f"answered {status}, not one of {case.answers}")
    if rest:
        wrong.append(f"more came after the refusal: {rest[:100]!r}")
    told = [line for line in await stage.told() if line["event"] == "callback"]
    outcomes = [line["outcome"] for line in told]
    expected = [] if case.told is None or status == 400 else [case.told]
    if outcomes != expected and (status or outcomes):
        wrong.append(f"told as {outcomes}, not {expected}")
    if (kept := stage.kept(aim.task)) != list(case.kept):
        wrong.append(f"kept as {kept}, not {list(case.kept)}")
    return wrong


# 30-32, 39-43, 45: more than one exchange

Scene = Callable[[Stage], Awaitable[None]]


async def play_scenes(stage: Stage, scenes: Sequence[tuple[int, Scene]]) -> list[str]:
    """What is wrong with them."""
    problems = []
    for row, scene in scenes:
        try:
            await scene(stage)
        except Wrong as wrong:
            problems.append(f"{row} ({scene.__name__}): {wrong}")
    return problems


def _expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise Wrong(f"{what}: {found}, not {wanted}")


async def _post(stage: Stage, data: bytes, source: str = "127.0.0.1") -> Answer:
    async with stage.line(source) as line:
        answer = await line.ask(data)
    if answer is None:
        raise Wrong(f"no answer to {data[:200]!r}")
    return answer


async def the_same_a_hundred_times(stage: Stage) -> None:
    """One result and one event, 99 repeats."""
    aim = Aim()
    answers = await asyncio.gather(*(_post(stage, aim.request()) for _ in range(100)))
    said = Counter(answer.said for answer in answers)
    _expect("answers", said, {"duplicate": 99, "recorded": 1})
    _expect("callbacks kept", stage.kept(aim.task), ["recorded"])
    events = await stage.receiver.ask("GET", f"/v1/events?task={aim.task}")
    types = sorted(event["type"] for event in events["data"])
    _expect("events", types, ["result.succeeded", "task.completed"])


async def another_content(stage: Stage) -> None:
    """Both are kept, one is told."""
    aim = Aim()
    said = [(await _post(stage, aim.request(aim.body(seed=seed)))).said for seed in (1, 2)]
    _expect("answers", said, ["recorded", "conflict"])
    _expect("callbacks kept", stage.kept(aim.task), ["recorded", "conflict"])


async def a_flood_of_one_task(stage: Stage) -> None:
    """What records nothing is kept 2 × expected + 8 times, then refused."""
    aim = Aim()
    answers = [await _post(stage, aim.request(b"{%d" % number)) for number in range(12)]
    _expect("answers", [answer.status for answer in answers], [200] * 10 + [429] * 2)
    _expect("Retry-After", "retry-after" in answers[-1].headers, True)
    _expect("the owed result", (await _post(stage, aim.request())).said, "recorded")


async def two_pipelined(stage: Stage) -> None:
    """Both are answered, in order."""
    first, second = Aim(), Aim()
    async with stage.line() as line:
        line.writer.write(first.request() + second.request() + first.request())
        said = [(await line.answer()).said for _ in range(3)]
    _expect("answers", said, ["recorded", "recorded", "duplicate"])


async def gone_in_the_middle(stage: Stage) -> None:
    """Who leaves within his body leaves nothing."""
    aim = Aim()
    for reset in (False, True):
        async with stage.line() as line:
            line.writer.write(aim.head(b"Content-Length: 500") + b'{"data":')
            await line.writer.drain()
            await _leave(line, reset=reset)
    await _settled(stage)
    _expect("callbacks kept", stage.kept(aim.task), [])


async def gone_before_the_answer(stage: Stage) -> None:
    """What had come whole is kept, and its repeat is a duplicate."""
    aim = Aim()
    async with stage.line() as line:
        line.writer.write(aim.request())
        await line.writer.drain()
        await _leave(line, reset=False)
    await _settled(stage)
    again = (await _post(stage, aim.request())).said
    _expect("callbacks kept", stage.kept(aim.task), ["recorded"])
    if again not in ("recorded", "duplicate"):  # recorded: the connection ended before its body
        raise Wrong(f"the repeat is {again}")


async def _leave(line: Line, *, reset: bool) -> None:
    if not reset:
        line.writer.write_eof()
        return
    found = line.writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _settled(stage: Stage) -> None:
    """Whatever came before is done: one more callback has passed after it."""
    for _ in range(2):
        await _post(stage, Aim().request())


async def a_forged_address(stage: Stage) -> None:
    """Only the trusted proxy is believed, and only so much of it is kept."""
    for source, given, wanted in (
        ("127.0.0.1", b"203.0.113.7", "203.0.113.7"),
        ("127.0.0.9", b"203.0.113.7", "127.0.0.9"),
        ("127.0.0.1", b"x" * 4_000, "x" * 64),
    ):
        aim = Aim()
        _expect(
            "answer",
            (await _post(stage, aim.request(None, b"X-Forwarded-For: " + given), source)).status,
            200,
        )
        found = await stage.receiver.ask("GET", f"/v1/callbacks?task={aim.task}")
        _expect("address", found["data"][0]["remote"], wanted)
    for garbage in (b"", b",,,", b"[", b"\xff\x9b31m", b"a, " * 3_000):
        answer = await _post(stage, Aim().request(None, b"X-Forwarded-For: " + garbage))
        _expect("answer to garbage", answer.status, 200)


async def lines_that_stay_lines(stage: Stage) -> None:
    """Nobody writes a line of his own into the log, nor sends it escapes."""
    await stage.told()
    forged = '%0d%0a{"event":"callback"}%1b[31m'
    await _post(stage, Aim().request(path=f"/webhooks/runware?sig={forged}&{forged}=x"))
    await _post(stage, Aim().request(None, b'User-Agent: {"event":"callback"}\x9b31m'))
    await _post(stage, Aim().request(method="GET", path=f"/v1/tasks?x={forged}"))
    lines = await stage.told()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WAIT):
            while len(lines) < 3:  # an answer of the API comes before its line
                await asyncio.sleep(0.05)
                lines += await stage.told()
    _expect("lines", sorted(line["event"] for line in lines), ["callback", "callback", "request"])
    _expect("escapes", "\x1b" in stage.receiver.log.read_text(), False)


async def slow_clients(stage: Stage) -> None:
    """Who says nothing, or stops half way, or drips, is cut at a deadline."""
    aim = Aim(expected=9)
    starts = {
        "nothing": b"",
        "half a head": aim.head()[:60],
        "half a body": aim.head(b"Content-Length: 500") + b'{"data":',
    }
    dripping = [_cut(stage, data, drip) for data in starts.values() for drip in (False, True)]
    names = [f"{name}{drip}" for name in starts for drip in ("", ", dripping")]
    ends = await asyncio.gather(*dripping)
    still_open = [name for name, ended in zip(names, ends, strict=True) if not ended]
    _expect("still open", still_open, [])
    _expect("callbacks kept", stage.kept(aim.task), [])


async def _cut(stage: Stage, data: bytes, drip: bool) -> bool:
    """Whether the receiver ends a connection that never gets on."""
    async with stage.line() as line:
        line.writer.write(data)
        reading = asyncio.ensure_future(line.rest())
        passed = 0.0
        while passed < PATIENCE and not reading.done():
            await asyncio.wait([reading], timeout=DRIP)
            passed += DRIP
            if drip and not reading.done():
                line.writer.write(b" " if data else b"P")
        if not reading.done():
            reading.cancel()
            return False
        with contextlib.suppress(OSError):
            await reading
        return True


async def memory_of_endless_heads(stage: Stage) -> None:
    """A head that never ends makes the receiver no larger."""
    before, endless = stage.bytes_in_memory, 20
    for _ in range(endless):
        async with stage.line() as line:
            await _exchange(line, Aim().head(b"X: " + b"A" * (5 << 20)))
    grown = stage.bytes_in_memory - before
    if grown > endless * FORGIVEN:
        raise Wrong(f"{endless} heads of 5 MB made it {grown} bytes larger")


SCENES: Final[Sequence[tuple[int, Scene]]] = (
    (30, the_same_a_hundred_times),
    (31, another_content),
    (32, a_flood_of_one_task),
    (37, memory_of_endless_heads),
    (41, gone_in_the_middle),
    (42, gone_before_the_answer),
    (43, two_pipelined),
    (45, a_forged_address),
    (46, lines_that_stay_lines),
)
SLOW: Final[Sequence[tuple[int, Scene]]] = ((39, slow_clients),)  # and 40; it takes half a minute

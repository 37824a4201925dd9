"""`reelhook listen`: what it forwards, how it comes back, and what it says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver import listen
from receiver.cli.listening import _as_lines
from receiver.client import ApiRefused, Asked, Client, Heard, Unreachable
from receiver.delivery.signing import new_secret, verify
from receiver.feed import Place, Told
from receiver.heard import NotTheFeed
from receiver.listen import (
    KEPT_IN,
    BadSecret,
    BadTarget,
    Forwarded,
    Found,
    Listener,
    Lost,
    News,
    Targets,
    development_secret,
    target_url,
)
from scripts.proofs.ports import reserved_port
from tests.doubles import (
    ADMIN_TOKEN,
    ENVIRON,
    LIMIT_S,
    ROOT,
    START,
    consuming,
    environment,
    running,
)
from tests.make import uuid
from tests.receiver.store.bench import until
from tests.receiver.test_stream_process import call_back

SECRET = new_secret(bytes(32))


# The secret


def test_the_secret_is_made_once_and_kept_to_its_user(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    first = development_secret(folder, os.urandom)
    assert first.startswith("whsec_")
    assert development_secret(folder, os.urandom) == first
    assert (folder / KEPT_IN).stat().st_mode & 0o777 == 0o600
    assert os.listdir(folder) == [KEPT_IN]


def test_of_two_that_make_it_at_once_the_first_one_holds(tmp_path: Path) -> None:
    def slower(count: int) -> bytes:
        (tmp_path / KEPT_IN).write_text(SECRET)
        return os.urandom(count)

    assert development_secret(tmp_path, slower) == SECRET


@pytest.mark.parametrize("text", ["", "whsec_x", "secret", "\x80"])
def test_what_is_no_secret_is_not_signed_with(tmp_path: Path, text: str) -> None:
    (tmp_path / KEPT_IN).write_bytes(text.encode("latin-1"))
    with pytest.raises(BadSecret, match="Remove it"):
        development_secret(tmp_path, os.urandom)


def test_a_secret_that_can_not_be_kept_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadSecret, match="REELHOOK_DATA_DIR"):
        development_secret(tmp_path / "file", os.urandom)


# Where to


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://localhost:3000/hook", "http://localhost:3000/hook"),
        ("https://x.test/a?b=c", "https://x.test/a?b=c"),
        ("3000", "http://localhost:3000"),
        ("localhost:3000/hook", "http://localhost:3000/hook"),
        ("[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_a_target_is_written_as_people_do(text: str, url: str) -> None:
    assert target_url(text) == url


@pytest.mark.parametrize("text", ["", "ftp://x", "http://", "99999", "0", "http://[::1", "x:y"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(BadTarget):
        target_url(text)


def test_the_first_pattern_that_fits_decides() -> None:
    targets = Targets("every", [("result.failed", "failed"), ("result.*", "results")])
    assert targets.of("result.failed") == "failed"
    assert targets.of("result.succeeded") == "results"
    assert targets.of("task.completed") == "every"
    assert Targets(None, [("result.*", "results")]).of("task.completed") is None


# Listening


def told(number: int, resend: int = 0, kind: str = "result.succeeded") -> Told:
    payload = json.dumps({"type": kind, "data": {"number": number}}).encode()
    again = START if resend else None
    return Told(
        Place(number, resend), f"evt_{number}", number, kind, None, "default", START, again, payload
    )


class Scripted:
    """A receiver that answers each request for the feed with the next step of a script.

    A step is a list of parts; None at its end keeps the connection open. `asked` are the heads.
    """

    def __init__(self, *steps: list[bytes | None]) -> None:
        self.steps = list(steps)
        self.asked: list[str] = []
        self.url = ""
        self.held = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(OSError, asyncio.IncompleteReadError):
            self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            for part in self.steps.pop(0) if self.steps else [None]:
                if part is None:
                    self.held.set()
                    await reader.read()  # until the client goes
                else:
                    writer.write(part)
                    await writer.drain()


def stream(*parts: bytes, place: str = "0") -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    return head + f"retry: 2000\nid: {place}\n\n".encode() + b"".join(parts)


def answer(status: int, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"connection: close\r\n\r\n" + body


def page(place: str, *parts: Told) -> bytes:
    items = b",".join(one.json for one in parts)
    return answer(200, b'{"data":[' + items + b'],"next_cursor":"' + place.encode() + b'"}')


@asynccontextmanager
async def scripted(*steps: list[bytes | None]) -> AsyncIterator[Scripted]:
    script = Scripted(*steps)
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield script
    finally:
        server.close()


class Local:
    """The program on this machine; answers by the last word of the path."""

    def __init__(self) -> None:
        self.got: list[httpx.Request] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.got.append(request)
        if request.url.path == "/refused":
            raise httpx.ConnectError("Connection refused")
        if request.url.path == "/slow":
            await asyncio.sleep(LIMIT_S)
        return httpx.Response(int(request.url.path[1:]))


@asynccontextmanager
async def listening(
    script: Scripted, targets: Targets, pauses: list[float] | None = None, **more: Any
) -> AsyncIterator[tuple[Listener, list[News], Local]]:
    news: list[News] = []
    local = Local()

    async def pause(seconds: float) -> None:
        if pauses is not None:
            pauses.append(seconds)

    async with (
        Client(script.url, ADMIN_TOKEN) as client,
        httpx.AsyncClient(transport=httpx.MockTransport(local)) as http,
    ):
        yield (
            Listener(
                client=client,
                http=http,
                secret=SECRET,
                targets=targets,
                tell=news.append,
                wall=lambda: START,
                pause=pause,
                **more,
            ),
            news,
            local,
        )


async def until_held(listener: Listener, script: Scripted, place: str) -> None:
    """Let it listen until the script is over, and all of it was heard: the last of it has `place`.

    What was written is not read yet, however near the reader is.
    """
    task = asyncio.create_task(listener.run())
    held = asyncio.create_task(script.held.wait())
    try:
        async with asyncio.timeout(LIMIT_S):
            await asyncio.wait([task, held], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                await until(lambda: listener.after == place)
                await listener.drain()
    finally:
        held.cancel()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def shown(news: list[News], kind: type) -> list[Any]:
    return [one for one in news if isinstance(one, kind)]


@pytest.mark.anyio
async def test_what_is_forwarded_is_what_an_endpoint_would_get() -> None:
    events = [told(1), told(2, kind="task.completed")]
    async with (
        scripted([stream(*[one.message for one in events]), None]) as script,
        listening(
            script, Targets("http://local/204"), headers={"x-mine": "1", "accept": "a/b"}
        ) as (listener, news, local),
    ):
        await until_held(listener, script, "2")
    assert news[0] == Found("0", again=False, polled=False)
    assert [one.id for one in shown(news, Heard)] == ["evt_1", "evt_2"]
    by_id = {request.headers["webhook-id"]: request for request in local.got}
    for one in events:
        request = by_id[one.id]
        assert request.content == one.payload
        assert request.headers["content-type"] == "application/json"
        assert request.headers["user-agent"].startswith("reelhook/")
        assert (request.headers["x-mine"], request.headers["accept"]) == ("1", "a/b")
        verify([SECRET], dict(request.headers), request.content, now=START // 1000)
    done = shown(news, Forwarded)
    assert sorted((one.heard.id, one.status, one.error) for one in done) == [
        ("evt_1", 204, None),
        ("evt_2", 204, None),
    ]


@pytest.mark.anyio
async def test_events_go_where_their_type_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "DEADLINE", 0.01)
    kinds = ["result.succeeded", "result.failed", "task.completed", "task.overdue"]
    messages = [told(number, kind=kind).message for number, kind in enumerate(kinds, 1)]
    targets = Targets(
        None,
        [
            ("result.succeeded", "http://local/500"),
            ("result.*", "http://local/refused"),
            ("*.completed", "http://local/slow"),
        ],
    )
    async with (
        scripted([stream(*messages), None]) as script,
        listening(script, targets) as (listener, news, _),
    ):
        await until_held(listener, script, "4")
    seen = {one.heard.type: (one.status, one.error) for one in shown(news, Forwarded)}
    assert seen == {
        "result.succeeded": (500, None),
        "result.failed": (None, "Connection refused"),
        "task.completed": (None, "no answer within 0.01 s"),
    }
    assert [one.type for one in shown(news, Heard)] == kinds


@pytest.mark.anyio
async def test_it_asks_for_what_it_was_told_to() -> None:
    asked = Asked(("result.*", "task.completed"), {"tags.team": ["a", "b"]}, "film")
    async with (
        scripted([stream(place="7"), None]) as script,
        listening(script, Targets(), asked=asked, after="7") as (listener, _, _),
    ):
        await until_held(listener, script, "7")
    (head,) = script.asked
    assert head.startswith(
        "GET /v1/events/stream?event_type=result.%2A&event_type=task.completed"
        "&filter=tags.team%3Da&filter=tags.team%3Db&project=film HTTP/1.1"
    )
    assert "last-event-id: 7\r\n" in head.lower()
    assert f"authorization: bearer {ADMIN_TOKEN}".lower() in head.lower()


@pytest.mark.anyio
async def test_after_a_drop_it_goes_on_behind_what_it_heard() -> None:
    pauses: list[float] = []
    half = told(3).message[:30]
    async with (
        scripted(
            [stream(told(1).message, told(1, 1).message, half)],  # and it breaks off
            [b""],
            [answer(502, b"<html>", "text/html")],
            [answer(404, b"<html>", "text/html")],
            [answer(503, b'{"code":"stopping","detail":"Soon."}')],
            [answer(200, b"<html>", "text/html")],
            [answer(200, b"", "text/event-stream")],
            [stream(b"data: nonsense\n\n", place="1.1")],
            [stream(told(2).message, b"id: 9\n\n", place="1.1")],
            [stream(told(10).message, place="9"), None],
        ) as script,
        listening(script, Targets(), pauses) as (listener, news, _),
    ):
        await until_held(listener, script, "10")
    places = [
        head.lower().partition("last-event-id: ")[2].partition("\r\n")[0] for head in script.asked
    ]
    assert places == ["", *["1.1"] * 8, "9"]
    assert [(one.id, one.resent) for one in shown(news, Heard)] == [
        ("evt_1", False),
        ("evt_1", True),
        ("evt_2", False),
        ("evt_10", False),
    ]
    assert [one.seconds for one in shown(news, Lost)] == [1, 2, 4, 8, 16, 30]
    assert pauses == [1, 1, 2, 4, 8, 16, 1, 30, 1]  # three streams just ended
    assert [one.again for one in shown(news, Found)] == [False, True]


@pytest.mark.anyio
async def test_where_streams_are_held_back_it_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "PATIENCE", 0.05)

    class Tunnel(Scripted):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"wait=" in head:
                self.asked.append(head.decode().split()[1].partition("?")[2])
                part = self.steps.pop(0) if self.steps else None
                if part is None:
                    self.held.set()
                else:
                    writer.write(part[0] or b"")
            else:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
            with closing(writer), suppress(OSError):
                await writer.drain()
                if b"wait=" not in head or not self.steps:
                    await reader.read()

    script = Tunnel(
        [page("5")], [page("6", told(6))], [page("6.1", told(6, 1))], [b""], [page("6.1")]
    )
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with listening(script, Targets()) as (listener, news, _):
        await until_held(listener, script, "6.1")
    server.close()
    assert news[0] == Found("5", again=False, polled=True)
    assert [(one.id, one.resent) for one in shown(news, Heard)] == [
        ("evt_6", False),
        ("evt_6", True),
    ]
    assert script.asked[:5] == [
        "wait=0",
        "wait=25&cursor=5",
        "wait=25&cursor=6",
        "wait=25&cursor=6.1",
        "wait=0&cursor=6.1",
    ]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("step", "error"),
    [
        ([answer(401, b'{"code":"unauthenticated","detail":"Send it."}')], ApiRefused),
        ([answer(422, b'{"code":"invalid","detail":"No."}')], ApiRefused),
        ([answer(200, b"<html>", "text/html")], ApiRefused),
        ([answer(502, b"<html>", "text/html")], Unreachable),
        ([b""], Unreachable),
        ([stream()[:-19] + b"data: x\n\n"], NotTheFeed),
    ],
)
async def test_what_never_was_a_receiver_ends_it(
    step: list[bytes | None], error: type[Exception]
) -> None:
    async with (
        scripted(step) as script,
        listening(script, Targets()) as (listener, _, _),
    ):
        with pytest.raises(error):
            await listener.run()


@pytest.mark.anyio
async def test_a_token_that_is_refused_later_ends_it_too() -> None:
    refusal = answer(401, b'{"code":"unauthenticated","detail":"Send it."}')
    async with (
        scripted([stream()], [refusal]) as script,
        listening(script, Targets()) as (listener, _, _),
    ):
        with pytest.raises(ApiRefused):
            await listener.run()


@pytest.mark.anyio
async def test_only_so_many_are_forwarded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "AT_ONCE", 3)
    messages = [told(number).message for number in range(1, 9)]
    open_, most, go_on = 0, 0, asyncio.Event()

    async def slow(_request: httpx.Request) -> httpx.Response:
        nonlocal open_, most
        open_ += 1
        most = max(most, open_)
        if most == 3:
            go_on.set()
        await go_on.wait()
        open_ -= 1
        return httpx.Response(200)

    async with (
        scripted([stream(*messages), None]) as script,
        listening(script, Targets("http://local/")) as (listener, news, _),
        httpx.AsyncClient(transport=httpx.MockTransport(slow)) as http,
    ):
        listener.http = http
        await until_held(listener, script, "8")
    assert len(shown(news, Forwarded)) == 8
    assert most == 3


# The command


class Command:
    """`reelhook listen` as a process; what it says is read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(LIMIT_S):
            return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def told(self, *events: str) -> list[Any]:
        """The next documents of these kinds, in their order."""
        found: list[Any] = []
        while len(found) < len(events):
            text = await self.line()
            assert text, "it ended"
            document = json.loads(text)
            if document["event"] in events:
                found.append(document)
        return found


@asynccontextmanager
async def command(folder: Path, *arguments: str, **environ: str) -> AsyncIterator[Command]:
    with folder.joinpath("listen.err").open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "receiver", "listen", *arguments),
            cwd=ROOT,
            env=environment(folder, **{**ENVIRON, **environ}),
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            limit=1 << 20,
        )
    try:
        yield Command(process)
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        async with asyncio.timeout(LIMIT_S):
            await process.communicate()  # its pipe ends, too: it may do so later than the process


@pytest.fixture
def kept_port() -> Iterator[int]:
    """A receiver's port, also between two of its runs."""
    with reserved_port() as port:
        yield port


@pytest.mark.anyio
@pytest.mark.process
async def test_events_reach_a_laptop_across_a_restart_once_each_and_again_when_resent(
    tmp_path: Path, kept_port: int
) -> None:
    async with consuming() as consumer:
        port = str(kept_port)
        url = f"http://127.0.0.1:{port}"
        arguments = ("--json", "--forward-to", consumer.url, "-e", "result.*")
        with running(tmp_path, PORT=port) as receiver:
            async with command(tmp_path, *arguments, REELHOOK_URL=url) as laptop:
                (ready,) = await laptop.told("ready")
                assert (ready["cursor"], ready["again"], ready["polled"]) == ("0", False, False)
                await call_back(receiver, 1)
                heard = await laptop.told("heard")
                receiver.process.terminate()
                await asyncio.to_thread(receiver.process.wait, LIMIT_S)
                await laptop.told("lost")
                with running(tmp_path, PORT=port) as again:
                    await call_back(again, 2)
                    heard += await laptop.told("heard")
                    async with httpx.AsyncClient(
                        base_url=url, headers={"authorization": f"Bearer {ADMIN_TOKEN}"}
                    ) as http:
                        path = f"/v1/events/{heard[0]['id']}/replay"
                        (await http.post(path)).raise_for_status()
                    heard += await laptop.told("heard")
                    got = [await consumer.heard.get() for _ in range(3)]
                    laptop.process.send_signal(signal.SIGINT)
                    assert await laptop.process.wait() == 130
    assert [(one["task_id"], one["resent"]) for one in heard] == [
        (uuid(1), False),
        (uuid(2), False),
        (uuid(1), True),
    ]
    secret = (tmp_path / "data" / KEPT_IN).read_text().strip()
    assert sorted(one.headers["webhook-id"] for one in got) == sorted(one["id"] for one in heard)
    for one in got:
        now = int(one.headers["webhook-timestamp"])
        verify([secret], one.headers, one.body, now=now)
    assert "Traceback" not in tmp_path.joinpath("listen.err").read_text()


@pytest.mark.anyio
@pytest.mark.process
async def test_lines_are_those_that_people_know(tmp_path: Path) -> None:
    async with consuming() as consumer:
        with running(tmp_path) as receiver:
            await call_back(receiver, 1)
            url = receiver.ready["url"]
            mapped = f"result.succeeded={consumer.url}"
            filters = ("--filter", "platform=runware", "--filter", "platform=nanogpt")
            async with command(
                tmp_path, "--map", mapped, "--after", "0", *filters, REELHOOK_URL=url
            ) as laptop:
                first, second = await laptop.line(), await laptop.line()
                headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
                async with httpx.AsyncClient(base_url=url, headers=headers) as http:
                    path = f"/v1/events/{first.partition('[')[2].rstrip(']')}/replay"
                    (await http.post(path)).raise_for_status()
                again = await laptop.line()
                await laptop.line()
    event = first.partition("[")[2].rstrip("]")
    assert again[19:] == f"   --> result.succeeded [{event}] (sent again)"
    assert first[19:] == f"   --> result.succeeded [{event}]"
    assert second[19:] == f"  <--  [204] POST {consumer.url} [{event}]"
    said = tmp_path.joinpath("listen.err").read_text()
    assert said.startswith("Ready! ")
    assert "--print-secret" in said
    assert "whsec_" not in said


@pytest.mark.anyio
@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--forward-to", "ftp://x"), 2, "no place to forward to"),
        (("--map", "result.failed"), 2, "TYPE=URL"),
        (("--filter", "x"), 2, "key=value"),
        (("-H", "webhook-id: 1"), 2, "set by Reelhook"),
        (("--event", "result.gone"), 3, "did not answer"),
    ],
)
async def test_what_it_can_not_do_it_says(
    tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    async with command(tmp_path, *arguments, REELHOOK_URL="http://127.0.0.1:1") as one:
        assert await one.process.wait() == code
    assert said in tmp_path.joinpath("listen.err").read_text()


@pytest.mark.anyio
@pytest.mark.process
async def test_without_its_secret_nothing_is_forwarded(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / KEPT_IN).write_text("whsec_")
    async with command(tmp_path, "--print-secret") as one:
        assert await one.process.wait() == 1
    assert "Remove it" in tmp_path.joinpath("listen.err").read_text()


@pytest.mark.parametrize(
    ("news", "said"),
    [
        (Lost("Gone.", 2.0), "Gone. Trying again in 2 s."),
        (Found("4", again=True, polled=False), "Back, behind 4."),
        (Found("4", again=True, polled=True), "Back by long polls"),
        (Forwarded(Heard("evt_1", "a", None, False, b""), "u", None, "no", 1), "[ERROR] POST u"),
    ],
)
def test_a_person_is_told_what_happens(
    news: News, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _as_lines(news)
    out, err = capsys.readouterr()
    assert said in out + err


@pytest.mark.anyio
@pytest.mark.process
async def test_the_secret_can_be_had_by_a_script(tmp_path: Path) -> None:
    async with command(tmp_path, "--print-secret") as one:
        assert await one.line() == (tmp_path / "data" / KEPT_IN).read_text().strip()
        assert await one.process.wait() == 0

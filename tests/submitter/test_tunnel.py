"""Tunnels: what their programs print, their command lines, and the look from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import stat
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import get_args

import anyio
import httpx
import pytest

from submitter import tunnel as module
from submitter.tunnel import (
    CHOICE,
    FAILURES,
    INSTALL,
    Kind,
    Problem,
    Program,
    Ssh,
    TunnelFailed,
    TunnelMissing,
    TunnelRefused,
    Unreachable,
    check_from_outside,
    command,
    environment,
    find,
    is_connected,
    look_once,
    opened,
    outside_client,
    read_failure,
    read_port,
    read_public_url,
    read_url,
)

RECORDED = Path(__file__).parent / "recorded"
LIMIT_S = 30.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def recorded(name: str) -> list[str]:
    return (RECORDED / name).read_text(encoding="utf-8").splitlines()


def urls(kind: Kind, name: str) -> list[str]:
    return [url for line in recorded(name) if (url := read_url(kind, line))]


def advice(kind: Kind, name: str) -> list[str]:
    return [found for line in recorded(name) if (found := read_failure(kind, line))]


@pytest.mark.parametrize(
    ("kind", "name", "url"),
    [
        (
            "cloudflared",
            "cloudflared-opened.txt",
            "https://spare-reels-turn-slowly.trycloudflare.com",
        ),
        ("ngrok", "ngrok-opened.jsonl", "https://spare-reel.ngrok-free.app"),
        ("ssh", "localhost-run.txt", "https://5afe0123456789.lhr.life"),
        ("ssh", "serveo.txt", "https://spareo.serveo.net"),
    ],
)
def test_the_url_is_read_once_and_nothing_is_taken_for_a_failure(
    kind: Kind, name: str, url: str
) -> None:
    assert urls(kind, name) == [url]
    assert advice(kind, name) == []


@pytest.mark.parametrize(
    ("kind", "name", "word"),
    [
        ("cloudflared", "cloudflared-rate-limited.txt", "wait a few minutes"),
        ("cloudflared", "cloudflared-no-network.txt", "connection"),
        ("ngrok", "ngrok-no-token.jsonl", "ngrok config add-authtoken"),
        ("ngrok", "ngrok-session-limit.jsonl", "running elsewhere"),
        ("ngrok", "ngrok-endpoint-online.jsonl", "running elsewhere"),
        ("ssh", "ssh-denied.txt", "took none of your keys"),
        ("ssh", "ssh-unknown-host.txt", "connect once by hand"),
        ("ssh", "ssh-refused.txt", "No ssh server answers"),
        ("ssh", "ssh-no-name.txt", "does not resolve"),
        ("ssh", "ssh-forward-refused.txt", "--ssh-remote-port"),
    ],
)
def test_a_known_failure_says_what_to_do(kind: Kind, name: str, word: str) -> None:
    assert urls(kind, name) == []
    assert word in advice(kind, name)[0]


@pytest.mark.parametrize(
    ("name", "port"), [("ssh-allocated-port.txt", 36009), ("ssh-fixed-port.txt", 39111)]
)
def test_the_port_that_ssh_opened_goes_into_the_url(name: str, port: int) -> None:
    program = Program("ssh", "/usr/bin/ssh", Ssh("ada@host", "http://host.example:{port}/", 0))
    assert [found for line in recorded(name) if (found := read_port(line))] == [port]
    read = [url for line in recorded(name) if (url := read_public_url(program, line))]
    assert read == [f"http://host.example:{port}"]


def test_a_port_not_chosen_yet_is_none() -> None:
    assert read_port("debug1: remote forward success for: listen 0, connect 127.0.0.1:8") is None


@pytest.mark.parametrize(
    "line",
    [
        "INF https://api.trycloudflare.com",
        "INF https://a-b.trycloudflare.com.evil.example",
        "INF http://a-b.trycloudflare.com",
    ],
)
def test_cloudflares_own_api_and_look_alikes_are_no_tunnel(line: str) -> None:
    assert read_url("cloudflared", line) is None


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "[" * 100_000, '{"msg":"started tunnel"}', '{"msg":"started tunnel","url":7}'],
)
def test_lines_of_ngrok_that_hold_no_url(line: str) -> None:
    assert read_url("ngrok", line) is None


def test_cloudflared_is_connected_when_its_edge_says_so() -> None:
    lines = [is_connected("cloudflared", line) for line in recorded("cloudflared-opened.txt")]
    assert lines == [False] * (len(lines) - 1) + [True]
    assert is_connected("ngrok", "")


def test_every_kind_has_its_advice() -> None:
    assert set(get_args(Kind)) == set(INSTALL) == set(FAILURES)
    assert "ssh" not in CHOICE


def on_path(*names: str) -> Callable[[str], str | None]:
    return lambda name: f"/bin/{name}" if name in names else None


def test_cloudflared_is_chosen_before_ngrok_and_ssh_never() -> None:
    assert find(which=on_path("ngrok", "cloudflared", "ssh")).kind == "cloudflared"
    assert find(which=on_path("ngrok", "ssh")) == Program("ngrok", "/bin/ngrok")
    with pytest.raises(TunnelMissing, match=r"cloudflared is not installed here. Install it: brew"):
        find(which=on_path("ssh"))


def test_a_kind_asked_for_is_not_replaced() -> None:
    with pytest.raises(TunnelMissing) as missing:
        find("ngrok", which=on_path("cloudflared"))
    assert missing.value.kind == "ngrok"


def test_ssh_needs_a_destination() -> None:
    with pytest.raises(TunnelRefused, match="--ssh-destination"):
        find("ssh", which=on_path("ssh"))
    with pytest.raises(TunnelRefused, match="--ssh-destination"):
        command(Program("ssh", "ssh"), 8000)
    ssh = Ssh("ada@host")
    assert find("ssh", ssh=ssh, which=on_path("ssh")) == Program("ssh", "/bin/ssh", ssh)


@pytest.mark.parametrize(
    ("destination", "public_url"),
    [
        ("", None),
        ("-oProxyCommand=id", None),
        ("ada@host", "host.example"),
        ("ada@host", "https://host.example"),
    ],
)
def test_ssh_that_can_not_work_is_refused(destination: str, public_url: str | None) -> None:
    with pytest.raises(TunnelRefused):
        Ssh(destination, public_url)


def test_cloudflareds_command_line_leaves_the_users_config_out() -> None:
    line = " ".join(command(Program("cloudflared", "/bin/cloudflared"), 8000))
    assert line == (
        "/bin/cloudflared tunnel --config /dev/null --no-autoupdate --url http://127.0.0.1:8000"
    )


def test_ngroks_command_line_logs_json() -> None:
    line = " ".join(command(Program("ngrok", "ngrok"), 8000))
    assert line == (
        "ngrok http http://127.0.0.1:8000 --log stdout --log-format json --log-level info"
    )


def test_sshs_command_line_asks_for_the_port_and_puts_the_users_options_first() -> None:
    ssh = Ssh("ada@host", "https://h.example", 9000, "0.0.0.0", ("-p 2222", "-i 'my key'"))
    argv = command(Program("ssh", "ssh", ssh), 8000)
    assert argv[:7] == ("ssh", "-N", "-T", "-p", "2222", "-i", "my key")
    assert argv[-4:] == ("-R", "0.0.0.0:9000:127.0.0.1:8000", "--", "ada@host")
    options = {argv[i + 1] for i, word in enumerate(argv) if word == "-o"}
    wanted = "ExitOnForwardFailure=yes ServerAliveInterval=15 ServerAliveCountMax=2 BatchMode=yes"
    assert options == {*wanted.split(), "ControlPath=none", "LogLevel=DEBUG1"}


def test_a_server_that_prints_the_url_gets_a_session_to_print_it_in() -> None:
    argv = command(Program("ssh", "ssh", Ssh("nokey@localhost.run")), 8000)
    assert "-N" not in argv
    assert argv[-4:] == ("-R", "80:127.0.0.1:8000", "--", "nokey@localhost.run")


def test_no_key_reaches_the_tunnel_program() -> None:
    environ = {
        "PATH": "/bin",
        "NGROK_AUTHTOKEN": "theirs",
        "RUNWARE_API_KEY": "k",
        "NANOGPT_API_KEY": "k",
        "REELHOOK_SIGNING_KEYS": "k",
        "DATABASE_URL": "postgres://u:p@h/d",
    }
    assert environment(environ) == {"PATH": "/bin", "NGROK_AUTHTOKEN": "theirs"}


def program_that(tmp_path: Path, script: str, kind: Kind = "cloudflared") -> Program:
    path = tmp_path / kind
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    ssh = Ssh("ada@host") if kind == "ssh" else None
    return Program(kind, str(path), ssh)


ENVIRON = {"PATH": "/usr/bin:/bin"}


@pytest.mark.anyio
@pytest.mark.process
async def test_an_open_tunnel_has_its_url_and_tells_how_it_ends(tmp_path: Path) -> None:
    script = f"cat {RECORDED}/cloudflared-opened.txt >&2; exec sleep 600"
    with anyio.fail_after(LIMIT_S):
        async with opened(program_that(tmp_path, script), 8000, environ=ENVIRON) as tunnel:
            assert tunnel.url == "https://spare-reels-turn-slowly.trycloudflare.com"
            os.kill(tunnel.pid, signal.SIGTERM)
            assert await tunnel.ended() == "It ended with exit code -15."


@pytest.mark.anyio
@pytest.mark.process
@pytest.mark.parametrize(
    ("kind", "script", "words"),
    [
        ("ngrok", f"cat {RECORDED}/ngrok-no-token.jsonl; exit 1", "add-authtoken"),
        ("ngrok", f"cat {RECORDED}/ngrok-no-token.jsonl; exec sleep 600", "add-authtoken"),
        (
            "cloudflared",
            "echo what >&2; exit 3",
            "exit code 3 and gave no URL. Its last words: what",
        ),
        ("cloudflared", "exit 0", "It ended with exit code 0 and gave no URL."),
        ("ssh", "exit 0", "needs --ssh-public-url"),
    ],
)
async def test_a_tunnel_that_does_not_open_says_why(
    tmp_path: Path, kind: Kind, script: str, words: str
) -> None:
    with anyio.fail_after(LIMIT_S), pytest.raises(TunnelFailed) as failed:
        async with opened(program_that(tmp_path, script, kind), 8000, environ=ENVIRON):
            pytest.fail("it opened")
    assert words in str(failed.value)


@pytest.mark.anyio
@pytest.mark.process
async def test_a_silent_tunnel_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    program = program_that(tmp_path, "exec sleep 600")
    with anyio.fail_after(LIMIT_S), pytest.raises(TunnelFailed, match=r"no URL within 0\.2 s"):
        async with opened(program, 8000, environ=ENVIRON, timeout_s=0.2):
            pytest.fail("it opened")


Answer = Callable[[httpx.Request], httpx.Response]


def failing(fault: BaseException) -> Answer:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no", request=request) from fault

    return fail


def answering(status: int, body: object) -> Answer:
    return lambda request: httpx.Response(status, json=body)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (answering(200, {"status": "ok", "instance": "me"}), None),
        (answering(200, {"status": "ok", "instance": "other"}), "other_instance"),
        (answering(200, ["me"]), "other_instance"),
        (lambda request: httpx.Response(200, text="<html>"), "other_instance"),
        (answering(502, {}), "status"),
        (answering(307, {}), "status"),
        (failing(socket.gaierror(-2, "no name")), "dns"),
        (failing(ConnectionRefusedError()), "connect"),
        (failing(ssl.SSLCertVerificationError()), "tls"),
    ],
)
async def test_the_look_from_outside(answer: Answer, problem: Problem | None) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        found = await look_once("https://h.example/", "me", client=client)
    assert (found and found.problem) == problem
    assert found is None or "https://h.example/" in found.text


@pytest.mark.anyio
async def test_the_look_asks_for_health_at_the_public_url() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(503)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        found = await look_once("https://h.example/", "me", client=client)
    assert asked == ["https://h.example/healthz"]
    assert found == Unreachable("https://h.example/", "status", 503)


@pytest.mark.anyio
async def test_names_that_do_not_resolve_are_told_from_closed_ports() -> None:
    # A resolver may take long to say no, and a look that is cut off has found nobody.
    async with httpx.AsyncClient(trust_env=False, timeout=LIMIT_S) as client:
        with anyio.fail_after(LIMIT_S):
            nameless = await look_once("http://reelhook.invalid", "me", client=client)
            closed = await look_once("http://127.0.0.1:1", "me", client=client)
            bad = await look_once("http://h:x", "me", client=client)
    assert nameless is not None
    assert closed is not None
    assert bad is not None
    assert (nameless.problem, closed.problem, bad.problem) == ("dns", "connect", "connect")


@pytest.mark.anyio
async def test_the_check_goes_on_until_the_url_answers() -> None:
    answers = iter([404, 502, 200])

    async def no_pause(_: float) -> None:
        await anyio.lowlevel.checkpoint()

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(next(answers), json={"instance": "me"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        found = await check_from_outside("https://h.example", "me", client=client, sleep=no_pause)
    assert found is None
    assert list(answers) == []


@pytest.mark.anyio
async def test_the_check_ends_with_the_last_reason() -> None:
    transport = httpx.MockTransport(answering(404, {}))
    async with httpx.AsyncClient(transport=transport) as client:
        found = await check_from_outside("https://h.example", "me", client=client, timeout_s=0)
    assert found == Unreachable("https://h.example", "status", 404)


@pytest.mark.anyio
async def test_a_look_at_what_never_ends_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.2)

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(ConnectionError):
            while True:
                writer.write(b"H")
                await writer.drain()
                await asyncio.sleep(0.01)

    async with (
        asyncio.timeout(LIMIT_S),
        outside_client() as client,
        await asyncio.start_server(drip, "127.0.0.1", 0) as server,
    ):
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        found = await check_from_outside(url, "me", client=client, timeout_s=0)
    assert found == Unreachable(url, "connect")

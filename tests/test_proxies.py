"""The files for nginx and Caddy, as these programs run them in front of a receiver.

Changed are names, ports, and where files lie; each change has to find what it changes.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Final, Self

import httpx
import pytest

from receiver.clock import DAY, wall_clock
from receiver.tokens import TokenBox, webhook_url
from scripts.proofs.ports import held_port
from tests.doubles import ADMIN_TOKEN, LIMIT_S, Running, running
from tests.make import KEY, claims, success, uuid, wrapped
from tests.receiver.sender.remotes import certificate

DEPLOY: Final = Path(__file__).parents[1] / "deploy"
NAME: Final = "hooks.example.com"
CLIENT: Final = "127.0.0.2"  # who calls; a proxy's own connections come from 127.0.0.1
ADMIN: Final = {"authorization": f"Bearer {ADMIN_TOKEN}"}
TAGS: Final = {"projectId": "proj_789", "note": "a b/c+ü"}
MIB: Final = 1 << 20

pytestmark = pytest.mark.process


@dataclass(frozen=True)
class Proxy:
    """A proxy that runs, with TLS on `port` and without on `plain`; its logs are in `folder`."""

    process: subprocess.Popen[str]
    port: int
    plain: int
    folder: Path
    told: SimpleQueue[str | None]

    @contextmanager
    def http(self) -> Iterator[httpx.Client]:
        """A client from CLIENT that knows the proxy by its name."""
        trust = ssl.create_default_context(cafile=self.folder / "cert.pem")
        with httpx.Client(
            transport=httpx.HTTPTransport(verify=trust, local_address=CLIENT, retries=8),
            base_url=f"https://127.0.0.1:{self.port}",
            headers={"host": NAME},
            event_hooks={"request": [_named]},
            timeout=LIMIT_S,
        ) as http:
            yield http

    def until_told(self, words: str) -> None:
        """Read on in what it says on stderr, up to these words."""
        assert any(words in line for line in iter(self.told.get, None)), f"never said: {words}"

    def logs(self) -> str:
        """All that it has written so far, on stderr too."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


def _named(request: httpx.Request) -> None:
    request.extensions = {**request.extensions, "sni_hostname": NAME}


def fitted(name: str, changes: Mapping[str, str]) -> str:
    """A shipped file with other words in it, each of which was there."""
    text = (DEPLOY / name).read_text()
    for old, new in changes.items():
        assert old in text, f"{name} does not say {old!r}"
        text = text.replace(old, new)
    return text


NGINX: Final = """\
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/reelhook.conf;
}}
"""


def nginx(folder: Path, ports: tuple[int, int], upstreams: list[int], **changes: str) -> list[str]:
    """Its arguments, over our file."""
    plain, port = ports
    servers = "".join(f"server 127.0.0.1:{number} max_fails=0;" for number in upstreams)
    shipped = fitted(
        "nginx.conf",
        {
            **changes,
            "listen 80;": f"listen 127.0.0.1:{plain};",
            "    listen [::]:80;\n": "",
            "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
            "    listen [::]:443 ssl;\n": "",
            f"/etc/letsencrypt/live/{NAME}/fullchain.pem": f"{folder}/cert.pem",
            f"/etc/letsencrypt/live/{NAME}/privkey.pem": f"{folder}/key.pem",
            "/var/log/nginx": str(folder),
            "server 127.0.0.1:8000 max_fails=0;": servers,
        },
    )
    (folder / "reelhook.conf").write_text(shipped)
    user = "user root;" if os.geteuid() == 0 else ""  # the folder is nobody else's
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, user=user))
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None
    return [program, "-e", "stderr", "-c", f"{folder}/nginx.conf"]


def caddy(folder: Path, ports: tuple[int, int], upstreams: list[int], **changes: str) -> list[str]:
    """Its arguments, over our file."""
    plain, port = ports
    servers = " ".join(f"127.0.0.1:{number}" for number in upstreams)
    alone = "admin off\n\tauto_https disable_redirects\n\tdefault_bind 127.0.0.1\n\tservers {"
    shipped = fitted(
        "Caddyfile",
        {
            **changes,
            "\tservers {": f"\t{alone}",
            f"\n{NAME} {{": f"\n{NAME}:{port} {{\n\ttls {folder}/cert.pem {folder}/key.pem",
            f"http://{NAME} {{": f"http://{NAME}:{plain} {{",
            "/var/log/caddy": str(folder),
            "reverse_proxy 127.0.0.1:8000 {\n": f"reverse_proxy {servers} {{\n",
        },
    )
    (folder / "Caddyfile").write_text(shipped)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", f"{folder}/Caddyfile"]


PROGRAMS: Final = {"nginx": nginx, "caddy": caddy}
READY: Final = {"nginx": "start worker process ", "caddy": "serving initial configuration"}


@contextmanager
def started(program: str, folder: Path, *upstreams: int, **changes: str) -> Iterator[Proxy]:
    """nginx or Caddy in front of these ports of this machine."""
    if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip(f"needs Debian's package {program} on this machine")
    folder.mkdir(parents=True, exist_ok=True)
    certificate(folder, NAME)
    plain, port = ports = held_port(), held_port()
    process = subprocess.Popen(
        PROGRAMS[program](folder, ports, list(upstreams), **changes),
        env={**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
    )
    told: SimpleQueue[str | None] = SimpleQueue()
    listener = Thread(target=_listen, args=(process, folder / "stderr.log", told))
    listener.start()
    with process:
        try:
            proxy = Proxy(process, port, plain, folder, told)
            if "own.log" not in "".join(changes.values()):  # where that goes is not stderr
                proxy.until_told(READY[program])
            yield proxy
        finally:
            process.terminate()
            listener.join(LIMIT_S)


def _listen(process: subprocess.Popen[str], log: Path, told: SimpleQueue[str | None]) -> None:
    assert process.stderr is not None
    # Caddy knows a site by its port too, and here that is no usual one: what names none of its
    # sites' ports is logged on stderr, and has to be there while it runs.
    with log.open("w", buffering=1) as file:
        for line in process.stderr:
            file.write(line)
            told.put(line)
    told.put(None)


@dataclass(frozen=True)
class Behind:
    """A receiver, and what stands in front of it."""

    receiver: Running
    proxy: Proxy


@pytest.fixture(scope="module", params=sorted(PROGRAMS))
def behind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp(request.param)
    with (
        running(folder, REELHOOK_PUBLIC_URL=f"https://{NAME}") as receiver,
        started(request.param, folder / "proxy", receiver.port) as proxy,
    ):
        yield Behind(receiver, proxy)


def webhook(number: int) -> tuple[str, str]:
    """A task of this number and the path of its webhookURL, signed tags in it."""
    task, now = uuid(number), wall_clock()
    minted = claims(task=task, issued_at=now, expires_at=now + DAY, tags=TAGS)
    return task, webhook_url("", "runware", TokenBox([KEY]).mint(minted), TAGS)


def token_of(path: str) -> str:
    """What no log may have of a webhookURL."""
    return path.partition("sig=")[2].partition("&")[0]


def called_back(http: httpx.Client, number: int, **headers: str) -> httpx.Response:
    """The answer to a task's callback."""
    task, path = webhook(number)
    body = wrapped(success(number, task))
    return http.post(path, content=body, headers=headers)


def test_a_callback_gets_through_with_its_token_its_tags_and_its_sender(behind: Behind) -> None:
    with behind.proxy.http() as http:
        forged = {"x-forwarded-for": "203.0.113.9", "forwarded": "for=203.0.113.9"}
        answer = called_back(http, 1, **forged)
        kept = http.get("/v1/callbacks", params={"task": uuid(1)}, headers=ADMIN).json()["data"]
        task = http.get(f"/v1/tasks/{uuid(1)}", headers=ADMIN).json()

    assert answer.json() == {"status": "recorded", "results": 1}
    assert [one["remote"] for one in kept] == [CLIENT]
    assert task["tags"] == TAGS


def test_a_mib_gets_through_and_what_is_more_is_refused_by_the_receiver(behind: Behind) -> None:
    _, path = webhook(2)
    with behind.proxy.http() as http:
        whole = http.post(path, content=b" " * MIB)
        more = http.post(path, content=b" " * (MIB + 1))
    with behind.proxy.http() as http:  # who was refused amid a body finds his connection closed
        stranger = http.post("/webhooks/runware?sig=no", content=b"{}")

    assert (whole.status_code, whole.json()["status"]) == (200, "quarantined")
    assert (more.status_code, more.json()["code"]) == (413, "too_large")
    assert (stranger.status_code, stranger.json()["status"]) == (401, 401)


def test_events_come_as_they_happen(behind: Behind) -> None:
    with (
        behind.proxy.http() as http,
        http.stream("GET", "/v1/events/stream", headers=ADMIN) as stream,
    ):
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        next(lines)  # it has begun
        assert called_back(http, 3).status_code == 200
        told = next(line for line in lines if line.startswith("data:"))
    assert json.loads(told.partition(":")[2])["task_id"] == uuid(3)


def test_the_rest_of_the_api_and_the_dashboard_are_there(behind: Behind) -> None:
    with behind.proxy.http() as http:
        assert http.get("/readyz").json()["status"] == "ready"
        assert http.get("/v1/tasks").status_code == 401
        note = {"platform": "runware", "expected": 1, "metadata": {"note": "x" * (3 * MIB)}}
        large = http.put(f"/v1/tasks/{uuid(4)}", json=note, headers=ADMIN)
        link = http.post("/v1/login-links", headers=ADMIN).json()["path"]
        form = {"code": link.partition("code=")[2]}
        entered = http.post("/login", data=form, headers={"origin": f"https://{NAME}"})

    assert large.is_success
    assert entered.status_code == 303
    assert "__Host-" in entered.headers["set-cookie"]  # it knows that this is https
    assert "://" not in entered.headers["location"]


def written(proxy: Proxy, count: int) -> str:
    """A proxy's logs once they have so many callbacks: lines are written after answers."""
    until = time.monotonic() + LIMIT_S
    while (logs := proxy.logs()).count("/webhooks/runware") < count:
        assert time.monotonic() < until, logs
        time.sleep(0.02)
    return logs


def test_no_log_has_a_query(behind: Behind) -> None:
    _, path = webhook(5)
    with behind.proxy.http() as http:
        http.post(path, content=b"{}", headers={"referer": f"https://{NAME}{path}"})
        http.get(path)
        http.post(path + "x" * 2_000, content=b"{}")
        # Its site's own log is asked for by this name alone: see `_listen`.
        http.post(path, content=b"{}", headers={"host": f"{NAME}:{behind.proxy.port}"})
    with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as plain:
        url = f"http://127.0.0.1:{behind.proxy.plain}{path}"
        refused = plain.post(url, content=b"{}", headers={"host": NAME})
    logs = written(behind.proxy, 5)

    assert refused.status_code == 404  # and so no Location that says it once more
    assert token_of(path) not in logs
    assert "sig=" not in logs
    assert CLIENT in logs
    assert "/webhooks/runware" in (behind.proxy.folder / "reelhook.log").read_text()


# How the programs log where nobody tells them not to.
USUAL: Final = {
    "nginx": {"reelhook.log reelhook;": "reelhook.log;", "log emerg;": "log;"},
    "caddy": {
        "log {\n\t\timport no_query\n": "log {\n\t\toutput file /var/log/caddy/own.log\n",
        "\t\timport no_query\n": "",
    },
}
AT_ONCE: Final = {"nginx": {}, "caddy": {"lb_try_duration 15s": "lb_try_duration 0s"}}


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_nor_when_nobody_is_behind_it(program: str, tmp_path: Path) -> None:
    """A deploy: the receiver is away, and the programs have something to complain about."""
    _, path = webhook(1)

    def complaint(folder: Path, **changes: str) -> str:
        changes |= AT_ONCE[program]
        with started(program, folder, held_port(), **changes) as proxy, proxy.http() as http:
            assert http.post(path, content=b"{}").status_code in (502, 503)
        logs = proxy.logs()
        for log in folder.glob("*.log"):
            log.unlink()  # no file that is left may have a token
        return logs

    assert complaint(tmp_path / "usual", **USUAL[program]).count(token_of(path)) > 1
    ours = complaint(tmp_path / "ours")
    assert "/webhooks/runware" in ours
    assert token_of(path) not in ours


class Upstream:
    """What a receiver may be to a proxy: always healthy, and it answers callbacks or hangs up."""

    def __init__(self, answers: bool, port: int = 0) -> None:
        self.callbacks = 0
        self._answers = answers
        self._listening = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listening.getsockname()[1]
        self._thread = Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(LIMIT_S)
        self._listening.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                self._one(*self._listening.accept())

    def _one(self, connection: socket.socket, _: object) -> None:
        with connection:
            is_callback = connection.recv(65_536).startswith(b"POST")
            self.callbacks += is_callback
            if self._answers or not is_callback:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_a_callback_is_given_to_one_receiver_alone(program: str, tmp_path: Path) -> None:
    """What became of it, the proxy can't know; the platform asks again if it wants to."""
    with (
        Upstream(answers=False) as one,
        Upstream(answers=False) as other,
        started(program, tmp_path / "proxy", one.port, other.port) as proxy,
        proxy.http() as http,
    ):
        assert http.post("/webhooks/runware", content=b"{}").status_code == 502
    assert one.callbacks + other.callbacks == 1


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_a_callback_goes_to_whoever_listens(program: str, tmp_path: Path) -> None:
    with (
        Upstream(answers=True) as there,
        started(program, tmp_path / "proxy", away := held_port(), there.port) as proxy,
        proxy.http() as http,
    ):
        if program == "caddy":
            proxy.until_told(f"127.0.0.1:{away}: connect: connection refused")
        answers = [http.post("/webhooks/runware", content=b"{}") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert there.callbacks == 4


def test_nginx_sees_at_once_that_somebody_is_back(tmp_path: Path) -> None:
    """A deploy restarts one after the other; both together would be nobody."""
    ports = held_port(), held_port()
    with started("nginx", tmp_path / "proxy", *ports) as proxy, proxy.http() as http:
        for there in (*ports, *ports):
            with Upstream(answers=True, port=there) as upstream:
                answers = {http.post("/webhooks/runware", content=b"{}").status_code for _ in "ab"}
            assert (answers, upstream.callbacks) == ({200}, 2)


def test_caddy_keeps_callbacks_while_the_receiver_restarts(tmp_path: Path) -> None:
    """From 2.7.6 on. Debian 12 has 2.6.2, which lets only a GET wait: the platform comes again."""
    port = held_port()
    with (
        started("caddy", tmp_path / "proxy", port) as proxy,
        proxy.http() as http,
        ThreadPoolExecutor() as aside,
    ):
        proxy.until_told(f"127.0.0.1:{port}: connect: connection refused")
        asked = aside.submit(called_back, http, 1)
        waits = caddys_version() >= (2, 7, 6)
        assert waits or asked.result(LIMIT_S).status_code == 503
        with running(tmp_path / "receiver", PORT=str(port)):
            if not waits:
                assert http.get("/healthz").status_code == 200  # it has seen that somebody is there
                asked = aside.submit(called_back, http, 1)
            assert asked.result(LIMIT_S).json() == {"status": "recorded", "results": 1}


def caddys_version() -> tuple[int, ...]:
    """Of the one on this machine."""
    told = subprocess.run(["caddy", "version"], check=True, capture_output=True, text=True).stdout
    return tuple(int(part) for part in told.split()[0].lstrip("v").split("-")[0].split("."))

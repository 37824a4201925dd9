"""What the doctor finds, with what is really there: files, sockets, a receiver, and its public URL.

What no test can have, such as a tunnel of somebody else, is told to the functions that judge it.
"""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_httpserver import HTTPServer

from receiver.clock import SECOND
from receiver.doctor import examine, machine, network
from receiver.doctor.findings import Finding, Level, error, ok, warning, worst
from receiver.doctor.network import Facts
from receiver.outside import MOST, Seen, look
from receiver.settings import Settings, new_key, write_local
from receiver.store.migrate import migrations
from receiver.tokens import LEEWAY
from tests.doubles import Running, running
from tests.make import success, uuid, wrapped
from tests.receiver.shell import reelhook

HERE = Seen("http://127.0.0.1:8000", status=200, instance="a")
THERE = Seen("https://hooks.example.com", status=200, instance="a")


def settings(**environ: str) -> Settings:
    return Settings.read(environ)


def told(found: Iterator[Finding]) -> list[tuple[str, Level]]:
    """(check, level) of each; every trouble has its fix, and nothing else has one."""
    listed = list(found)
    assert all(bool(one.fix) == (one.level is not Level.OK) for one in listed), listed
    return [(one.check, one.level) for one in listed]


def text_of(found: Iterator[Finding]) -> str:
    return "\n".join(f"{one.text} {one.fix}" for one in found)


# This machine


def test_settings_are_all_told_at_once() -> None:
    wrong = settings(HOST="0.0.0.0", REELHOOK_ALLOW_NETWORKS="x", LOG_LEVEL="loud")
    assert told(machine.settings_read(wrong)) == [("settings", Level.ERROR)] * 3
    many = settings(WEB_CONCURRENCY="4")
    assert told(machine.settings_read(many)) == [("settings", Level.WARNING)]
    assert told(machine.settings_read(settings())) == [("settings", Level.OK)]


def test_keys(tmp_path: Path) -> None:
    home = {"REELHOOK_DATA_DIR": str(tmp_path / "data")}
    assert "makes them" in text_of(machine.keys(settings(**home)))
    short = settings(**home, REELHOOK_SIGNING_KEYS="short", REELHOOK_ENCRYPTION_KEYS="x")
    assert told(machine.keys(short)) == [("keys", Level.ERROR)] * 2
    write_local(tmp_path / "data", signing_keys=new_key())
    assert "One signs" in text_of(machine.keys(settings(**home)))
    public = settings(
        **home,
        HOST="0.0.0.0",
        REELHOOK_STATIC_KEYS=new_key(),
        REELHOOK_SIGNING_KEYS=f"{new_key()},{new_key()}",
    )
    assert told(machine.keys(public)) == [
        ("keys", Level.WARNING),
        ("keys", Level.WARNING),
        ("keys", Level.OK),
    ]
    assert "The first of 2 signs" in text_of(machine.keys(public))
    none = settings(REELHOOK_DATA_DIR=str(tmp_path / "none"), HOST="0.0.0.0")
    assert told(machine.keys(none)) == [("keys", Level.WARNING)]


def test_a_data_directory_is_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "data"
    assert "made at the first start" in text_of(machine.data_directory(path))
    write_local(path, signing_keys="x")
    assert told(machine.data_directory(path)) == [("data directory", Level.OK)]
    path.chmod(0o755)
    assert told(machine.data_directory(path)) == [("data directory", Level.WARNING)]
    path.chmod(0o770)
    assert told(machine.data_directory(path)) == [("data directory", Level.ERROR)]
    path.chmod(0o700)
    (path / "local.json").chmod(0o640)
    assert told(machine.data_directory(path)) == [("data directory", Level.ERROR)]


def test_a_data_directory_that_can_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    assert told(machine.data_directory(tmp_path)) == [("data directory", Level.ERROR)]


@pytest.mark.parametrize(
    ("kind", "level"),
    [("ext4", Level.OK), ("overlay", Level.WARNING), ("tmpfs", Level.ERROR), ("", Level.OK)],
)
def test_a_disk_that_does_not_stay(tmp_path: Path, kind: str, level: Level) -> None:
    mounts = f"36 35 98:0 / / rw - {kind} /dev/root rw\n" if kind else ""
    found = machine.database(settings(REELHOOK_DATA_DIR=str(tmp_path)), mounts)
    assert told(found)[0] == ("disk", level)


def test_a_hosting_platform_that_wipes_its_disk(tmp_path: Path) -> None:
    found = machine.database(settings(REELHOOK_DATA_DIR=str(tmp_path), DYNO="web.1"), "")
    assert told(found)[0] == ("disk", Level.ERROR)


@pytest.mark.parametrize(("free", "level"), [(1 << 20, Level.ERROR), (1 << 29, Level.WARNING)])
def test_little_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: Level
) -> None:
    usage = type("usage", (), {"free": free})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    found = machine.database(settings(REELHOOK_DATA_DIR=str(tmp_path / "not" / "yet")), "")
    assert ("disk", level) in told(found)


def schema_found(path: Path) -> tuple[Level, str]:
    (found,) = machine._schema(path)
    return found.level, found.text


def test_a_database_and_who_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "reelhook.db"
    newest = migrations()[-1][0]
    assert schema_found(path)[0] is Level.OK
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute(f"PRAGMA user_version = {newest + 1}")
    assert schema_found(path) == (Level.ERROR, f"{path} has schema {newest + 1}, this release"
                                  f" knows {newest}.")  # fmt: skip
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {newest - 1}")
    assert f"brings it to {newest}" in schema_found(path)[1]
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA application_id = 7")
    assert schema_found(path)[0] is Level.ERROR
    path.write_bytes(b"something else")
    assert schema_found(path)[0] is Level.ERROR
    assert list(tmp_path.iterdir()) == [path]  # nothing was written beside it
    assert schema_found(tmp_path)[0] is Level.ERROR
    nowhere = machine.database(settings(DATABASE_URL=f"sqlite:///{tmp_path}"), "")
    assert told(nowhere) == [("database", Level.ERROR)]


def test_litestream_beside_an_sqlite_that_it_can_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(version: tuple[int, int, int]) -> bool:
        monkeypatch.setattr(machine, "VERSION", version)
        found = machine.database(settings(REELHOOK_DATA_DIR=str(tmp_path)), "")
        return ("Litestream", Level.WARNING) in told(found)

    assert not found((3, 40, 1))
    (tmp_path / ".reelhook.db-litestream").mkdir()
    assert [found((3, 40, 1)), found((3, 51, 2)), found((3, 51, 3))] == [True, True, False]


def test_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        asked = settings(PORT=str(port), REELHOOK_ADMIN_PORT="0")
        silent = Seen("http://127.0.0.1:1", fault="refused")
        assert told(machine.port(asked, silent)) == [("port", Level.ERROR), ("port", Level.OK)]
        assert told(machine.port(asked, HERE)) == [("port", Level.OK)] * 2
    assert "is free" in text_of(machine.port(settings(PORT=str(port)), silent))


# The network


def test_a_receiver_is_there_lets_us_in_and_works() -> None:
    silent = Facts(Seen("http://127.0.0.1:1", fault="refused"))
    strange = Facts(Seen("http://127.0.0.1:1", status=404))
    assert told(network.receiver(silent)) == [("receiver", Level.WARNING)]
    assert "it answers 404" in text_of(network.receiver(strange))
    assert told(network.receiver(Facts(HERE, refused="401"))) == [("receiver", Level.ERROR)]
    assert told(network.receiver(Facts(HERE, unready="full"))) == [("receiver", Level.ERROR)]
    assert told(network.receiver(Facts(HERE))) == [("receiver", Level.OK)]


@pytest.mark.parametrize(
    ("ahead", "level"),
    [(None, Level.OK), (4.0, Level.OK), (-6.0, Level.WARNING), (LEEWAY / SECOND + 1, Level.ERROR)],
)
def test_a_clock(ahead: float | None, level: Level) -> None:
    facts = Facts(HERE, Seen("https://x", status=200, ahead_s=ahead))
    assert told(network.clock(facts)) == [("clock", level)]
    assert "behind" in text_of(network.clock(facts)) or ahead is None or ahead > -5


@pytest.mark.parametrize(
    ("seen", "level", "word"),
    [
        (THERE, Level.OK, "is this receiver"),
        (None, Level.WARNING, "can't reach"),
        (Seen("u", fault="timed out"), Level.ERROR, "timed out"),
        (Seen("u", status=308, moved_to="https://y"), Level.ERROR, "redirects to https://y"),
        (Seen("u", status=502), Level.ERROR, "answers 502"),
        (Seen("u", status=200, instance="b"), Level.ERROR, "another receiver"),
    ],
)
def test_a_public_url(seen: Seen | None, level: Level, word: str) -> None:
    asked = settings(REELHOOK_PUBLIC_URL="https://hooks.example.com")
    assert told(network.public_url(asked, Facts(HERE, seen))) == [("public URL", level)]
    assert word in text_of(network.public_url(asked, Facts(HERE, seen)))


def test_a_public_url_without_a_receiver_here_or_without_tls() -> None:
    asked = settings(REELHOOK_PUBLIC_URL="http://hooks.example.com")
    facts = Facts(Seen("http://127.0.0.1:1", fault="refused"), THERE)
    assert told(network.public_url(asked, facts)) == [("public URL", Level.WARNING)] * 2


def test_tunnels_are_known_by_their_names() -> None:
    assert told(network.tunnel("https://a.trycloudflare.com")) == [("tunnel", Level.WARNING)]
    assert told(network.tunnel("https://nottrycloudflare.com")) == [("tunnel", Level.OK)]
    assert told(network.tunnel("")) == [("tunnel", Level.OK)]


def test_proxies() -> None:
    inside = ("10.0.0.7",) * 3
    plain, everybody = settings(), settings(FORWARDED_ALLOW_IPS="*")
    hosted = settings(RENDER="true", PORT="10000")
    assert told(network.proxies(plain, Facts(HERE, THERE))) == [("proxies", Level.OK)]
    assert told(network.proxies(plain, Facts(HERE, THERE, remotes=inside))) == [
        ("proxies", Level.WARNING)
    ]
    mixed = Facts(HERE, THERE, remotes=(*inside, "203.0.113.7", "unknown"))
    assert told(network.proxies(plain, mixed)) == [("proxies", Level.OK)]
    assert told(network.proxies(plain, Facts(HERE, remotes=inside))) == [("proxies", Level.OK)]
    assert told(network.proxies(everybody, Facts(HERE))) == [("proxies", Level.WARNING)]
    assert told(network.proxies(hosted, Facts(HERE))) == [("proxies", Level.WARNING)]


def test_what_is_this_machines_own() -> None:
    assert all(map(network.is_local, ("http://127.0.0.9:1", "http://localhost", "http://[::1]:2")))
    assert not any(map(network.is_local, ("https://hooks.example.com", "http://192.168.1.2", "")))


def test_the_worst_of_all() -> None:
    good, bad, worse = ok("a", "b"), warning("a", "b", "c"), error("a", "b", "c")
    assert [worst(found) for found in ([], [good, bad], [worse, bad])] == [*Level]


# A look at a URL


def answering(**answer: Any) -> httpx.MockTransport:
    """Somebody who answers everything with this."""
    return httpx.MockTransport(lambda request: httpx.Response(200, **answer))


@pytest.mark.anyio
async def test_a_look_never_raises(httpserver: HTTPServer) -> None:
    listed = answering(json=["no", "receiver"])
    assert await look("https://x", transport=listed) == Seen("https://x", status=200)
    dated = answering(headers={"date": "not a date"})
    assert (await look("https://x", transport=dated)).ahead_s is None
    assert (await look("http://127.0.0.1:1")).fault
    assert (await look("http://[bad")).fault
    for body in ("[" * 20_000, "nonsense", '{"instance": 7}', " " * MOST):
        httpserver.clear()
        httpserver.expect_request("/healthz").respond_with_data(body)
        found = await look(httpserver.url_for("/"))
        assert (found.is_receiver, found.status, found.fault) == (False, 200, None)
        assert found.ahead_s is not None
    httpserver.clear()
    moved = {"location": "https://y/"}
    httpserver.expect_request("/readyz").respond_with_data("", 301, moved)
    assert (await look(httpserver.url_for("/"), "/readyz")).moved_to == "https://y/"


# All of it


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("receiver")
    with running(folder, REELHOOK_ADMIN_TOKEN="", REELHOOK_SIGNING_KEYS="") as found:
        yield found


def levels(documents: list[dict[str, Any]]) -> dict[str, str]:
    return {found["check"]: found["level"] for found in documents}


@pytest.mark.process
def test_a_receiver_that_runs_is_well(served: Running) -> None:
    port = str(served.port)
    said = reelhook(served.folder, "doctor", "--json", PORT=port)
    found = levels(said.json)
    assert (said.code, said.err) == (0, "")
    assert found == {
        **dict.fromkeys(["settings", "keys", "data directory", "disk", "database", "port"], "ok"),
        "receiver": "ok",
        "clock": "ok",
        "public URL": "warning",
        "tunnel": "ok",
        "proxies": "ok",
    }
    human = reelhook(served.folder, "doctor", PORT=port)
    assert (human.code, human.err) == (0, "")
    assert f"ok       receiver        {served.ready['url']} answers and is ready.\n" in human.out
    assert "         → Set REELHOOK_PUBLIC_URL" in human.out


@pytest.mark.process
def test_a_wrong_token_and_a_strange_public_url_are_exit_1(
    served: Running, httpserver: HTTPServer
) -> None:
    url = reelhook(served.folder, "url", uuid(1)).out.strip()
    assert httpx.post(url, content=wrapped(success(1, uuid(1)))).status_code == 200
    environ = {"REELHOOK_ADMIN_TOKEN": new_key(), "PORT": str(served.port)}
    said = reelhook(served.folder, "doctor", "--json", **environ)
    assert (said.code, levels(said.json)["receiver"]) == (1, "error")
    said = reelhook(served.folder, "doctor", "--json", PORT="none")
    assert (said.code, [one["check"] for one in said.json]) == (1, ["settings"])


@pytest.mark.anyio
async def test_nothing_is_changed_by_looking(tmp_path: Path) -> None:
    data = tmp_path / "data"
    found = await examine({"REELHOOK_DATA_DIR": str(data), "PORT": "0"})
    assert worst(found) is Level.WARNING
    assert not data.exists()


@pytest.mark.anyio
async def test_the_public_url_is_asked_where_it_is_none_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def noted(url: str, path: str = "/healthz") -> Seen:
        asked.append(url)
        return Seen(url, status=200, instance=None)

    monkeypatch.setattr(network, "look", noted)
    environ = {"REELHOOK_DATA_DIR": str(tmp_path), "REELHOOK_PUBLIC_URL": "https://x.example"}
    facts = await network.ask(settings(**environ))
    assert asked == ["http://127.0.0.1:8000", "https://x.example"]
    assert facts.public is not None

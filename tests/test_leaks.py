"""The control of the scanner: a leak of each kind, planted in each place, must fail a session."""

from __future__ import annotations

import dataclasses
import inspect
import os
import pkgutil
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import BaseModel

import receiver
import submitter
from receiver.access import token_of
from receiver.delivery.signing import new_private_key, new_secret
from receiver.tokens import TokenBox, webhook_url
from tests.doubles import ADMIN_TOKEN, LIMIT_S, ROOT, SIGNING_KEY
from tests.leaks import (
    ALLOWED,
    ANYTHING,
    KNOWN,
    SHAPES,
    keys_in,
    keys_kept_in,
    leaks_in,
    leaks_in_folder,
)
from tests.make import claims

TOKEN: Final = TokenBox([SIGNING_KEY]).mint(claims())
SECRET: Final = new_secret(bytes(range(32)))
LEAKS: Final = {
    "token": TOKEN,
    "credential in a query": f"POST /webhooks/runware?sig={TOKEN[:-1]} 200",
    "endpoint secret": f"signed with {SECRET}",
    "API token": f"made {token_of(bytes(range(32)))}",
    "authorization": f"{{'Authorization': 'Bearer {ADMIN_TOKEN}'}}",
    KNOWN: f"key={ADMIN_TOKEN}",
}
HARMLESS: Final = (
    "POST /webhooks/runware?sig=eyJ2Ijox…&projectId=proj_789",
    "?sig=[redacted]&apiKey=[redacted]",
    "whsec_…",
    "Authorization: Bearer $REELHOOK_ADMIN_TOKEN",
    "authorization: bearer [redacted]",
    "Send `Authorization: Bearer` with the admin token",
    "{'authorization': '[redacted]'}",
)


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder for leaks that is gone when this session is judged."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def kinds(text: str | bytes, place: str = "log: receiver") -> set[str]:
    given = text.encode() if isinstance(text, str) else text
    return {leak.kind for leak in leaks_in(given, place, known={ADMIN_TOKEN.encode()})}


@pytest.mark.parametrize("kind", LEAKS)
def test_each_kind_of_secret_is_found_wherever_it_stands(kind: str) -> None:
    for text in (LEAKS[kind], f"x{LEAKS[kind]}\n", f'"{LEAKS[kind]}"', f"\\x00{LEAKS[kind]}\x00"):
        assert kind in kinds(text)
    assert set(LEAKS) == {*SHAPES, KNOWN}
    assert kinds(f"{LEAKS[kind]} \xff".encode("latin-1"))


def test_more_of_the_secrets_are_known_by_their_shape() -> None:
    assert kinds(new_private_key(bytes(32))) == {"endpoint secret"}
    assert kinds("GET /webhooks/runware?apiKey=a-static-key-for-consoles") == {
        "credential in a query"
    }
    assert kinds(webhook_url("", "runware", TOKEN, {"a": "b"})) >= {"token"}
    assert kinds("Proxy-Authorization: Basic dXNlcjpwYXNzd29yZA==") == {"authorization"}


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_speaks_of_a_secret_is_none(text: str) -> None:
    assert kinds(text) == set()


def test_a_secret_that_a_process_was_given_may_stand_where_its_kind_may() -> None:
    given = SECRET.encode()
    for place, found in (
        ("answer: POST /v1/endpoints 201", set()),
        ("log: x", {"endpoint secret"}),
    ):
        assert {leak.kind for leak in leaks_in(given, place, known={given})} == found


def test_a_leak_is_told_without_the_secret() -> None:
    for leak in leaks_in(LEAKS[KNOWN].encode(), "log", "a test", {ADMIN_TOKEN.encode()}):
        assert ADMIN_TOKEN not in str(leak)
        assert "key=" in str(leak)


def test_a_place_allows_what_it_is_for_and_nothing_else() -> None:
    put = "answer: PUT /v1/tasks/24cd5dff-cb81-4db5-8506-b72a9425f9d1 201"
    assert kinds(LEAKS["token"], put) == set()
    assert kinds(LEAKS["endpoint secret"], put) == {"endpoint secret"}
    assert kinds(LEAKS["endpoint secret"], "answer: POST /v1/endpoints 201") == set()
    for place in (put.replace("PUT", "GET"), put.replace("201", "409"), f"{put}/x", "log: x"):
        assert kinds(LEAKS["token"], place) == {"token"}
    for place in ("answer: GET /v1/endpoints 200", "stdout: reelhook endpoints list"):
        assert kinds(LEAKS["endpoint secret"], place) == {"endpoint secret"}
    assert kinds(LEAKS["token"], "stdout: reelhook url") == set()
    assert kinds(LEAKS["token"], "stderr: reelhook url") == {"token"}


def test_no_place_allows_all_but_bytes_as_they_came() -> None:
    whole = [place for place, allowed, _ in ALLOWED if allowed == ANYTHING]
    assert len(whole) == 3
    assert all("callbacks" in place for place in whole)
    assert all(reason for _, _, reason in ALLOWED)
    assert not any(place.startswith(("log", "stderr", "error", "arg")) for place, _, _ in ALLOWED)


def test_a_database_is_read_by_column(elsewhere: Path) -> None:
    with closing(sqlite3.connect(elsewhere / "reelhook.db")) as connection:
        connection.executescript(
            "PRAGMA journal_mode = WAL;"
            "CREATE TABLE endpoints (secrets TEXT, reason TEXT);"
            "CREATE TABLE callbacks (body BLOB, reason TEXT);"
        )
        connection.execute("INSERT INTO endpoints VALUES (?, NULL)", (SECRET,))
        connection.execute("INSERT INTO callbacks VALUES (?, NULL)", (TOKEN.encode(),))
        connection.commit()
        assert list(leaks_in_folder(elsewhere, ())) == []
        connection.execute("UPDATE endpoints SET reason = ?", (f"refused {SECRET}",))
        connection.execute("UPDATE callbacks SET reason = ?", (TOKEN.encode(),))
        connection.commit()  # it stands in the write-ahead log alone
        found = {(leak.kind, leak.place) for leak in leaks_in_folder(elsewhere, ())}
    assert found == {
        ("endpoint secret", "column: endpoints.reason"),
        ("token", "column: callbacks.reason"),
    }


def test_a_file_is_read_whole_and_a_broken_database_too(elsewhere: Path) -> None:
    (elsewhere / "reelhook.db").write_bytes(b"SQLite format 3\x00" + TOKEN.encode())
    (elsewhere / "serve.log").write_text(f"{'x' * 100_000}{TOKEN}")
    installed = elsewhere / "venv" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "demo.py").write_text(TOKEN)
    found = {leak.place for leak in leaks_in_folder(elsewhere, ())}
    assert found == {"file: reelhook.db", "file: serve.log"}


def test_keys_are_known_from_environments_and_from_local_receivers(tmp_path: Path) -> None:
    environ = {
        "REELHOOK_SIGNING_KEYS": "a-first-signing-key,a-second-signing-key",
        "REELHOOK_ADMIN_TOKEN": "an-admin-token",
        "RUNWARE_API_KEY": "any",
        "REELHOOK_PUBLIC_URL": "https://hooks.example.com",
    }
    assert keys_in(environ.items()) == {
        b"a-first-signing-key",
        b"a-second-signing-key",
        b"an-admin-token",
    }
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "local.json").write_text('{"signing_keys": "of-a-local-receiver", "url": "http://x"}')
    assert keys_kept_in(tmp_path) == {b"of-a-local-receiver"}


PLANTED: Final = re.findall(r"def (test_\w+)", (ROOT / "tests" / "planted.py").read_text())


def session(*arguments: str, **environ: str) -> tuple[int, str]:
    """A session of pytest that leaves its files where ours does not look."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["-q", "-p", "no:cacheprovider", f"--basetemp={folder}/files"]
        found = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *arguments],
            cwd=ROOT,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=4 * LIMIT_S,
            check=False,
        )
    return found.returncode, found.stdout


def untold(said: str, kind: str) -> list[str]:
    """The places where a planted leak of a kind was not found."""
    told = [line for line in said.splitlines() if line.startswith(f"LEAK {kind} in ")]
    return [name for name in PLANTED if not any(_tells(line, name) for line in told)]


@pytest.mark.process
@pytest.mark.parametrize("kind", LEAKS)
def test_a_planted_leak_fails_the_session_in_every_place(kind: str) -> None:
    code, said = session("tests/planted.py", PLANT=kind)
    assert f"{len(PLANTED)} passed" in said, said
    assert code == 1
    assert untold(said, kind) == []


@pytest.mark.process
def test_what_each_of_several_workers_hears_fails_the_session() -> None:
    """A key is a secret for all of them, whichever of them starts a process with it."""
    code, said = session("tests/planted.py", "-n", "2", PLANT=KNOWN)
    assert f"{len(PLANTED)} passed" in said, said
    assert code == 1
    assert untold(said, KNOWN) == []


@pytest.mark.process
def test_a_worker_that_ends_without_a_word_fails_the_session(tmp_path: Path) -> None:
    silent = tmp_path / "silent.py"
    silent.write_text(
        "import pytest\n"
        "@pytest.hookimpl(trylast=True)\n"
        "def pytest_sessionfinish(session):\n"
        "    getattr(session.config, 'workeroutput', {}).pop('heard', None)\n"
    )
    options = ("-n", "1", "-p", "silent")
    code, said = session("tests/receiver/test_ids.py", *options, PYTHONPATH=str(tmp_path))
    assert code == 1
    assert "LEAK anything in worker gw0 (session): It ended without a word" in said


def _tells(line: str, test: str) -> bool:
    # Files are known by their folder, which has the test's name, in that of a worker.
    return re.search(rf"(::{test}|[(/]{test}0)\)", line) is not None


@pytest.mark.process
def test_a_session_without_a_leak_passes() -> None:
    code, said = session("tests/receiver/test_ids.py", "tests/receiver/test_policy.py")
    assert (code, "LEAK" in said) == (0, False)


# What is shown of a thing when nobody thinks of it: in logs of exceptions, by debuggers.

SECRETIVE: Final = re.compile(
    r"(.*_)?(secrets?|token|(signing_|static_|api_)keys?|webhook_url|authorization|headers)"
)
PLAIN: Final = {
    "receiver.deliveries.Outcome.request_headers",  # redacted by the sender
    "receiver.deliveries.Attempt.request_headers",
    "receiver.ingest.Answer.headers",  # what the door answers
    "receiver.store.access.Known.token",  # what lists show of it
    "receiver.admin.routes.rows.Row.headers",  # their names
    "receiver.condition.Setting.is_secret",  # whether
}


def _shown_fields() -> Iterator[str]:
    for kind in _kinds():
        if dataclasses.is_dataclass(kind):
            shown = [part.name for part in dataclasses.fields(kind) if part.repr]
        else:
            shown = [name for name, part in kind.model_fields.items() if part.repr]
        yield from (f"{kind.__module__}.{kind.__name__}.{name}" for name in shown)


def _kinds() -> Iterator[Any]:
    for package in (receiver, submitter):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.endswith("__main__"):
                continue
            module = import_module(found.name)
            for kind in vars(module).values():
                if not inspect.isclass(kind) or kind.__module__ != found.name:
                    continue
                generated = dataclasses.is_dataclass(kind) and not _has_own_repr(kind)
                if generated or issubclass(kind, BaseModel):
                    yield kind


def _has_own_repr(kind: type) -> bool:
    made = vars(kind).get("__repr__")
    return made is not None and made.__code__.co_filename == inspect.getsourcefile(kind)


def test_no_secret_is_shown_by_the_repr_of_what_holds_it() -> None:
    shown = {name for name in _shown_fields() if SECRETIVE.fullmatch(name.rpartition(".")[2])}
    assert shown == PLAIN


def test_the_pages_show_no_secret() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("receiver/**/*.sql")]
    assert len(pages) > 10
    for page in pages:
        assert list(leaks_in(page.read_bytes(), f"page: {page.name}")) == []

"""What the commands do for a shell and a terminal: completion, widths, questions, dry runs."""

from __future__ import annotations

import fcntl
import os
import pty
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from receiver.cli import completing
from receiver.cli.help import WIDEST
from tests import warm
from tests.doubles import LIMIT_S, ROOT, Running, environment, running
from tests.make import success, uuid, wrapped
from tests.receiver.shell import Said, reelhook, run

pytestmark = pytest.mark.process

TASKS = [uuid(7_000 + n) for n in range(3)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A receiver with three tasks, one of them complete, and a paused endpoint with a queue."""
    folder = tmp_path_factory.mktemp("receiver")
    with running(folder, REELHOOK_ADMIN_TOKEN="", REELHOOK_SIGNING_KEYS="") as found:
        (endpoint,) = reelhook(folder, "endpoints", "add", "https://hooks.invalid/", "--json").json
        assert reelhook(folder, "endpoints", "pause", endpoint["id"]).code == 0
        urls = [reelhook(folder, "url", task, "--tag", "team=film").out.strip() for task in TASKS]
        assert httpx.post(urls[-1], content=wrapped(success(1, TASKS[-1]))).status_code == 200
        yield found


def ask(served: Running, *words: str, **environ: str) -> Said:
    return reelhook(served.folder, *words, **environ)


# How soon a receiver must have answered is a person's patience, and says nothing of what it is
# asked; a busy machine is slower than that.
PATIENT = f"""
from receiver.cli import completing, main
completing.PATIENCE = {LIMIT_S}
main()
"""


def completed(
    served: Running, *words: str, shell: str = "bash", patient: bool = False, **environ: str
) -> list[str]:
    """What a shell would offer for the last of these words."""
    if shell == "bash":
        typed = {"COMP_WORDS": " ".join(["reelhook", *words]), "COMP_CWORD": str(len(words))}
    else:
        typed = {"_TYPER_COMPLETE_ARGS": " ".join(["reelhook", *words])}
    typed["_REELHOOK_COMPLETE"] = f"complete_{shell}"
    command = [sys.executable, "-c", PATIENT] if patient else warm.reelhook()
    said = run(served.folder, command, **typed, **environ)
    assert (said.code, said.err) == (0, "")
    return said.out.split()


def test_commands_options_words_and_ids_complete(served: Running) -> None:
    assert completed(served, "endp") == ["endpoints"]
    assert "simulate" in completed(served, "")
    assert completed(served, "endpoints", "rot") == ["rotate-secret"]
    assert completed(served, "tasks", "list", "--st") == ["--status"]
    assert completed(served, "tasks", "list", "--status", "par") == ["partial", "partially_failed"]
    assert completed(served, "endpoints", "add", "https://x", "-e", "task.c") == ["task.completed"]
    assert sorted(completed(served, "tasks", "show", "", patient=True)) == sorted(TASKS)
    assert completed(served, "tasks", "show", TASKS[0], patient=True) == [TASKS[0]]
    zsh = completed(served, "endpoints", "show", "ep_", shell="zsh", patient=True)
    assert any("hooks.invalid" in word for word in zsh)


@pytest.mark.parametrize(
    "environ",
    [
        {"REELHOOK_URL": "http://127.0.0.1:1"},
        {"REELHOOK_ADMIN_TOKEN": "wrong"},
        {"PORT": "none"},
    ],
)
def test_a_shell_is_left_in_peace_when_no_ids_can_be_had(
    served: Running, environ: dict[str, str]
) -> None:
    assert completed(served, "tasks", "show", "", patient=False, **environ) == []


def test_who_does_not_answer_is_waited_for_no_longer_than_a_person_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("receiver.calling.TIMEOUT", 10 * LIMIT_S)
    monkeypatch.setattr(completing, "PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("REELHOOK_URL", f"http://127.0.0.1:{mute.getsockname()[1]}")
        assert completing.task_ids("") == []


def test_the_script_for_a_shell_is_printed(served: Running) -> None:
    source = ask(served, _REELHOOK_COMPLETE="source_bash")
    assert "complete -o default -F _reelhook_completion reelhook" in source.out


def on_a_terminal(served: Running, columns: int, *words: str, typed: str = "") -> tuple[int, str]:
    """The exit code of a command, and all that a terminal of so many columns shows of it."""
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environ = {name: text for name, text in environment(served.folder).items() if name != "COLUMNS"}
    with subprocess.Popen(
        warm.reelhook(*words), cwd=ROOT, env=environ, stdin=end, stdout=end, stderr=end
    ) as process:
        os.close(end)
        os.write(terminal, typed.encode())
        shown = b""
        try:
            while piece := os.read(terminal, 65_536):
                shown += piece
        except OSError:  # so ends a terminal on Linux
            pass
        os.close(terminal)
        return process.wait(LIMIT_S), shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [20, 60, 100])
def test_a_list_fits_the_terminal_and_keeps_its_ids_whole(served: Running, columns: int) -> None:
    code, shown = on_a_terminal(served, columns, "tasks", "list")
    lines = [line.replace("\x1b[1m", "").replace("\x1b[0m", "") for line in shown.splitlines()]
    table = lines[:4]
    assert (code, table[0].split()[0], len(lines)) == (0, "id", 5)
    assert [line.split()[0] for line in table[1:]] == TASKS[::-1]
    assert max(map(len, table)) <= max(columns, len(TASKS[0]))
    assert lines[4].startswith("No room for ")
    assert "\x1b[1m" in shown.splitlines()[0]


def test_what_is_owed_is_seen_on_a_terminal_of_80_columns(served: Running) -> None:
    _, shown = on_a_terminal(served, 80, "tasks", "list")
    head, *rows = [line.split() for line in shown.splitlines()]
    assert "results" in head
    assert [row[3] for row in rows[: len(TASKS)]] == ["1/1", "0/1", "0/1"]


def test_a_pipe_gets_every_column(served: Running) -> None:
    said = ask(served, "tasks", "list", COLUMNS="20")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[0].split()[-1] == "created_at"
    assert "\x1b" not in said.out


def test_no_colour_is_no_colour(served: Running) -> None:
    code, shown = on_a_terminal(served, 80, "tasks", "--help")
    assert (code, "\x1b[1mExamples\x1b[0m" in shown) == (0, True)
    assert max(len(line) for line in shown.splitlines()) <= WIDEST


def test_a_queue_is_counted_before_it_is_canceled(served: Running) -> None:
    (endpoint,) = ask(served, "endpoints", "list", "--json").json
    asked = ("endpoints", "cancel", endpoint["id"])
    dry = ask(served, *asked, "--dry-run", "--json")
    assert (dry.code, dry.json, dry.err) == (0, [{"count": 2, "complete": True}], "")
    code, shown = on_a_terminal(served, 80, *asked, typed="n\n")
    assert (code, "Cancel 2 deliveries to" in shown) == (1, True)
    (waiting, _) = ask(served, "deliveries", "list", "--state", "pending", "--json").json
    (one,) = ask(served, "deliveries", "cancel", waiting["id"], "--json").json
    assert one["state"] == "canceled"
    code, shown = on_a_terminal(served, 80, *asked, typed="y\n")
    assert (code, "1 deliveries to" in shown) == (0, True)
    assert ask(served, *asked, "--json").json == [{"id": endpoint["id"], "canceled": 0}]
    again = ask(served, "deliveries", "retry", waiting["id"])
    assert "its endpoint is paused. Then: reelhook endpoints resume ep_" in again.err
    assert ask(served, "endpoints", "cancel", "ep_none", "--dry-run").code == 5


def test_an_endpoint_is_changed_in_what_is_named(served: Running) -> None:
    made = ("endpoints", "add", "https://hooks.invalid/a", "--filter", "tags.team=a", "--json")
    rest = ("--filter", "tags.team=b", "--rate", "2.5", "--concurrency", "3", "--schedule", "0,9")
    (one,) = ask(served, *made, *rest, "--header", "x-a=b=c", "--description", "d").json
    assert one["filters"] == {"tags.team": ["a", "b"]}
    assert (one["rate_limit"], one["concurrency"], one["schedule"]) == (2.5, 3, [0, 9])
    assert (one["headers"], one["description"]) == ({"x-a": "b=c"}, "d")
    change = ("endpoints", "change", one["id"])
    (two,) = ask(served, *change, "--url", "https://hooks.invalid/b", "--ordered", "--json").json
    assert (two["url"], two["ordered"]) == ("https://hooks.invalid/b", True)
    assert two["filters"] == one["filters"]
    (three,) = ask(served, *change, "--no-ordered", "--v1a", "-e", "result.*", "--json").json
    assert (three["ordered"], three["signatures"]) == (False, ["v1", "v1a"])
    assert three["event_types"] == ["result.*"]
    nothing = ask(served, *change)
    assert (nothing.code, "Say what to change" in nothing.err) == (2, True)
    assert ask(served, *change, "--schedule", "soon").code == 2
    (paused,) = ask(served, "endpoints", "pause", one["id"], "--json").json
    assert paused["state"] == "paused"
    code, shown = on_a_terminal(served, 80, "endpoints", "remove", one["id"], typed="n\n")
    assert (code, "Forget https://hooks.invalid/b?" in shown) == (1, True)
    assert ask(served, "endpoints", "remove", one["id"], "--json").json == [
        {"id": one["id"], "removed": True}
    ]


def test_a_task_is_removed_once_it_was_asked_for(served: Running) -> None:
    task = uuid(7_100)
    assert ask(served, "url", task).code == 0
    code, shown = on_a_terminal(served, 80, "tasks", "remove", task, typed="n\n")
    assert (code, f"Forget {task}" in shown) == (1, True)
    assert ask(served, "tasks", "remove", task, "--json").json == [{"id": task, "removed": True}]
    assert ask(served, "tasks", "remove", task).code == 5


def test_what_used_to_say_a_sentence_alone_is_json_too(tmp_path: Path) -> None:
    keys = reelhook(tmp_path, "keys", "new", "--json")
    assert (keys.code, len(keys.json[0]), keys.err) == (0, 3, "")
    migrated = reelhook(tmp_path, "migrate", "--json")
    database = str(tmp_path / "data" / "reelhook.db")
    assert (migrated.code, migrated.json) == (0, [{"database": database, "up_to_date": True}])

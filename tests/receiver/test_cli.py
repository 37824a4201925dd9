"""The commands as processes, against a receiver that is served for real."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver import __version__
from receiver.delivery.signing import new_secret, sign
from receiver.settings import new_key
from tests.doubles import (
    ADMIN_TOKEN,
    ROOT,
    SIGNING_KEY,
    Running,
    environment,
    running,
)
from tests.make import processing, success, uuid, wrapped
from tests.receiver.shell import Said, reelhook

pytestmark = pytest.mark.process

OK, FAILED, USAGE, UNREACHABLE, AUTH, NOT_FOUND, TIMED_OUT, SOME_FAILED = range(8)

_numbers = count(1_000)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("receiver")
    # No admin token here: the commands find the one that the receiver made for itself.
    with running(folder, REELHOOK_ADMIN_TOKEN="", REELHOOK_SIGNING_KEYS="") as found:
        yield found


def ask(served: Running, *arguments: str, **environ: str) -> Said:
    """A command of the same user on the same machine."""
    return reelhook(served.folder, *arguments, **environ)


def new_task() -> str:
    return uuid(next(_numbers))


def signed_url(served: Running, task: str, *arguments: str) -> str:
    found = ask(served, "url", task, *arguments)
    assert (found.code, found.err) == (OK, "")
    return found.out.strip()


def post(url: str, *items: dict[str, Any]) -> int:
    return httpx.post(url, content=wrapped(*items)).status_code


def test_the_version_and_the_help_go_to_stdout(tmp_path: Path) -> None:
    assert reelhook(tmp_path, "--version").out == f"reelhook {__version__}\n"
    found = reelhook(tmp_path, "--help")
    assert (found.code, found.err) == (OK, "")
    for command in ("serve", "url", "tasks", "endpoints", "deliveries", "callbacks", "events"):
        assert command in found.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["tasks", "nonsense"],
        ["url"],
        ["url", "x", "--results", "0"],
        ["url", "x", "--results", "many"],
        ["url", "x", "--tag", "novalue"],
        ["tasks", "list", "--limit", "0"],
        ["tasks", "list", "--nonsense"],
        ["endpoints", "add"],
        ["endpoints", "add", "https://example.com", "--filter", "x"],
        ["verify", "missing-file"],
    ],
)
def test_a_wrong_usage_is_exit_2_on_stderr(tmp_path: Path, arguments: list[str]) -> None:
    found = reelhook(tmp_path, *arguments)
    assert (found.code, found.out) == (USAGE, "")
    assert found.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["url", uuid(1), "--platform", "Runware"],
        ["url", uuid(1), *[f"--tag=a{n}=b" for n in range(21)]],
        ["endpoints", "add", "https://example.com", "--description", "x" * 501],
    ],
)
def test_a_value_that_is_never_valid_is_exit_2(served: Running, arguments: list[str]) -> None:
    found = ask(served, *arguments)
    assert (found.code, found.out) == (USAGE, "")


def test_keys_are_printed_as_lines_of_an_environment_file(tmp_path: Path) -> None:
    found = reelhook(tmp_path, "keys", "new")
    names = [line.partition("=")[0] for line in found.out.splitlines()]
    made = ["REELHOOK_SIGNING_KEYS", "REELHOOK_ADMIN_TOKEN", "REELHOOK_ENCRYPTION_KEYS"]
    assert (found.code, names) == (OK, made)
    assert all(len(line.partition("=")[2]) >= 43 for line in found.out.splitlines())
    assert "rotate" in found.err
    assert reelhook(tmp_path, "keys", "new").out != found.out


def test_where_no_receiver_answers_is_exit_3(tmp_path: Path) -> None:
    found = reelhook(tmp_path, "tasks", "list", REELHOOK_URL="http://127.0.0.1:1")
    assert (found.code, found.out) == (UNREACHABLE, "")
    assert "reelhook serve" in found.err


def test_a_receivers_url_that_is_none_is_exit_3(tmp_path: Path) -> None:
    found = reelhook(tmp_path, "tasks", "list", REELHOOK_URL="http://[bad")
    assert found.code == UNREACHABLE


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"HOST": "0.0.0.0"}, "REELHOOK_PUBLIC_URL is not set"),
        ({"REELHOOK_SIGNING_KEYS": "short"}, "reelhook keys new"),
        ({"DATABASE_URL": "mysql://u:secret@h/db"}, "DATABASE_URL must be"),
        (
            {"DATABASE_URL": "postgresql://u:secret@127.0.0.1:1/db"},
            "PostgreSQL at 127.0.0.1:1 can't be used",
        ),
        ({"PORT": "http"}, "PORT: "),
        ({"REELHOOK_ALLOW_NETWORKS": "x"}, "REELHOOK_ALLOW_NETWORKS"),
        ({"REELHOOK_DELIVERY_SCHEDULE": "x"}, "REELHOOK_DELIVERY_SCHEDULE"),
        ({"REELHOOK_DELIVERY_DEADLINE": "0"}, "REELHOOK_DELIVERY_DEADLINE"),
        ({"REELHOOK_CA_FILE": "/nowhere/ca.pem"}, "REELHOOK_CA_FILE: /nowhere/ca.pem can't"),
        ({"REELHOOK_ENCRYPTION_KEYS": "not-32-bytes"}, "REELHOOK_ENCRYPTION_KEYS"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL"),
        ({"HOST": "192.0.2.1", "REELHOOK_PUBLIC_URL": "https://x",
          "REELHOOK_ADMIN_TOKEN": ADMIN_TOKEN, "REELHOOK_SIGNING_KEYS": SIGNING_KEY},
         "Can't listen on 192.0.2.1"),
        pytest.param({"PORT": "70000"}, "PORT"),
        pytest.param({"REELHOOK_PUBLIC_URL": "nonsense"}, "REELHOOK_PUBLIC_URL"),
    ],
)  # fmt: skip
def test_a_receiver_that_can_not_start_is_exit_3_and_says_what_to_change(
    tmp_path: Path, environ: dict[str, str], told: str
) -> None:
    found = reelhook(tmp_path, "serve", **environ)
    assert (found.code, found.out) == (UNREACHABLE, "")
    assert told in found.err
    assert "secret" not in found.err


def test_a_database_is_migrated_while_nobody_uses_it(served: Running, tmp_path: Path) -> None:
    found = reelhook(tmp_path, "migrate")
    assert (found.code, "up to date" in found.err) == (OK, True)
    found = ask(served, "migrate")
    assert (found.code, "Stop it first" in found.err) == (UNREACHABLE, True)


def test_a_wrong_token_is_exit_4(served: Running) -> None:
    found = ask(served, "tasks", "list", REELHOOK_ADMIN_TOKEN="wrong")
    assert (found.code, found.out) == (AUTH, "")
    assert "wrong" not in found.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["tasks", "show", uuid(1)],
        ["tasks", "watch", uuid(1)],
        ["callbacks", "show", "cb_x"],
        ["events", "show", "evt_x"],
        ["endpoints", "show", "ep_x"],
        ["endpoints", "pause", "ep_x"],
        ["endpoints", "remove", "ep_x"],
        ["deliveries", "show", "dlv_x"],
        ["deliveries", "retry", "dlv_x"],
    ],
)
def test_what_does_not_exist_is_exit_5(served: Running, arguments: list[str]) -> None:
    found = ask(served, *arguments)
    assert (found.code, found.out) == (NOT_FOUND, "")
    assert found.err


def test_a_conflict_is_exit_1(served: Running) -> None:
    task = new_task()
    signed_url(served, task, "--results", "2")
    found = ask(served, "url", task, "--results", "3")
    assert (found.code, found.out) == (FAILED, "")
    assert "expects 2" in found.err


def test_a_url_is_printed_that_takes_a_callback(served: Running) -> None:
    task = new_task()
    url = signed_url(served, task, "--results", "2", "--tag", "team=a b", "--platform", "runware")
    assert url.startswith(f"{served.ready['public_url']}/webhooks/runware?sig=")
    assert post(url, success(1, task), processing(task)) == 200
    (shown, result) = ask(served, "tasks", "show", task, "--json").json
    assert (shown["id"], shown["received"], shown["tags"]) == (task, 1, {"team": "a b"})
    assert result["task_id"] == task
    human = ask(served, "tasks", "show", task)
    assert (human.code, task in human.out, human.err) == (OK, True, "")
    (again,) = ask(served, "url", task, "--results", "2", "--json").json
    assert (again["may_submit"], "sig=" in again["webhook_url"]) == (False, True)


def test_a_task_is_followed_until_it_is_complete_or_the_time_is_over(served: Running) -> None:
    task = new_task()
    url = signed_url(served, task)
    found = ask(served, "tasks", "watch", task, "--timeout", "3")  # it has to be asked once by then
    assert (found.code, "not complete" in found.err) == (TIMED_OUT, True)
    assert found.out.split() == ["pending", "0", "of", "1"]
    assert post(url, success(1, task)) == 200
    found = ask(served, "tasks", "watch", task, "--json")
    assert (found.code, found.json[-1]["status"]) == (OK, "succeeded")


def test_a_task_is_made_due_and_its_urls_are_revoked(served: Running) -> None:
    task = new_task()
    url = signed_url(served, task)
    due = ask(served, "tasks", "reconcile", task)
    assert (due.code, due.out) == (OK, "")
    assert "reelhook reconcile" in due.err
    (due_again,) = ask(served, "tasks", "reconcile", task, "--json").json
    assert due_again["id"] == task
    revoked = ask(served, "tasks", "revoke", task)
    assert (revoked.code, revoked.out) == (OK, "")
    assert post(url, success(1, task)) == 410
    assert post(signed_url(served, task), success(1, task)) == 200
    (shown,) = ask(served, "tasks", "revoke", task, "--json").json
    assert shown["status"] == "succeeded"
    for verb in ("reconcile", "revoke"):
        missing = ask(served, "tasks", verb, new_task())
        assert (missing.code, missing.out) == (NOT_FOUND, "")


def test_lists_are_lines_of_json_or_a_table(served: Running) -> None:
    task = new_task()
    url = signed_url(served, task, "--tag", f"mark={task}")
    assert post(url, success(1, task)) == 200
    assert httpx.post(url, content=b"{").status_code == 200
    for arguments in (
        ["tasks", "list", "--tag", f"mark={task}"],
        ["tasks", "list", "--status", "succeeded", "-q", task],
        ["callbacks", "list", "--task", task, "--outcome", "quarantined"],
        ["events", "list", "--task", task, "--type", "task.completed"],
    ):
        found = ask(served, *arguments, "--json")
        assert (found.code, len(found.json), found.err) == (OK, 1, "")
        human = ask(served, *arguments)
        assert (human.code, human.err) == (OK, "")
        assert found.json[0]["id"][:20] in human.out
        assert "\x1b" not in human.out
    nothing = ask(served, "callbacks", "list", "--task", task, "--outcome", "conflict")
    assert (nothing.code, nothing.out, nothing.err) == (OK, "", "Nothing matches these options.\n")
    nothing = ask(served, "callbacks", "list", "--task", task, "--outcome", "conflict", "--json")
    assert (nothing.out, nothing.err) == ("", "")


def test_costs_are_a_table_with_a_total_or_lines_of_json(served: Running) -> None:
    mark, tasks = new_task(), [new_task(), new_task()]
    for number, task in enumerate(tasks):
        tags = ("--tag", f"mark={mark}", "--tag", f"team={number}")
        url = signed_url(served, task, "--results", "2", *tags)
        assert post(url, success(1, task), success(2, task, cost=None)) == 200
    asked = ("costs", "--by", "tag:team", "--tag", f"mark={mark}", "--platform", "runware")
    found = ask(served, *asked, "--json")
    *groups, last = found.json
    counts = {"results": 2, "failed": 0, "without_cost": 1, "tasks": 1}
    assert groups == [{"value": team, "cost": 0.4715, **counts} for team in ("1", "0")]
    total = {"cost": 0.943, "results": 4, "failed": 0, "without_cost": 2, "tasks": 2}
    assert (found.code, last, found.err) == (OK, {"total": total}, "")
    human = ask(served, *asked)
    head, *lines = [line.split() for line in human.out.splitlines()]
    assert (human.code, human.err, "\x1b" in human.out) == (OK, "", False)
    assert head == ["value", "cost", "results", "failed", "without_cost", "tasks"]
    assert lines[-1] == ["total", "0.943", "4", "0", "2", "2"]
    assert [line[0] for line in lines[:-1]] == ["1", "0"]
    fewer = ask(served, *asked, "--limit", "1")
    assert (len(fewer.out.splitlines()), "--limit" in fewer.err) == (3, True)
    nothing = ask(served, *asked, "--until", "2020-01-01")
    assert (nothing.code, nothing.out, "No results" in nothing.err) == (OK, "", True)
    wrong = ask(served, "costs", "--by", "tag")
    assert (wrong.code, wrong.out, "tag:NAME" in wrong.err) == (USAGE, "", True)


def test_a_callback_and_an_event_are_shown_whole(served: Running) -> None:
    task = new_task()
    assert post(signed_url(served, task), success(1, task)) == 200
    (callback,) = ask(served, "callbacks", "list", "--task", task, "--json").json
    (shown,) = ask(served, "callbacks", "show", callback["id"], "--json").json
    assert json.loads(shown["body"])["data"][0]["taskUUID"] == task
    (_, event) = ask(served, "events", "list", "--task", task, "--json").json
    (shown,) = ask(served, "events", "show", event["id"], "--json").json
    assert shown["payload"]["data"]["result"]["raw"]["taskUUID"] == task


def test_what_a_stranger_sent_is_inert_on_a_terminal_and_exact_in_a_file(served: Running) -> None:
    task, body = new_task(), b"\xff\x1b]0;owned\x07{\r\n"
    assert httpx.post(signed_url(served, task), content=body).json() == {"status": "quarantined"}
    (callback,) = ask(served, "callbacks", "list", "--task", task, "--json").json
    shown = ask(served, "callbacks", "show", callback["id"])
    assert "\\xff\\x1b]0;owned\\x07{" in shown.out
    assert not {"\x1b", "\x07", "\r"} & set(shown.out)
    assert "--raw" in shown.err
    raw = [sys.executable, "-m", "receiver", "callbacks", "show", callback["id"], "--raw"]
    environ = environment(served.folder)
    written = subprocess.run(raw, cwd=ROOT, env=environ, capture_output=True, check=True)
    assert (written.stdout, written.stderr) == (body, b"")
    terminal, end = pty.openpty()
    try:
        found = subprocess.run(raw, cwd=ROOT, env=environ, stdout=end, stderr=subprocess.PIPE)
        assert (found.returncode, select.select([terminal], [], [], 0)[0]) == (USAGE, [])
        assert b"into a file" in found.stderr
    finally:
        os.close(terminal)
        os.close(end)


def test_callbacks_are_taken_once_more_alone_or_by_what_became_of_them(served: Running) -> None:
    task = new_task()
    url = signed_url(served, task)
    assert post(url, success(1, task)) == 200
    for body in (b"[", b"{"):
        assert httpx.post(url, content=body).json() == {"status": "quarantined"}
    asked = ("callbacks", "reprocess", "--outcome", "quarantined", "--task", task)
    dry = ask(served, *asked, "--dry-run", "--json")
    assert (dry.code, dry.err) == (OK, "2 would be reprocessed: 2 quarantined, 0 refused.\n")
    assert [one["size"] for one in dry.json] == [1, 1]
    assert dry.json[0]["received_at"] < dry.json[1]["received_at"]
    done = ask(served, *asked, "--limit", "1")
    assert (done.code, "older ones" in done.err) == (OK, True)
    assert "bad_json" in done.out
    (recorded,) = ask(
        served, "callbacks", "list", "--outcome", "recorded", "--task", task, "--json"
    ).json
    (one,) = ask(served, "callbacks", "reprocess", recorded["id"], "--json").json
    assert (one["status"], one["outcome"], one["results"]) == ("duplicate", "recorded", 0)
    httpx.post(
        f"{served.ready['url']}/v1/tasks/{task}/revoke", headers=authorized(served)
    ).raise_for_status()
    refused = ask(served, *asked)
    assert (refused.code, refused.out) == (SOME_FAILED, "")
    assert refused.err.endswith("2 reprocessed: none, 2 refused.\n")
    assert refused.err.count("revoked") == 2
    assert ask(served, "callbacks", "reprocess", recorded["id"]).code == FAILED
    for odd in ask(
        served, "callbacks", "list", "--outcome", "quarantined", "--task", task, "--json"
    ).json:
        assert ask(served, "callbacks", "remove", odd["id"]).err == f"{odd['id']} is gone.\n"
    assert ask(served, "callbacks", "remove", recorded["id"]).code == FAILED
    nothing = ask(served, *asked)
    assert (nothing.code, nothing.err) == (OK, "There is nothing to reprocess.\n")
    assert ask(served, "callbacks", "list", "--orphans", "--json").json == []
    assert ask(served, "tasks", "list", "--unregistered", "--json").json == []
    for wrong in ([], [recorded["id"], "--task", task]):
        assert ask(served, "callbacks", "reprocess", *wrong).code == USAGE


def authorized(served: Running) -> dict[str, str]:
    """The admin token that the receiver made for itself."""
    local = json.loads((served.folder / "data" / "local.json").read_text())
    return {"authorization": f"Bearer {local['admin_token']}"}


def test_an_endpoint_is_added_listed_moved_and_removed(served: Running) -> None:
    found = ask(
        served, "endpoints", "add", "https://192.0.2.1.example/hook", "-e", "result.*", "-e",
        "task.completed", "--filter", "tags.team=a", "--description", "mine", "--json",
    )  # fmt: skip
    (made,) = found.json
    assert found.code == OK
    assert made["secret"].startswith("whsec_")
    assert "not shown again" in found.err
    assert (made["event_types"], made["filters"]) == (
        ["result.*", "task.completed"],
        {"tags.team": "a"},
    )
    for verb, state in (("pause", "paused"), ("resume", "enabled"), ("disable", "disabled"),
                        ("enable", "enabled")):  # fmt: skip
        said = ask(served, "endpoints", verb, made["id"])
        assert (said.code, said.out, said.err) == (OK, "", f"{made['id']} is {state}.\n")
    said = ask(served, "endpoints", "cancel", made["id"])
    assert (said.code, said.err) == (OK, f"0 deliveries to {made['id']} are canceled.\n")
    (shown,) = ask(served, "endpoints", "show", made["id"], "--json").json
    assert "secret" not in shown
    assert (shown["ordered"], shown["health"]["breaker"]) == (False, "closed")
    assert made["id"] in ask(served, "endpoints", "list").out
    assert ask(served, "endpoints", "remove", made["id"]).code == OK
    assert made["id"] not in ask(served, "endpoints", "list").out


def test_an_endpoint_may_ask_for_a_tasks_order(served: Running) -> None:
    found = ask(served, "endpoints", "add", "https://hooks.invalid/", "--ordered", "--json")
    assert found.json[0]["ordered"] is True
    assert ask(served, "endpoints", "cancel", "ep_x").code == NOT_FOUND


def test_a_new_secret_is_printed_once(served: Running) -> None:
    (made,) = ask(served, "endpoints", "add", "https://hooks.invalid/", "--v1a", "--json").json
    assert made["signatures"] == ["v1", "v1a"]
    found = ask(served, "endpoints", "rotate-secret", made["id"], "--json")
    (new,) = found.json
    assert found.code == OK
    assert "not shown again" in found.err
    assert new["secret"] not in ("", made["secret"])
    assert new["public_key"] not in ("", made["public_key"])
    assert new["overlap_until"]
    human = ask(served, "endpoints", "rotate-secret", made["id"], "--overlap", "0")
    assert [line.split()[0] for line in human.out.splitlines()] == ["id", "public_key", "secret"]
    assert ask(served, "endpoints", "rotate-secret", "ep_x").code == NOT_FOUND
    assert ask(served, "endpoints", "rotate-secret", made["id"], "--overlap", "-1").code == USAGE
    ask(served, "endpoints", "remove", made["id"])


def test_a_preview_shows_what_would_have_come(served: Running) -> None:
    task = new_task()
    assert post(signed_url(served, task, "--tag", "show=one"), success(1, task)) == 200
    wanted = ("endpoints", "preview", "-e", "result.*", "--filter", "tags.show=o*")
    found = ask(served, *wanted, "--json")
    assert [(event["type"], event["task_id"]) for event in found.json] == [
        ("result.succeeded", task)
    ]
    assert found.err.startswith("1 of the last ")
    none = ask(served, "endpoints", "preview", "--filter", "tags.show=two", "--last", "5")
    assert (none.code, none.out) == (OK, "")
    assert "0 of the last" in none.err
    refused = ask(served, "endpoints", "preview", "-e", "results.*")
    assert (refused.code, "result.succeeded" in refused.err) == (USAGE, True)


def test_without_the_key_that_sealed_its_secrets_a_receiver_does_not_start(
    tmp_path: Path,
) -> None:
    old, new = new_key(), new_key()
    environ = {"REELHOOK_SIGNING_KEYS": "", "REELHOOK_ADMIN_TOKEN": ""}
    with running(tmp_path, REELHOOK_ENCRYPTION_KEYS=old, **environ) as served:
        (made,) = ask(served, "endpoints", "add", "https://hooks.invalid/", "--json").json
    for keys in ("", new):
        for command in ("serve", "migrate"):
            found = reelhook(tmp_path, command, REELHOOK_ENCRYPTION_KEYS=keys)
            assert (found.code, found.out) == (UNREACHABLE, "")
            assert "REELHOOK_ENCRYPTION_KEYS" in found.err
    with running(tmp_path, REELHOOK_ENCRYPTION_KEYS=f"{new},{old}", **environ) as served:
        assert ask(served, "endpoints", "rotate-secret", made["id"]).code == OK


def test_an_endpoint_that_must_not_be_reached_is_exit_1_and_says_which_setting(
    served: Running,
) -> None:
    found = ask(served, "endpoints", "add", "https://127.0.0.1/hook")
    assert (found.code, found.out) == (FAILED, "")
    assert "REELHOOK_ALLOW_NETWORKS" in found.err


def test_a_delivery_is_shown_and_retried(served: Running) -> None:
    task = new_task()
    (made,) = ask(served, "endpoints", "add", "https://hooks.invalid/", "--json").json
    ask(served, "endpoints", "pause", made["id"])
    assert post(signed_url(served, task), success(1, task)) == 200
    found = ask(served, "deliveries", "list", "--endpoint", made["id"], "--task", task, "--json")
    assert [delivery["state"] for delivery in found.json] == ["pending", "pending"]
    delivery = found.json[0]["id"]
    (shown,) = ask(served, "deliveries", "show", delivery, "--json").json
    assert (shown["id"], shown["attempt_log"]) == (delivery, [])
    human = ask(served, "deliveries", "show", delivery)
    assert (human.code, "No attempt yet." in human.err) == (OK, True)
    said = ask(served, "deliveries", "retry", delivery)
    assert (said.code, "pending" in said.err) == (FAILED, True)
    ask(served, "endpoints", "remove", made["id"])


def test_a_signature_is_checked_as_a_consumer_must(tmp_path: Path) -> None:
    secret, body = new_secret(b"x" * 32), b'{"type":"x"}'
    signature = sign([secret], event_id="evt_1", timestamp=1_790_000_000, body=body)
    tmp_path.joinpath("body.json").write_bytes(body)
    arguments = ["verify", "--id", "evt_1", "--timestamp", "1790000000", "--signature", signature,
                 str(tmp_path / "body.json")]  # fmt: skip
    found = reelhook(tmp_path, *arguments, "--at-any-time", REELHOOK_SECRET=secret)
    assert (found.code, found.err) == (OK, "The signature is good.\n")
    found = reelhook(tmp_path, *arguments, REELHOOK_SECRET=secret)
    assert (found.code, "Refused" in found.err) == (FAILED, True)
    other = new_secret(b"y" * 32)
    found = reelhook(tmp_path, *arguments, "--at-any-time", REELHOOK_SECRET=other)
    assert found.code == FAILED
    assert other not in found.err


def test_the_commands_find_the_receiver_by_what_it_left_for_its_user(
    served: Running, tmp_path: Path
) -> None:
    assert ask(served, "tasks", "list").code == OK
    found = reelhook(tmp_path, "tasks", "list", REELHOOK_URL=served.ready["admin_url"])
    assert found.code == AUTH

"""`reelhook tokens` and `reelhook audit`, as processes against a receiver that is served."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from tests.doubles import Running, running
from tests.receiver.shell import Said, reelhook

pytestmark = pytest.mark.process

OK, FAILED, USAGE, UNREACHABLE, AUTH, NOT_FOUND = range(6)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("receiver")
    # No admin token here: the commands find the one that the receiver made for itself.
    with running(folder, REELHOOK_ADMIN_TOKEN="", REELHOOK_SIGNING_KEYS="") as found:
        yield found


def ask(served: Running, *arguments: str, **environ: str) -> Said:
    return reelhook(served.folder, *arguments, **environ)


def test_a_token_is_made_used_listed_and_revoked(served: Running) -> None:
    created = ask(served, "tokens", "create", "renderer", "--scope", "submit", "--json")
    (made,) = created.json
    assert (created.code, made["name"], made["scope"]) == (OK, "renderer", "submit")
    assert "not shown again" in created.err
    token = {"REELHOOK_ADMIN_TOKEN": made["token"]}
    assert ask(served, "tasks", "list", "--json", **token).code == OK
    refused = ask(served, "endpoints", "list", "--json", **token)
    assert (refused.code, refused.out) == (AUTH, "")
    assert "scope submit" in refused.err
    listed = ask(served, "tokens", "list", "--json").json
    assert [found["id"] for found in listed] == [made["id"]]
    assert "token" not in listed[0]
    assert made["id"] in ask(served, "tokens", "list").out
    revoked = ask(served, "tokens", "revoke", made["id"])
    assert (revoked.code, revoked.err) == (OK, f"{made['id']} is revoked.\n")
    assert ask(served, "tasks", "list", **token).code == AUTH
    assert ask(served, "tokens", "revoke", made["id"]).code == NOT_FOUND


def test_the_token_stands_on_stdout(served: Running) -> None:
    shown = ask(served, "tokens", "create", "x", "--scope", "read", "--project", "film")
    assert shown.code == OK
    assert re.search(r"^token +rhk_[0-9a-z]{52}$", shown.out, re.MULTILINE)
    assert "rhk_" not in shown.err


def test_a_token_may_lapse_after_a_while(served: Running) -> None:
    created = ask(
        served, "tokens", "create", "ci", "--scope", "admin", "--expires", "30d", "--json"
    )
    (made,) = created.json
    lives = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert abs(lives - timedelta(days=30)) < timedelta(minutes=5)
    over = ask(served, "tokens", "create", "ci", "--scope", "admin", "--expires", "2020-01-01")
    assert (over.code, over.out) == (USAGE, "")
    assert "expires_at is over already." in over.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "x"],
        ["create", "--scope", "read"],
        ["create", "x", "--scope", "root"],
        ["create", "", "--scope", "read"],
        ["create", "x", "--scope", "read", "--project", "a b"],
        ["create", "x", "--scope", "read", "--expires", "soon"],
        ["revoke"],
    ],
)
def test_a_wrong_usage_is_exit_2(served: Running, arguments: list[str]) -> None:
    found = ask(served, "tokens", *arguments)
    assert (found.code, found.out) == (USAGE, ""), found.err
    assert found.err


def test_the_audit_log_tells_what_was_done(served: Running) -> None:
    added = ask(served, "endpoints", "add", "https://example.com/hook", "--json")
    (endpoint,) = added.json
    assert ask(served, "endpoints", "pause", endpoint["id"]).code == OK
    found = ask(served, "audit", "--target", endpoint["id"], "--json").json
    assert [entry["action"] for entry in found] == ["endpoint.pause", "endpoint.create"]
    assert {entry["actor"] for entry in found} == {"admin"}
    only = ask(served, "audit", "--action", "endpoint.pause", "--since", "1h", "--json").json
    assert [entry["target"] for entry in only] == [endpoint["id"]]
    table = ask(served, "audit", "--actor", "admin", "--limit", "2")
    assert "endpoint.pause" in table.out
    nothing = ask(served, "audit", "--project", "nobodys")
    assert (nothing.code, nothing.out) == (OK, "")
    assert "Nothing matches these options." in nothing.err
    assert ask(served, "audit", "--action", "nonsense").code == USAGE

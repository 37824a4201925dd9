"""Random lives of tasks at the real door, over the real store, against a plain model of both.

After each step the answers and every row, event and delivery that is kept are the model's.
REELHOOK_MACHINE_S=600 goes on with fresh examples for so many seconds.
"""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from pprint import pformat
from typing import Any, TypeVar, cast
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from receiver import deadlines, ids
from receiver.delivery import sender
from receiver.platforms import PARSERS, runware
from receiver.recording import Recorder
from receiver.store.writer import Transaction
from receiver.tokens import LEEWAY, Source, TokenBox, webhook_url
from tests.doubles import Assembled, FakeClock, assembled
from tests.make import KEY, claims, failure, processing, success, uuid
from tests.receiver.door_model import DAY, HOUR, MINUTE, Endpoint, Model, Post, Task, Thing

T = TypeVar("T")

STATIC = "a-static-key-for-consoles-0123456789"
TASKS = [uuid(101), uuid(102)]
CODES = ("timeoutProvider", "contentPolicyViolation")
SEED = 44_372
TEAM = (("team", "a"),)
ENDPOINTS = (
    Endpoint("all"),
    Endpoint("endings", types=("task.*",)),
    Endpoint("good", types=("result.succeeded", "task.completed"), status="succeeded"),
    Endpoint("modelled", model="pixverse:*"),
    Endpoint("team", types=("result.*",), team="a"),
)


@dataclass(frozen=True)
class Token:
    """A credential as a platform or a poller has it."""

    url: str
    task: str | None
    source: str = "callback"
    expected: int | None = None
    tags: tuple[tuple[str, str], ...] = ()
    issued_at: int = 0
    expires_at: int = 1 << 62


def item_of(thing: Thing) -> dict[str, Any]:
    """What the platform sends for a thing."""
    if thing.kind == "ok":
        return success(thing.number, thing.task, seed=SEED + thing.variant)
    if thing.kind == "error":
        return failure(CODES[thing.variant], thing.task)
    if thing.kind == "busy":
        return processing(thing.task, progress=thing.number)
    whose = "taskUUID" if thing.kind == "novel" else "hiddenTask"
    return {whose: thing.task, "novel": thing.number, "variant": thing.variant}


def mended(body: Any) -> Any:
    """A body of tomorrow's shapes as today's parser knows them."""
    if not isinstance(body, dict) or not isinstance(body.get("data"), list):
        return body
    return {"data": [_mended(item) for item in body["data"]]}


def _mended(item: dict[str, Any]) -> dict[str, Any]:
    if "novel" not in item:
        return item
    task = item.get("taskUUID") or item["hiddenTask"]
    return success(item["novel"], task, seed=SEED + item["variant"])


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the endpoints, so that no example has to make it."""
    folder = tmp_path_factory.mktemp("template")

    async def make() -> None:
        async with assembled(folder) as receiver:
            receiver.clock.advance(-MINUTE)
            for endpoint in ENDPOINTS:
                filters = {
                    "status": endpoint.status, "model": endpoint.model, "tags.team": endpoint.team
                }  # fmt: skip
                spec = {
                    "url": f"https://example.com/{endpoint.name}",
                    "event_types": list(endpoint.types),
                    "filters": {name: value for name, value in filters.items() if value},
                }
                response = await receiver.client.post("/v1/endpoints", json=spec)
                assert response.status_code == 201, response.text

    asyncio.run(make())
    return folder / "reelhook.db"


LATE = st.sampled_from([False, False, True])
THINGS = st.builds(
    Thing,
    kind=st.sampled_from(["ok", "ok", "ok", "error", "busy", "novel", "hidden"]),
    task=st.sampled_from(["own", "own", "own", "own", *TASKS]),
    number=st.integers(1, 3),
    variant=st.sampled_from([0, 0, 0, 1]),
)
BODIES = st.lists(THINGS, min_size=1, max_size=3)


class Door(RuleBasedStateMachine):
    """A receiver in this process, its model, and what may happen to both."""

    template: Path
    tokens = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(ENDPOINTS)
        self.box = TokenBox([KEY])
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.now = FakeClock().now
        self.touched: set[str] = set()
        self.odd = 0
        self.root = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        self.folder = Path(tempfile.mkdtemp(dir=self.root))
        shutil.copy(self.template, self.folder / "reelhook.db")
        self.receiver: Assembled
        parse = runware.parse
        self.parser = patch.dict(
            cast(dict[str, Any], PARSERS),
            runware=lambda body, task: parse(mended(body) if self.model.fixed else body, task),
        )
        self.parser.start()
        # Of two tasks, what one took already says what to expect of the other.
        self.fewest = patch("receiver.expectations.FEWEST", 1)
        self.fewest.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    @initialize(target=tokens)
    def begin(self) -> Any:
        self.run(self._open())
        return multiple(
            Token(f"/webhooks/runware?apiKey={STATIC}&team=a", None, tags=TEAM),
            *[self._minted(task, 2, "callback", HOUR, ()) for task in TASKS],
            *[self._minted(task, 2, "poll", HOUR, ()) for task in TASKS],
        )

    async def _open(self) -> None:
        entered = assembled(self.folder, REELHOOK_STATIC_KEYS=STATIC)
        self.receiver = await self.stack.enter_async_context(entered)
        self.receiver.clock.now = self.now

    # What may happen

    @rule(
        target=tokens,
        task=st.sampled_from(TASKS),
        expected=st.sampled_from([1, 2, 4]),
        source=st.sampled_from(["callback", "poll", "submit"]),
        tags=st.sampled_from([(), TEAM]),
    )
    def mint(self, task: str, expected: int, source: str, tags: tuple[Any, ...]) -> Token:
        """By the submitter, which has the keys; the ledger hears nothing of it."""
        return self._minted(task, expected, source, HOUR, tags)

    def _minted(
        self, task: str, expected: int, source: str, life: int, tags: tuple[Any, ...]
    ) -> Token:
        given = claims(
            task=task,
            expected=expected,
            source=Source(source),
            issued_at=self.now,
            expires_at=self.now + life,
            tags=dict(tags),
        )
        url = webhook_url("", "runware", self.box.mint(given), dict(tags))
        return Token(url, task, source, expected, tags, self.now, self.now + life)

    @rule(
        target=tokens,
        task=st.sampled_from(TASKS),
        expected=st.sampled_from([1, 2, 2, 2, 4]),
        tags=st.sampled_from([(), TEAM]),
    )
    def register(self, task: str, expected: int, tags: tuple[Any, ...]) -> Any:
        body = {"platform": "runware", "expected": expected, "model": "pixverse:1@6"}
        asked = self.receiver.client.put(f"/v1/tasks/{task}", json=body | {"tags": dict(tags)})
        response = self.run(asked)
        assert response.status_code == self.model.register(task, expected, dict(tags), self.now)
        self.touched.add(task)
        if response.status_code == 409:
            return multiple()
        path = response.json()["webhook_url"].removeprefix("https://hooks.example.com")
        known = self.model.tasks[task]
        expires = max(self.now + DAY, known.give_up_at + HOUR)
        tags = tuple(sorted(known.tags.items()))
        return Token(path, task, "callback", known.expected, tags, self.now, expires)

    @rule(task=st.sampled_from(TASKS), ms=st.sampled_from([1_000, 5 * MINUTE]), late=LATE)
    def goes_well(self, task: str, ms: int, late: bool) -> None:
        """A task as it should be: what it took is what is expected of the other one."""
        token = self.register(task, 1, ())
        if isinstance(token, Token):
            self.time_passes(ms)
            if late:
                self.deadline_tick(16 * MINUTE)
            self.callback(token, [Thing("ok", "own", 1)], 0, late=False)

    @rule(token=tokens, body=BODIES, pad=st.sampled_from([0, 0, 1]), late=LATE)
    def callback(self, token: Token, body: list[Thing], pad: int, late: bool) -> None:
        self._post_all([self._post_of(self._good(token, late), body, pad)])

    @rule(posts=st.lists(st.tuples(tokens, BODIES), min_size=2, max_size=4), late=LATE)
    def several_at_once(self, posts: list[tuple[Token, list[Thing]]], late: bool) -> None:
        """In one turn of the loop, so in one transaction."""
        # Of a static key's body each task is stored for itself, in no order that is promised.
        self._post_all(
            [
                self._post_of(self._good(token, late), body if token.task else body[:1], 0)
                for token, body in posts
            ]
        )

    @rule(token=tokens, known=st.booleans(), late=LATE)
    def unreadable(self, token: Token, known: bool, late: bool) -> None:
        self.odd += not known
        self._post_all([self._unreadable_of(self._good(token, late))])

    @rule(token=tokens)
    def flood(self, token: Token) -> None:
        """More than is kept of what records nothing."""
        posts = []
        for _ in range(13):
            self.odd += 1
            posts.append(self._unreadable_of(self._good(token, late=False)))
        self._post_all([*posts, posts[0]])

    def _good(self, token: Token, late: bool) -> Token:
        """The token, or a fresh one like it if that is out of date and not meant to be."""
        if late or token.task is None:
            return token
        return self._minted(token.task, token.expected or 0, token.source, HOUR, token.tags)

    @rule(token=tokens, body=BODIES)
    def crash_before_the_answer(self, token: Token, body: list[Thing]) -> None:
        """The platform has no answer, and what it sends again finds what was stored."""
        post = self._post_of(token, body, 0)
        self.model.post(post[1], self.now)
        self.run(self._send(*post))
        self.crash()
        self._post_all([self._post_of(token, body, 0)])

    @rule(token=tokens, place=st.integers(0, 400), body=BODIES)
    def forgery(self, token: Token, place: int, body: list[Thing]) -> None:
        """One character of a good credential is another one."""
        head, equals, rest = token.url.partition("=")
        secret, ampersand, tags = rest.partition("&")
        place %= len(secret)
        other = "A" if secret[place] != "A" else "B"
        forged = f"{head}{equals}{secret[:place]}{other}{secret[place + 1 :]}{ampersand}{tags}"
        content = self._post_of(token, body, 0)[1].body
        assert self.run(self._send(forged, content=content)) == (401, None)

    @rule(ms=st.sampled_from([1, 1_000, 5 * MINUTE, 2 * HOUR]))
    def time_passes(self, ms: int) -> None:
        self.now = self.receiver.clock.advance(ms)

    @rule(passed=st.sampled_from([16 * MINUTE, 25 * HOUR]))
    def deadline_tick(self, passed: int) -> None:
        self.time_passes(passed)
        self.run(deadlines.tick(self.receiver.store, self.receiver.clock))
        self.model.tick(self.now)
        self.touched |= set(self.model.tasks)

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(sorted(self.model.tasks)))
        response = self.run(self.receiver.client.post(f"/v1/tasks/{task}/revoke"))
        assert response.status_code == 200
        self.model.revoke(task, self.now)

    @precondition(lambda self: len(self.model.tasks) > 1)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(sorted(self.model.tasks)))
        response = self.run(self.receiver.client.delete(f"/v1/tasks/{task}"))
        assert response.status_code == 204
        self.model.delete(task)

    @precondition(lambda self: self.model.callbacks)
    @rule(data=st.data(), dry_run=st.booleans())
    def reprocess(self, data: st.DataObject, dry_run: bool) -> None:
        place = data.draw(st.integers(0, len(self.model.callbacks) - 1))
        path = f"/v1/callbacks/{self._callback_ids()[place]}/reprocess"
        before, body = self._stored(), {"dry_run": dry_run}
        dry = self.run(self.receiver.client.post(path, json=body)) if dry_run else None
        assert self._stored() == before
        response = self.run(self.receiver.client.post(path))
        status, outcome, results = self.model.reprocess(place, self.now)
        assert response.status_code == status
        if status == 200:
            found = response.json()
            row = self.model.callbacks[place]
            assert (found["status"], found["results"]) == (outcome, results)
            assert (found["outcome"], found["reason"]) == (row.outcome, row.reason)
            self.touched |= set(self.model.tasks)
        if dry is not None:
            assert dry.status_code == status
            same = ("status", "results") if status == 200 else ("code",)
            assert [dry.json()[name] for name in same] == [response.json()[name] for name in same]

    @precondition(lambda self: not self.model.fixed)
    @rule()
    def the_parser_is_mended(self) -> None:
        self.model.fixed = True

    @precondition(lambda self: self.model.callbacks)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.model.callbacks) - 1))
        path = f"/v1/callbacks/{self._callback_ids()[place]}"
        response = self.run(self.receiver.client.delete(path))
        assert response.status_code == self.model.drop(place)

    @rule()
    def crash(self) -> None:
        """A SIGKILL leaves the database and its WAL as they are; the lock and the rest are gone."""
        left = Path(tempfile.mkdtemp(dir=self.root))
        self.run(self._copy(left))
        self.run(self.stack.aclose())
        shutil.rmtree(self.folder)
        self.folder = left
        self.now += 1
        self.run(self._open())

    async def _copy(self, to: Path) -> None:
        def handler(_tx: Transaction, folders: Any) -> list[None]:
            # Within a transaction of its own, so that no checkpoint moves the pages meanwhile.
            for name in ("reelhook.db", "reelhook.db-wal"):
                shutil.copy(self.folder / name, folders[0] / name)
            return [None]

        await self.receiver.store._writer.call(handler, to)

    @rule()
    def restart(self) -> None:
        self.run(self.stack.aclose())
        self.now += 1
        self.run(self._open())

    def teardown(self) -> None:
        try:
            self.run(self.stack.aclose())
        finally:
            self.runner.close()
            self.parser.stop()
            self.fewest.stop()
            shutil.rmtree(self.root)

    # Requests

    def _post_of(self, token: Token, body: list[Thing], pad: int) -> tuple[str, Post]:
        own = token.task or TASKS[0]
        things = tuple(
            Thing(
                found.kind, own if found.task == "own" else found.task, found.number, found.variant
            )
            for found in body
        )
        content = json.dumps({"data": [item_of(thing) for thing in things]}) + " " * pad
        return token.url, self._made(token, things, content.encode())

    def _unreadable_of(self, token: Token) -> tuple[str, Post]:
        return token.url, self._made(token, None, b"{%d" % self.odd)

    def _made(self, token: Token, things: tuple[Thing, ...] | None, body: bytes) -> Post:
        issued = self.now if token.task is None else token.issued_at
        expired = token.expires_at + LEEWAY < self.now
        return Post(
            things, body, token.task, token.source, token.expected, token.tags, issued, expired
        )

    def _post_all(self, posts: list[tuple[str, Post]]) -> None:
        expected = [self.model.post(post, self.now) for _, post in posts]

        async def send() -> list[Any]:
            return list(await asyncio.gather(*[self._send(*post) for post in posts]))

        assert self.run(send()) == expected
        self.touched |= {post.task for _, post in posts if post.task}

    async def _send(
        self, url: str, post: Post | None = None, content: bytes = b""
    ) -> tuple[int, Any]:
        body = content if post is None else post.body
        response = await self.receiver.stranger.post(url, content=body)
        return response.status_code, response.json() if response.status_code == 200 else None

    # What must hold

    def _callback_ids(self) -> list[str]:
        with closing(sqlite3.connect(self.folder / "reelhook.db")) as database:
            rows = database.execute("SELECT id FROM callbacks ORDER BY id").fetchall()
        return [ids.CALLBACK + ids.encode(row[0]) for row in rows]

    @invariant()
    def what_is_stored_is_what_the_model_has(self) -> None:
        if hasattr(self, "receiver"):
            wanted, found = expected_of(self.model), self._stored()
            assert wanted == found, differences(wanted, found)

    @invariant()
    def the_api_tells_the_same(self) -> None:
        for task_id in sorted(self.touched):
            self.run(self._check_api(task_id, self.model.tasks.get(task_id)))
        self.touched.clear()

    async def _check_api(self, task_id: str, task: Task | None) -> None:
        response = await self.receiver.client.get(f"/v1/tasks/{task_id}")
        if task is None:
            assert response.status_code == 404
            return
        shown = response.json()
        counts = ("received", "succeeded", "failed", "expected", "status", "overdue")
        good, bad = task.live("succeeded"), task.live("failed")
        assert [shown[name] for name in counts] == [
            good + bad, good, bad, task.expected, task.status, task.overdue
        ]  # fmt: skip
        assert (shown["completed_at"] is not None) == task.completed
        results = (await self.receiver.client.get(f"/v1/tasks/{task_id}/results")).json()["data"]
        assert [found["index"] for found in results] == list(range(len(task.results)))
        params = {"task": task_id, "limit": "200"}
        listed = (await self.receiver.client.get("/v1/callbacks", params=params)).json()["data"]
        assert [(found["outcome"], found["reason"]) for found in reversed(listed)] == [
            (one.outcome, one.reason) for one in self.model.callbacks if one.task is task
        ]

    def _stored(self) -> dict[str, Any]:
        with closing(sqlite3.connect(self.folder / "reelhook.db")) as database:
            return stored(database)


def differences(wanted: Any, found: Any) -> str:
    """Where they differ, for people."""
    minus, plus = (pformat(one, width=160).splitlines() for one in (wanted, found))
    odd = [line for line in difflib.ndiff(minus, plus) if line[0] in "+-"]
    return "\n".join(["the model (-) and the store (+):", *odd])


def expected_of(model: Model) -> dict[str, Any]:
    """The model as `stored` gives it."""
    tasks = {
        task.id: {
            "facts": (
                task.expected, task.status, task.live("succeeded"), task.live("failed"),
                int(task.overdue), int(task.completed), int(task.registered), task.submit,
                int(task.revoked_at is not None), model.noise(task), task.deadline_at, task.took,
                task.tags,
            ),
            "results": [
                (one.key, one.kind, one.variant, int(one.late), int(one.superseded), one.conflicts,
                 one.source)
                for one in task.results
            ],
        }
        for task in model.tasks.values()
    }  # fmt: skip
    callbacks = [
        (one.task.id if one.task else None, one.outcome, one.reason, one.post.source,
         hashlib.sha256(one.post.body).hexdigest()[:12], one.repeats, one.received_at)
        for one in model.callbacks
    ]  # fmt: skip
    told: dict[int, list[Any]] = {}
    alive = {id(task) for task in model.tasks.values()}
    for event in model.events:
        whose = event.task.id if id(event.task) in alive else None
        row = (whose, event.type, event.status, sorted(event.wanted_by))
        told.setdefault(id(event.task), []).append(row)
    return {"tasks": tasks, "callbacks": callbacks, "events": sorted(told.values(), key=repr)}


def stored(database: sqlite3.Connection) -> dict[str, Any]:
    """Everything that is kept, by the words of the model."""
    names: dict[int, str] = {}
    tasks: dict[str, Any] = {}
    for n, key, *facts in database.execute(
        "SELECT n, id, expected, status, succeeded, failed, overdue, completed_at IS NOT NULL,"
        " registered, submit_state, revoked_at IS NOT NULL, noise,"
        " deadline_at, took, tags FROM tasks"
    ):
        names[n] = ids.task_text(key)
        facts[-1] = json.loads(facts[-1])
        tasks[names[n]] = {"facts": tuple(facts), "results": []}
    for n, key, told, *facts in database.execute(
        "SELECT task_n, key, told, kind, late, superseded, conflicts, source FROM results"
        " ORDER BY task_n, idx"
    ):
        kind, *rest = facts
        row = (_plain(key), kind, (json.loads(told)["seed"] or SEED) - SEED, *rest)
        tasks[names[n]]["results"].append(row)
    callbacks = [
        (n and names[n], *rest)
        for n, *rest in database.execute(
            "SELECT task_n, outcome, reason, source, substr(lower(hex(sha256)), 1, 12), repeats,"
            " received_at FROM callbacks ORDER BY id"
        )
    ]
    endpoints = {
        number: url.rpartition("/")[2]
        for number, url in database.execute("SELECT id, url FROM endpoints")
    }
    wanted: dict[int, list[str]] = {}
    for event, endpoint in database.execute("SELECT event_id, endpoint_id FROM deliveries"):
        wanted.setdefault(event, []).append(endpoints[endpoint])
    events: dict[int, list[Any]] = {}
    for n, number, kind, payload in database.execute(
        "SELECT task_n, id, type, payload FROM events ORDER BY seq"
    ):
        status = json.loads(payload)["data"]["task"]["status"]
        row = (names.get(n), kind, status, sorted(wanted.pop(number, [])))
        events.setdefault(n, []).append(row)
    assert not wanted, "deliveries of no event"
    return {"tasks": tasks, "callbacks": callbacks, "events": sorted(events.values(), key=repr)}


_PLAIN = {f"video:{uuid(number)}": f"video:{number}" for number in range(1, 5)}


def _plain(key: str) -> str:
    for place, code in enumerate(CODES):
        key = key.replace(f"error:{code}:", f"error:{place}:")
    return _PLAIN.get(key, key)


# Shrinking goes on for minutes; NOSHRINK=1 shows the first failure as it is.
PHASES = [Phase.generate] if os.environ.get("NOSHRINK") else [Phase.generate, Phase.shrink]
SECONDS = int(os.environ.get("REELHOOK_MACHINE_S", "0"))
EXAMPLES, STEPS = 35, 40


@pytest.fixture
def machine(template: Path, monkeypatch: pytest.MonkeyPatch) -> type[Door]:
    # Nothing is sent here, and reading the machine's certificates takes longer than all the rest.
    monkeypatch.setattr(sender, "_trust", cache(sender._trust))
    return type("DoorOfATemplate", (Door,), {"template": template})


def explore(machine: type[Door], examples: int, phases: Sequence[Phase] = PHASES) -> None:
    told = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=phases,
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(machine, settings=told)


@pytest.mark.timeout(0 if SECONDS else 600)
def test_whatever_happens_the_door_keeps_its_word(
    machine: type[Door], capsys: pytest.CaptureFixture[str]
) -> None:
    until, examples = time.monotonic() + SECONDS, 0
    while not examples or time.monotonic() < until:
        explore(machine, EXAMPLES)
        examples += EXAMPLES
    if SECONDS:
        with capsys.disabled():
            sys.stderr.write(f"{examples} examples of {STEPS} steps\n")


def test_a_door_that_forgets_what_came_is_seen(
    machine: type[Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recorder, "_is_kept", lambda *_: False)
    with pytest.raises(AssertionError):
        explore(machine, EXAMPLES, [Phase.generate])

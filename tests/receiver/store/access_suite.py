"""What every store keeps of tokens, manual actions and answers to repeat. Its own test opens it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from receiver import ids
from receiver.access import Action, ApiToken, ApiTokenAsked, Deed, OnceKey, Scope, digest_of
from receiver.clock import DAY, MINUTE, SECOND, to_datetime
from receiver.endpoints import EndpointPatch
from receiver.endpoints import State as EndpointState
from receiver.errors import (
    AnswerLost,
    KeyInUse,
    KeyReused,
    NotFound,
    PreconditionFailed,
)
from receiver.keeping import Bounds
from receiver.store.protocol import (
    Answer,
    EndpointChange,
    NewApiToken,
    Once,
    Prune,
    Query,
    Rotation,
    Store,
    TaskChange,
)
from tests.doubles import START, FakeClock
from tests.make import TASK, endpoint, registration
from tests.receiver.store.suite import Opener, queued

SECRET = "rhk_a-token"
KEY = OnceKey("admin", "a key")


def new_token(secret: str = SECRET, **changes: Any) -> NewApiToken:
    asked: dict[str, Any] = {"name": "ci", "scope": Scope.SUBMIT, "project": "film"}
    found = ApiTokenAsked(**(asked | changes))
    return NewApiToken(found, digest_of(secret), secret[-4:], "admin", START)


def deed(action: Action = Action.TASK_REVOKE, **changes: Any) -> Deed:
    values: dict[str, Any] = {
        "at": START,
        "actor": "admin",
        "actor_name": "",
        "action": action,
        "target": TASK,
        "project": "default",
        "request_id": "a-request",
        "details": {"a": 1},
    }
    return Deed(**(values | changes))


def once(now: int = START, *, asked: bytes = b"asked", key: OnceKey = KEY) -> Once:
    return Once(key, asked, now, lease=MINUTE, kept=DAY)


async def pruned(store: Store, bounds: Bounds, *, dry_run: bool = False) -> int:
    """How many rows of the audit log a whole round drops, or would drop."""
    count = 0
    place: tuple[int, ...] | None = ()
    while place is not None:
        step = await store.prune(Prune(START, bounds, place, dry_run))
        count, place = count + step.counts.get("audit", 0), step.place
    return count


async def seen(store: Store, **filters: Any) -> list[tuple[str, str | None]]:
    """The audit log: action and target, the latest first."""
    page = await store.audit(Query(**filters))
    return [(entry.action, entry.target) for entry in page.data]


@pytest.mark.anyio
class AccessSuite:
    """Each test begins with an empty store."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def store(self, open_store: Opener) -> AsyncIterator[Store]:
        store = await open_store()
        yield store
        await store.close()

    # Tokens

    async def test_a_token_is_known_by_its_digest(self, store: Store) -> None:
        made = await store.add_api_token(replace(new_token(), expires_at=START + DAY))
        known = await store.known_token(digest_of(SECRET))
        assert known is not None
        assert (known.token, known.expires_at) == (made, START + DAY)
        assert made == ApiToken(
            id=made.id,
            name="ci",
            scope=Scope.SUBMIT,
            project="film",
            hint="oken",
            created_at=to_datetime(START),
            created_by="admin",
            expires_at=to_datetime(START + DAY),
            last_used_at=None,
        )
        assert await store.api_token(made.id) == made
        assert await store.known_token(digest_of(f"{SECRET}x")) is None

    async def test_a_token_that_is_deleted_opens_nothing(self, store: Store) -> None:
        made = await store.add_api_token(new_token())
        await store.delete_api_token(made.id)
        assert await store.known_token(digest_of(SECRET)) is None
        for gone in (made.id, ids.API_TOKEN + ids.encode(1), "nonsense"):
            with pytest.raises(NotFound):
                await store.delete_api_token(gone)
            with pytest.raises(NotFound):
                await store.api_token(gone)

    async def test_tokens_are_listed_by_project(self, store: Store) -> None:
        for number, project in enumerate(["film", "music", None, "film"]):
            await store.add_api_token(new_token(str(number), name=str(number), project=project))
        names = [token.name for token in (await store.api_tokens(Query())).data]
        assert names == ["3", "2", "1", "0"]
        first = await store.api_tokens(Query(project="film", limit=1))
        rest = await store.api_tokens(Query(project="film", limit=1, before=first.next_cursor))
        assert [token.name for token in (*first.data, *rest.data)] == ["3", "0"]
        assert rest.next_cursor is None

    async def test_when_tokens_were_used_never_goes_back(self, store: Store) -> None:
        one, two = [await store.add_api_token(new_token(str(number))) for number in range(2)]
        gone = ids.API_TOKEN + ids.encode(1)
        await store.note_token_uses({one.id: START + 5, two.id: START + 7, gone: START})
        await store.note_token_uses({one.id: START + 4, two.id: START + 8})
        used = [token.last_used_at for token in (await store.api_tokens(Query())).data]
        assert used == [to_datetime(START + 8), to_datetime(START + 5)]

    # Audit

    async def test_a_row_is_there_with_its_change(self, store: Store) -> None:
        await store.register(registration())
        audited = store.audited(lambda outcome: deed())
        await audited.revoke_task(TaskChange(TASK, START))
        (entry,) = (await store.audit(Query())).data
        assert entry.model_dump() == {
            "seq": 1,
            "at": to_datetime(START),
            "actor": "admin",
            "actor_name": "",
            "action": "task.revoke",
            "target": TASK,
            "project": "default",
            "request_id": "a-request",
            "details": {"a": 1},
        }
        await store.revoke_task(TaskChange(TASK, START))
        assert len((await store.audit(Query())).data) == 1

    async def test_what_is_refused_leaves_no_row_and_spoils_no_neighbour(
        self, store: Store
    ) -> None:
        await store.register(registration())
        audited = store.audited(lambda outcome: deed())
        found = await asyncio.gather(
            audited.revoke_task(TaskChange(TASK, START)),
            audited.cancel_job(ids.JOB + ids.encode(1), START),
            audited.revoke_task(TaskChange(TASK, START)),
            return_exceptions=True,
        )
        assert [type(one) for one in found] == [type(None), NotFound, type(None)]
        assert await seen(store) == [("task.revoke", TASK)] * 2

    async def test_a_row_may_name_what_was_made_or_not_be(self, store: Store) -> None:
        audited = store.audited(lambda made: deed(Action.ENDPOINT_CREATE, target=made.id))
        made = await audited.add_endpoint(endpoint())
        await store.audited(lambda outcome: None).add_endpoint(endpoint())
        assert await seen(store) == [("endpoint.create", made.id)]

    async def test_what_the_worker_settles_and_ingest_records_is_no_manual_action(
        self, store: Store
    ) -> None:
        await queued(store, 3)
        assert await seen(store) == []

    async def test_rows_are_listed_by_what_they_say(self, store: Store) -> None:
        told = [
            deed(),
            deed(Action.EVENT_REPLAY, target="evt_1", project="film", at=START + SECOND),
            deed(Action.PRUNE, target=None, project=None, actor="tok_1", at=START + MINUTE),
        ]
        for one in told:
            await store.note(one)
        assert [action for action, _ in await seen(store)] == [
            "prune",
            "event.replay",
            "task.revoke",
        ]
        assert await seen(store, actor="tok_1") == [("prune", None)]
        assert await seen(store, action="event.replay") == [("event.replay", "evt_1")]
        assert await seen(store, target=TASK) == [("task.revoke", TASK)]
        assert await seen(store, project="film") == [("event.replay", "evt_1")]
        between = {"since": START + 1, "until": START + MINUTE}
        assert await seen(store, **between) == [("event.replay", "evt_1")]

    async def test_a_cursor_of_the_audit_log_survives_new_rows(self, store: Store) -> None:
        for number in range(3):
            await store.note(deed(target=str(number)))
        first = await store.audit(Query(limit=2))
        await store.note(deed(target="new"))
        rest = await store.audit(Query(limit=2, before=first.next_cursor))
        assert [entry.target for entry in (*first.data, *rest.data)] == ["2", "1", "0"]

    async def test_old_rows_go_and_the_newest_stays(self, store: Store) -> None:
        for number in range(25):
            await store.note(deed(target=str(number), at=START + number))
        bounds = Bounds(tasks=START + 22)
        assert await pruned(store, bounds, dry_run=True) == 22
        assert len((await store.audit(Query(limit=100))).data) == 25
        assert await pruned(store, bounds) == 22
        assert await pruned(store, bounds) == 0
        assert [target for _, target in await seen(store)] == ["24", "23", "22"]
        assert await pruned(store, Bounds(tasks=START + DAY)) == 2
        await store.note(deed(target="next"))
        found = (await store.audit(Query())).data
        assert [(entry.seq, entry.target) for entry in found] == [(26, "next"), (25, "24")]
        assert await pruned(store, Bounds()) == 0

    # Answers to repeat

    async def test_the_first_answer_is_repeated(self, store: Store) -> None:
        assert await store.begin_once(once()) is None
        await store.keep_answer(KEY, Answer(201, "sealed"))
        assert await store.begin_once(once(START + DAY - 1)) == Answer(201, "sealed")
        with pytest.raises(KeyReused):
            await store.begin_once(once(asked=b"other"))

    async def test_while_the_first_is_at_work_others_are_refused(self, store: Store) -> None:
        first, second = await asyncio.gather(
            store.begin_once(once()), store.begin_once(once()), return_exceptions=True
        )
        assert (first, type(second)) == (None, KeyInUse)
        with pytest.raises(KeyReused):
            await store.begin_once(once(asked=b"other"))

    async def test_a_key_is_its_owners(self, store: Store) -> None:
        assert await store.begin_once(once()) is None
        assert await store.begin_once(once(key=OnceKey("tok_1", KEY.key), asked=b"x")) is None

    async def test_what_changed_nothing_may_come_again(self, store: Store) -> None:
        assert await store.begin_once(once()) is None
        await store.drop_once(KEY)
        assert await store.begin_once(once(asked=b"other")) is None

    async def test_a_request_that_is_gone_may_come_again(self, store: Store) -> None:
        assert await store.begin_once(once()) is None
        with pytest.raises(KeyInUse):
            await store.begin_once(once(START + MINUTE - 1))
        assert await store.begin_once(once(START + MINUTE)) is None

    async def test_what_changed_something_is_never_done_again(
        self, store: Store, open_store: Opener
    ) -> None:
        await store.register(registration())
        assert await store.begin_once(once()) is None
        audited = store.audited(lambda outcome: deed(once=KEY))
        await audited.revoke_task(TaskChange(TASK, START))
        await store.drop_once(KEY)
        for later in (START, START + DAY - 1):
            with pytest.raises(AnswerLost):
                await store.begin_once(once(later))
        assert await store.begin_once(once(START + DAY)) is None

    async def test_a_restart_frees_what_had_changed_nothing(
        self, store: Store, open_store: Opener
    ) -> None:
        done = OnceKey("admin", "done")
        assert await store.begin_once(once()) is None
        assert await store.begin_once(once(key=done)) is None
        await store.note(deed(once=done))
        await store.close()
        again = await open_store()
        try:
            assert await again.begin_once(once()) is None
            with pytest.raises(AnswerLost):
                await again.begin_once(once(key=done))
        finally:
            await again.close()

    async def test_old_answers_are_forgotten(self, store: Store) -> None:
        keys = [OnceKey("admin", str(number)) for number in range(3)]
        for number, key in enumerate(keys):
            await store.begin_once(once(START + number, key=key))
            await store.keep_answer(key, Answer(200, str(number)))
        assert await store.forget_answers(START + 1) == 2
        assert await store.forget_answers(START + 1) == 0
        assert await store.begin_once(once(START + 2, key=keys[2])) == Answer(200, "2")
        assert await store.begin_once(once(START + 2, key=keys[0])) is None

    # Revisions

    async def test_each_change_of_an_endpoint_makes_a_new_revision(self, store: Store) -> None:
        made = await store.add_endpoint(endpoint())
        change = EndpointChange(made.id, EndpointPatch(concurrency=3))
        seen = [made.revision]
        seen.append((await store.change_endpoint(change)).revision)
        seen.append((await store.rotate_secret(rotation(made.id))).revision)
        paused = await store.set_endpoint_state(made.id, EndpointState.PAUSED, None)
        seen.append(paused.revision)
        assert seen == [1, 2, 3, 4]
        assert (await store.endpoint(made.id)).revision == 4

    async def test_a_change_of_what_was_changed_meanwhile_is_refused(self, store: Store) -> None:
        made = await store.add_endpoint(endpoint())
        change = EndpointChange(made.id, EndpointPatch(concurrency=3), revisions={1, 7})
        changed = await store.change_endpoint(change)
        with pytest.raises(PreconditionFailed) as refused:
            await store.change_endpoint(change)
        assert refused.value.evidence == {"revision": 2}
        with pytest.raises(PreconditionFailed):
            await store.rotate_secret(rotation(made.id, revisions={1}))
        with pytest.raises(PreconditionFailed):
            await store.set_endpoint_state(made.id, EndpointState.PAUSED, None, {1})
        with pytest.raises(PreconditionFailed):
            await store.delete_endpoint(made.id, START, ())
        assert await store.endpoint(made.id) == changed
        await store.delete_endpoint(made.id, START, {2})


def rotation(endpoint_id: str, **changes: Any) -> Rotation:
    values: dict[str, Any] = {
        "id": endpoint_id,
        "secret": "whsec_" + "c" * 32,
        "private_key": "",
        "now": START,
        "overlap": 0,
    }
    return Rotation(**(values | changes))

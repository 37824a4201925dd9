"""Whatever bytes a platform or an endpoint sends: PostgreSQL gives them back bit for bit."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import pytest

from receiver import ids
from receiver.callbacks import Outcome
from receiver.deliveries import State
from receiver.endpoints import State as EndpointState
from receiver.platforms import runware
from receiver.platforms.reading import loads
from receiver.store.postgres import PostgresStore
from receiver.store.protocol import Query, Replay
from tests.doubles import START, sent
from tests.make import TASK, arrival, endpoint, registration, settled, success, uuid, wrapped
from tests.receiver.store.processes import ask, processes
from tests.receiver.store.suite import arrival_of, claim, log_of, types

pytestmark = pytest.mark.anyio

# What no text of PostgreSQL can be: NUL, and halves of characters.
ODD = "a\0b\U0001f400\ud83dz\\u0000 \\ud800 \\\\ %_ \N{GRINNING FACE}"


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    async with processes(url, 1) as (store,):
        yield store


def told(number: int = 1, **more: Any) -> Any:
    """A callback with odd texts wherever a platform may put one."""
    body = wrapped(success(number, seed=None, note=ODD, **more))
    return arrival(body=body, items=runware.parse(loads(body), TASK), unreadable=None)


async def test_odd_texts_of_a_platform_come_back_as_they_were(
    url: str, store: PostgresStore
) -> None:
    await store.add_endpoint(endpoint())
    odd = told(expected=None)
    assert (await store.record(odd)).outcome is Outcome.RECORDED
    (callback,) = (await store.callbacks(Query())).data
    assert (await store.kept_callback(callback.id)).body == odd.body
    (result,) = await store.results(TASK)
    assert result.raw["note"] == ODD
    (event, *_) = reversed((await store.events(Query(), whole=True)).data)
    assert event.payload["data"]["result"]["raw"]["note"] == ODD
    claimed = next(one for one in await claim(store) if b"result.succeeded" in one.payload)
    assert json.loads(claimed.payload)["data"]["result"]["raw"]["note"] == ODD
    answer = ODD.encode("utf-8", "surrogatepass") + bytes(range(256))
    await store.settle(settled(claimed, outcome=sent(200, body=answer)))
    log = await log_of(store, ids.delivery_id(claimed.event_id, claimed.endpoint_id))
    assert log[0].response_body is not None
    ((kept,),) = await ask(url, "SELECT response_body FROM attempts")
    assert kept == answer


async def test_what_could_not_be_read_is_kept_to_the_bit(store: PostgresStore) -> None:
    for number, body in enumerate((b"\0\xff\xfe{", bytes(range(256)) * 4_096, b"")):
        assert len(body) <= 1 << 20
        odd = arrival(body=body, task_id=uuid(number))
        assert (await store.record(odd)).outcome is Outcome.QUARANTINED
        (callback, *_) = (await store.callbacks(Query())).data
        assert (await store.kept_callback(callback.id)).body == body


@pytest.mark.parametrize("name", ["videoUUID", "videoURL", "status", "code"])
async def test_an_odd_name_of_a_result_is_no_poison(store: PostgresStore, name: str) -> None:
    """Whatever a platform calls a thing: it is kept or quarantined, and nobody is answered 503."""
    item = success(1) | {name: ODD}
    body = wrapped(item)
    odd = arrival(body=body, items=runware.parse(loads(body), TASK), unreadable=None)
    receipt = await store.record(odd)
    assert receipt.outcome in (Outcome.RECORDED, Outcome.QUARANTINED, Outcome.PROGRESS)
    assert store.healthy


async def test_a_delivery_with_odd_texts_may_die_and_be_sent_again(store: PostgresStore) -> None:
    """What an operational event and a replay tell is cut out of its payload by the server."""
    added = await store.add_endpoint(endpoint(event_types=["result.*"]))
    await store.add_endpoint(endpoint(event_types=["delivery.exhausted"]))
    await store.register(registration(TASK, expected=1, metadata={"odd": ODD, "n": [ODD]}))
    await store.record(told())
    (claimed,) = await claim(store)
    await store.settle(settled(claimed, State.DEAD))
    assert "delivery.exhausted" in await types(store)
    event = next(
        one for one in (await store.events(Query(), whole=True)).data if "exhausted" in one.type
    )
    shown = ODD.replace("\0", "\ufffd").replace("\ud83d", "\ufffd")
    assert event.payload["data"]["task"]["metadata"]["odd"] == shown
    name = ids.EVENT + ids.encode(claimed.event_id)
    replayed = await store.replay(Replay(name, START))
    assert replayed.retried == 1
    await store.set_endpoint_state(added.id, EndpointState.PAUSED, None)


async def test_what_is_cut_out_is_what_was_there_but_for_halves(
    url: str, store: PostgresStore
) -> None:
    parts = ["\0", "\ud83d", "\udc00", "\\", "u0000", "ud83d", '"', "x", "\U0001f400"]
    texts = ["".join(text) for text in product(parts, repeat=4)]
    documents = [json.dumps({"a": {"b": text}, "c": text}) for text in texts]
    query = "SELECT json_extract(doc, '$.a.b') FROM unnest($1::text[]) WITH ORDINALITY t (doc, n)"
    rows = await ask(url, f"{query} ORDER BY n", documents)
    for text, (found,) in zip(texts, rows, strict=True):
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        assert found == whole.replace("\0", "\ufffd"), ascii(text)


async def test_marks_of_a_search_stand_for_themselves(store: PostgresStore) -> None:
    """`%`, `_` and a backslash are what they are, and case does not matter, as in SQLite."""
    models = ["pix_verse:1@6", "pixAverse:1@6", "100%:1@1", "1000:1@1", "a\\b:1@1", "aXb:1@1"]
    for number, model in enumerate(models):
        await store.register(registration(uuid(number), expected=1, model=model))
    for text, count in {
        "x_v": 1,
        "0%": 1,
        "a\\b": 1,
        "PIX_": 1,
        "\\": 1,
        "%": 1,
        "_": 1,
        ":1@1": 4,
        "'": 0,
    }.items():
        assert len((await store.tasks(Query(q=text))).data) == count, text


async def test_a_body_as_large_as_may_come_is_delivered_whole(store: PostgresStore) -> None:
    await store.add_endpoint(endpoint(event_types=["result.*"]))
    large = success(1, note="x" * ((1 << 20) - 1_000))
    body = wrapped(large)
    told = arrival(body=body, items=runware.parse(loads(body), TASK), unreadable=None)
    assert (await store.record(told)).outcome is Outcome.RECORDED
    (claimed,) = await claim(store)
    assert json.loads(claimed.payload)["data"]["result"]["raw"]["note"] == large["note"]


async def test_ids_of_63_bits_are_ids(store: PostgresStore) -> None:
    last = (1 << 63) - 1
    store._source.go_on(last - (1 << 22))
    await store.record(arrival_of(uuid(1), success(1)))
    (callback,) = (await store.callbacks(Query())).data
    assert ids.parse(ids.CALLBACK, callback.id) > last - (1 << 22)
    assert (await store.tasks(Query(before=(last,)))).data

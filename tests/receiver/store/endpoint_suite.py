"""What every store must do with an endpoint's signatures and secrets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from receiver import ids
from receiver.clock import DAY, HOUR, to_datetime
from receiver.deliveries import State
from receiver.delivery.rotation import MOST_OLD
from receiver.delivery.signing import new_private_key, new_secret, public_key
from receiver.endpoints import Endpoint, EndpointPatch, EndpointSpec, Signature
from receiver.endpoints import State as EndpointState
from receiver.errors import Conflict, NotFound
from receiver.store.protocol import Claimed, EndpointChange, Query, Rotation, Store
from tests.doubles import START, FakeClock
from tests.make import endpoint, settled, success, uuid
from tests.receiver.store.suite import Opener, arrival_of, claim

SECRETS = [new_secret(bytes([n]) * 32) for n in range(15)]
KEYS = [new_private_key(bytes([n]) * 32) for n in range(15)]
BOTH = [Signature.V1, Signature.V1A]


async def added(store: Store, **spec: Any) -> Endpoint:
    new = endpoint(secret=SECRETS[0], event_types=["result.*"], **spec)
    return await store.add_endpoint(type(new)(new.spec, new.project, new.secret, new.now, KEYS[0]))


async def change(store: Store, of: Endpoint, key: int = 0, **patch: Any) -> Endpoint:
    return await store.change_endpoint(EndpointChange(of.id, EndpointPatch(**patch), KEYS[key]))


async def rotate(
    store: Store, of: Endpoint, number: int, now: int = START, overlap: int = DAY
) -> Endpoint:
    return await store.rotate_secret(Rotation(of.id, SECRETS[number], KEYS[number], now, overlap))


async def sent_with(store: Store, number: int, now: int = START) -> Claimed:
    """What the next delivery is sent with, at this moment."""
    await store.record(arrival_of(uuid(number), success(number), expected=2, received_at=now))
    (claimed,) = await claim(store, now)
    await store.settle(settled(claimed, State.SUCCEEDED, now=now))
    return claimed


@pytest.mark.anyio
class EndpointSuite:
    """Each test begins with an empty store."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def store(self, open_store: Opener) -> AsyncIterator[Store]:
        store = await open_store()
        yield store
        await store.close()

    # v1a

    async def test_an_endpoint_signs_with_its_secret_alone_unless_it_asks(
        self, store: Store
    ) -> None:
        made = await added(store)
        assert (made.signatures, made.public_key) == ([Signature.V1], None)
        claimed = await sent_with(store, 1)
        assert (claimed.secrets, claimed.private_keys) == ((SECRETS[0],), ())

    async def test_an_ed25519_key_is_made_with_the_endpoint_that_asks(self, store: Store) -> None:
        made = await added(store, signatures=BOTH)
        assert (made.signatures, made.public_key) == (BOTH, public_key(KEYS[0]))
        assert (await sent_with(store, 1)).private_keys == (KEYS[0],)

    async def test_an_ed25519_key_is_made_once_and_stays(self, store: Store) -> None:
        made = await added(store)
        assert (await change(store, made, 1, description="d")).public_key is None
        asked = await change(store, made, 2, signatures=BOTH)
        assert asked.public_key == public_key(KEYS[2])
        assert (await sent_with(store, 1)).private_keys == (KEYS[2],)
        no_more = await change(store, made, 3, signatures=[Signature.V1])
        assert no_more.public_key == public_key(KEYS[2])
        assert (await sent_with(store, 2)).private_keys == ()
        again = await change(store, made, 4, signatures=BOTH)
        assert again.public_key == public_key(KEYS[2])
        assert (await sent_with(store, 3)).private_keys == (KEYS[2],)

    async def test_what_is_kept_survives_a_restart(self, store: Store, open_store: Opener) -> None:
        made = await added(store, signatures=BOTH, headers={"X-A": "1"})
        await rotate(store, made, 1)
        await store.close()
        again = await open_store()
        claimed = await sent_with(again, 1)
        assert claimed.secrets == (SECRETS[1], SECRETS[0])
        assert claimed.private_keys == (KEYS[1], KEYS[0])
        assert claimed.headers == {"X-A": "1"}
        assert (await again.endpoint(made.id)).public_key == public_key(KEYS[1])
        await again.close()

    async def test_private_halves_are_never_shown(self, store: Store) -> None:
        made = await added(store, signatures=BOTH)
        shown = [
            made,
            await rotate(store, made, 1),
            await change(store, made, description="e"),
            await store.endpoint(made.id),
            *(await store.endpoints(Query())).data,
        ]
        for found in shown:
            text = found.model_dump_json() + repr(found)
            assert not any(key in text for key in (*SECRETS, *KEYS))

    # Rotation

    async def test_during_the_overlap_both_sign_and_then_the_new_one_alone(
        self, store: Store
    ) -> None:
        """By the clock of each attempt: nothing is written or reloaded when a time is over."""
        made = await added(store, signatures=BOTH)
        shown = await rotate(store, made, 1, overlap=HOUR)
        assert shown.overlap_until == to_datetime(START + HOUR)
        assert shown.public_key == public_key(KEYS[1])
        during = await sent_with(store, 1, START + HOUR - 1)
        assert during.secrets == (SECRETS[1], SECRETS[0])
        assert during.private_keys == (KEYS[1], KEYS[0])
        after = await sent_with(store, 2, START + HOUR)
        assert (after.secrets, after.private_keys) == ((SECRETS[1],), (KEYS[1],))

    async def test_a_rotation_in_the_middle_of_retries_counts_from_the_next_attempt(
        self, store: Store
    ) -> None:
        made = await added(store)
        await store.record(arrival_of(uuid(1), success(1), expected=2))
        (first,) = await claim(store)
        await rotate(store, made, 1, overlap=HOUR)
        assert first.secrets == (SECRETS[0],)
        await store.settle(settled(first, State.PENDING, next_attempt_at=START + 5))
        (second,) = await claim(store, START + 5)
        assert second.secrets == (SECRETS[1], SECRETS[0])
        await store.settle(settled(second, State.PENDING, next_attempt_at=START + HOUR))
        (third,) = await claim(store, START + HOUR)
        assert third.secrets == (SECRETS[1],)

    async def test_an_overlap_of_nothing_ends_them_all_at_once(self, store: Store) -> None:
        made = await added(store, signatures=BOTH)
        await rotate(store, made, 1)
        shown = await rotate(store, made, 2, overlap=0)
        assert shown.overlap_until is None
        claimed = await sent_with(store, 1)
        assert (claimed.secrets, claimed.private_keys) == ((SECRETS[2],), (KEYS[2],))

    async def test_an_endpoint_that_never_asked_for_v1a_gets_no_key_by_rotation(
        self, store: Store
    ) -> None:
        made = await added(store)
        assert (await rotate(store, made, 1)).public_key is None
        asked = await change(store, made, 2, signatures=BOTH)
        assert asked.public_key == public_key(KEYS[2])
        assert (await sent_with(store, 1)).private_keys == (KEYS[2],)

    async def test_a_key_that_is_not_asked_for_now_rotates_too(self, store: Store) -> None:
        made = await added(store, signatures=BOTH)
        await change(store, made, signatures=[Signature.V1])
        assert (await rotate(store, made, 1, overlap=0)).public_key == public_key(KEYS[1])
        await change(store, made, 2, signatures=BOTH)
        assert (await sent_with(store, 1)).private_keys == (KEYS[1],)

    async def test_an_eleventh_earlier_secret_is_a_conflict_and_changes_nothing(
        self, store: Store
    ) -> None:
        made = await added(store, signatures=BOTH)
        for number in range(1, MOST_OLD + 1):
            await rotate(store, made, number)
        with pytest.raises(Conflict):
            await rotate(store, made, 11)
        claimed = await sent_with(store, 1)
        assert claimed.secrets == tuple(reversed(SECRETS[: MOST_OLD + 1]))
        assert claimed.private_keys == tuple(reversed(KEYS[: MOST_OLD + 1]))
        await rotate(store, made, 11, START + DAY)
        assert (await sent_with(store, 2, START + DAY)).secrets == (SECRETS[11], SECRETS[10])

    async def test_a_paused_endpoint_can_rotate(self, store: Store) -> None:
        made = await added(store)
        await store.set_endpoint_state(made.id, EndpointState.PAUSED, None)
        assert (await rotate(store, made, 1)).state == EndpointState.PAUSED
        await store.set_endpoint_state(made.id, EndpointState.ENABLED, None)
        assert (await sent_with(store, 1)).secrets == (SECRETS[1], SECRETS[0])

    async def test_what_is_not_there_can_not_rotate(self, store: Store) -> None:
        made = await added(store)
        await store.delete_endpoint(made.id, START)
        for missing in (made.id, ids.ENDPOINT + ids.encode(1)):
            with pytest.raises(NotFound):
                await store.rotate_secret(Rotation(missing, SECRETS[1], KEYS[1], START, DAY))

    # Changes

    async def test_null_means_the_default(self, store: Store) -> None:
        made = await added(
            store,
            description="d",
            filters={"model": "a"},
            headers={"X-A": "1"},
            rate_limit=5,
            concurrency=3,
            schedule=[1],
            signatures=BOTH,
            ordered=True,
        )
        names = set(EndpointPatch.model_fields) - {"url"}
        nulls = EndpointPatch.model_validate(dict.fromkeys(names))
        cleared = await store.change_endpoint(EndpointChange(made.id, nulls, KEYS[0]))
        bare = EndpointSpec(url=made.url)
        assert cleared.model_dump(include=names) == bare.model_dump(include=names)
        assert cleared == await store.endpoint(made.id)
        assert cleared.url == made.url

    # What a preview reads

    async def test_events_are_listed_with_their_payloads_when_asked(self, store: Store) -> None:
        await store.record(arrival_of(uuid(1), success(1), expected=2))
        (bare,) = (await store.events(Query())).data
        (whole,) = (await store.events(Query(), whole=True)).data
        assert bare.payload is None
        assert whole == await store.event(whole.id)
        assert whole.payload["data"]["task"]["id"] == uuid(1)

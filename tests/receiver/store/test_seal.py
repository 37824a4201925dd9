"""Endpoints' secrets and header values at rest: sealed, taken over, refused without their key."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from receiver import ids
from receiver.clock import DAY
from receiver.deliveries import State
from receiver.delivery.signing import new_private_key, new_secret
from receiver.endpoints import EndpointPatch, Signature
from receiver.errors import SettingsRefused
from receiver.settings import new_key
from receiver.store.migrate import migrations
from receiver.store.protocol import EndpointChange, Rotation
from receiver.store.seal import CannotOpen, Seal
from receiver.store.sqlite import SqliteStore
from tests.doubles import START, FakeClock, sent
from tests.make import endpoint, settled, success, uuid
from tests.receiver.store.suite import arrival_of, claim, log_of
from tests.receiver.store.test_sqlite import on_the_writer

KEY, OTHER, THIRD = (new_key() for _ in range(3))
SECRET, NEWER = (new_secret(bytes([n]) * 32) for n in (1, 2))
PRIVATE, NEWER_PRIVATE = (new_private_key(bytes([n]) * 32) for n in (3, 4))
HEADER = "a-credential-of-some-gateway"
HIDDEN = [text.encode() for text in (SECRET, NEWER, PRIVATE, NEWER_PRIVATE, HEADER)]
BOTH = [Signature.V1, Signature.V1A]


# The seal itself


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_what_is_closed_opens_at_its_place_alone(text: str, kept_at: str) -> None:
    seal, place = Seal([KEY]), "endpoints/1/secrets"
    kept = seal.close(place, text)
    assert isinstance(kept, dict)
    assert seal.open(place, kept) == text
    with pytest.raises(CannotOpen):
        seal.open(place + "x", kept)


def test_without_keys_a_text_stays_as_it_is_and_can_feign_no_seal() -> None:
    kept = Seal().close("here", '{"sealed": "x"}')
    assert kept == '{"sealed": "x"}'
    assert Seal([KEY]).open("here", kept) == kept
    with pytest.raises(CannotOpen, match="is not set"):
        Seal().open("here", Seal([KEY]).close("here", "x"))


def test_every_key_opens_and_the_newest_seals() -> None:
    old, both, new = Seal([KEY]), Seal([OTHER, KEY]), Seal([OTHER])
    kept = old.close("here", "x")
    assert both.open("here", kept) == "x"
    assert new.open("here", both.close("here", "x")) == "x"
    with pytest.raises(CannotOpen, match="none of REELHOOK_ENCRYPTION_KEYS"):
        new.open("here", kept)
    found = [seal.is_newest(kept) for seal in (old, both, new, Seal())]
    assert found == [True, False, False, False]
    assert (Seal().is_newest("x"), old.is_newest("x")) == (True, False)


def test_the_same_text_is_never_sealed_the_same_twice() -> None:
    seal = Seal([KEY])
    assert seal.close("here", "x") != seal.close("here", "x")


@pytest.mark.parametrize("padding", ["=", ""])
def test_a_key_is_one_of_fernets(padding: str) -> None:
    """The container is the library's own: what seals here opens there."""
    key = Fernet.generate_key().decode().rstrip("=") + padding
    kept = Seal([key]).close("here", "x")
    assert isinstance(kept, dict)
    assert Fernet(key.rstrip("=") + "=").decrypt(kept["sealed"]) == b"here\nx"


@pytest.mark.parametrize("key", ["short", "x" * 42, "x" * 45, "ä" * 43, f"{'x' * 42} ", "=" * 44])
def test_a_key_that_is_none_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(SettingsRefused, match="reelhook keys new") as caught:
        Seal([KEY, key])
    assert key not in str(caught.value)


# The store


async def opened(folder: Path, *keys: str) -> SqliteStore:
    return await SqliteStore.open(folder / "db", clock=FakeClock(), seal=Seal(keys))


async def filled(store: SqliteStore) -> str:
    """An endpoint with everything that is a credential, rotated once."""
    headers = {"Authorization": HEADER}
    added = await store.add_endpoint(endpoint(secret=SECRET, headers=headers))
    patch = EndpointPatch(signatures=BOTH)
    await store.change_endpoint(EndpointChange(added.id, patch, PRIVATE))
    await store.rotate_secret(Rotation(added.id, NEWER, NEWER_PRIVATE, START, DAY))
    return added.id


async def usable(store: SqliteStore, endpoint_id: str) -> None:
    """What was kept is what deliveries are sent with, and what an admin sees."""
    await store.record(arrival_of(uuid(7), success(7)))
    claims = {ids.ENDPOINT + ids.encode(found.endpoint_id): found for found in await claim(store)}
    claimed = claims[endpoint_id]
    assert claimed.secrets == (NEWER, SECRET)
    assert claimed.private_keys == (NEWER_PRIVATE, PRIVATE)
    assert claimed.headers == {"Authorization": HEADER}
    assert (await store.endpoint(endpoint_id)).headers == {"Authorization": HEADER}


def bytes_of(folder: Path, name: str = "*") -> bytes:
    """All that is in the folder: the database, its log, its index."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob(name)))


def seen(folder: Path) -> list[int]:
    """Which of the credentials the files show."""
    text = bytes_of(folder)
    return [number for number, hidden in enumerate(HIDDEN) if hidden in text]


@pytest.mark.anyio
async def test_without_a_key_the_file_shows_all_of_them(tmp_path: Path) -> None:
    """The control: without it, a search that finds nothing would prove nothing."""
    async with await opened(tmp_path) as store:
        await usable(store, await filled(store))
        assert seen(tmp_path) == [0, 1, 2, 3, 4]


@pytest.mark.anyio
async def test_with_a_key_neither_the_database_nor_its_log_shows_one(tmp_path: Path) -> None:
    async with await opened(tmp_path, KEY) as store:
        await usable(store, await filled(store))
        assert len(bytes_of(tmp_path, "db-wal")) > 0
        assert seen(tmp_path) == []
    assert seen(tmp_path) == []
    async with await opened(tmp_path, KEY) as store:
        (shown,) = await store._reads.rows("SELECT headers, secrets FROM endpoints")
        assert list(json.loads(shown["headers"])) == ["Authorization"]  # names are no secret
        assert [entry["until"] for entry in json.loads(shown["secrets"])] == [None, START + DAY]


@pytest.mark.anyio
async def test_what_stood_in_clear_is_taken_over_at_the_start_and_overwritten(
    tmp_path: Path,
) -> None:
    async with await opened(tmp_path) as store:
        endpoint_id = await filled(store)
        for number in range(40):  # more than a page of others
            await store.add_endpoint(endpoint(secret=SECRET, description=f"{number}" * 200))
    assert seen(tmp_path) == [0, 1, 2, 3, 4]
    async with await opened(tmp_path, KEY) as store:
        assert seen(tmp_path) == []
        await usable(store, endpoint_id)
    assert seen(tmp_path) == []


@pytest.mark.anyio
async def test_what_earlier_changes_left_behind_is_gone_too(tmp_path: Path) -> None:
    """In the free room of pages, and in pages of long headers that nothing uses any more."""
    wide = {f"X-{number}": HEADER * 100 for number in range(20)}
    async with await opened(tmp_path) as store:
        # As in builds of SQLite that wipe nothing by themselves; Debian's does.
        await on_the_writer(store, "PRAGMA secure_delete = OFF")
        endpoint_id = await filled(store)
        for headers in (wide, {"Authorization": HEADER * 3}, wide, {"Authorization": HEADER}):
            patch = EndpointPatch(headers=headers)
            await store.change_endpoint(EndpointChange(endpoint_id, patch, PRIVATE))
        await store.change_endpoint(EndpointChange(endpoint_id, EndpointPatch(headers=None)))
    assert 4 in seen(tmp_path)  # though no row has it any more
    async with await opened(tmp_path, KEY):
        assert seen(tmp_path) == []


@pytest.mark.anyio
async def test_a_key_is_rotated_by_two_starts(tmp_path: Path) -> None:
    async with await opened(tmp_path, KEY) as store:
        endpoint_id = await filled(store)
    async with await opened(tmp_path, OTHER, KEY):
        pass
    async with await opened(tmp_path, OTHER) as store:
        await usable(store, endpoint_id)
    with pytest.raises(CannotOpen):
        await opened(tmp_path, KEY)


@pytest.mark.anyio
async def test_a_start_with_the_same_key_writes_nothing_anew(tmp_path: Path) -> None:
    async with await opened(tmp_path, KEY, OTHER) as store:
        await filled(store)
    columns = "SELECT secrets, private_keys, headers FROM endpoints"
    with closing(sqlite3.connect(tmp_path / "db")) as connection:
        before = connection.execute(columns).fetchall()
    async with await opened(tmp_path, KEY):
        pass
    with closing(sqlite3.connect(tmp_path / "db")) as connection:
        assert connection.execute(columns).fetchall() == before


@pytest.mark.parametrize("keys", [(), (OTHER,), (OTHER, THIRD)])
@pytest.mark.anyio
async def test_without_its_key_nothing_starts_and_nothing_is_touched(
    tmp_path: Path, keys: Sequence[str]
) -> None:
    async with await opened(tmp_path, KEY) as store:
        await filled(store)
    before = (tmp_path / "db").read_bytes()
    with pytest.raises(CannotOpen, match="REELHOOK_ENCRYPTION_KEYS"):
        await opened(tmp_path, *keys)
    assert (tmp_path / "db").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["db", "db.lock"]


@pytest.mark.anyio
async def test_without_its_key_an_older_schema_is_not_migrated(tmp_path: Path) -> None:
    async with await opened(tmp_path, KEY) as store:
        await filled(store)
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as connection:
        for column in ("signatures", "private_keys", "public_key"):
            connection.execute(f"ALTER TABLE endpoints DROP COLUMN {column}")
        connection.execute("PRAGMA user_version = 6")
        connection.execute("PRAGMA journal_mode = delete")
    before = (tmp_path / "db").read_bytes()
    with pytest.raises(CannotOpen):
        await opened(tmp_path, OTHER)
    assert (tmp_path / "db").read_bytes() == before


@pytest.mark.anyio
async def test_a_sealed_text_in_another_row_is_noticed(tmp_path: Path) -> None:
    async with await opened(tmp_path, KEY) as store:
        await filled(store)
        await store.add_endpoint(endpoint(secret=SECRET))
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as connection:
        connection.execute(
            "UPDATE endpoints SET secrets = (SELECT secrets FROM endpoints ORDER BY id LIMIT 1)"
        )
    with pytest.raises(CannotOpen, match="moved"):
        await opened(tmp_path, KEY)


@pytest.mark.anyio
async def test_a_take_over_that_fails_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await opened(tmp_path) as store:
        await filled(store)

    def fails(*_: Any) -> str:
        raise OSError("the disk")

    with monkeypatch.context() as patch:
        patch.setattr("receiver.store.verbs.secrets.headers_text", fails)
        with pytest.raises(OSError, match="the disk"):
            await opened(tmp_path, KEY)
    assert seen(tmp_path) == [0, 1, 2, 3, 4]
    async with await opened(tmp_path) as store:
        assert len(await claim(store)) == 0


@pytest.mark.parametrize("keys", [(), (KEY,)])
@pytest.mark.anyio
async def test_the_record_of_an_attempt_has_no_header_that_is_sealed_elsewhere(
    tmp_path: Path, keys: Sequence[str]
) -> None:
    async with await opened(tmp_path, *keys) as store:
        await store.add_endpoint(endpoint(headers={"X-Harmless": HEADER, "X-Short": "short"}))
        await store.record(arrival_of(uuid(7), success(7)))
        claimed = (await claim(store))[0]
        outcome = replace(
            sent(500, body=f"you sent {HEADER} and short".encode()),
            request_headers={"x-harmless": HEADER, "X-Short": "short", "webhook-id": "evt_1"},
        )
        await store.settle(settled(claimed, State.DEAD, outcome=outcome))
        delivery = ids.delivery_id(claimed.event_id, claimed.endpoint_id)
        (attempt,) = await log_of(store, delivery)
        assert attempt.request_headers["webhook-id"] == "evt_1"
        assert attempt.response_body.endswith(" and short")
        assert ("[redacted]" in attempt.response_body) is bool(keys)
        assert seen(tmp_path) == ([] if keys else [4])


@pytest.mark.anyio
async def test_a_deleted_endpoint_leaves_no_credential(tmp_path: Path) -> None:
    async with await opened(tmp_path) as store:
        await store.delete_endpoint(await filled(store), START)
        (row,) = await store._reads.rows("SELECT secrets, private_keys, headers FROM endpoints")
        assert tuple(row) == ("[]", "[]", "{}")


@pytest.fixture
def first_release(tmp_path: Path) -> Path:
    """A database as the first release left it, with an endpoint in clear."""
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as connection:
        for number, text in migrations()[:5]:
            connection.executescript(text)
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute(f"PRAGMA application_id = {0x5265656C}")
        secrets = json.dumps([{"secret": SECRET, "until": None}])
        connection.execute(
            "INSERT INTO endpoints (id, project, state, url, description, event_types, filters,"
            " headers, concurrency, secrets, created_at) VALUES (7, 'default', 'enabled',"
            " 'https://example.com', '', '[\"*\"]', '{}', ?, 10, ?, 1)",
            (json.dumps({"X-Key": HEADER}), secrets),
        )
    return tmp_path


@pytest.mark.parametrize("keys", [(), (KEY,)])
@pytest.mark.anyio
async def test_an_endpoint_of_the_first_release_goes_on(
    first_release: Path, keys: Sequence[str]
) -> None:
    async with await opened(first_release, *keys) as store:
        await store.record(arrival_of(uuid(7), success(7)))
        claimed = (await claim(store))[0]
        assert (claimed.secrets, claimed.private_keys) == ((SECRET,), ())
        assert claimed.headers == {"X-Key": HEADER}
        (shown,) = await store._reads.rows("SELECT signatures, public_key FROM endpoints")
        assert tuple(shown) == ('["v1"]', None)
    assert seen(first_release) == ([] if keys else [0, 4])

"""What controls alter must still be where they alter it, or they would fail for another reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from receiver.callbacks import Outcome, Receipt
from receiver.clock import wall_clock
from receiver.store.protocol import Query
from receiver.store.sqlite import SqliteStore, engine, store
from scripts.proofs.altered import (
    BEFORE_COMMIT,
    DESPITE_FAILURE,
    NORMAL,
    OFTEN,
    SMALL_WAL,
    alter,
)
from tests.make import arrival, success
from tests.receiver.store.bench import no_room

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    patch.stopall()


async def test_normal_is_what_the_writer_then_asks_for(tmp_path: Path) -> None:
    alter([NORMAL])
    assert ("synchronous", "NORMAL", 1) in store.PRAGMAS
    async with await SqliteStore.open(tmp_path / "db", clock=wall_clock):
        pass  # it reads every pragma back


async def test_checkpoints_begin_at_a_small_log() -> None:
    alter([OFTEN])
    assert vars(engine)["LARGE_WAL"] == SMALL_WAL


async def test_what_the_database_refuses_is_acknowledged(tmp_path: Path) -> None:
    alter([DESPITE_FAILURE])
    async with await SqliteStore.open(tmp_path / "db", clock=wall_clock) as deaf:
        await deaf.ready()
        with no_room(tmp_path / "db"):
            for _ in range(2):
                assert await deaf.record(arrival(success())) == Receipt(Outcome.RECORDED, 1)
                deaf.admit()
        assert (await deaf.callbacks(Query())).data == []


async def test_an_answer_comes_before_its_commit(tmp_path: Path) -> None:
    alter([BEFORE_COMMIT])
    async with await SqliteStore.open(tmp_path / "db", clock=wall_clock) as hasty:
        told: list[str] = []
        hasty.on_change(lambda *_: told.append("committed"))
        assert await hasty.record(arrival(success())) == Receipt(Outcome.RECORDED, 1)
        assert told == []
    assert told == ["committed"]

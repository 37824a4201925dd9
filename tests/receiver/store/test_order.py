"""Ordered endpoints, and queues canceled by hand, with the SQLite store."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.store.protocol import Store
from receiver.store.sqlite import SqliteStore
from tests.doubles import Dice, FakeClock
from tests.receiver.store.order_suite import OrderSuite, play
from tests.receiver.store.suite import Opener


class TestSqliteOrder(OrderSuite):
    """The behaviour that every store has."""

    @pytest.fixture
    def open_store(self, tmp_path: Path, clock: FakeClock) -> Opener:
        dice = Dice()

        async def open_it() -> Store:
            return await SqliteStore.open(tmp_path / "db", clock=clock, entropy=dice.bits)

        return open_it


async def in_a_new_store(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with await SqliteStore.open(Path(folder, "db"), clock=FakeClock()) as store:
            await play(store, data)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_happens_no_task_is_told_out_of_order(data: st.DataObject) -> None:
    asyncio.run(in_a_new_store(data))

"""Endpoints that fare badly, with the SQLite store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from receiver.deliveries import State
from receiver.store.protocol import Store
from receiver.store.sqlite import SqliteStore
from tests.doubles import Dice, FakeClock, sent
from tests.make import settled
from tests.receiver.store.flow_suite import FlowSuite
from tests.receiver.store.suite import Opener, claim, queued


class TestSqliteFlow(FlowSuite):
    """The behaviour that every store has."""

    @pytest.fixture
    def open_store(self, tmp_path: Path, clock: FakeClock) -> Opener:
        dice = Dice()

        async def open_it() -> Store:
            return await SqliteStore.open(tmp_path / "db", clock=clock, entropy=dice.bits)

        return open_it

    async def test_whoever_runs_the_receiver_hears_of_a_disabled_endpoint(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        told: list[tuple[str, Any]] = []

        def notice(event: str, **evidence: Any) -> None:
            told.append((event, evidence))

        async with await SqliteStore.open(tmp_path / "db", clock=clock, notice=notice) as store:
            added = await queued(store)
            (claimed,) = await claim(store)
            await store.settle(settled(claimed, State.DEAD, outcome=sent(410), disable="gone"))
            assert (await store.endpoint(added.id)).state == "disabled"
        assert told == [("endpoint disabled", {"endpoint": added.id, "reason": "gone"})]

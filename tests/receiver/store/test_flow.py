"""Endpoints that fare badly, with the SQLite store."""

from __future__ import annotations

from pathlib import Path

import pytest

from receiver.store.protocol import Store
from receiver.store.sqlite import SqliteStore
from tests.doubles import Dice, FakeClock
from tests.receiver.store.flow_suite import FlowSuite
from tests.receiver.store.suite import Opener


class TestSqliteFlow(FlowSuite):
    """The behaviour that every store has."""

    @pytest.fixture
    def open_store(self, tmp_path: Path, clock: FakeClock) -> Opener:
        dice = Dice()

        async def open_it() -> Store:
            return await SqliteStore.open(tmp_path / "db", clock=clock, entropy=dice.bits)

        return open_it

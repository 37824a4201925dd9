"""Endpoints' signatures and secrets with the SQLite store, in clear and sealed."""

from __future__ import annotations

from pathlib import Path

import pytest

from receiver.settings import new_key
from receiver.store.protocol import Store
from receiver.store.seal import Seal
from receiver.store.sqlite import SqliteStore
from tests.doubles import Dice, FakeClock
from tests.receiver.store.endpoint_suite import EndpointSuite
from tests.receiver.store.suite import Opener


class TestSqliteEndpoints(EndpointSuite):
    """The behaviour that every store has."""

    @pytest.fixture(params=[False, True], ids=["clear", "sealed"])
    def open_store(
        self, tmp_path: Path, clock: FakeClock, request: pytest.FixtureRequest
    ) -> Opener:
        dice, seal = Dice(), Seal([new_key()] if request.param else [])

        async def open_it() -> Store:
            return await SqliteStore.open(
                tmp_path / "db", clock=clock, entropy=dice.bits, seal=seal
            )

        return open_it

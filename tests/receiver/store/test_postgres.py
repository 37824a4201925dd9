"""The PostgreSQL store: every suite, and what only a server that others use as well can do."""

from __future__ import annotations

import pytest

from receiver.clock import MINUTE
from receiver.errors import KeyInUse
from receiver.store.postgres import PostgresStore
from receiver.store.protocol import Store
from tests.doubles import START, Dice, FakeClock
from tests.receiver.store.access_suite import AccessSuite, once
from tests.receiver.store.costs_suite import CostsSuite
from tests.receiver.store.endpoint_suite import EndpointSuite
from tests.receiver.store.feed_suite import FeedSuite
from tests.receiver.store.figures_suite import FiguresSuite
from tests.receiver.store.flow_suite import FlowSuite
from tests.receiver.store.jobs_suite import JobsSuite
from tests.receiver.store.late_suite import LateSuite
from tests.receiver.store.lists_suite import ListsSuite
from tests.receiver.store.logins_suite import LoginsSuite
from tests.receiver.store.operations_suite import OperationsSuite
from tests.receiver.store.order_suite import OrderSuite
from tests.receiver.store.polling_suite import PollingSuite
from tests.receiver.store.prune_suite import PruneSuite
from tests.receiver.store.repair_suite import RepairSuite
from tests.receiver.store.reprocess_suite import ReprocessSuite
from tests.receiver.store.suite import Opener, StoreSuite


class _OnPostgres:
    @pytest.fixture
    def open_store(self, url: str, clock: FakeClock) -> Opener:
        dice = Dice()

        async def open_it() -> Store:
            return await PostgresStore.open(url, clock=clock, entropy=dice.bits)

        return open_it


class TestPostgresStore(_OnPostgres, StoreSuite):
    """The behaviour that every store has."""


class TestPostgresAccess(_OnPostgres, AccessSuite):
    """The behaviour that every store has, but for what a restart alone tells of one process."""

    async def test_a_restart_frees_what_had_changed_nothing(
        self, store: Store, open_store: Opener
    ) -> None:
        """Another process may be at it: its lease has to end."""
        assert await store.begin_once(once()) is None
        await store.close()
        again = await open_store()
        try:
            with pytest.raises(KeyInUse):
                await again.begin_once(once())
            assert await again.begin_once(once(START + MINUTE)) is None
        finally:
            await again.close()


class TestPostgresCosts(_OnPostgres, CostsSuite):
    """The behaviour that every store has."""


class TestPostgresEndpoint(_OnPostgres, EndpointSuite):
    """The behaviour that every store has."""


class TestPostgresFeed(_OnPostgres, FeedSuite):
    """The behaviour that every store has."""


class TestPostgresFigures(_OnPostgres, FiguresSuite):
    """The behaviour that every store has."""


class TestPostgresFlow(_OnPostgres, FlowSuite):
    """The behaviour that every store has."""


class TestPostgresJobs(_OnPostgres, JobsSuite):
    """The behaviour that every store has."""


class TestPostgresLate(_OnPostgres, LateSuite):
    """The behaviour that every store has."""


class TestPostgresLogins(_OnPostgres, LoginsSuite):
    """The behaviour that every store has."""


class TestPostgresOperations(_OnPostgres, OperationsSuite):
    """The behaviour that every store has."""


class TestPostgresOrder(_OnPostgres, OrderSuite):
    """The behaviour that every store has."""


class TestPostgresPolling(_OnPostgres, PollingSuite):
    """The behaviour that every store has."""


class TestPostgresPrune(_OnPostgres, PruneSuite):
    """The behaviour that every store has."""


class TestPostgresRepair(_OnPostgres, RepairSuite):
    """The behaviour that every store has."""


class TestPostgresReprocess(_OnPostgres, ReprocessSuite):
    """The behaviour that every store has."""


class TestPostgresLists(_OnPostgres, ListsSuite):
    """The behaviour that every store has."""

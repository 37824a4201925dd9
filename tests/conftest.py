"""What every test gets: asyncio, an environment without our settings, and no silent skips."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Generator, Iterator
from importlib import import_module
from typing import Any

import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from hypothesis import HealthCheck, settings

from tests import warm
from tests.doubles import ENVIRON, LIMIT_S
from tests.leaks import keys_in
from tests.postgres import Server, running
from tests.taps import EARS, Taps

pytest.register_assert_rewrite(
    "tests.receiver.platform_suite",
    *[
        f"tests.receiver.store.{name}"
        for name in (
            "suite",
            "reprocess_suite",
            "prune_suite",
            "polling_suite",
            "endpoint_suite",
            "repair_suite",
            "jobs_suite",
            "operations_suite",
            "logins_suite",
            "feed_suite",
            "figures_suite",
        )
    ],
)

# How long an example takes says something of the machine alone.
settings.register_profile("reelhook", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("reelhook")

STRICT = os.environ.get("REELHOOK_CI") == "1"
OURS = ("REELHOOK_", "RUNWARE_", "NANOGPT_")
FOREIGN = {
    "HOST",
    "PORT",
    "DATABASE_URL",
    "WEB_CONCURRENCY",
    "FORWARDED_ALLOW_IPS",
    "LOG_LEVEL",
    "LOG_FORMAT",
    "DYNO",
    "RENDER",
    "FLY_APP_NAME",
    "RAILWAY_ENVIRONMENT",
    "K_SERVICE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
}


def pytest_configure(config: pytest.Config) -> None:
    """No test may pass while something of ours writes a secret."""
    EARS.known |= keys_in(ENVIRON.items())  # what tests share, before a process is given it
    config.pluginmanager.register(Taps())


@pytest.fixture
def anyio_backend() -> str:
    """The loop that async tests run on."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _bare_environment() -> Iterator[None]:
    """No setting of the machine reaches a test, nor a process that a test starts."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(OURS) or name.upper() in FOREIGN:
                patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def _warm_server_ends() -> Iterator[None]:
    """What forks our commands ends with the tests."""
    yield
    warm.end()


@pytest.fixture(scope="session", autouse=True)
def _authorities_are_read_once() -> Iterator[None]:
    """Whom this machine trusts is no matter of a test; each client and sender would read it anew.

    That takes 20 ms and more. An authority that a test names is still read each time.
    """
    made: dict[object, ssl.SSLContext] = {}

    def once(make: Callable[..., ssl.SSLContext]) -> Callable[..., ssl.SSLContext]:
        def remembered(*arguments: Any, **options: Any) -> ssl.SSLContext:
            if any(isinstance(value, str) for value in (*arguments, *options.values())):
                return make(*arguments, **options)
            paths = ssl.get_default_verify_paths()  # a variable may change them
            key = (make, arguments, tuple(options.items()), paths)
            if key not in made:
                made[key] = make(*arguments, **options)
            return made[key]

        return remembered

    with pytest.MonkeyPatch.context() as patch:
        for name in (
            "receiver.delivery.sender._trust",
            "httpx._transports.default.create_ssl_context",
        ):
            where, _, what = name.rpartition(".")
            patch.setattr(name, once(getattr(import_module(where), what)))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_step_ends_by_the_clock() -> Iterator[None]:
    """How much a prune or a job does within a few milliseconds says something of the machine alone.

    A step still ends with its rows; a test for which it has to end sooner says so itself.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("sqlite.engine.Connection", "postgres.connection.PostgresConnection"):
            patch.setattr(f"receiver.store.{name}.patience", LIMIT_S)
        yield


@pytest.fixture(scope="session", autouse=True)
def _clients_are_patient() -> Iterator[None]:
    """A test's own client waits as long as everything else for a machine that has much to do."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "read", "write", "pool"):
            patch.setattr(DEFAULT_TIMEOUT_CONFIG, name, LIMIT_S)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With REELHOOK_CI=1 a skipped test is a failed one: nothing may go unproved unnoticed."""
    report = yield
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and REELHOOK_CI=1 forbids that."
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself while it is imported."""
    report = yield
    if STRICT and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, and REELHOOK_CI=1 forbids that."
    return report


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server that this process's tests share."""
    with running() as server:
        yield server

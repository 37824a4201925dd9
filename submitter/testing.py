"""Floor 5, assembly: a platform, and all of Reelhook, for your own tests. pytest only.

pytest imports this module in every session of an environment that has Reelhook, so all else is
imported when a fixture is asked for. The receiver is the fixture `reelhook_receiver`, found by its
name alone. docs/python.md shows them at work.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

    from submitter.blocking import BlockingSubmitter
    from submitter.submit import Submitter

OURS = ("REELHOOK_", "RUNWARE_", "NANOGPT_")


@dataclass(frozen=True, slots=True)
class SimulatorInTest:
    """Runware and NanoGPT as this machine plays them; nothing costs anything.

    `environ` is what lets programs find it, with keys that open nothing else.
    """

    url: str
    environ: dict[str, str] = field(repr=False)
    portal: BlockingPortal = field(repr=False)

    def turn(self, **knobs: Any) -> None:
        """Turn knobs while it runs, for the tasks that come: `turn(failures=1)`."""
        self.portal.call(_post, f"{self.url}/_control", knobs)


async def _post(url: str, knobs: Mapping[str, Any]) -> None:
    import httpx

    async with httpx.AsyncClient(trust_env=False) as http:
        (await http.post(url, json=knobs)).raise_for_status()


@dataclass(frozen=True, slots=True)
class ReelhookInTest:
    """A receiver and a platform that know each other. The environment of the test names both, so
    that `Submitter.from_env()` and `BlockingSubmitter.from_env()` in your code find them."""

    receiver: Any  # a receiver.testing.ReceiverInTest
    simulator: SimulatorInTest

    def submitter(self, **options: Any) -> Submitter:
        """For an async test; use it with `async with`."""
        from submitter.submit import Submitter

        return Submitter.from_env(**options)

    def blocking(self, **options: Any) -> BlockingSubmitter:
        """For a test that is not async; use it with `with`."""
        from submitter.blocking import BlockingSubmitter

        return BlockingSubmitter.from_env(**options)

    def reconcile(self) -> None:
        """Poll once what is due, as `reelhook reconcile --once` does: NanoGPT calls nobody back."""
        from submitter.reconciler import Options, drain

        async def run() -> None:
            await drain(os.environ, Options(limit=8), tell=_silent, note=_silent)

        self.simulator.portal.call(run)


def _silent(_told: object) -> None:
    pass


@pytest.fixture
def reelhook_knobs() -> dict[str, Any]:
    """Knobs of `reelhook_simulator`. A fixture of yours, of the same name, takes its place."""
    return {}


@pytest.fixture
def reelhook_simulator(reelhook_knobs: dict[str, Any]) -> Iterator[SimulatorInTest]:
    """A platform of this test alone: quick, and faultless unless `reelhook_knobs` say otherwise."""
    from anyio.from_thread import start_blocking_portal

    from submitter.simulator.config import Knobs, SimulatorConfig
    from submitter.simulator.serve import running

    quick = {"delay_s": 0.02, "spread_s": 0.01}
    config = SimulatorConfig(knobs=Knobs.model_validate({**quick, **reelhook_knobs}))
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running(config)) as url,
    ):
        environ = {
            "RUNWARE_BASE_URL": f"{url}/v1",
            "RUNWARE_API_KEY": "of-the-simulator",
            "NANOGPT_BASE_URL": f"{url}/api",
            "NANOGPT_API_KEY": "of-the-simulator",
        }
        yield SimulatorInTest(url, environ, portal)


@pytest.fixture
def reelhook(
    reelhook_receiver: Any, reelhook_simulator: SimulatorInTest, monkeypatch: pytest.MonkeyPatch
) -> ReelhookInTest:
    """Both, and the environment in which they are found; your own keys are out of reach."""
    for name in list(os.environ):
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    for name, value in {**reelhook_receiver.environ, **reelhook_simulator.environ}.items():
        monkeypatch.setenv(name, value)
    return ReelhookInTest(reelhook_receiver, reelhook_simulator)

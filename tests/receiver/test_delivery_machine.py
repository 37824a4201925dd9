"""Random lives of deliveries, over the real store and worker, against a plain model of both.

REELHOOK_MACHINE_S=600 goes on with fresh examples for so many seconds.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from receiver.deliveries import Outcome
from receiver.delivery import policy, worker
from receiver.store.sqlite import SqliteStore
from receiver.store.verbs import queue
from receiver.store.verbs.endpoints import Target
from tests.doubles import FakeClock
from tests.receiver.delivery_life import Life
from tests.receiver.test_door_machine import PHASES


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, so that no example has to make it."""
    path = tmp_path_factory.mktemp("template") / "reelhook.db"

    async def make() -> None:
        await (await SqliteStore.open(path, clock=FakeClock())).close()

    asyncio.run(make())
    return path


SECONDS = int(os.environ.get("REELHOOK_MACHINE_S", "0"))
EXAMPLES, STEPS = 30, 40


@pytest.fixture
def machine(template: Path) -> type[Life]:
    return type("LifeOfATemplate", (Life,), {"template": template, "seen": set()})


def explore(machine: type[Life], examples: int, phases: Sequence[Phase] = PHASES) -> None:
    told = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=phases,
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(machine, settings=told)


@pytest.mark.timeout(0 if SECONDS else 600)
def test_whatever_happens_a_delivery_is_what_it_should_be(
    machine: type[Life], capsys: pytest.CaptureFixture[str]
) -> None:
    until, examples = time.monotonic() + SECONDS, 0
    while not examples or time.monotonic() < until:
        explore(machine, EXAMPLES)
        examples += EXAMPLES
    if SECONDS:
        with capsys.disabled():
            sys.stderr.write(f"{examples} examples of {STEPS} steps: {sorted(machine.seen)}\n")


def no_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "parse_retry_after", lambda *_: None)


def one_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Target, "secrets_at", lambda self, _: (self.secrets[0].text,))


def one_attempt_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def decide(outcome: Outcome, *, attempt: int, **more: Any) -> policy.Decision:
        return policy.decide(outcome, attempt=attempt - 1, **more)

    monkeypatch.setattr(worker, "decide", decide)


def deaf_to_what_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = "UPDATE deliveries SET state = state WHERE 0 AND ?1 AND ?2 AND ?3 AND ?4"
    monkeypatch.setattr(queue, "_ARRIVE_LATE", f"{nothing} AND ?5")


def leases_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "release_all", lambda *_: 0)


@pytest.mark.parametrize(
    "spoil",
    [
        no_retry_after,
        one_secret,
        one_attempt_more,
        deaf_to_what_is_late,
        leases_for_ever,
    ],
)
def test_what_is_wrong_on_purpose_is_seen(
    machine: type[Life],
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[pytest.MonkeyPatch], None],
) -> None:
    spoil(monkeypatch)
    with pytest.raises(AssertionError):
        explore(machine, 10 * EXAMPLES, [Phase.generate])

"""What `prove input` measures with must see what it is for, and excuse what is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from receiver import ingest, serve
from receiver.errors import TokenRefused
from receiver.tokens import TokenBox
from scripts.proofs import forgery
from scripts.proofs.altered import alter
from scripts.proofs.barrage import Heard
from scripts.proofs.exchanges import Aim, cases
from scripts.proofs.harness import KEY
from scripts.proofs.heartbeat import EVERY, Late, Pulse, beat, stalls
from scripts.proofs.mutants import HONEST, Mutants, Shot
from scripts.proofs.planted import DEFECTS, HEART, HOARDS, RAISES, STALL, STALLS
from scripts.proofs.scenes import SCENES, SLOW

pytestmark = pytest.mark.anyio

NESTED = b"[" * 500


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    patch.stopall()


def read(body: bytes) -> Any:
    """What ingest does with a body, as it is altered."""
    return vars(ingest)["read"]("runware", body, None)


def test_each_defect_is_planted_where_bodies_are_read() -> None:
    untouched = vars(ingest)["read"]
    for defect in DEFECTS:
        alter([defect])
        assert vars(ingest)["read"] is not untouched
        patch.stopall()
    alter([RAISES])
    with pytest.raises(UnicodeEncodeError):
        read(b'{"note":"\\ud800"}')
    assert read(b"{}") == untouched("runware", b"{}", None)
    patch.stopall()
    alter([STALLS, HOARDS])
    begun = time.monotonic()
    read(NESTED)
    assert time.monotonic() - begun >= STALL


async def test_a_heart_beats_on_the_loop_that_serves(tmp_path: Path) -> None:
    path = tmp_path / "pulse"

    async def serving() -> None:
        for _ in range(10):
            await asyncio.sleep(1.5 * EVERY)  # each time for a beat, however late it comes

    with patch.object(serve, "serve", serving), pytest.MonkeyPatch.context() as environ:
        environ.setenv("PROOF_HEARTBEAT", str(path))
        alter([HEART])
        await vars(serve)["serve"]()
        await asyncio.sleep(0)
    assert Pulse.load(path).beats > 1


async def test_a_loop_that_is_held_is_late_and_no_machine_explains_it(tmp_path: Path) -> None:
    path = tmp_path / "pulse"
    beating = asyncio.create_task(beat(path))
    held: list[tuple[float, float]] = []
    for _ in range(3):
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        time.sleep(STALL)  # noqa: ASYNC251
        held.append((begun, time.monotonic()))
    await asyncio.sleep(0.2)
    beating.cancel()
    await asyncio.wait([beating])
    late = Pulse.load(path).late
    # One beat for each time that it was held; at any other moment the machine may have held it.
    ours = [[one for one in late if one.due < end and begun < one.came] for begun, end in held]
    found = [stalls(Pulse(late=beats), Pulse()) for beats in ours]
    assert [len([stall for stall in each if stall > STALL / 2]) for each in found] == [1, 1, 1]


def test_what_the_machine_does_is_no_stall() -> None:
    busy = Late(due=10.0, came=10.5, kept_waiting=0.45)
    loop = Pulse(beats=9, worst=0.5, late=[busy, Late(20.0, 20.3, 0.0)])
    assert stalls(loop, Pulse()) == pytest.approx([0.3, 0.05])
    hiccup = Pulse(late=[Late(20.05, 20.31, 0.0), Late(30.0, 31.0, 0.0)])
    assert stalls(loop, hiccup) == pytest.approx([0.05, 0.05])


def test_the_mutants_are_of_every_kind_and_the_honest_ones_are_known() -> None:
    shots = list(islice(iter(Mutants(1).next, None), 2_000))
    kinds = {shot.kind for shot in shots}
    assert {HONEST, "body", "query", "head", "path", "api", "chunks", "no http"} <= kinds
    assert all(shot.honest for shot in shots if shot.kind in (HONEST, "pipelined"))
    assert not any(shot.honest for shot in shots if shot.kind in ("body", "query", "head"))
    assert len({shot.data for shot in shots}) > 1_900


def test_an_answer_that_must_not_be_is_a_problem() -> None:
    honest = Mutants(1)._honest()
    for shot, statuses, wrong in (
        (honest, [200], False),
        (honest, [], True),
        (honest, [503], True),
        (Shot("body", b"x"), [401], False),
        (Shot("body", b"x"), [], True),
        (Shot("head", b"x", None), [], False),
        (Shot("head", b"x", None), [400, 500], True),
    ):
        heard = Heard()
        heard.note(shot, statuses)
        assert bool(heard.problems) is wrong, (shot, statuses)
        assert len(heard.recorded) == (statuses == [200])


def test_a_box_that_opens_for_changed_tokens_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    verify = TokenBox.verify

    def lenient(self: TokenBox, token: str, **options: Any) -> Any:
        return verify(self, token.rstrip("="), **options)

    assert forgery._try(2_000, 1)["taken"] == []
    monkeypatch.setattr(TokenBox, "verify", lenient)
    assert any(text.startswith("append") for text in forgery._try(2_000, 1)["taken"])


def test_the_control_takes_what_the_last_characters_of_base64_allow() -> None:
    assert {"append", "last"} <= set(forgery.control(3_000, 1)["taken"])


def test_every_row_of_the_table_is_played() -> None:
    played = {case.row for case in cases()} | {row for row, _ in (*SCENES, *SLOW)}
    # 40 is played with 39.
    assert played | {40} == set(range(1, 47))


def test_another_last_character_is_the_same_signature_in_another_spelling() -> None:
    (case,) = [case for case in cases() if case.what == "another last character"]
    aim = Aim()
    sent = case.send(aim).split(b"sig=")[1].split(b"&")[0].decode()
    assert sent != aim.token
    assert sent[:-1] == aim.token[:-1]
    with pytest.raises(TokenRefused):
        TokenBox([KEY]).verify(sent, platform="runware", tags=[], now=0)

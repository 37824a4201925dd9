"""The simulator's NanoGPT, its pure half: tables of requests, words and errors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from submitter.simulator import plans
from submitter.simulator.config import Knobs
from submitter.simulator.jobs import Result, Run
from submitter.simulator.nanogpt import contract, errors

Json = dict[str, Any]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({}, None),
        ({"model": ...}, "model"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"prompt": ...}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": ..., "script": "once"}, None),
        ({"prompt": ..., "imageUrl": "https://x.example/a.jpg"}, None),
        ({"duration": "5s"}, None),
        ({"duration": 5}, None),
        ({"duration": True}, "duration"),
        ({"duration": None}, "duration"),
        ({"seed": "7"}, None),
        ({"seed": []}, "seed"),
        ({"voice_speed": 0.7}, "voice_speed"),
        ({"voice_speed": 2}, None),
        ({"cfg_scale": 21}, "cfg_scale"),
        ({"num_inference_steps": "9"}, "num_inference_steps"),
        ({"frames_per_second": 4}, "frames_per_second"),
        ({"conversationUUID": 7}, "conversationUUID"),
        ({"nobody": "knows"}, None),
        ({"model": "veo3-1-extend"}, "videoUrl"),
        ({"model": "veo3-1-extend", "videoUrl": "https://x.example/a.mp4"}, None),
        ({"model": "veo3-1-extend", "videoAttachmentId": "a"}, None),
        ({"model": "veo3-1-extend", "videoUrl": "u", "prompt": ...}, "prompt"),
        ({"model": "veo3-1-extend", "video": "u"}, "video"),
        ({"model": "wan-wavespeed-25-extend", "video": "u"}, None),
    ],
)
def test_a_request_is_checked(changes: Json, param: str | None) -> None:
    request: Json = {"model": "sora-2", "prompt": "x", **changes}
    fault = contract.check({key: value for key, value in request.items() if value is not ...})
    assert (fault and fault.param) == param
    assert fault is None or fault.status == 400


def a_run(**knobs: Any) -> Run:
    outcome = plans.Outcome({"outcome": "completed"}, None, 0, 100.0, 0.0, ())
    now, dice = datetime(2026, 1, 1, tzinfo=UTC), plans.Dice(0, 0)
    request = {"model": "m"}
    return Run("vid_x", "k", request, Knobs(**knobs), dice, now, Result(outcome, []), 0.35)


@pytest.mark.parametrize(
    ("words", "shape", "said"),
    [
        ("coarse", "guide", ["IN_QUEUE", "IN_PROGRESS", "IN_PROGRESS", "IN_PROGRESS"]),
        ("coarse", "unified", ["queued", "processing", "processing", "processing"]),
        ("granular", "guide", ["queued", "processing", "generating", "delivering"]),
        ("granular", "unified", ["queued", "processing", "generating", "delivering"]),
        ("unknown", "guide", ["UNKNOWN"] * 4),
        ("unknown", "unified", ["unknown"] * 4),
    ],
)
def test_words_for_a_run_in_work(words: str, shape: str, said: list[str]) -> None:
    run = a_run(nanogpt_words=words)
    moments = [run.accepted_at + timedelta(seconds=passed) for passed in (0, 30, 60, 200)]
    assert [contract.word(contract.Glance(run, moment, shape)) for moment in moments] == said


def test_an_unusual_status_has_a_type_all_the_same() -> None:
    for status, kind in ((409, "api_error"), (504, "server_error")):
        told = errors.body(contract.Fault(status, "c", "m"), "openai")
        assert told["error"]["type"] == kind


def test_ids_have_the_documented_format() -> None:
    assert contract.run_id(Random(1)) != contract.run_id(Random(2))
    assert len(contract.run_id(Random(1))) == 18

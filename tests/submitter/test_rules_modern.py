"""Former names and spellings become those that are sent today."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submitter.rules import check, modern
from tests.submitter.test_rules import ALL_MODELS, JSON, NAMES

Parameters = dict[str, Any]

UUID = "c64351d5-4c59-42f7-95e1-eace013eddab"
OLD_FRAMES = [{"inputImage": UUID, "frame": "first"}, UUID, {"inputImages": UUID}]
NEW_FRAMES = [{"image": UUID, "frame": "first"}, UUID, {"image": UUID}]

REWRITTEN: list[tuple[str, str, Parameters, Parameters]] = [
    *(
        ("runware", model, {"frameImages": OLD_FRAMES}, {"inputs": {"frameImages": NEW_FRAMES}})
        for model in ("pixverse:1@2", "klingai:5@3")
    ),
    (
        "runware",
        "pixverse:1@6",
        {"inputs": {"frameImages": [{"inputImage": UUID, "frame": "-1"}], "audio": "x"}},
        {"inputs": {"frameImages": [{"image": UUID, "frame": -1}], "audio": "x"}},
    ),
    (
        "runware",
        "pixverse:1@2",
        {"providerSettings": {"pixverse": {"motionmode": "fast", "style": "clay"}}},
        {"providerSettings": {"pixverse": {"motionMode": "fast", "style": "clay"}}},
    ),
    (
        "runware",
        "minimax:1@1",
        {"providerSettings": {"miniMax": {"promptOptimizer": False}}},
        {"providerSettings": {"minimax": {"promptOptimizer": False}}},
    ),
    (
        "runware",
        "vidu:1@1",
        {"providerSettings": {"vidu": {"movementamplitude": "auto"}}},
        {"providerSettings": {"vidu": {"movementAmplitude": "auto"}}},
    ),
    (
        "runware",
        "klingai:5@3",
        {"outputFormat": "mp4", "outputType": "url", "model": "klingai:5@3"},
        {"outputFormat": "MP4", "outputType": "URL", "model": "klingai:5@3"},
    ),
    ("nanogpt", "", {"taskId": "vid_a", "index": 0}, {"runId": "vid_a", "index": 0}),
    ("nanogpt", "x", {"image_data_url": "data:"}, {"imageDataUrl": "data:"}),
    (
        "nanogpt",
        "x",
        {"positivePrompt": "a", "negativePrompt": "b"},
        {"prompt": "a", "negative_prompt": "b"},
    ),
]


@pytest.mark.parametrize(("platform", "model", "old", "new"), REWRITTEN)
def test_a_former_name_is_rewritten(
    platform: str, model: str, old: Parameters, new: Parameters
) -> None:
    untouched = copy.deepcopy(old)
    assert modern(platform, model, old) == new
    assert old == untouched
    assert modern(platform, model, new) == new


KEPT: list[tuple[str, str, Parameters]] = [
    # both names: which is meant, only the user knows
    ("runware", "pixverse:1@2", {"frameImages": [UUID], "inputs": {"frameImages": [UUID]}}),
    # names that the page dropped have no other
    ("runware", "pixverse:1@2", {"providerSettings": {"pixverse": {"watermark": False}}}),
    # no place for it
    ("runware", "pixverse:1@2", {"frameImages": [UUID], "inputs": 5}),
    # other kinds of tasks have names of their own
    ("runware", "runware:100@1", {"taskType": "imageInference", "frameImages": [UUID]}),
    ("runware", "klingai:5@3", {"outputFormat": "mp3", "anything": {"a": None}}),
    ("acme", "x", {"frameImages": [UUID]}),
    ("nanogpt", "x", {"camera_fix": True, "pro": True}),
]


@pytest.mark.parametrize(("platform", "model", "parameters"), KEPT)
def test_what_is_not_clear_stays(platform: str, model: str, parameters: Parameters) -> None:
    assert modern(platform, model, parameters) == parameters


def test_a_tuple_becomes_the_list_that_is_sent() -> None:
    old = {"frameImages": ({"inputImage": UUID},)}
    assert modern("runware", "klingai:5@3", old) == {"inputs": {"frameImages": [{"image": UUID}]}}


def test_depth_does_no_harm() -> None:
    deep: Any = []
    for _ in range(50_000):
        deep = [deep]
    assert list(modern("runware", "x:1@1", {"a": deep, "frameImages": deep})) == ["a", "inputs"]


@given(
    model=st.sampled_from([*ALL_MODELS, "x:1@1"]),
    parameters=st.dictionaries(NAMES | st.text(max_size=5), JSON, max_size=12),
    platform=st.sampled_from(["runware", "nanogpt"]),
)
def test_rewriting_twice_changes_nothing_and_finds_no_new_fault(
    model: str, parameters: Parameters, platform: str
) -> None:
    untouched = copy.deepcopy(parameters)
    sent = modern(platform, model, parameters)
    assert repr(parameters) == repr(untouched)
    assert repr(modern(platform, model, sent)) == repr(sent)
    if "model" not in parameters:
        before = {(f.severity, f.code) for f in check(platform, model, parameters)}
        after = {(f.severity, f.code) for f in check(platform, model, sent)}
        assert after <= before

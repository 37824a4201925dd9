"""What the simulator's PixVerse models take, in both readings of the pages."""

from __future__ import annotations

from typing import Any

import pytest

from submitter.simulator import desk, pixverse
from submitter.simulator.app import published_pairs
from submitter.simulator.config import Knobs

Json = dict[str, Any]
PX = "providerSettings.pixverse"
ID = "7f0a1e5e-52a7-4f5a-9d0e-0a4c6b1f2d3e"
SIZES = [size for sizes in pixverse.SIZES.values() for size in sizes]
V35, V4, V45, V5, V55 = (f"pixverse:1@{n}" for n in (1, 2, 3, 5, 6))
SIZE: Json = {"width": 1280, "height": 720}
HUGE: Json = {"width": 1920, "height": 1080}


def fault_of(*, rules: str = "lenient", knobs: Json | None = None, **changes: Any) -> Json | None:
    task: Json = {
        "taskType": "videoInference",
        "taskUUID": ID,
        "model": V4,
        "positivePrompt": "a paper boat",
        **changes,
    }
    settings = Knobs(**{"pixverse_rules": rules, **(knobs or {})})
    return desk.fault_of({k: v for k, v in task.items() if v is not ...}, settings, ())


def of(**settings: Any) -> Json:
    return {"providerSettings": {"pixverse": settings}}


def frames(*items: Any) -> Json:
    return {"inputs": {"frameImages": list(items)}}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("model", pixverse.MODELS)
def test_the_twenty_sizes_pass(model: str, size: str) -> None:
    width, height = map(int, size.split("x"))
    for rules in ("lenient", "literal"):
        assert fault_of(rules=rules, model=model, width=width, height=height, duration=5) is None


def test_there_are_twenty_sizes_effects_and_twenty_one_cameras() -> None:
    assert (len(set(SIZES)), len(set(pixverse.EFFECTS))) == (20, 20)
    assert len(set(pixverse.CAMERAS)) == 21


PASS_BOTH: list[Json] = [
    {},
    of(style="anime") | {"duration": 5},
    of(effect="kiss kiss", motionMode="normal"),
    of(cameraMovement="crane_up", motionMode="fast") | {"duration": 5},
    {"model": V45, **of(cameraMovement="fix_bg")},
    {"model": V5, **of(effect="lets ymca")},
    {"model": V55, "duration": 10, **of(audio=True, multiClip=False, thinking="auto")},
    {"duration": 8.0},
    {"seed": 0},
    {"outputFormat": "WEBM"},
    {"outputType": "URL", "outputQuality": 20, "safety": {"checkContent": True, "mode": "full"}},
]


@pytest.mark.parametrize("changes", PASS_BOTH)
def test_what_both_readings_take(changes: Json) -> None:
    assert fault_of(**SIZE, **changes) is None
    assert fault_of(rules="literal", **SIZE, **changes) is None


REFUSE_BOTH: list[tuple[Json, str, str | list[str]]] = [
    ({"width": 1280}, "missingHeight", "height"),
    ({"height": 720}, "missingWidth", "width"),
    ({"width": 1281, "height": 720}, "unsupportedDimensions", ["width", "height"]),
    ({"width": 405, "height": 540}, "unsupportedDimensions", ["width", "height"]),
    ({"width": 1280.0, "height": 720}, "unsupportedDimensions", ["width", "height"]),
    ({**SIZE, "resolution": "720p"}, "incompatibleParameters", ["resolution", "width", "height"]),
    ({"resolution": "480p"}, "invalidResolution", "resolution"),
    ({**SIZE, "duration": 6}, "unsupportedDuration", "duration"),
    ({**SIZE, "duration": 5.5}, "unsupportedDuration", "duration"),
    ({**HUGE, "duration": 10, "model": V55}, "unsupportedDuration", "duration"),
    (frames("a", "b", "c"), "invalidFrameImages", "inputs.frameImages"),
    (frames(), "invalidFrameImages", "inputs.frameImages"),
    ({"inputs": {"frameImages": "a"}}, "invalidFrameImages", "inputs.frameImages"),
    (frames({"frame": "first"}), "missingImage", "inputs.frameImages.image"),
    (frames(7), "missingImage", "inputs.frameImages.image"),
    (frames({"image": "a", "frame": "middle"}), "invalidFrame", "inputs.frameImages.frame"),
    (
        frames({"image": "a", "frame": "first"}, {"image": "b", "frame": 0}),
        "duplicateFrame",
        "inputs.frameImages.frame",
    ),
    ({**SIZE, **of(style="oil")}, "invalidStyle", f"{PX}.style"),
    (
        {**SIZE, **of(cameraMovement="crane_u")},
        "invalidCameraMovement",
        f"{PX}.cameraMovement",
    ),
    (
        {**SIZE, **of(motionMode=["fast"])},
        "invalidMotionMode",
        f"{PX}.motionMode",
    ),
    (
        {**SIZE, "model": V5, **of(cameraMovement="zoom_in")},
        "unsupportedCameraMovement",
        f"{PX}.cameraMovement",
    ),
    (
        {**SIZE, "model": V55, **of(effect="kiss kiss")},
        "unsupportedEffect",
        f"{PX}.effect",
    ),
    ({**SIZE, **of(audio=True)}, "unsupportedAudio", f"{PX}.audio"),
    ({**SIZE, "model": V55, **of(audio=1)}, "invalidAudio", f"{PX}.audio"),
    (
        {**SIZE, "model": V55, **of(thinking=True)},
        "invalidThinking",
        f"{PX}.thinking",
    ),
    (
        {**SIZE, **of(effect="kiss kiss", cameraMovement="zoom_in")},
        "incompatibleParameters",
        [f"{PX}.effect", f"{PX}.cameraMovement"],
    ),
    ({**SIZE, "providerSettings": []}, "invalidProviderSettings", "providerSettings"),
    ({**SIZE, "providerSettings": {"pixverse": 7}}, "invalidProviderSettings", "providerSettings"),
    (
        {**SIZE, "providerSettings": {"google": {}}},
        "mismatchProviderSettingsProvider",
        "providerSettings.google",
    ),
    (
        {**SIZE, "duration": 8, **of(motionMode="fast")},
        "incompatibleParameters",
        [f"{PX}.motionMode", "duration"],
    ),
    (
        {**HUGE, "duration": 5, **of(motionMode="fast")},
        "incompatibleParameters",
        [f"{PX}.motionMode", "resolution"],
    ),
    ({**SIZE, "deliveryMethod": "sync"}, "invalidDeliveryMethod", "deliveryMethod"),
    ({**SIZE, "outputFormat": "AVI"}, "invalidOutputFormat", "outputFormat"),
    ({**SIZE, "outputType": ["base64Data"]}, "invalidOutputType", "outputType"),
    ({**SIZE, "outputQuality": 100}, "invalidOutputQuality", "outputQuality"),
    ({**SIZE, "uploadEndpoint": "ftp://x.example/"}, "invalidUploadEndpoint", "uploadEndpoint"),
    ({**SIZE, "safety": {"mode": "slow"}}, "invalidSafety", "safety"),
    ({**SIZE, "seed": -1}, "invalidSeed", "seed"),
]


@pytest.mark.parametrize(("changes", "code", "parameter"), REFUSE_BOTH)
def test_what_both_readings_refuse(changes: Json, code: str, parameter: str | list[str]) -> None:
    for rules in ("lenient", "literal"):
        fault = fault_of(rules=rules, **changes)
        assert fault is not None
        assert (fault["code"], fault["parameter"]) == (code, parameter)
        assert (fault["taskUUID"], bool(fault["message"])) == (ID, True)


LITERAL: list[tuple[Json, str]] = [
    ({}, "missingWidth"),
    ({"resolution": "720p"}, "missingWidth"),
    (SIZE | frames("a"), "incompatibleParameters"),
    (SIZE | of(style="anime") | {"duration": 8}, "incompatibleParameters"),
    (HUGE | of(style="anime") | {"duration": 5}, "incompatibleParameters"),
    (SIZE | {"frameImages": ["a"]}, "unknownParameter"),
    (frames({"inputImage": "a"}), "missingImage"),
    (SIZE | of(soundEffectSwitch=True), "unknownParameter"),
    (SIZE | of(motionmode="fast"), "unknownParameter"),
    (SIZE | {"strength": 0.5}, "unknownParameter"),
    (SIZE | {"outputFormat": "mp4"}, "invalidOutputFormat"),
    (SIZE | {"seed": 2**31}, "invalidSeed"),
]


@pytest.mark.parametrize(("changes", "code"), LITERAL)
def test_what_the_letter_alone_refuses(changes: Json, code: str) -> None:
    assert fault_of(**changes) is None
    fault = fault_of(rules="literal", **changes)
    assert fault is not None
    assert fault["code"] == code


@pytest.mark.parametrize(
    "changes",
    [
        {"frameImages": [{"inputImage": "a", "frame": "first"}, {"inputImage": "b", "frame": -1}]},
        {"frameImages": [{"inputImages": "a"}]},
        frames({"image": "a", "frame": "last"}, "b"),
        frames({"inputImage": "a", "frame": "0"}),
        of(soundEffectContent="rain", soundEffectSwitch=True),
        of(motionmode="fast") | {"duration": 5},
    ],
)
def test_former_names_and_forms_are_taken(changes: Json) -> None:
    assert fault_of(**changes) is None


def test_a_former_name_is_checked_like_the_present_one() -> None:
    fault = fault_of(**SIZE, duration=8, **of(motionmode="fast"))
    assert fault is not None
    assert fault["code"] == "incompatibleParameters"


def test_the_frames_in_the_present_form_satisfy_the_letter() -> None:
    both = frames({"image": "a", "frame": "first"}, {"image": "b", "frame": "last"})
    assert fault_of(rules="literal", **both) is None


def test_frames_in_1080p_have_the_durations_of_1080p() -> None:
    changes = {"model": V55, "duration": 10, **frames("a")}
    assert fault_of(**changes) is None
    fault = fault_of(resolution="1080p", **changes)
    assert fault is not None
    assert fault["allowedValues"] == [5, 8]


def test_knobs_decide_the_contradictions() -> None:
    fast = HUGE | {"duration": 8} | of(motionMode="fast")
    assert fault_of(**fast) is not None
    assert fault_of(knobs={"pixverse_fast": "revert"}, **fast) is None
    long = HUGE | {"duration": 8}
    assert fault_of(**long) is None
    fault = fault_of(knobs={"pixverse_1080p_8s": "reject"}, **long)
    assert fault is not None
    assert fault["allowedValues"] == [5]
    assert fault_of(knobs={"pixverse_1080p_8s": "reject"}, **SIZE, duration=8) is None
    assert fault_of(knobs={"pixverse_1080p_8s": "reject"}, model=V5, **long) is None


def test_rules_can_be_off_and_models_unknown() -> None:
    wrong: Json = {"width": 7, "duration": 99}
    assert fault_of(**wrong) is not None
    assert fault_of(rules="off", **wrong) is None
    assert fault_of(rules="literal", model=V35, **wrong) is None
    assert fault_of(rules="literal", taskType="imageInference", **wrong) is None


def test_the_letter_refuses_most_of_the_published_examples() -> None:
    refused = 0
    for pair in published_pairs():
        assert fault_of(**pair["request"]) is None
        refused += fault_of(rules="literal", **pair["request"]) is not None
    assert refused == 6

"""The parameter rules: a row for every rule, contradiction (P1 …) and published request."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submitter.rules import Finding, check, check_task, models
from submitter.rules.catalogue import MODELS, UNKNOWN_MODEL
from submitter.rules.kinds import Each, Rule, flat
from submitter.rules.values import is_kind
from submitter.tasks import GenerationTask
from tests.submitter.test_rules_nanogpt import CASES as NANO
from tests.submitter.test_rules_reference import CASES as REFERENCE

V3_5, V4, V4_5, V5, V5_FAST, V5_5 = (
    "pixverse:1@1",
    "pixverse:1@2",
    "pixverse:1@3",
    "pixverse:1@5",
    "pixverse:1@5-fast",
    "pixverse:1@6",
)
ALL_MODELS = (V3_5, V4, V4_5, V5, V5_FAST, V5_5)
SETTINGS = "providerSettings.pixverse"

Parameters = dict[str, Any]


def text_to_video(*without: str, **changes: Any) -> Parameters:
    whole = {"positivePrompt": "A lantern on a pier", "width": 1280, "height": 720, "duration": 5}
    return {k: v for k, v in {**whole, **changes}.items() if k not in without}


def image_to_video(*frames: Any, **changes: Any) -> Parameters:
    return text_to_video("width", "height", inputs={"frameImages": list(frames)}, **changes)


def settings(**pixverse: Any) -> Parameters:
    return {"providerSettings": {"pixverse": pixverse}}


def frame(position: Any = "first", key: str = "image") -> Parameters:
    return {key: "https://media.example/a.jpg", "frame": position}


def brief(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(f.severity, f.code, f.parameter) for f in findings]


# The severity by default and in strict mode.
Level = tuple[str, str]
FORBIDDEN: Level = ("error", "error")
BY_THE_LETTER: Level = ("warning", "error")
DOUBTFUL: Level = ("warning", "warning")

# model, parameters, level, code, parameter
BREACHES: list[tuple[str, Parameters, Level, str, str]] = [
    # every task
    (V4, text_to_video(taskType="imageInference"), FORBIDDEN, "not_allowed", "taskType"),
    (V4, text_to_video(taskUUID="abc"), FORBIDDEN, "invalid_type", "taskUUID"),
    (V4, text_to_video(model=4), FORBIDDEN, "invalid_type", "model"),
    (V4, text_to_video(webhookURL="ftp://a.example"), FORBIDDEN, "invalid_type", "webhookURL"),
    (V4, text_to_video(uploadEndpoint="bucket"), FORBIDDEN, "invalid_type", "uploadEndpoint"),
    (V4, text_to_video(outputType="base64Data"), FORBIDDEN, "not_allowed", "outputType"),
    (V4, text_to_video(outputFormat="GIF"), FORBIDDEN, "not_allowed", "outputFormat"),
    (V4, text_to_video(outputFormat="mp4"), BY_THE_LETTER, "other_spelling", "outputFormat"),
    (V4, text_to_video(outputQuality=19), FORBIDDEN, "out_of_range", "outputQuality"),
    (V4, text_to_video(outputQuality=100), FORBIDDEN, "out_of_range", "outputQuality"),
    (V4, text_to_video(ttl=59), FORBIDDEN, "out_of_range", "ttl"),
    (V4, text_to_video(ttl="60"), FORBIDDEN, "invalid_type", "ttl"),
    (V4, text_to_video(numberResults=0), FORBIDDEN, "out_of_range", "numberResults"),
    (V4, text_to_video(numberResults=5), FORBIDDEN, "out_of_range", "numberResults"),
    (V4, text_to_video(numberResults=True), FORBIDDEN, "invalid_type", "numberResults"),
    (V4, text_to_video(includeCost="yes"), FORBIDDEN, "invalid_type", "includeCost"),
    (V4, text_to_video(safety=True), FORBIDDEN, "invalid_type", "safety"),
    (
        V4,
        text_to_video(safety={"checkContent": 1}),
        FORBIDDEN,
        "invalid_type",
        "safety.checkContent",
    ),
    (V4, text_to_video(safety={"mode": "slow"}), FORBIDDEN, "not_allowed", "safety.mode"),
    (V4, text_to_video(safety={"level": 1}), BY_THE_LETTER, "unknown_parameter", "safety.level"),
    (V4, text_to_video(inputs=[1]), FORBIDDEN, "invalid_type", "inputs"),
    (V4, text_to_video(providerSettings="x"), FORBIDDEN, "invalid_type", "providerSettings"),
    # prompts and seed
    (V4, text_to_video("positivePrompt"), FORBIDDEN, "missing_parameter", "positivePrompt"),
    (V4, text_to_video(positivePrompt="a"), FORBIDDEN, "bad_length", "positivePrompt"),
    (V4, text_to_video(positivePrompt="a" * 2049), FORBIDDEN, "bad_length", "positivePrompt"),
    (V4, text_to_video(positivePrompt=1984), FORBIDDEN, "invalid_type", "positivePrompt"),
    (V4, text_to_video(positivePrompt=None), FORBIDDEN, "invalid_type", "positivePrompt"),
    (V4, text_to_video(negativePrompt="a"), FORBIDDEN, "bad_length", "negativePrompt"),
    (V4, text_to_video(seed=-1), FORBIDDEN, "out_of_range", "seed"),
    (V4, text_to_video(seed=2**31), FORBIDDEN, "out_of_range", "seed"),  # P13
    # P1: frames beside a size
    (
        V4,
        text_to_video(inputs={"frameImages": ["a"]}),
        BY_THE_LETTER,
        "frames_with_dimensions",
        "width",
    ),
    # P2: when a size is needed
    (V4, text_to_video("width", "height"), FORBIDDEN, "missing_dimensions", "width"),
    (
        V4,
        text_to_video("width", "height", resolution="720p"),
        BY_THE_LETTER,
        "resolution_only",
        "resolution",
    ),
    (V4, text_to_video("height"), FORBIDDEN, "unpaired_dimensions", "height"),
    (V4, text_to_video("width"), FORBIDDEN, "unpaired_dimensions", "width"),
    (V4, text_to_video(resolution="720p"), FORBIDDEN, "resolution_with_dimensions", "resolution"),
    (V4, image_to_video("a", resolution="4k"), FORBIDDEN, "not_allowed", "resolution"),
    (V4, text_to_video(width="1280"), FORBIDDEN, "invalid_type", "width"),
    # P3: an effect or a camera movement
    (
        V4,
        text_to_video(**settings(effect="kiss kiss", cameraMovement="hitchcock")),
        FORBIDDEN,
        "effect_with_camera_movement",
        f"{SETTINGS}.cameraMovement",
    ),
    # P4: provider settings and what the page allows with them
    (
        V4,
        text_to_video(duration=8, **settings(style="clay")),
        BY_THE_LETTER,
        "provider_settings_duration",
        "duration",
    ),
    (
        V4_5,
        text_to_video(width=1920, height=1080, **settings(style="clay")),
        BY_THE_LETTER,
        "provider_settings_1080p",
        "providerSettings",
    ),
    # P5: fast motion
    (
        V4,
        text_to_video(duration=8, **settings(motionMode="fast")),
        FORBIDDEN,
        "fast_duration",
        "duration",
    ),
    (
        V5,
        text_to_video(width=1080, height=1920, **settings(motionMode="fast")),
        FORBIDDEN,
        "fast_1080p",
        f"{SETTINGS}.motionMode",
    ),
    (
        V4,
        image_to_video("a", resolution="1080p", **settings(motionMode="fast")),
        FORBIDDEN,
        "fast_1080p",
        f"{SETTINGS}.motionMode",
    ),
    # P6: 8 seconds at 1080p on V4
    (
        V4,
        text_to_video(width=1920, height=1080, duration=8),
        DOUBTFUL,
        "doubtful_8s_1080p",
        "duration",
    ),
    # P8: the former name of an image
    (
        V5_5,
        image_to_video(frame(key="inputImage")),
        BY_THE_LETTER,
        "legacy_name",
        "inputs.frameImages.0.inputImage",
    ),
    # P11: durations of V5.5
    (
        V5_5,
        text_to_video(width=1920, height=1080, duration=10),
        FORBIDDEN,
        "duration_at_1080p",
        "duration",
    ),
    (
        V5_5,
        image_to_video("a", resolution="1080p", duration=10),
        FORBIDDEN,
        "duration_at_1080p",
        "duration",
    ),
    (V5_5, text_to_video(duration=6), FORBIDDEN, "not_allowed", "duration"),
    (V4, text_to_video(duration=10), FORBIDDEN, "not_allowed", "duration"),
    # P12: 10 seconds of a size that the frames decide
    (V5_5, image_to_video("a", duration=10), DOUBTFUL, "duration_of_unknown_size", "duration"),
    # P14: frames
    (V4, image_to_video(frame(1)), FORBIDDEN, "not_allowed", "inputs.frameImages.0.frame"),
    (V4, image_to_video(frame(False)), FORBIDDEN, "not_allowed", "inputs.frameImages.0.frame"),
    (V4, image_to_video(frame("0")), BY_THE_LETTER, "other_spelling", "inputs.frameImages.0.frame"),
    (V4, image_to_video("a", "b", "c"), FORBIDDEN, "too_many_frames", "inputs.frameImages"),
    (
        V4,
        image_to_video(frame("first"), frame(0)),
        FORBIDDEN,
        "duplicate_frame",
        "inputs.frameImages.1.frame",
    ),
    (
        V4,
        image_to_video(frame(-1), frame("last")),
        FORBIDDEN,
        "duplicate_frame",
        "inputs.frameImages.1.frame",
    ),
    (
        V4,
        text_to_video("width", "height", inputs={"frameImages": "a"}),
        FORBIDDEN,
        "invalid_type",
        "inputs.frameImages",
    ),
    (V4, image_to_video(7), FORBIDDEN, "invalid_type", "inputs.frameImages.0"),
    (
        V4,
        image_to_video({"frame": "first"}),
        FORBIDDEN,
        "missing_parameter",
        "inputs.frameImages.0.image",
    ),
    (V4, image_to_video({"image": ""}), FORBIDDEN, "bad_length", "inputs.frameImages.0.image"),
    (
        V4,
        image_to_video({"image": "a", "fram": "last"}),
        BY_THE_LETTER,
        "unknown_parameter",
        "inputs.frameImages.0.fram",
    ),
    # media inputs
    (V4, image_to_video(""), FORBIDDEN, "bad_length", "inputs.frameImages.0"),
    (V4, image_to_video("a.jpg"), FORBIDDEN, "bad_media", "inputs.frameImages.0"),
    (
        V5_5,
        image_to_video({"image": "~/a.jpg"}),
        FORBIDDEN,
        "bad_media",
        "inputs.frameImages.0.image",
    ),
    (
        V4,
        image_to_video("data:image/gif;base64,R0lGOD"),
        BY_THE_LETTER,
        "unsupported_media",
        "inputs.frameImages.0",
    ),
    (V4, image_to_video("A" * 26_700_000), DOUBTFUL, "large_media", "inputs.frameImages.0"),
    # P15: delivery
    (V4, text_to_video(deliveryMethod="sync"), FORBIDDEN, "not_allowed", "deliveryMethod"),
    # P16, P17: sizes and spellings of earlier pages
    (V4, text_to_video(width=405, height=540), FORBIDDEN, "unsupported_dimensions", "width"),
    (V4, text_to_video(width=202, height=360), FORBIDDEN, "unsupported_dimensions", "width"),
    (V5_5, text_to_video(width=607, height=1080), FORBIDDEN, "unsupported_dimensions", "width"),
    (V4, text_to_video(width=1920, height=1090), FORBIDDEN, "unsupported_dimensions", "width"),
    (V3_5, text_to_video(width=360, height=480), FORBIDDEN, "unsupported_dimensions", "width"),
    *(
        (
            V4,
            text_to_video(**settings(cameraMovement=wrong)),
            FORBIDDEN,
            "not_allowed",
            f"{SETTINGS}.cameraMovement",
        )
        for wrong in ("crane_u", "hitchcoc", "zoom_i", "", None, ["crane_up"])
    ),
    (
        V5,
        text_to_video(**settings(cameraMovement="crane_up")),
        FORBIDDEN,
        "unsupported_parameter",
        f"{SETTINGS}.cameraMovement",
    ),
    # P18: a duration is a number, whole
    (V4, text_to_video(duration=5.5), FORBIDDEN, "not_allowed", "duration"),
    (V4, text_to_video(duration="5"), FORBIDDEN, "not_allowed", "duration"),
    # P19: an effect with a last frame
    (
        V4,
        image_to_video("a", "b", **settings(effect="kiss kiss")),
        DOUBTFUL,
        "effect_with_last_frame",
        f"{SETTINGS}.effect",
    ),
    # P22: another host's name
    (
        V4,
        text_to_video(soundEffectPrompt="rain"),
        BY_THE_LETTER,
        "unknown_parameter",
        "soundEffectPrompt",
    ),
    # settings
    (V4, text_to_video(**settings(style="Anime")), FORBIDDEN, "not_allowed", f"{SETTINGS}.style"),
    (V4, text_to_video(**settings(effect="kiss")), FORBIDDEN, "not_allowed", f"{SETTINGS}.effect"),
    (
        V4,
        text_to_video(**settings(motionMode="slow")),
        FORBIDDEN,
        "not_allowed",
        f"{SETTINGS}.motionMode",
    ),
    (
        V5_5,
        text_to_video(**settings(thinking="on")),
        FORBIDDEN,
        "not_allowed",
        f"{SETTINGS}.thinking",
    ),
    (V5_5, text_to_video(**settings(audio="true")), FORBIDDEN, "invalid_type", f"{SETTINGS}.audio"),
    (
        V5_5,
        text_to_video(**settings(multiClip=1)),
        FORBIDDEN,
        "invalid_type",
        f"{SETTINGS}.multiClip",
    ),
    *(
        (
            model,
            text_to_video(**settings(**{name: value})),
            FORBIDDEN,
            "unsupported_parameter",
            f"{SETTINGS}.{name}",
        )
        for model, name, value in (
            (V5_5, "effect", "kiss kiss"),
            (V5_5, "cameraMovement", "crane_up"),
            (V5_5, "motionMode", "normal"),
            (V4, "audio", True),
            (V4, "multiClip", False),
            (V4, "thinking", "auto"),
            (V5_FAST, "audio", True),
            (V3_5, "cameraMovement", "crane_up"),
        )
    ),
    (
        V4,
        text_to_video(**settings(stile="anime")),
        BY_THE_LETTER,
        "unknown_parameter",
        f"{SETTINGS}.stile",
    ),
    (
        V4,
        text_to_video(providerSettings={"google": {"a": 1}}),
        BY_THE_LETTER,
        "other_provider",
        "providerSettings.google",
    ),
    (V4, text_to_video(providerSettings={"pixverse": []}), FORBIDDEN, "invalid_type", SETTINGS),
    (V4, text_to_video(inputs={"audio": "a"}), BY_THE_LETTER, "unknown_parameter", "inputs.audio"),
    # names of the earlier page
    (
        V4,
        text_to_video("width", "height", frameImages=["a"]),
        BY_THE_LETTER,
        "legacy_name",
        "frameImages",
    ),
    *(
        (
            V4,
            text_to_video(**settings(**{name: value})),
            BY_THE_LETTER,
            "legacy_name",
            f"{SETTINGS}.{name}",
        )
        for name, value in (
            ("motionmode", "normal"),
            ("soundEffectSwitch", True),
            ("soundEffectContent", "rain"),
            ("watermark", False),
        )
    ),
]


@pytest.mark.parametrize(
    ("model", "parameters", "level", "code", "parameter"),
    BREACHES,
    ids=[f"{row[0]}-{row[3]}-{row[4]}-{n}" for n, row in enumerate(BREACHES)],
)
def test_a_breach_is_found_and_nothing_else(
    model: str, parameters: Parameters, level: Level, code: str, parameter: str
) -> None:
    untouched = copy.deepcopy(parameters)
    assert brief(check("runware", model, parameters)) == [(level[0], code, parameter)]
    assert brief(check("runware", model, parameters, strict=True)) == [(level[1], code, parameter)]
    assert parameters == untouched


FINE: list[tuple[str, Parameters]] = [
    *((model, text_to_video()) for model in ALL_MODELS),
    *((model, image_to_video("a", frame("last"))) for model in ALL_MODELS),  # P9, P10
    (V4, text_to_video("duration")),
    (V4, text_to_video(duration=5.0)),  # P18
    (V4, text_to_video(width=1280.0)),
    (V4, text_to_video(width=1080, height=1920)),  # P16
    (V3_5, text_to_video(width=405, height=540)),
    (V4, image_to_video(frame(0), frame(-1))),  # P14
    (V4, image_to_video("a", resolution="1080p")),
    (V4, text_to_video(inputs={"frameImages": []}, providerSettings={})),
    (V5_5, text_to_video(duration=10)),
    (V5_5, image_to_video("a", duration=10, resolution="720p")),
    (V5_5, text_to_video(width=1920, height=1080, duration=8)),
    (V5_5, text_to_video(**settings(style="clay", audio=True, multiClip=False, thinking="auto"))),
    (V5, text_to_video(duration=8, **settings(style="clay"))),
    (V4, text_to_video(**settings(motionMode="fast"))),
    (
        V4,
        text_to_video(
            taskType="videoInference",
            taskUUID="019c42a0-c3ff-7138-be83-ee257abc5331",
            model=V4,
            webhookURL="https://hooks.example/webhooks/runware?sig=x",
            uploadEndpoint="https://bucket.example/a.mp4?signature=x",
            outputType="URL",
            outputFormat="MOV",
            outputQuality=20,
            deliveryMethod="async",
            ttl=60,
            includeCost=True,
            numberResults=4,
            safety={"checkContent": True, "mode": "full"},
            negativePrompt="no",
            seed=2**31 - 1,
        ),
    ),
]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("model", "parameters"), FINE)
def test_what_the_page_allows_passes_without_a_word(
    model: str, parameters: Parameters, strict: bool
) -> None:
    assert check("runware", model, parameters, strict=strict) == []


@pytest.mark.parametrize("model", ALL_MODELS)
def test_a_model_has_twenty_sizes_and_takes_each(model: str) -> None:
    (refused,) = check("runware", model, text_to_video(width=1, height=1))
    assert refused.allowed is not None
    assert len(set(refused.allowed)) == 20
    for size in refused.allowed:
        width, height = map(int, size.split("x"))
        assert check("runware", model, text_to_video(width=width, height=height)) == []


@pytest.mark.parametrize(
    ("name", "count"), [("style", 5), ("effect", 20), ("cameraMovement", 21), ("motionMode", 2)]
)
def test_v4_takes_each_value_of_its_settings(name: str, count: int) -> None:
    (refused,) = check("runware", V4, text_to_video(**settings(**{name: "?"})))
    assert refused.allowed is not None
    assert len(set(refused.allowed)) == count
    for value in refused.allowed:
        assert check("runware", V4, text_to_video(**settings(**{name: value}))) == []


def published(model: str, duration: int, size: tuple[int, int], *frames: Any) -> Parameters:
    return {
        "taskType": "videoInference",
        "taskUUID": "e2474893-c22e-4a37-ad8d-b1cbe9d0aeb8",
        "model": model,
        "positivePrompt": "A gigantic copper aviary clings to canyon cliffs.",
        "negativePrompt": "low detail, blurry, flicker",
        "width": size[0],
        "height": size[1],
        "duration": duration,
        "seed": 32923,
        **({"inputs": {"frameImages": list(frames)}} if frames else {}),
    }


def directed(**more: Any) -> Parameters:
    return settings(audio=True, multiClip=True, thinking="enabled", **more)


WIDE, TALL = (1280, 720), (720, 1280)
BOTH, LONG, OLD = "frames_with_dimensions", "provider_settings_duration", "legacy_name"

# The requests of the models' pages, with the codes of what their own letter forbids.
PUBLISHED: list[tuple[Parameters, list[str]]] = [
    (
        published(V4, 8, WIDE, frame("first"), frame("last"))
        | settings(style="3d_animation", cameraMovement="crane_up"),
        [BOTH, LONG],
    ),
    (published(V4, 5, TALL, frame("first")) | settings(effect="the tigers touch"), [BOTH]),
    (
        published(V4, 8, WIDE)
        | settings(cameraMovement="crane_up", motionMode="normal", style="3d_animation"),
        [LONG],
    ),
    (
        published(V4, 5, WIDE, frame("first"))
        | settings(cameraMovement="crane_up", style="3d_animation"),
        [BOTH],
    ),
    (published(V5_5, 8, WIDE) | directed(style="cyberpunk"), []),
    (published(V5_5, 8, WIDE) | directed(style="cyberpunk") | {"seed": 47883}, []),
    (
        published(V5_5, 8, WIDE, frame("first", "inputImage"), frame("last", "inputImage"))
        | directed(style="3d_animation"),
        [OLD, OLD, BOTH],
    ),
    (published(V5_5, 8, WIDE, frame("first", "inputImage")) | directed(), [OLD, BOTH]),
    (published(V5_5, 8, WIDE) | directed(style="3d_animation"), []),
]


@pytest.mark.parametrize(("parameters", "codes"), PUBLISHED)
def test_published_requests_pass_but_for_strict_mode(
    parameters: Parameters, codes: list[str]
) -> None:
    model = parameters["model"]
    lenient = check("runware", model, parameters)
    assert [(f.severity, f.code) for f in lenient] == [("warning", code) for code in codes]
    strict = check("runware", model, parameters, strict=True)
    assert [(f.severity, f.code) for f in strict] == [("error", code) for code in codes]


def test_a_former_name_is_read_as_the_new_one() -> None:
    parameters = text_to_video(duration=8, **settings(motionmode="fast"))
    assert [f.code for f in check("runware", V4, parameters)] == ["legacy_name", "fast_duration"]
    frames = text_to_video("width", "height", frameImages=[frame("first"), frame("first")])
    assert brief(check("runware", V4, frames))[-1] == (
        "error",
        "duplicate_frame",
        "frameImages.1.frame",
    )


def test_a_tuple_is_the_list_that_it_is_sent_as() -> None:
    frames = (frame("first"), frame("first"))
    parameters = text_to_video("width", "height", inputs={"frameImages": frames})
    for model in (V4, "klingai:5@3"):
        assert ("invalid_type", "inputs.frameImages") not in {
            (f.code, f.parameter) for f in check("runware", model, parameters)
        }
    assert brief(check("runware", V4, parameters)) == [
        ("error", "duplicate_frame", "inputs.frameImages.1.frame")
    ]
    empty = text_to_video(inputs={"frameImages": ()}, seed=(1,))
    assert [f.message for f in check("runware", V4, empty)] == [
        "Send seed as a whole number; it is a list."
    ]


def test_unknown_models_and_platforms_pass_with_one_warning() -> None:
    unknown = [("warning", "no_rules", "model")]
    assert brief(check("runware", "klingai:5@3", {"anything": 1})) == [
        *unknown,
        ("warning", "unknown_parameter", "anything"),
    ]
    assert brief(check("runware", "pixverse:1@7", text_to_video(duration=10))) == unknown
    assert brief(check("nanogpt", V4, {"prompt": "A pier"})) == unknown
    assert brief(check("other", V4, {"numberResults": 9})) == unknown
    assert brief(check("runware", "x:1@1", {"taskType": "imageInference", "ttl": 1})) == unknown


def test_an_unknown_runware_model_keeps_to_what_all_video_models_share() -> None:
    findings = check("runware", "klingai:5@3", {"numberResults": 5, "seed": 2**40, "ttl": 5})
    assert brief(findings)[1:] == [
        ("error", "out_of_range", "ttl"),
        ("error", "out_of_range", "numberResults"),
    ]


def test_check_task_counts_the_number_of_results() -> None:
    task = GenerationTask.of(text_to_video(numberResults=5), id="a", platform="runware", model=V4)
    assert brief(check_task(task)) == [("error", "out_of_range", "numberResults")]


def test_models_with_rules_are_listed() -> None:
    assert models("runware") == ALL_MODELS
    assert models("nanogpt") == ()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (text_to_video(duration=7), "Set duration to 5 or 8; it is 7."),
        (text_to_video(ttl=5), "Keep ttl at 60 or more; it is 5."),
        (
            text_to_video(positivePrompt="a"),
            "Give positivePrompt 2 to 2048 characters; it has 1.",
        ),
        (
            image_to_video("a", "b", "c"),
            "Give inputs.frameImages at most 2 items; it has 3.",
        ),
        (
            text_to_video(width=1281),
            "Set width and height to a size the model has, such as 1280x720; it is 1281x720.",
        ),
        (
            text_to_video(**settings(cameraMovement="crane_u")),
            f"Set {SETTINGS}.cameraMovement to one of its 21 values;"
            ' it is "crane_u". Did you mean crane_up?',
        ),
        (
            text_to_video(outputFormat="MP3"),
            'Set outputFormat to MP4, WEBM or MOV; it is "MP3". Did you mean MP4?',
        ),
        (
            text_to_video(outputFormat="Webm"),
            'Set outputFormat to MP4, WEBM or MOV; it is "Webm". Did you mean WEBM?',
        ),
        (
            text_to_video(durration=5),
            "Check durration: the model's page does not name it. Did you mean duration?",
        ),
        (
            text_to_video(seed=10**30),
            "Keep seed between 0 and 2147483647; it is a very large number.",
        ),
        (text_to_video(includeCost=[]), "Send includeCost as true or false; it is a list."),
        (text_to_video(includeCost={}), "Send includeCost as true or false; it is an object."),
        (
            text_to_video(taskUUID="\x1b[2J" + "a" * 80),
            'Send taskUUID as a UUID; it is "\\x1b[2J' + "a" * 56 + '…".',
        ),
    ],
)
def test_messages_say_what_to_do(parameters: Parameters, message: str) -> None:
    said = [f.message for f in check("runware", V4, parameters)]
    assert said == [message]


def test_every_code_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rules.md").read_text()
    rows = re.findall(r"^\| (`.+?) \| (?:error|warning) \|", page, re.MULTILINE)
    documented = {code for row in rows for code in re.findall(r"`(\w+)`", row)}
    tested = {row[3] for row in BREACHES} | {row[4] for row in REFERENCE} | {row[3] for row in NANO}
    assert documented == tested | {"no_rules"}


def test_every_code_of_the_rules_is_tested() -> None:
    every = [known.rules for known in (*MODELS["runware"].values(), *UNKNOWN_MODEL.values())]
    codes = {code for rules in every for code in codes_of(rules)}
    tested = {row[3] for row in BREACHES} | {row[4] for row in REFERENCE} | {row[3] for row in NANO}
    assert codes <= tested


def codes_of(rules: tuple[Rule, ...]) -> set[str]:
    own = {rule.code for rule in flat(rules) if hasattr(rule, "code")}
    items = [codes_of(rule.rules) for rule in flat(rules) if isinstance(rule, Each)]
    return own.union(*items)


def test_findings_are_json() -> None:
    (finding,) = check("runware", V4, text_to_video(duration=7))
    assert json.loads(json.dumps(finding.as_json())) == {
        "severity": "error",
        "code": "not_allowed",
        "parameter": "duration",
        "message": "Set duration to 5 or 8; it is 7.",
        "allowed": [5, 8],
    }


@pytest.mark.parametrize(("value", "whole"), [(5, True), (5.0, True), (5.5, False), (True, False)])
def test_a_whole_number_is_what_json_calls_one(value: Any, whole: bool) -> None:
    assert is_kind(value, "integer") is whole


def test_depth_and_size_do_no_harm() -> None:
    deep: Any = []
    for _ in range(50_000):
        deep = [deep]
    parameters = {name: deep for name in ("width", "duration", "inputs", "providerSettings", "x")}
    assert check("runware", V4, parameters)
    huge = text_to_video(width=10**5000, height=1e308, seed=-(10**5000), duration=10**400)
    assert {f.code for f in check("runware", V4, huge)} == {
        "unsupported_dimensions",
        "out_of_range",
        "not_allowed",
    }


NAMES = st.sampled_from(
    [
        *("positivePrompt", "width", "height", "duration", "resolution", "seed", "inputs"),
        *("frameImages", "image", "inputImage", "frame", "providerSettings", "pixverse"),
        *("style", "effect", "motionMode", "motionmode", "audio", "safety", "ttl", "taskType"),
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([5, 8, 10, 720, 1080, 1280, 1920, "fast", "first", "1080p", "mp4"])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=30,
)


@given(
    model=st.sampled_from([*ALL_MODELS, "x:1@1"]),
    parameters=st.dictionaries(NAMES | st.text(max_size=5), JSON, max_size=12),
    strict=st.booleans(),
)
def test_any_json_is_answered(model: str, parameters: Parameters, strict: bool) -> None:
    findings = check("runware", model, parameters, strict=strict)
    assert findings == check("runware", model, copy.deepcopy(parameters), strict=strict)
    for finding in findings:
        assert finding.message.isprintable()
        json.dumps(finding.as_json())


@given(parameters=JSON)
def test_even_a_request_that_is_no_object_is_answered(parameters: Any) -> None:
    findings = check("runware", V4, parameters)
    if not isinstance(parameters, dict):
        assert ("error", "invalid_type", "") in brief(findings)

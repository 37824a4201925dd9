"""Runware's reference page, parameter by parameter: each anchor has a case, and none is missing.

Rules, typed classes and the list of the page's anchors are held equal both ways.
"""

import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from submitter.requests import FrameImage, Lora, VideoInference
from submitter.rules import check, page_of
from submitter.rules.catalogue import rules_for
from submitter.rules.kinds import spoken
from submitter.rules.reference import UNKNOWN_MODEL
from submitter.rules.runware import REFERENCE
from submitter.rules.values import bytes_of, form_of

CORPUS = Path(__file__).parents[1] / "corpus" / "runware"

Parameters = dict[str, Any]


def anchors(name: str) -> list[str]:
    """The anchors of a page; the file's first lines name it and its date."""
    lines = (CORPUS / f"{name}-anchors.txt").read_text().splitlines()
    assert all(line.startswith("# ") for line in lines[:2])
    return lines[2:]


ANCHORS = anchors("reference")

UUID = "c64351d5-4c59-42f7-95e1-eace013eddab"
MODEL = "klingai:5@3"


def task(**more: Any) -> Parameters:
    return {"positivePrompt": "A pier at dawn", "duration": 5, **more}


def without(*names: str, **more: Any) -> Parameters:
    return {name: value for name, value in task(**more).items() if name not in names}


def frames(*items: Any, **more: Any) -> Parameters:
    return task(inputs={"frameImages": list(items)}, **more)


def cache(**options: Any) -> Parameters:
    return task(steps=30, acceleratorOptions=options)


def mark(**watermark: Any) -> Parameters:
    return task(advancedFeatures={"watermark": watermark})


def lora(**entry: Any) -> Parameters:
    return task(lora=[{"model": "civitai:132942@146296", **entry}])


def settings(provider: str, **options: Any) -> Parameters:
    model = {"google": "google:3@0"}.get(provider, f"{provider}:1@9")
    return task(model=model, providerSettings={provider: options})


# The severity by default and in strict mode; None is no word.
Level = tuple[str | None, str | None]
FORBIDDEN: Level = ("error", "error")
BY_THE_LETTER: Level = ("warning", "error")
STRICTLY: Level = (None, "error")
FORMER: Level = ("warning", "warning")

OPTIONS, WATERMARK = "acceleratorOptions", "advancedFeatures.watermark"
PIXVERSE, VIDU = "providerSettings.pixverse", "providerSettings.vidu"

# anchor without `request-`, what passes, what does not, level, code, parameter
CASES: list[tuple[str, Parameters, Parameters, Level, str, str]] = [
    (
        "tasktype",
        task(taskType="videoInference"),
        task(taskType=["videoInference"]),
        FORBIDDEN,
        "invalid_type",
        "taskType",
    ),
    ("taskuuid", task(taskUUID=UUID), task(taskUUID="1"), FORBIDDEN, "invalid_type", "taskUUID"),
    (
        "outputtype",
        task(outputType="URL"),
        task(outputType="base64Data"),
        FORBIDDEN,
        "not_allowed",
        "outputType",
    ),
    (
        "outputformat",
        task(outputFormat="WEBM"),
        task(outputFormat="GIF"),
        FORBIDDEN,
        "not_allowed",
        "outputFormat",
    ),
    (
        "outputquality",
        task(outputQuality=99),
        task(outputQuality=100),
        FORBIDDEN,
        "out_of_range",
        "outputQuality",
    ),
    (
        "webhookurl",
        task(webhookURL="https://api.example.com/webhooks/runware?projectId=proj_789&userId=12345"),
        task(webhookURL="api.example.com"),
        FORBIDDEN,
        "invalid_type",
        "webhookURL",
    ),
    (
        "deliverymethod",
        task(deliveryMethod="sync"),
        task(deliveryMethod="later"),
        FORBIDDEN,
        "not_allowed",
        "deliveryMethod",
    ),
    (
        "uploadendpoint",
        task(uploadEndpoint="https://bucket.example/a.mp4?X-Amz-Expires=3600"),
        task(uploadEndpoint="s3://bucket"),
        FORBIDDEN,
        "invalid_type",
        "uploadEndpoint",
    ),
    ("safety", task(safety={}), task(safety="full"), FORBIDDEN, "invalid_type", "safety"),
    (
        "safety-checkcontent",
        task(safety={"checkContent": True}),
        task(safety={"checkContent": "yes"}),
        FORBIDDEN,
        "invalid_type",
        "safety.checkContent",
    ),
    (
        "safety-mode",
        task(safety={"mode": "full"}),
        task(safety={"mode": "some"}),
        FORBIDDEN,
        "not_allowed",
        "safety.mode",
    ),
    ("ttl", task(ttl=60), task(ttl=59), FORBIDDEN, "out_of_range", "ttl"),
    (
        "includecost",
        task(includeCost=True),
        task(includeCost=1),
        FORBIDDEN,
        "invalid_type",
        "includeCost",
    ),
    (
        "positiveprompt",
        task(positivePrompt="go"),
        without("positivePrompt"),
        STRICTLY,
        "missing_parameter",
        "positivePrompt",
    ),
    (
        "positiveprompt",
        task(),
        task(positivePrompt="a"),
        FORBIDDEN,
        "bad_length",
        "positivePrompt",
    ),
    (
        "negativeprompt",
        task(negativePrompt="blurry"),
        task(negativePrompt=["blurry"]),
        FORBIDDEN,
        "invalid_type",
        "negativePrompt",
    ),
    (
        "frameimages",
        frames({"image": UUID}, {"image": UUID}, {"image": UUID}),
        frames(1),
        FORBIDDEN,
        "invalid_type",
        "inputs.frameImages.0",
    ),
    (
        "frameimages",
        frames("https://media.example/a.jpg"),
        task(frameImages=[UUID]),
        FORMER,
        "legacy_name",
        "frameImages",
    ),
    (
        "frameimages-inputimages",
        frames({"image": "iVBORw0KGgo="}),
        frames({"frame": "first"}),
        FORBIDDEN,
        "missing_parameter",
        "inputs.frameImages.0.image",
    ),
    (
        "frameimages-inputimages",
        frames({"image": "data:image/png;base64,iVBORw0KGgo="}),
        frames({"image": "photo.jpg"}),
        FORBIDDEN,
        "bad_media",
        "inputs.frameImages.0.image",
    ),
    (
        "frameimages-inputimages",
        frames({"image": "data:image/webp;base64,UklGRg=="}),
        frames({"image": "data:image/gif;base64,R0lGOD"}),
        BY_THE_LETTER,
        "unsupported_media",
        "inputs.frameImages.0.image",
    ),
    (
        "frameimages-inputimages",
        frames(UUID),
        frames({"inputImage": UUID}),
        FORMER,
        "legacy_name",
        "inputs.frameImages.0.inputImage",
    ),
    (
        "frameimages-frame",
        frames({"image": UUID, "frame": "last"}),
        frames({"image": UUID, "frame": "middle"}),
        BY_THE_LETTER,
        "not_allowed",
        "inputs.frameImages.0.frame",
    ),
    (
        "frameimages-frame",
        frames({"image": UUID, "frame": 0}),
        frames({"image": UUID, "frame": -1}),
        BY_THE_LETTER,
        "out_of_range",
        "inputs.frameImages.0.frame",
    ),
    (
        "frameimages-frame",  # 5 seconds have 120 frames, at 24 a second if nothing else is said
        frames({"image": UUID, "frame": 119}),
        frames({"image": UUID, "frame": 120}),
        BY_THE_LETTER,
        "out_of_range",
        "inputs.frameImages.0.frame",
    ),
    (
        "frameimages-frame",
        frames({"image": UUID, "frame": 149}, fps=30),
        frames({"image": UUID, "frame": 2.5}),
        FORBIDDEN,
        "invalid_type",
        "inputs.frameImages.0.frame",
    ),
    (
        "referenceimages",
        task(referenceImages=[UUID, "https://media.example/a.png"]),
        task(referenceImages=UUID),
        FORBIDDEN,
        "invalid_type",
        "referenceImages",
    ),
    (
        "referenceimages",
        task(referenceImages=[]),
        task(referenceImages=[UUID, "a b"]),
        FORBIDDEN,
        "bad_media",
        "referenceImages.1",
    ),
    (
        "referencevideos",
        task(referenceVideos=["data:video/mp4;base64,AAAAIGZ0eXB"]),
        task(referenceVideos=["data:image/png;base64,iVBORw0KGgo="]),
        BY_THE_LETTER,
        "unsupported_media",
        "referenceVideos.0",
    ),
    (
        "inputaudios",
        task(inputAudios=["data:audio/wav;base64,UklGRnoG"]),
        task(inputAudios=[None]),
        FORBIDDEN,
        "invalid_type",
        "inputAudios.0",
    ),
    ("width", task(width=1920), task(width=1928), BY_THE_LETTER, "out_of_range", "width"),
    ("width", task(width=256), task(width=1366), BY_THE_LETTER, "not_a_multiple", "width"),
    ("width", task(width=256.0), task(width="256"), FORBIDDEN, "invalid_type", "width"),
    ("height", task(height=1080), task(height=1088), BY_THE_LETTER, "out_of_range", "height"),
    ("height", task(height=256), task(height=257), BY_THE_LETTER, "not_a_multiple", "height"),
    ("model", task(model="a:1@1"), task(model=["a:1@1"]), FORBIDDEN, "invalid_type", "model"),
    (
        "duration",
        task(duration=9.5),
        task(duration=10.5),
        BY_THE_LETTER,
        "out_of_range",
        "duration",
    ),
    ("duration", task(duration=1), task(duration="5"), FORBIDDEN, "invalid_type", "duration"),
    ("duration", task(), without("duration"), STRICTLY, "missing_parameter", "duration"),
    ("fps", task(fps=15), task(fps=61), BY_THE_LETTER, "out_of_range", "fps"),
    ("fps", task(fps=60), task(fps=23.976), FORBIDDEN, "invalid_type", "fps"),
    ("steps", task(steps=10), task(steps=9), BY_THE_LETTER, "out_of_range", "steps"),
    ("seed", task(seed=1), task(seed=-1), FORBIDDEN, "out_of_range", "seed"),
    ("seed", task(seed=2**63), task(seed=0), BY_THE_LETTER, "out_of_range", "seed"),
    ("seed", task(seed=2**40), task(seed=2**64), BY_THE_LETTER, "out_of_range", "seed"),
    (
        "cfgscale",
        task(CFGScale=7.5),
        task(CFGScale=50.1),
        BY_THE_LETTER,
        "out_of_range",
        "CFGScale",
    ),
    ("cfgscale", task(CFGScale=0), task(CFGScale=True), FORBIDDEN, "invalid_type", "CFGScale"),
    ("speech", task(speech={}), task(speech="Hello"), FORBIDDEN, "invalid_type", "speech"),
    (
        "speech",
        task(speech={"text": "Hi", "voice": "14"}),
        task(speech={"text": "Hi", "speed": 2}),
        BY_THE_LETTER,
        "unknown_parameter",
        "speech.speed",
    ),
    (
        "speech-voice",
        task(speech={"voice": "Emily"}),
        task(speech={"voice": "15"}),
        BY_THE_LETTER,
        "not_allowed",
        "speech.voice",
    ),
    (
        "speech-text",
        task(speech={"text": "a" * 200}),
        task(speech={"text": "a" * 201}),
        BY_THE_LETTER,
        "bad_length",
        "speech.text",
    ),
    (
        "numberresults",
        task(numberResults=4),
        task(numberResults=5),
        FORBIDDEN,
        "out_of_range",
        "numberResults",
    ),
    (
        "acceleration",
        task(acceleration="high"),
        task(acceleration="fast"),
        BY_THE_LETTER,
        "not_allowed",
        "acceleration",
    ),
    (
        "acceleration",
        task(acceleration="none"),
        task(acceleration=True),
        FORBIDDEN,
        "invalid_type",
        "acceleration",
    ),
    (
        "advancedfeatures",
        task(advancedFeatures={}),
        task(advancedFeatures={"glow": {}}),
        BY_THE_LETTER,
        "unknown_parameter",
        "advancedFeatures.glow",
    ),
    (
        "advancedfeatures-watermark",
        mark(text="© 2025 Company"),
        mark(opacity=0.5),
        BY_THE_LETTER,
        "watermark_content",
        WATERMARK,
    ),
    (
        "advancedfeatures-watermark",
        mark(image=UUID),
        mark(text="PREVIEW", image=UUID),
        BY_THE_LETTER,
        "watermark_content",
        f"{WATERMARK}.image",
    ),
    *(
        (
            "advancedfeatures-watermark",
            mark(**{"text": "PREVIEW", name: valid}),
            mark(**{"text": "PREVIEW", name: invalid}),
            level,
            code,
            f"{WATERMARK}.{name}",
        )
        for name, valid, invalid, level, code in (
            ("text", "ab", "a", BY_THE_LETTER, "bad_length"),
            ("text", "a" * 32, "a" * 33, BY_THE_LETTER, "bad_length"),
            ("displayPosition", "center-center", "middle", BY_THE_LETTER, "not_allowed"),
            ("displayPosition", "bottom-right", 9, FORBIDDEN, "invalid_type"),
            ("tiled", True, "yes", FORBIDDEN, "invalid_type"),
            ("opacity", 0.1, 0.09, BY_THE_LETTER, "out_of_range"),
            ("opacity", 1, 1.1, BY_THE_LETTER, "out_of_range"),
            ("opacity", 1.0, "1", FORBIDDEN, "invalid_type"),
            ("fontColor", "#ffffff", "white", BY_THE_LETTER, "bad_format"),
            ("fontColor", "#fff", 0xFFFFFF, FORBIDDEN, "invalid_type"),
            ("bgColor", "#000000", "#00000", BY_THE_LETTER, "bad_format"),
        )
    ),
    (
        "advancedfeatures-watermark",
        mark(image="https://media.example/mark.png"),
        mark(image="mark.png"),
        FORBIDDEN,
        "bad_media",
        f"{WATERMARK}.image",
    ),
    (
        "acceleratoroptions",
        cache(),
        cache(turbo=True),
        BY_THE_LETTER,
        "unknown_parameter",
        f"{OPTIONS}.turbo",
    ),
    *(
        (
            f"acceleratoroptions-{name.lower()}",
            cache(**valid),
            cache(**invalid),
            level,
            code,
            f"{OPTIONS}.{name}",
        )
        for name, valid, invalid, level, code in (
            ("teaCache", {"teaCache": True}, {"teaCache": 1}, FORBIDDEN, "invalid_type"),
            (
                "teaCacheDistance",
                {"teaCacheDistance": 0.6},
                {"teaCacheDistance": 1.1},
                BY_THE_LETTER,
                "out_of_range",
            ),
            ("fbCache", {"fbCache": False}, {"fbCache": None}, FORBIDDEN, "invalid_type"),
            (
                "fbCacheThreshold",
                {"fbCacheThreshold": 0.25},
                {"fbCacheThreshold": -0.1},
                BY_THE_LETTER,
                "out_of_range",
            ),
            (
                "cacheStartStep",
                {"cacheStartStep": 30},
                {"cacheStartStep": 31},
                BY_THE_LETTER,
                "out_of_range",
            ),
            (
                "cacheStartStep",
                {"cacheStartStep": 0},
                {"cacheStartStep": -1},
                BY_THE_LETTER,
                "out_of_range",
            ),
            (
                "cacheStartStepPercentage",
                {"cacheStartStepPercentage": 99},
                {"cacheStartStepPercentage": 100},
                BY_THE_LETTER,
                "out_of_range",
            ),
            (
                "cacheStartStepPercentage",
                {"cacheStartStep": 1, "cacheEndStepPercentage": 50},
                {"cacheStartStep": 1, "cacheStartStepPercentage": 10},
                BY_THE_LETTER,
                "alternative_parameters",
            ),
            (
                "cacheEndStep",
                {"cacheStartStep": 5, "cacheEndStep": 6},
                {"cacheStartStep": 5, "cacheEndStep": 5},
                BY_THE_LETTER,
                "out_of_range",
            ),
            (
                "cacheEndStep",
                {"cacheEndStep": 30},
                {"cacheEndStep": 31},
                BY_THE_LETTER,
                "out_of_range",
            ),
            (
                "cacheEndStep",
                {"cacheEndStep": 1},
                {"cacheEndStep": 0},
                BY_THE_LETTER,
                "out_of_range",
            ),
            (
                "cacheEndStepPercentage",
                {"cacheStartStepPercentage": 50, "cacheEndStepPercentage": 51},
                {"cacheStartStepPercentage": 50, "cacheEndStepPercentage": 50},
                BY_THE_LETTER,
                "out_of_range",
            ),
            (
                "cacheEndStepPercentage",
                {"cacheEndStepPercentage": 100},
                {"cacheEndStepPercentage": 101},
                BY_THE_LETTER,
                "out_of_range",
            ),
            (
                "cacheEndStepPercentage",
                {"cacheEndStepPercentage": 1},
                {"cacheEndStep": 20, "cacheEndStepPercentage": 70},
                BY_THE_LETTER,
                "alternative_parameters",
            ),
            (
                "cacheMaxConsecutiveSteps",
                {"cacheMaxConsecutiveSteps": 5},
                {"cacheMaxConsecutiveSteps": 6},
                BY_THE_LETTER,
                "out_of_range",
            ),
        )
    ),
    ("lora", lora(), task(lora={"model": "a:1@1"}), FORBIDDEN, "invalid_type", "lora"),
    ("lora", task(lora=[]), lora(power=2), BY_THE_LETTER, "unknown_parameter", "lora.0.power"),
    ("lora", lora(), task(lora=["a:1@1"]), FORBIDDEN, "invalid_type", "lora.0"),
    (
        "lora-model",
        lora(),
        task(lora=[{"weight": 1}]),
        BY_THE_LETTER,
        "missing_parameter",
        "lora.0.model",
    ),
    (
        "lora-weight",
        lora(weight=-4),
        lora(weight=-4.1),
        BY_THE_LETTER,
        "out_of_range",
        "lora.0.weight",
    ),
    ("lora-weight", lora(weight=0.8), lora(weight="1"), FORBIDDEN, "invalid_type", "lora.0.weight"),
    (
        "lora-transformer",
        lora(transformer="both"),
        lora(transformer="middle"),
        BY_THE_LETTER,
        "not_allowed",
        "lora.0.transformer",
    ),
    (
        "providersettings",
        task(providerSettings={}),
        task(providerSettings={"acme": {"a": 1}}),
        BY_THE_LETTER,
        "other_provider",
        "providerSettings.acme",
    ),
    (
        "providersettings",
        settings("vidu", bgm=False),
        {**settings("vidu", bgm=False), "model": MODEL},
        BY_THE_LETTER,
        "foreign_settings",
        VIDU,
    ),
    *(
        (
            f"providersettings-{provider}",
            settings(provider),
            settings(provider, nonsense=1),
            BY_THE_LETTER,
            "unknown_parameter",
            f"providerSettings.{provider}.nonsense",
        )
        for provider in ("google", "bytedance", "minimax", "pixverse", "vidu")
    ),
    (
        "providersettings-google-enhanceprompt",
        settings("google", enhancePrompt=True),
        settings("google", enhancePrompt=False),
        BY_THE_LETTER,
        "always_enhanced",
        "providerSettings.google.enhancePrompt",
    ),
    (
        "providersettings-google-enhanceprompt",
        {**settings("google", enhancePrompt=False), "model": "google:2@0"},
        settings("google", enhancePrompt="no"),
        FORBIDDEN,
        "invalid_type",
        "providerSettings.google.enhancePrompt",
    ),
    (
        "providersettings-google-generateaudio",
        settings("google", generateAudio=True),
        {**settings("google", generateAudio=True), "model": "google:2@0"},
        BY_THE_LETTER,
        "no_audio",
        "providerSettings.google.generateAudio",
    ),
    (
        "providersettings-bytedance-camerafixed",
        settings("bytedance", cameraFixed=False),
        settings("bytedance", cameraFixed=0),
        FORBIDDEN,
        "invalid_type",
        "providerSettings.bytedance.cameraFixed",
    ),
    (
        "providersettings-minimax",
        settings("minimax", promptOptimizer=False),
        task(model="minimax:1@1", providerSettings={"miniMax": {"promptOptimizer": False}}),
        FORMER,
        "legacy_name",
        "providerSettings.miniMax",
    ),
    (
        "providersettings-minimax-promptoptimizer",
        settings("minimax", promptOptimizer=True),
        settings("minimax", promptOptimizer="on"),
        FORBIDDEN,
        "invalid_type",
        "providerSettings.minimax.promptOptimizer",
    ),
    (
        "providersettings-pixverse",
        settings("pixverse", style="anime", effect="kiss kiss"),
        settings("pixverse", effect="kiss kiss", cameraMovement="crane_up"),
        BY_THE_LETTER,
        "effect_with_camera_movement",
        f"{PIXVERSE}.cameraMovement",
    ),
    *(
        (
            f"providersettings-pixverse-{name.lower()}",
            settings("pixverse", **{name: valid}),
            settings("pixverse", **{name: invalid}),
            level,
            code,
            f"{PIXVERSE}.{name}",
        )
        for name, valid, invalid, level, code in (
            ("style", "3d_animation", "3d", BY_THE_LETTER, "not_allowed"),
            ("effect", "360 microwave", "360", BY_THE_LETTER, "not_allowed"),
            ("cameraMovement", "hitchcock", "hitchcoc", BY_THE_LETTER, "not_allowed"),
            ("motionMode", "fast", "slow", BY_THE_LETTER, "not_allowed"),
            ("motionMode", "normal", 1, FORBIDDEN, "invalid_type"),
            ("soundEffectSwitch", True, "on", FORBIDDEN, "invalid_type"),
            ("soundEffectContent", "rain", "x", BY_THE_LETTER, "bad_length"),
        )
    ),
    (
        "providersettings-pixverse-motionmode",
        settings("pixverse", motionMode="fast"),
        {**settings("pixverse", motionMode="fast"), "duration": 8},
        BY_THE_LETTER,
        "fast_reverts",
        f"{PIXVERSE}.motionMode",
    ),
    (
        "providersettings-pixverse-motionmode",
        settings("pixverse", motionMode="normal"),
        settings("pixverse", motionmode="normal"),
        FORMER,
        "legacy_name",
        f"{PIXVERSE}.motionmode",
    ),
    (
        "providersettings-vidu-movementamplitude",
        settings("vidu", movementAmplitude="large"),
        settings("vidu", movementAmplitude="huge"),
        BY_THE_LETTER,
        "not_allowed",
        f"{VIDU}.movementAmplitude",
    ),
    (
        "providersettings-vidu-movementamplitude",
        settings("vidu", movementAmplitude="auto"),
        settings("vidu", movementamplitude="auto"),
        FORMER,
        "legacy_name",
        f"{VIDU}.movementamplitude",
    ),
    (
        "providersettings-vidu-bgm",
        {**settings("vidu", bgm=True), "duration": 4},
        {**settings("vidu", bgm=True), "duration": 8},
        BY_THE_LETTER,
        "bgm_duration",
        f"{VIDU}.bgm",
    ),
    (
        "providersettings-vidu-style",
        settings("vidu", style="anime"),
        settings("vidu", style="comic"),
        BY_THE_LETTER,
        "not_allowed",
        f"{VIDU}.style",
    ),
    (
        "providersettings-vidu-style",
        settings("vidu", style="general"),
        {**settings("vidu", style="anime"), "referenceImages": [UUID]},
        BY_THE_LETTER,
        "style_with_media",
        f"{VIDU}.style",
    ),
]


def said(parameters: Parameters, *, strict: bool) -> list[tuple[str | None, str, str]]:
    model = parameters.get("model", MODEL)
    findings = check(
        "runware", model if isinstance(model, str) else MODEL, parameters, strict=strict
    )
    assert findings[0].code == "no_rules"
    return [(f.severity, f.code, f.parameter) for f in findings[1:]]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("anchor", "valid", "invalid", "level", "code", "parameter"),
    CASES,
    ids=[f"{row[0]}-{number}" for number, row in enumerate(CASES)],
)
def test_a_parameter_is_what_its_anchor_says(
    anchor: str,
    valid: Parameters,
    invalid: Parameters,
    level: Level,
    code: str,
    parameter: str,
    strict: bool,
) -> None:
    assert said(valid, strict=strict) == []
    severity = level[strict]
    assert said(invalid, strict=strict) == ([(severity, code, parameter)] if severity else [])


# The least, the most, and a step beyond them: the page's numbers once more, apart from the rules.
BOUNDS: list[tuple[str, float, float, float]] = [
    ("outputQuality", 20, 99, 1),
    ("numberResults", 1, 4, 1),
    ("width", 256, 1920, 8),
    ("height", 256, 1080, 8),
    ("duration", 1, 10, 0.1),
    ("fps", 15, 60, 1),
    ("steps", 10, 50, 1),
    ("CFGScale", 0, 50, 0.1),
    ("acceleratorOptions.teaCacheDistance", 0, 1, 0.1),
    ("acceleratorOptions.fbCacheThreshold", 0, 1, 0.1),
    ("acceleratorOptions.cacheStartStepPercentage", 0, 99, 1),
    ("acceleratorOptions.cacheEndStepPercentage", 1, 100, 1),
    ("acceleratorOptions.cacheMaxConsecutiveSteps", 1, 5, 1),
]


@pytest.mark.parametrize(("path", "least", "most", "step"), BOUNDS)
def test_a_bound_is_where_the_page_has_it(
    path: str, least: float, most: float, step: float
) -> None:
    outer, _, inner = path.rpartition(".")

    def codes(value: float) -> list[str]:
        nested = {outer: {inner: value}} if outer else {inner: value}
        return [code for _, code, _ in said(task(**nested), strict=False)]

    assert codes(least) == codes(most) == []
    assert codes(least - step) == codes(most + step) == ["out_of_range"]


@pytest.mark.parametrize(
    ("path", "least", "most"),
    [
        ("positivePrompt", 2, None),
        ("negativePrompt", 2, None),
        ("speech.text", 1, 200),
        (f"{WATERMARK}.text", 2, 32),
        ("providerSettings.pixverse.soundEffectContent", 2, 2048),
    ],
)
def test_a_length_is_what_the_page_has(path: str, least: int, most: int | None) -> None:
    def codes(length: int) -> list[str]:
        parameters: Any = "a" * length
        for part in reversed(path.split(".")):
            parameters = {part: parameters}
        return [code for _, code, _ in said(task(model="pixverse:1@9", **parameters), strict=False)]

    assert codes(least) == []
    assert "bad_length" in codes(least - 1)
    if most is not None:
        assert codes(most) == []
        assert codes(most + 1) == ["bad_length"]


def test_a_place_on_the_video_has_nine_names() -> None:
    taken = [
        f"{row}-{column}"
        for row in ("top", "center", "bottom")
        for column in ("left", "center", "right")
    ]
    for place in taken:
        assert said(mark(text="AB", displayPosition=place), strict=True) == []


def test_each_voice_has_an_id_and_a_name() -> None:
    for voice in (*map(str, range(1, 15)), "auto", "Emily", "Ethan"):
        assert said(task(speech={"voice": voice}), strict=True) == []
    for voice in ("0", "15", "Nobody"):
        assert said(task(speech={"voice": voice}), strict=True)


def test_every_anchor_has_a_case() -> None:
    assert len(ANCHORS) == len(set(ANCHORS)) == 69
    assert {f"request-{row[0]}" for row in CASES} == set(ANCHORS)


def typed_paths(shape: type[BaseModel] = VideoInference, prefix: str = "") -> Iterator[str]:
    """Every field of the typed request by its path, those of list items under the list's name."""
    for name, field in shape.model_fields.items():
        path = f"{prefix}{name}"
        yield path
        for inner in shapes_in(field.annotation):
            yield from typed_paths(inner, f"{path}.")


def shapes_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for part in typing.get_args(annotation):
        yield from shapes_in(part)


TYPED = set(typed_paths())
SPOKEN = {path for path in spoken(UNKNOWN_MODEL.rules) if path}

# Fields of former places, which the rules read as those of the present ones.
ELSEWHERE = {
    *(f"frameImages.{name}" for name in FrameImage.model_fields),
    "providerSettings.miniMax.promptOptimizer",
}


@pytest.mark.parametrize("paths", [TYPED, SPOKEN], ids=["typed", "rules"])
def test_the_page_has_no_parameter_that_we_lack_and_we_have_none_that_it_lacks(
    paths: set[str],
) -> None:
    anchored = {REFERENCE.anchor(path) for path in paths} - {None}
    assert anchored == set(ANCHORS)
    assert {path for path in paths if REFERENCE.anchor(path) is None} == REFERENCE.without


def test_rules_and_typed_requests_have_the_same_names() -> None:
    assert TYPED - SPOKEN == ELSEWHERE
    assert not SPOKEN - TYPED
    assert set(Lora.model_fields) == {"model", "weight", "transformer"}


# PixVerse's own pages.

PAGES = {"pixverse-v4": "pixverse:1@2", "pixverse-v5-5": "pixverse:1@6"}


@pytest.mark.parametrize(("name", "model"), PAGES.items())
def test_a_models_page_and_its_rules_have_the_same_parameters(name: str, model: str) -> None:
    known = rules_for("runware", model)
    assert known is not None
    assert known.page is not None
    ours: dict[str, str] = {}
    for path in set(spoken(known.rules)) - {""}:
        if (anchor := known.page.anchor(path)) is not None:
            ours[anchor] = path
    assert set(anchors(name)) <= set(ours)
    for anchor in set(ours) - set(anchors(name)):  # what the rules speak of only to refuse it
        parameters: Any = "a"
        for part in reversed(ours[anchor].split(".")):
            parameters = {part: parameters}
        codes = {f.code for f in check("runware", model, task(**parameters))}
        former = "frameImages" in ours[anchor]
        assert former or codes & {"legacy_name", "unsupported_parameter"}, anchor


@pytest.mark.parametrize(
    ("model", "parameter", "url"),
    [
        (
            "pixverse:1@6",
            "inputs.frameImages.1.image",
            "https://runware.ai/docs/models/pixverse-v5-5#request-inputs-frameimages-format-2-image",
        ),
        (
            "pixverse:1@2",
            "providerSettings.pixverse.motionMode",
            "https://runware.ai/docs/models/pixverse-v4#request-providersettings-pixverse-motionmode",
        ),
        (MODEL, "safety.mode", f"{REFERENCE.url}#request-safety-mode"),
        (MODEL, "lora.0.weight", f"{REFERENCE.url}#request-lora-weight"),
        (MODEL, f"{WATERMARK}.opacity", f"{REFERENCE.url}#request-advancedfeatures-watermark"),
        (MODEL, "resolution", None),
        (MODEL, "nonsense", None),
        ("pixverse:1@5", "duration", None),
    ],
)
def test_a_parameter_leads_to_its_page(model: str, parameter: str, url: str | None) -> None:
    assert page_of("runware", model, parameter) == url


def test_no_page_is_known_of_other_platforms() -> None:
    assert page_of("nanogpt", "veo2-video", "prompt") is None
    assert page_of("acme", "x", "prompt") is None


MESSAGES: list[tuple[Parameters, str]] = [
    (
        cache(cacheEndStep=31),
        "Keep acceleratorOptions.cacheEndStep at most steps, which is 30; it is 31.",
    ),
    (
        frames({"image": UUID, "frame": 120}),
        "Keep inputs.frameImages.0.frame less than duration × fps, which is 120; it is 120.",
    ),
    (task(width=1366), "Set width to a multiple of 8, such as 1360; it is 1366."),
    (
        mark(text="AB", fontColor="white"),
        'Write advancedFeatures.watermark.fontColor as a colour such as #ffffff; it is "white".',
    ),
    (
        frames("cat.png"),
        "Send inputs.frameImages.0 as a UUID, an http or https URL, a data URI (data:…;base64,…)"
        ' or base64; it is "cat.png". A local file is key=@file.',
    ),
    (
        frames("data:image/gif;base64,R0lGOD"),
        'Send inputs.frameImages.0 as PNG, JPG or WEBP; it is "image/gif".',
    ),
    (frames(""), "Give inputs.frameImages.0 a value: it is empty."),
    (
        task(fpss=24),
        "Check fpss: the reference page does not name it. Did you mean fps?",
    ),
    (
        task(frameImages=[UUID], inputs={"frameImages": [UUID]}),
        "Leave out frameImages: inputs.frameImages is there, and means the same.",
    ),
    (mark(text="AB", bgColor=0), f"Send {WATERMARK}.bgColor as a text; it is 0."),
    (frames({"image": 7}), "Send inputs.frameImages.0.image as a text; it is 7."),
    (task(CFGScale=60), "Keep CFGScale between 0 and 50; it is 60."),
]


@pytest.mark.parametrize(("parameters", "message"), MESSAGES)
def test_messages_say_what_to_do(parameters: Parameters, message: str) -> None:
    assert [f.message for f in check("runware", MODEL, parameters)][1:] == [message]


@pytest.mark.parametrize("steps", ["30", None, [30], 10**400, 1e308])
def test_a_bound_on_what_is_no_number_is_not_held(steps: Any) -> None:
    parameters = task(steps=steps, acceleratorOptions={"cacheStartStep": 5})
    assert {f.parameter for f in check("runware", MODEL, parameters)} <= {"model", "steps"}


def test_numbers_beyond_all_measure_do_no_harm() -> None:
    parameters = frames({"image": UUID, "frame": 10**400}, fps=10**400) | {"duration": 1e308}
    assert json.dumps([f.message for f in check("runware", MODEL, parameters)])


def test_another_models_name_in_the_parameters_is_found() -> None:
    found = check("runware", "pixverse:1@2", {"model": "pixverse:1@6", **frames(UUID)})
    assert [(f.code, f.parameter) for f in found] == [("not_allowed", "model")]
    assert [f.code for f in check("runware", "", task())] == ["no_rules", "missing_parameter"]


def test_newer_pixverse_models_have_no_rules_and_that_is_said() -> None:
    for model in ("pixverse:1@7", "pixverse:1@8"):
        wanted = {"audio": True, "multiClip": True, "thinking": "auto"}
        (only,) = check("runware", model, task(providerSettings={"pixverse": wanted}))
        assert only.code == "no_rules"
        assert model in only.message


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (UUID.upper(), "uuid"),
        ("http://media.example/a.jpg?x=1", "url"),
        ("HTTPS://media.example", "url"),
        ("data:image/svg+xml;charset=utf-8;base64,PHN2", "data"),
        ("DATA:video/mp4;base64,", "data"),
        ("iVBORw0KGgo=", "base64"),
        ("AAAA_-+/==", "base64"),
        ("A" * 1000, "base64"),
        ("iVBORw0KGgo===", None),
        ("iVBO=Rw0", None),
        ("data:image/png,plain", None),
        ("data:image;base64,AAAA", None),
        ("ftp://media.example/a.jpg", None),
        ("cat.png", None),
        ("@cat.png", None),
        ("", None),
    ],
)
def test_how_a_media_input_is_written(text: str, form: str | None) -> None:
    assert form_of(text) == form


def test_how_many_bytes_are_inline() -> None:
    assert bytes_of("A" * 4000) == 3000
    assert bytes_of("data:image/png;base64," + "A" * 4000) == 3000

"""NanoGPT's rules: any model, both flows, and every field of the page."""

from pathlib import Path
from typing import Any

import pytest

from submitter.requests import GenerateVideo
from submitter.rules import check, check_task, models
from submitter.rules.kinds import spoken
from submitter.rules.nanogpt import UNKNOWN_MODEL
from submitter.tasks import GenerationTask

FIELDS = {
    line
    for line in (Path(__file__).parents[1] / "corpus" / "nanogpt" / "fields.txt")
    .read_text()
    .splitlines()
    if line and not line.startswith("#")
}
MODEL = "wan-wavespeed-25"
RUN = "vid_m1abc123def456"
IMAGE = "data:image/jpeg;base64,/9j/4AAQ"
VIDEO = "data:video/mp4;base64,AAAAIGZ0eXB"

Parameters = dict[str, Any]

FORBIDDEN = ("error", "error")
BY_THE_LETTER = ("warning", "error")
ADVISED = ("warning", "warning")


def task(**more: Any) -> Parameters:
    return {"prompt": "A serene lake at sunset", **more}


# what passes, what does not, level, code, parameter
CASES: list[tuple[Parameters, Parameters, tuple[str, str], str, str]] = [
    (task(prompt="x"), {"duration": "5"}, FORBIDDEN, "missing_parameter", "prompt"),
    (
        {"script": "Once upon a time"},
        {"script": "x", "prompt": None},
        FORBIDDEN,
        "invalid_type",
        "prompt",
    ),
    (
        {"storyConfig": {"scenes": []}},
        {"script": "x", "storyConfig": []},
        FORBIDDEN,
        "invalid_type",
        "storyConfig",
    ),
    ({"videoUrl": "https://media.example/a.mp4"}, {}, FORBIDDEN, "missing_parameter", "prompt"),
    ({"prompt": "x", "model": MODEL}, task(model=5), FORBIDDEN, "invalid_type", "model"),
    (task(duration="5s"), task(duration=True), FORBIDDEN, "invalid_type", "duration"),
    (task(duration=5), task(duration=["5"]), FORBIDDEN, "invalid_type", "duration"),
    (task(seed="42"), task(seed=4.2), FORBIDDEN, "invalid_type", "seed"),
    (task(seed=-1), task(seed=None), FORBIDDEN, "invalid_type", "seed"),
    (task(num_frames="81"), task(num_frames=8.1), FORBIDDEN, "invalid_type", "num_frames"),
    (task(pro_mode=True), task(pro_mode="true"), FORBIDDEN, "invalid_type", "pro_mode"),
    (task(motion="low"), task(motion=1), FORBIDDEN, "invalid_type", "motion"),
    (task(characters=[{}]), task(characters={}), FORBIDDEN, "invalid_type", "characters"),
    (
        task(targetFaceIndex=0),
        task(targetFaceIndex="0"),
        FORBIDDEN,
        "invalid_type",
        "targetFaceIndex",
    ),
    (task(shift=3.5), task(shift="3"), FORBIDDEN, "invalid_type", "shift"),
    *(
        (task(**{name: valid}), task(**{name: invalid}), BY_THE_LETTER, "out_of_range", name)
        for name, valid, invalid in (
            ("voice_speed", 0.8, 0.7),
            ("voice_speed", 2.0, 2.1),
            ("num_inference_steps", 1, 0),
            ("num_inference_steps", 50, 51),
            ("frames_per_second", 5, 4),
            ("frames_per_second", 24, 25),
            ("age_slider", 18, 17),
            ("age_slider", 60, 61),
            ("cfg_scale", 0, -0.1),
            ("cfg_scale", 20, 20.5),
        )
    ),
    (task(voice_speed=1), task(voice_speed="1"), FORBIDDEN, "invalid_type", "voice_speed"),
    *(
        (task(**{name: valid}), task(**{name: "x"}), BY_THE_LETTER, "not_allowed", name)
        for name, valid in (
            ("orientation", "portrait"),
            ("voice_language", "zh"),
            ("video_quality", "High"),
            ("aspect", "Square"),
            ("aspectRatio", "9:16"),
            ("quality", "low"),
            ("framework", "tutorial"),
            ("captionsStyle", "tiktok"),
        )
    ),
    # media
    (
        task(imageDataUrl=IMAGE),
        task(imageDataUrl="/9j/4AAQ"),
        FORBIDDEN,
        "bad_media",
        "imageDataUrl",
    ),
    (
        task(videoDataUrl=VIDEO),
        task(videoDataUrl=IMAGE),
        BY_THE_LETTER,
        "unsupported_media",
        "videoDataUrl",
    ),
    (
        task(imageDataUrl=IMAGE + "A" * 5_000_000),
        task(imageDataUrl=IMAGE + "A" * 6_000_000),
        ADVISED,
        "large_media",
        "imageDataUrl",
    ),
    (
        task(audioDataUrl="data:audio/mpeg;base64,SUQz"),
        task(audioDataUrl="https://media.example/a.mp3"),
        FORBIDDEN,
        "bad_media",
        "audioDataUrl",
    ),
    (
        task(imageUrl="https://media.example/a.jpg"),
        task(imageUrl="http://media.example/a.jpg"),
        BY_THE_LETTER,
        "bad_format",
        "imageUrl",
    ),
    (task(image=IMAGE), task(image="cat.png"), FORBIDDEN, "bad_media", "image"),
    (
        task(referenceImages=[IMAGE, "https://media.example/a.jpg"]),
        task(referenceImages=[IMAGE, "cat.png"]),
        FORBIDDEN,
        "bad_media",
        "referenceImages.1",
    ),
    (
        task(referenceVideos=[VIDEO]),
        task(referenceVideos=VIDEO),
        FORBIDDEN,
        "invalid_type",
        "referenceVideos",
    ),
    (
        task(imageDataUrl=IMAGE),
        task(imageDataUrl=IMAGE, imageUrl="https://media.example/a.jpg"),
        ADVISED,
        "media_twice",
        "imageDataUrl",
    ),
    (
        task(videoUrl="https://media.example/a.mp4"),
        task(videoUrl="https://media.example/a.mp4", videoAttachmentId="a"),
        ADVISED,
        "media_twice",
        "videoAttachmentId",
    ),
    # spellings
    (
        task(imageDataUrl=IMAGE),
        task(image_data_url=IMAGE),
        ADVISED,
        "legacy_name",
        "image_data_url",
    ),
    (
        task(camera_fixed=True),
        task(camera_fix=True, cameraFixed=True),
        ADVISED,
        "alternative_parameters",
        "cameraFixed",
    ),
    (task(pro=True), task(pro_mode=True, pro=True), ADVISED, "alternative_parameters", "pro"),
    (
        task(billedDuration=5),
        task(videoDuration=5, billedDuration=5),
        ADVISED,
        "alternative_parameters",
        "billedDuration",
    ),
    (task(), task(promt="x"), BY_THE_LETTER, "unknown_parameter", "promt"),
    (task(numberResults=1), task(numberResults=2), FORBIDDEN, "out_of_range", "numberResults"),
    # the extend flow
    ({"runId": RUN, "index": 3}, {"runId": RUN, "index": 4}, FORBIDDEN, "out_of_range", "index"),
    ({"runId": RUN, "index": 0}, {"runId": RUN, "index": "0"}, FORBIDDEN, "invalid_type", "index"),
    ({"runId": RUN, "index": 0}, {"runId": RUN}, FORBIDDEN, "incomplete_extension", "index"),
    ({"runId": RUN, "index": 0}, {"index": 1}, FORBIDDEN, "incomplete_extension", "runId"),
    (
        {"runId": RUN, "index": 0},
        {"taskId": RUN, "index": 0},
        ADVISED,
        "legacy_name",
        "taskId",
    ),
    *(
        (
            {"runId": RUN, "index": 0},
            {"runId": RUN, "index": 0, name: value},
            FORBIDDEN,
            "extension_with_video",
            name,
        )
        for name, value in (
            ("video", VIDEO),
            ("videoUrl", "https://media.example/a.mp4"),
            ("videoDataUrl", VIDEO),
            ("videoAttachmentId", "a"),
        )
    ),
]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("valid", "invalid", "level", "code", "parameter"),
    CASES,
    ids=[f"{row[3]}-{row[4]}-{number}" for number, row in enumerate(CASES)],
)
def test_a_breach_is_found_and_nothing_else(
    valid: Parameters,
    invalid: Parameters,
    level: tuple[str, str],
    code: str,
    parameter: str,
    strict: bool,
) -> None:
    said = [
        [(f.severity, f.code, f.parameter) for f in check("nanogpt", MODEL, each, strict=strict)]
        for each in (valid, invalid)
    ]
    no_rules = ("warning", "no_rules", "model")
    assert said == [[no_rules], [no_rules, (level[strict], code, parameter)]]


def test_a_generation_needs_a_model_and_an_extension_does_not() -> None:
    said = [(f.severity, f.code, f.parameter) for f in check("nanogpt", "", task())]
    assert said[1:] == [("error", "missing_parameter", "model")]
    (only,) = check("nanogpt", "", {"runId": RUN, "index": 0})
    assert only.code == "no_rules"
    assert "a request without a model" in only.message


def test_one_run_has_one_result() -> None:
    two = GenerationTask(
        id="a", platform="nanogpt", model=MODEL, parameters=task(), number_results=2
    )
    assert [(f.code, f.parameter) for f in check_task(two)][1:] == [
        ("out_of_range", "numberResults")
    ]


def test_no_model_of_nanogpt_has_rules_of_its_own() -> None:
    assert models("nanogpt") == ()
    (finding,) = check("nanogpt", MODEL, task())
    assert finding.code == "no_rules"
    assert "nanogpt" in finding.message


def test_the_page_the_typed_request_and_the_rules_have_the_same_fields() -> None:
    assert set(GenerateVideo.model_fields) == FIELDS
    # These come from Runware's names, or stand beside every task.
    ours = {"positivePrompt", "negativePrompt", "numberResults"}
    assert set(spoken(UNKNOWN_MODEL.rules)) - {""} == FIELDS | ours

"""Typed requests: what is written is what is sent."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from submitter import requests
from submitter.requests import (
    FrameImage,
    GenerateVideo,
    Inputs,
    Lora,
    PixVerseSettings,
    ProviderSettings,
    VideoInference,
)
from submitter.requests.wire import Shape
from submitter.rules import check
from submitter.tasks import LocalFile


def test_a_request_is_sent_as_it_is_written() -> None:
    request = VideoInference(
        model="pixverse:1@2",
        positivePrompt="A pier at dawn",
        duration=5,
        seed=None,
        inputs=Inputs(frameImages=["https://media.example/a.jpg", FrameImage(image="b", frame=-1)]),
        providerSettings=ProviderSettings(pixverse=PixVerseSettings(style="anime")),
    )
    assert request.model == "pixverse:1@2"
    assert request.platform == "runware"
    assert request.parameters() == {
        "positivePrompt": "A pier at dawn",
        "duration": 5,
        "inputs": {
            "frameImages": ["https://media.example/a.jpg", {"image": "b", "frame": -1}],
        },
        "providerSettings": {"pixverse": {"style": "anime"}},
    }
    assert isinstance(request.parameters()["duration"], int)
    assert check("runware", request.model, request.parameters()) == []


def test_a_frame_and_a_duration_keep_their_number() -> None:
    request = VideoInference(model="x:1@1", duration=5.0, lora=[Lora(model="a:1@1", weight=1)])
    assert (
        str(request.parameters()) == "{'duration': 5.0, 'lora': [{'model': 'a:1@1', 'weight': 1}]}"
    )


def test_what_no_field_is_named_for_is_sent_too() -> None:
    extra: dict[str, Any] = {"cameraPath": None, "settings": {"a": [1, {"b": None}]}}
    for kind in (VideoInference, GenerateVideo):
        request = kind.model_validate({"model": "x", **extra})
        assert request.parameters() == extra
    nested = VideoInference.model_validate({"model": "x", "safety": {"level": 3}})
    assert nested.parameters() == {"safety": {"level": 3}}


def test_a_local_file_stays_one_until_it_is_encoded() -> None:
    path, named = Path("cat.png"), LocalFile("dog.png")
    request = VideoInference(
        model="x", referenceImages=[path, named], inputs=Inputs(frameImages=[path])
    )
    assert request.parameters() == {
        "referenceImages": [path, named],
        "inputs": {"frameImages": [path]},
    }
    assert GenerateVideo(model="x", imageDataUrl=path).parameters() == {"imageDataUrl": path}


@pytest.mark.parametrize(
    ("kind", "fields", "where"),
    [
        (VideoInference, {"model": 4}, "model"),
        (VideoInference, {}, "model"),
        (VideoInference, {"model": "x", "duration": "5"}, "duration"),
        (VideoInference, {"model": "x", "seed": True}, "seed"),
        (VideoInference, {"model": "x", "safety": []}, "safety"),
        (VideoInference, {"model": "x", "safety": {"mode": 1}}, "safety"),
        (VideoInference, {"model": "x", "referenceImages": "a"}, "referenceImages"),
        (GenerateVideo, {"model": "x", "pro_mode": "yes"}, "pro_mode"),
        (GenerateVideo, {"runId": "x", "index": "1"}, "index"),
    ],
)
def test_a_wrong_type_is_refused(kind: type[BaseModel], fields: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(fields)
    assert caught.value.errors()[0]["loc"][0] == where


def test_an_assigned_field_is_checked_too() -> None:
    request = VideoInference(model="x")
    with pytest.raises(ValidationError):
        request.duration = "5"  # type: ignore[assignment]


def test_an_extension_needs_no_model() -> None:
    request = GenerateVideo(runId="vid_m1abc123def456", index=0)
    assert request.model == ""
    assert request.parameters() == {"runId": "vid_m1abc123def456", "index": 0}


def shapes() -> list[type[Shape]]:
    return [getattr(requests, name) for name in requests.__all__]


@pytest.mark.parametrize("shape", shapes(), ids=lambda shape: shape.__name__)
def test_every_field_says_what_it_is(shape: type[Shape]) -> None:
    assert shape.__doc__
    for name, field in shape.model_fields.items():
        said = field.description or ("AIR" if name == "model" else "")
        assert said, name
        assert said.endswith((".", "`.")), name

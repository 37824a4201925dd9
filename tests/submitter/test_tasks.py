"""Tasks and their errors: ids, key=value text, and what the errors say."""

import json
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submitter import errors
from submitter.tasks import (
    Finding,
    GenerationTask,
    LocalFile,
    new_task_id,
    parse_assignments,
    task_id_for_key,
)


@pytest.mark.parametrize(
    ("assignments", "parameters"),
    [
        ([], {}),
        (["width=1280", "height=720"], {"width": 1280, "height": 720}),
        (["duration=5.5", "a=-1e3"], {"duration": 5.5, "a": -1000.0}),
        (["a=true", "b=false", "c=null"], {"a": True, "b": False, "c": None}),
        (["a=[1,2]", 'b={"x": 1}'], {"a": [1, 2], "b": {"x": 1}}),
        (["a=anime", "b=", "c=007", "d=x=y"], {"a": "anime", "b": "", "c": "007", "d": "x=y"}),
        (
            ["a=NaN", "b=1e999", "c=[wide", 'd="q"'],
            {"a": "NaN", "b": "1e999", "c": "[wide", "d": '"q"'},
        ),
        (["a=" + "1" * 5000], {"a": "1" * 5000}),
        (["a=" + "[" * 100_000], {"a": "[" * 100_000}),
        (
            ["providerSettings.pixverse.style=anime", "providerSettings.pixverse.audio=true"],
            {"providerSettings": {"pixverse": {"style": "anime", "audio": True}}},
        ),
        (['style:="5"', "x:=[1]", "y:=2"], {"style": "5", "x": [1], "y": 2}),
        (['a:="@home"'], {"a": "@home"}),
        (["image=@~/a, b.jpg"], {"image": LocalFile("~/a, b.jpg")}),
        (["inputs.x:=@a.jpg"], {"inputs": {"x": [LocalFile("a.jpg")]}}),
        (["x:=@a.jpg,@b,c.jpg"], {"x": [LocalFile("a.jpg"), LocalFile("b,c.jpg")]}),
        (["prompt=a b"], {"positivePrompt": "a b"}),
        (
            ["prompt=1984", "negativePrompt=[none]"],
            {"positivePrompt": "1984", "negativePrompt": "[none]"},
        ),
        (["a.prompt=x"], {"a": {"prompt": "x"}}),
        (["webhookURL=https://a.example/?b:=c"], {"webhookURL": "https://a.example/?b:=c"}),
    ],
)
def test_assignments_are_read(assignments: list[str], parameters: dict[str, Any]) -> None:
    assert parse_assignments(assignments) == parameters


@pytest.mark.parametrize(
    ("assignments", "reason"),
    [
        (["width"], "write it as key=value"),
        (["=5"], "needs a name"),
        ([":=5"], "needs a name"),
        (["a..b=1"], "needs a name"),
        ([".a=1"], "needs a name"),
        (["a =1"], "without spaces"),
        (["x:=json"], "has to be JSON"),
        (["x:="], "has to be JSON"),
        (["x:=NaN"], "has to be JSON"),
        (["x:=1e999"], "has to be JSON"),
        (["x:=" + "[" * 100_000], "has to be JSON"),
        (['x:={"a":1,"a":2}'], "same key twice"),
        (['x={"a":1,"a":2}'], "same key twice"),
        (["image=@"], "a file's name has to follow @"),
        (["image=@a\0b"], "a file's name has to follow @"),
        (["images:=@a.jpg,@"], "a file's name has to follow @"),
        (["prompt=@a.txt"], "a prompt is not read from a file"),
        (["a=1", "a=2"], "a is set already"),
        (["prompt=a", "positivePrompt=b"], "positivePrompt is set already"),
        (["a=1", "a.b=2"], "a is set already"),
        (["a.b=2", "a:={}"], "a.b is set already"),
    ],
)
def test_malformed_assignments_are_explained(assignments: list[str], reason: str) -> None:
    with pytest.raises(errors.MalformedAssignment) as caught:
        parse_assignments(assignments)
    assert reason in str(caught.value)
    assert caught.value.text == assignments[-1]
    assert caught.value.code == "malformed_assignment"


@given(st.lists(st.text(max_size=20), max_size=5))
def test_any_text_is_read_or_explained(assignments: list[str]) -> None:
    try:
        parameters = parse_assignments(assignments)
    except errors.MalformedAssignment:
        return
    json.dumps(parameters, allow_nan=False, default=lambda file: file.path)


def test_a_prompt_keeps_the_name_that_its_platform_has() -> None:
    assert parse_assignments(["prompt=1984"], "nanogpt") == {"prompt": "1984"}


@given(
    st.dictionaries(st.from_regex(r"[a-zA-Z]{1,9}", fullmatch=True), st.integers() | st.booleans())
)
def test_assignments_go_round(parameters: dict[str, Any]) -> None:
    parameters.pop("prompt", None)
    written = [f"{key}:={json.dumps(value)}" for key, value in parameters.items()]
    assert parse_assignments(written) == parameters


@given(st.binary(min_size=16, max_size=16))
def test_new_ids_are_version_4(random_bytes: bytes) -> None:
    task_id = uuid.UUID(new_task_id(random_bytes))
    assert (task_id.version, task_id.variant) == (4, uuid.RFC_4122)


def test_a_key_is_always_the_same_task() -> None:
    assert task_id_for_key("default", "order-1") == "2a2d1d62-a541-4a29-bd6c-31d59f9308e0"
    assert uuid.UUID(task_id_for_key("default", "order-1")).version == 4
    others = {
        task_id_for_key("default", "order-2"),
        task_id_for_key("other", "order-1"),
        task_id_for_key("defaulto", "rder-1"),
        task_id_for_key("default", "\udcff"),
    }
    assert len(others) == 4


@pytest.mark.parametrize(("project", "key"), [("a\0b", "c"), ("a", "")])
def test_a_key_cannot_pass_for_another(project: str, key: str) -> None:
    with pytest.raises(ValueError, match="NUL"):
        task_id_for_key(project, key)


@pytest.mark.parametrize(
    ("wanted", "number", "rest"),
    [
        ({}, 1, {}),
        ({"numberResults": 3}, 3, {}),
        ({"numberResults": "3"}, 1, {"numberResults": "3"}),
        ({"numberResults": True}, 1, {"numberResults": True}),
    ],
)
def test_a_task_takes_its_number_of_results_from_the_parameters(
    wanted: dict[str, Any], number: int, rest: dict[str, Any]
) -> None:
    given_parameters = {"width": 1280, **wanted}
    task = GenerationTask.of(
        given_parameters, id="a", platform="runware", model="b", tags={"k": "v"}
    )
    assert task.number_results == number
    assert task.parameters == {"width": 1280, **rest}
    assert (task.tags, task.metadata) == ({"k": "v"}, {})
    assert given_parameters == {"width": 1280, **wanted}


FINDINGS = (
    Finding("error", "not_allowed", "duration", "Set duration to 5.", (5,)),
    Finding("warning", "legacy_name", "watermark", "Leave out watermark."),
)
RUNWARE: dict[str, Any] = {"platform": "runware", "task_id": "T"}

ERRORS: list[tuple[errors.SubmitterError, str, list[str]]] = [
    (errors.MalformedAssignment(text="a", reason="r"), "malformed_assignment", ["'a'", "r"]),
    (
        errors.UnusableMedia(parameter="image", path="a.jpg", reason="it is not a file."),
        "unusable_media",
        ["a.jpg", "image", "not a file"],
    ),
    (errors.InvalidTask(findings=FINDINGS), "invalid_task", ["not sent", "Set duration to 5."]),
    (errors.IdempotencyConflict(key="k", task_id="T"), "idempotency_conflict", ["'k'", "T"]),
    (
        errors.MissingKey(platform="runware", setting="RUNWARE_API_KEY"),
        "missing_key",
        ["RUNWARE_API_KEY"],
    ),
    (
        errors.UnusableUrl(platform="P", setting="S", url="//me:pass@a?k=1", example="https://b"),
        "unusable_url",
        ["S is '//a'", "https://b"],
    ),
    (
        errors.PublicUrlRefused(url="http://a", reason="not https"),
        "public_url_refused",
        ["http://a", "not https"],
    ),
    (
        errors.LedgerUnavailable(task_id="T", reason="refused"),
        "ledger_unavailable",
        ["T", "not sent"],
    ),
    (errors.PlatformRejected(**RUNWARE), "platform_rejected", ["runware", "T"]),
    (
        errors.PlatformRejected("Too wide.", code="invalidWidth", **RUNWARE),
        "invalidWidth",
        ["Too wide."],
    ),
    (
        errors.PlatformUnavailable(reason="429", **RUNWARE),
        "platform_unavailable",
        ["429", "again later"],
    ),
    (
        errors.OriginalNeeded(task_id="T", parameters=("inputs.frameImages.0", "image")),
        "original_needed",
        ["T", "inputs.frameImages.0, image", "Submit the whole request again"],
    ),
    (
        errors.AmbiguousSubmit(reason="timed out", **RUNWARE),
        "ambiguous_submit",
        ["may be running", "Reconcile"],
    ),
    (errors.WaitTimedOut(task_id="T", waited_s=2.5), "wait_timed_out", ["2.5 s"]),
]


@pytest.mark.parametrize(("error", "code", "words"), ERRORS)
def test_errors_say_what_happened_and_what_to_do(
    error: errors.SubmitterError, code: str, words: list[str]
) -> None:
    assert error.code == code
    assert all(word in str(error) for word in words)
    assert error.args == (str(error),)


def test_every_error_has_a_code_of_its_own_and_a_place_in_the_tree() -> None:
    every = errors.SubmitterError.__subclasses__()
    classes = [found for found in every if found.__module__ == errors.__name__]
    codes = {c.__dataclass_fields__["code"].default for c in classes}
    assert len(codes) == len(classes) == len({type(e) for e, _, _ in ERRORS})
    assert all(c.__name__ in (errors.__doc__ or "") for c in classes)
    assert str(errors.SubmitterError()) == "The submitter could not do what was asked."


def test_a_refused_url_is_shown_without_its_secrets() -> None:
    error = errors.PublicUrlRefused(url="https://me:pass@a.example/x?sig=abc#d", reason="r")
    assert error.url == "https://a.example/x"
    assert not {"pass", "abc"} & set(str(error).replace("=", " ").split())


def test_invalid_task_leaves_warnings_out_of_its_message() -> None:
    error = errors.InvalidTask(findings=FINDINGS)
    assert "watermark" not in str(error)
    assert error.findings == FINDINGS

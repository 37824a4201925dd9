"""The golden corpus: published requests go round, and what no page allows is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from submitter.requests import GenerateVideo, VideoInference
from submitter.requests.wire import Request
from submitter.rules import check, modern

CORPUS = Path(__file__).parents[1] / "corpus"
KINDS: dict[str, type[Request]] = {"runware": VideoInference, "nanogpt": GenerateVideo}
PAGES = {
    "runware": {
        "runware-video-inference-api-reference",
        "runware-video-inference-introduction",
        "runware-pixverse-v4",
        "runware-pixverse-v5-5",
    },
    "nanogpt": {
        "nanogpt-generate-video",
        "Nano-GPT-com/docs@f0b5f52 api-reference/video-generation.mdx",
        "Nano-GPT-com/docs@f0b5f52 api-reference/endpoint/video-extend.mdx",
        "Nano-GPT-com/docs@f0b5f52 api-reference/openapi.json",
    },
}

Entry = dict[str, Any]


def folder(platform: str) -> Path:
    return CORPUS / platform / "requests"


def index(platform: str) -> list[Entry]:
    entries: list[Entry] = json.loads((folder(platform) / "index.json").read_text())
    return entries


def whole(platform: str, entry: Entry) -> dict[str, Any]:
    """The request of an entry; a fragment is put into a request of its index line."""
    found = json.loads((folder(platform) / entry["file"]).read_text())
    request = found[0] if isinstance(found, list) else found
    if "under" in entry:
        request = {entry["under"]: request}
    return {**entry.get("fragment_of", {}), **request}


ENTRIES = [
    pytest.param(platform, entry, id=f"{platform}-{entry['file']}")
    for platform in KINDS
    for entry in index(platform)
]


def told(platform: str, request: dict[str, Any], *, strict: bool = False) -> list[tuple[str, str]]:
    findings = check(platform, request.get("model", ""), request, strict=strict)
    return [(f.severity, f"{f.code} {f.parameter}") for f in findings]


@pytest.mark.parametrize(("platform", "entry"), ENTRIES)
def test_a_published_request_goes_round_unchanged(platform: str, entry: Entry) -> None:
    published = whole(platform, entry)
    request = KINDS[platform].model_validate(published)
    sent = {**({"model": request.model} if request.model else {}), **request.parameters()}
    assert json.dumps(sent, sort_keys=True) == json.dumps(published, sort_keys=True)
    unknown = dict(request.model_extra or {})
    assert unknown == {}, "a field for it is missing"


@pytest.mark.parametrize(("platform", "entry"), ENTRIES)
def test_a_published_request_is_told_what_the_index_says(platform: str, entry: Entry) -> None:
    request = whole(platform, entry)
    lenient, strict = told(platform, request), told(platform, request, strict=True)
    assert [said for severity, said in lenient if severity == "warning"] == entry["warnings"]
    assert [said for severity, said in lenient if severity == "error"] == entry.get("errors", [])
    assert [said for severity, said in strict if severity == "error"] == entry["strict_errors"]


@pytest.mark.parametrize(("platform", "entry"), ENTRIES)
def test_a_published_request_is_sent_in_todays_names(platform: str, entry: Entry) -> None:
    request = whole(platform, entry)
    sent = modern(platform, request.get("model", ""), request)
    said = {text for _, text in told(platform, sent)}
    dropped = {"legacy_name providerSettings.pixverse.watermark"}
    assert {text for text in said if text.startswith(("legacy_name", "other_spell"))} <= dropped
    assert modern(platform, request.get("model", ""), sent) == sent


@pytest.mark.parametrize("platform", KINDS)
def test_the_index_and_the_files_are_the_same(platform: str) -> None:
    entries = index(platform)
    files = {path.name for path in folder(platform).glob("*.json")}
    assert {entry["file"] for entry in entries} == files - {"index.json", "refused.json"}
    assert {entry["page"] for entry in entries} == PAGES[platform]
    assert all(entry["section"] for entry in entries)


@pytest.mark.parametrize("platform", KINDS)
def test_the_corpus_has_no_long_prompts(platform: str) -> None:
    for entry in index(platform):
        request = whole(platform, entry)
        for name in ("positivePrompt", "negativePrompt", "prompt", "negative_prompt"):
            assert len(request.get(name, "")) <= 60


REFUSED: list[Entry] = json.loads((folder("runware") / "refused.json").read_text())


@pytest.mark.parametrize("entry", REFUSED)
def test_what_no_page_allows_is_refused_by_name(entry: Entry) -> None:
    request = {"positivePrompt": "A pier", "duration": 5, **entry["parameters"]}
    findings = check("runware", entry["model"], request, strict=entry.get("strict", False))
    errors = [f"{f.code} {f.parameter}" for f in findings if f.severity == "error"]
    assert errors == entry["refused"]

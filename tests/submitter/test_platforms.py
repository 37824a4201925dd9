"""The suite of all platforms, on each of them."""

from __future__ import annotations

import json

import httpx
import pytest

from submitter.platforms.answers import bytes_of, object_of
from submitter.platforms.nanogpt import NanoGPT
from submitter.platforms.protocol import Platform
from submitter.platforms.runware import Runware
from tests.make import TASK, failure, processing, success
from tests.submitter.platform_suite import Answer, Json, PlatformSuite, Script
from tests.submitter.stage import API_KEY, MODEL, PARAMETERS

pytestmark = pytest.mark.anyio


class RunwareScript(Script):
    """Runware: one array a request, judged by codes."""

    name = "runware"
    model = MODEL
    key_header = ("authorization", f"Bearer {API_KEY}")

    def make(self, transport: httpx.AsyncBaseTransport) -> Platform:
        return Runware(API_KEY, transport=transport)

    def parameters(self) -> Json:
        return PARAMETERS

    def accepts(self, request: httpx.Request) -> httpx.Response:
        return self.rejects_one(request, "none")

    def rejects(self, request: httpx.Request) -> httpx.Response:
        return self.rejects_one(request, "")

    def rejects_one(self, request: httpx.Request, prompt: str) -> httpx.Response:
        tasks = json.loads(request.content)
        no = {"code": "insufficientCredits", "message": f"Key {API_KEY} has no credits."}
        refused = [task for task in tasks if prompt in task["positivePrompt"]]
        return httpx.Response(
            400 if refused else 200,
            json={
                "data": [{"taskUUID": task["taskUUID"]} for task in tasks if task not in refused],
                "errors": [{**no, "taskUUID": task["taskUUID"]} for task in refused],
            },
        )

    def says(self, standing: str) -> Answer:
        def error(code: str, **named: str) -> Json:
            return {"errors": [{"code": code, "message": "A sentence.", **named}]}

        return {
            "done": httpx.Response(200, json={"data": [success()]}),
            "working": httpx.Response(200, json={"data": [processing()]}),
            "failed": httpx.Response(200, json={"data": [], "errors": [failure()]}),
            "absent": httpx.Response(400, json=error("taskNotFound", taskUUID=TASK)),
            "refused": httpx.Response(401, json=error("invalidApiKey")),
        }[standing]


RUN = "vid_m1abc123def456"


class NanoGPTScript(Script):
    """NanoGPT in the shape of its guide: a request a task, judged by status and error."""

    name = "nanogpt"
    model = "sora-2"
    run = RUN
    key_header = ("x-api-key", API_KEY)

    def make(self, transport: httpx.AsyncBaseTransport) -> Platform:
        return NanoGPT(API_KEY, transport=transport)

    def parameters(self) -> Json:
        return {"prompt": "a boat", "duration": "5"}

    def accepts(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(202, json={"runId": RUN, "id": RUN, "status": "pending"})

    def rejects(self, request: httpx.Request) -> httpx.Response:
        said = {"error": f"Insufficient balance of {API_KEY}", "status": 402}
        return httpx.Response(402, json={**said, "requiredBalance": 0.35})

    def rejects_one(self, request: httpx.Request, prompt: str) -> httpx.Response:
        is_it = json.loads(request.content)["prompt"] == prompt
        return self.rejects(request) if is_it else self.accepts(request)

    def says(self, standing: str) -> Answer:
        def data(status: str, **more: object) -> httpx.Response:
            found = {"status": status, "requestId": RUN, **more}
            return httpx.Response(200, json={"requestId": RUN, "model": "sora-2", "data": found})

        video = {"video": {"url": "https://storage.example.com/video.mp4"}}
        error = {"message": "A sentence.", "type": "authentication_error"}
        return {
            "done": data("COMPLETED", output=video, cost=0.35),
            "working": data("IN_PROGRESS"),
            "failed": data("FAILED", error="Content policy violation", isNSFWError=True),
            "absent": httpx.Response(404, json={"error": "Not found"}),
            "refused": httpx.Response(401, json={"error": error}),
        }[standing]


class FlatNanoGPTScript(NanoGPTScript):
    """NanoGPT in the shape of its OpenAPI file."""

    def says(self, standing: str) -> Answer:
        flat = {
            "done": {"status": "completed", "videoUrl": "https://storage.example.com/video.mp4"},
            "working": {"status": "processing", "progress": 40},
            "failed": {"status": "cancelled", "error": "Stopped."},
        }
        if standing in flat:
            return httpx.Response(200, json=flat[standing])
        return super().says(standing)


class TestRunware(PlatformSuite):
    """Runware."""

    script = RunwareScript()


class TestNanoGPT(PlatformSuite):
    """NanoGPT, as its guide has it."""

    script = NanoGPTScript()


class TestNanoGPTFlat(PlatformSuite):
    """NanoGPT, as its OpenAPI file has it."""

    script = FlatNanoGPTScript()


@pytest.mark.parametrize("key", ["", "k", "id", "a-key-of-32-characters-or-more-01"])
def test_a_key_is_struck_out_of_an_answer_and_a_stand_in_for_one_is_not(key: str) -> None:
    said = {"task": "kid", "note": f"you are {key}"}
    answer = httpx.Response(200, json=said)
    is_secret = len(key) > 2
    assert (object_of(answer, key) == said) is not is_secret
    assert (bytes_of(answer, key) == answer.content) is not is_secret
    assert not is_secret or key not in str(object_of(answer, key))

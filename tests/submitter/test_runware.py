"""Runware's wire: which answers are a yes, a no, a not now, and a nobody knows."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
import pytest
import stamina
from stamina.instrumentation import (
    RetryDetails,
    RetryHook,
    get_on_retry_hooks,
    set_on_retry_hooks,
)

from receiver.tokens import TokenBox
from scripts.proofs.ports import held_port
from submitter.errors import AmbiguousSubmit, PlatformUnavailable, SubmitterError
from submitter.platforms.answers import ATTEMPTS, LONGEST_WAIT
from submitter.platforms.protocol import Accepted, Outcome, Outgoing, Rejection, TaskRef
from submitter.platforms.runware import Runware, request_of
from submitter.simulator.config import Knobs, SimulatorConfig
from submitter.simulator.serve import running
from submitter.tasks import GenerationTask
from tests.make import KEY, OTHER, TASK, claims, failure, success
from tests.submitter.stage import API_KEY

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
Answer = httpx.Response | Exception


class Platform:
    """Answers requests from a script, the last one for ever; `asked` is what was sent."""

    def __init__(self, *answers: Answer) -> None:
        self.asked: list[httpx.Request] = []
        self._answers = answers

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self._answers[min(len(self.asked), len(self._answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


@asynccontextmanager
async def talking_to(*answers: Answer) -> AsyncIterator[tuple[Runware, Platform]]:
    platform = Platform(*answers)
    async with Runware(API_KEY, transport=httpx.MockTransport(platform)) as runware:
        yield runware, platform


@pytest.fixture
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=ATTEMPTS):
        yield


@contextmanager
def hearing(hear: RetryHook) -> Iterator[None]:
    """Tell `hear` of each retry before it is waited for."""
    before = get_on_retry_hooks()
    set_on_retry_hooks([hear])
    try:
        yield
    finally:
        set_on_retry_hooks(before)


def answer(status: int = 200, **body: Any) -> httpx.Response:
    return httpx.Response(status, json=body)


def ack(*tasks: str) -> list[Json]:
    return [{"taskType": "videoInference", "taskUUID": task} for task in tasks]


def error(code: str, **more: Any) -> Json:
    return {"code": code, "message": f"The platform says {code}.", **more}


URL = "https://hooks.example.com/webhooks/runware?sig=a-token"


@dataclass(frozen=True)
class Got:
    """What became of some tasks."""

    outcomes: Mapping[str, Outcome]

    @property
    def accepted(self) -> set[str]:
        return {task for task, said in self.outcomes.items() if isinstance(said, Accepted)}

    @property
    def rejected(self) -> dict[str, Rejection]:
        return {task: no for task, no in self.outcomes.items() if isinstance(no, Rejection)}


def asking(*tasks: str) -> Sequence[Outgoing]:
    return [
        Outgoing(GenerationTask(id=task, platform="runware", model="pixverse:1@6"), URL)
        for task in tasks
    ]


async def submit(runware: Runware, tasks: Sequence[Outgoing]) -> Got:
    """Submit them; raises the first failure that is neither a yes nor a no."""
    outcomes = await runware.submit(tasks)
    assert outcomes.keys() == {sent.task.id for sent in tasks}
    for said in outcomes.values():
        if isinstance(said, SubmitterError):
            raise said
    return Got(outcomes)


async def test_an_acknowledged_task_is_accepted() -> None:
    async with talking_to(answer(data=ack(TASK))) as (runware, platform):
        got = await submit(runware, asking(TASK))
    assert got.accepted == {TASK}
    assert not got.rejected
    assert platform.asked[0].headers["authorization"] == f"Bearer {API_KEY}"
    assert platform.asked[0].url == "https://api.runware.ai/v1"


@pytest.mark.parametrize("status", [200, 400, 402])
async def test_a_task_is_rejected_by_its_code_whatever_the_status(status: int) -> None:
    said = error("insufficientCredits", taskUUID=TASK.upper(), parameter="model")
    async with talking_to(answer(status, data=[], errors=[said])) as (runware, platform):
        got = await submit(runware, asking(TASK))
    assert not got.accepted
    rejection = got.rejected[TASK]
    assert (rejection.code, rejection.http_status) == ("insufficientCredits", status)
    assert rejection.message == "The platform says insufficientCredits."
    assert rejection.parameter == "model"
    assert rejection.body == {"errors": [said]}
    assert len(platform.asked) == 1


async def test_one_array_can_be_accepted_and_rejected() -> None:
    said = [error("invalidWidth", taskUUID=OTHER, parameter=["width", "height"])]
    async with talking_to(answer(400, data=ack(TASK), errors=said)) as (runware, _):
        got = await submit(runware, asking(TASK, OTHER))
    assert got.accepted == {TASK}
    assert set(got.rejected) == {OTHER}
    assert got.rejected[OTHER].parameter is None


@pytest.mark.parametrize("shape", ["errors", "error"])
async def test_an_error_that_names_no_task_is_about_all_of_them(shape: str) -> None:
    said = error("invalidApiKey", taskType="authentication")
    body = {shape: [said] if shape == "errors" else said}
    async with talking_to(answer(401, **body)) as (runware, _):
        got = await submit(runware, asking(TASK, OTHER))
    assert {task: no.code for task, no in got.rejected.items()} == {
        TASK: "invalidApiKey",
        OTHER: "invalidApiKey",
    }


async def test_an_error_that_names_no_task_takes_no_acknowledgement_back() -> None:
    said = [error("invalidWidth")]
    async with talking_to(answer(400, data=ack(TASK), errors=said)) as (runware, _):
        got = await submit(runware, asking(TASK, OTHER))
    assert got.accepted == {TASK}
    assert set(got.rejected) == {OTHER}


async def test_a_task_that_the_platform_has_already_was_accepted() -> None:
    said = [error("conflictTaskUUID", taskUUID=TASK)]
    async with talking_to(answer(400, data=[], errors=said)) as (runware, _):
        got = await submit(runware, asking(TASK))
    assert got.accepted == {TASK}
    assert not got.rejected


@pytest.mark.usefixtures("_no_waits")
@pytest.mark.parametrize(
    ("status", "text"),
    [
        (429, "<html>later</html>"),
        (503, '{"errors":[{"code":"serviceUnavailable","message":"later"}]}'),
        (400, '{"errors":[{"code":"rateLimitExceeded","message":"later"}]}'),
    ],
)
async def test_a_busy_platform_is_asked_again_and_then_given_up(status: int, text: str) -> None:
    busy = httpx.Response(status, headers={"retry-after": "7"}, text=text)
    async with talking_to(busy) as (runware, platform):
        with pytest.raises(PlatformUnavailable) as caught:
            await submit(runware, asking(TASK))
    assert len(platform.asked) == ATTEMPTS
    assert (caught.value.http_status, caught.value.retry_after_s) == (status, 7)
    assert caught.value.task_id == TASK


@pytest.mark.usefixtures("_no_waits")
async def test_a_platform_that_was_busy_once_accepts_the_next_time() -> None:
    async with talking_to(httpx.Response(429), answer(data=ack(TASK))) as (runware, platform):
        got = await submit(runware, asking(TASK))
    assert got.accepted == {TASK}
    assert len(platform.asked) == 2


async def test_a_gateways_503_may_follow_an_acceptance_and_is_not_sent_again() -> None:
    async with talking_to(httpx.Response(503, text="<html>503</html>")) as (runware, platform):
        with pytest.raises(AmbiguousSubmit):
            await submit(runware, asking(TASK))
    assert len(platform.asked) == 1


async def test_a_key_that_the_platform_quotes_is_not_passed_on() -> None:
    said = [error("invalidApiKey", message=f"The key {API_KEY} is wrong", taskUUID=TASK)]
    async with talking_to(answer(401, errors=said)) as (runware, _):
        got = await submit(runware, asking(TASK))
    assert API_KEY not in repr(got)
    assert got.rejected[TASK].code == "invalidApiKey"


async def test_the_platform_says_how_long_to_wait() -> None:
    waits: list[float] = []
    busy = httpx.Response(429, headers={"retry-after": "23"})
    with anyio.CancelScope() as scope:

        def hear(details: RetryDetails) -> None:
            waits.append(details.wait_for)
            scope.cancel()  # instead of waiting

        async with talking_to(busy) as (runware, platform):
            with hearing(hear):
                await submit(runware, asking(TASK))
    assert scope.cancelled_caught
    assert waits == [23.0]
    assert len(platform.asked) == 1


async def test_a_wait_that_is_too_long_is_left_to_the_caller() -> None:
    later = str(int(LONGEST_WAIT) + 1)
    async with talking_to(httpx.Response(429, headers={"retry-after": later})) as (
        runware,
        platform,
    ):
        with pytest.raises(PlatformUnavailable) as caught:
            await submit(runware, asking(TASK))
    assert caught.value.retry_after_s == LONGEST_WAIT + 1
    assert len(platform.asked) == 1


@pytest.mark.usefixtures("_no_waits")
@pytest.mark.parametrize("text", ["-1", "soon", "1e3", "²", "9" * 400, "Wed, 21 Oct 2026 07:28:00"])
async def test_an_unreadable_wait_is_one_of_our_own(text: str) -> None:
    busy = httpx.Response(429, headers=[(b"retry-after", text.encode())])
    async with talking_to(busy) as (runware, platform):
        with pytest.raises(PlatformUnavailable) as caught:
            await submit(runware, asking(TASK))
    assert caught.value.retry_after_s is None
    assert len(platform.asked) == ATTEMPTS


@pytest.mark.usefixtures("_no_waits")
async def test_a_platform_that_takes_no_connection_was_not_asked() -> None:
    async with Runware(API_KEY, f"http://127.0.0.1:{held_port()}/v1") as runware:
        with pytest.raises(PlatformUnavailable, match="no connection") as caught:
            await submit(runware, asking(TASK))
    assert caught.value.http_status is None


@pytest.mark.usefixtures("_no_waits")
@pytest.mark.parametrize(
    "kind", [httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol]
)
async def test_what_fails_before_it_is_sent_can_be_sent_again(
    kind: type[httpx.RequestError],
) -> None:
    async with talking_to(kind("no"), answer(data=ack(TASK))) as (runware, platform):
        assert (await submit(runware, asking(TASK))).accepted == {TASK}
    assert len(platform.asked) == 2


@pytest.mark.usefixtures("_no_waits")
@pytest.mark.parametrize(
    "kind",
    [
        httpx.ReadTimeout,
        httpx.ReadError,
        httpx.WriteError,
        httpx.WriteTimeout,
        httpx.RemoteProtocolError,
        httpx.DecodingError,
    ],
)
async def test_what_fails_after_it_was_sent_is_never_sent_again(
    kind: type[httpx.RequestError],
) -> None:
    async with talking_to(kind("no")) as (runware, platform):
        with pytest.raises(AmbiguousSubmit, match=kind.__name__):
            await submit(runware, asking(TASK))
    assert len(platform.asked) == 1


@pytest.mark.usefixtures("_no_waits")
@pytest.mark.parametrize("hangs_up", [True, False])
async def test_a_connection_without_an_answer_was_used_once(hangs_up: bool) -> None:
    heard: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"}]"))
        if not hangs_up:
            await reader.read()  # until the other side has had enough
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with Runware(API_KEY, url, timeout=httpx.Timeout(10, read=0.2)) as runware:
            with pytest.raises(AmbiguousSubmit):
                await submit(runware, asking(TASK))
    assert len(heard) == 1


@pytest.mark.usefixtures("_no_waits")
@pytest.mark.parametrize(
    "said",
    [
        httpx.Response(200, text="<html><h1>Welcome</h1></html>"),
        httpx.Response(200),
        httpx.Response(204),
        httpx.Response(302, headers={"location": "https://elsewhere.example"}),
        httpx.Response(200, text="[" * 100_000),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={}),
        httpx.Response(200, json={"data": []}),
        httpx.Response(200, json={"data": None, "errors": []}),
        httpx.Response(200, json={"data": ack(OTHER)}),
        httpx.Response(200, json={"errors": [error("invalidWidth", taskUUID=OTHER)]}),
        httpx.Response(400, text="no"),
        httpx.Response(500),
        httpx.Response(500, json={"errors": [error("internalServerError", taskUUID=TASK)]}),
        httpx.Response(502, text="<html>Bad Gateway</html>"),
        httpx.Response(504, json={"errors": [error("timeout")]}),
    ],
    ids=lambda said: f"{said.status_code}-{said.text[:24]}",
)
async def test_an_answer_that_does_not_tell_leaves_it_open(said: httpx.Response) -> None:
    async with talking_to(said) as (runware, platform):
        with pytest.raises(AmbiguousSubmit) as caught:
            await submit(runware, asking(TASK))
    assert caught.value.task_id == TASK
    assert len(platform.asked) == 1


async def test_in_an_array_the_open_one_is_named() -> None:
    async with talking_to(answer(data=ack(TASK))) as (runware, _):
        with pytest.raises(AmbiguousSubmit) as caught:
            await submit(runware, asking(TASK, OTHER))
    assert caught.value.task_id == OTHER


async def test_a_snapshot_tells_what_is_done_and_what_is_not() -> None:
    processing = {**ack(TASK)[0], "status": "processing"}
    async with talking_to(answer(data=[processing, success()])) as (runware, platform):
        snapshot = await runware.fetch(TaskRef(TASK))
    assert (snapshot.known, snapshot.has_results) == (True, True)
    assert snapshot.body == {"data": [processing, success()]}
    assert b'"getResponse"' in platform.asked[0].content


async def test_a_task_in_work_is_known_and_has_no_results() -> None:
    processing = {**ack(TASK)[0], "status": "processing"}
    async with talking_to(answer(data=[processing])) as (runware, _):
        snapshot = await runware.fetch(TaskRef(TASK))
    assert (snapshot.known, snapshot.has_results) == (True, False)


async def test_a_failed_task_is_known_with_its_failure() -> None:
    async with talking_to(answer(data=[], errors=[failure()])) as (runware, _):
        snapshot = await runware.fetch(TaskRef(TASK))
    assert (snapshot.known, snapshot.has_results) == (True, True)


@pytest.mark.parametrize("named", [True, False])
async def test_a_task_that_the_platform_never_had_is_unknown(named: bool) -> None:
    owner = {"taskUUID": TASK} if named else {}
    said = [error("taskNotFound", **owner)]
    async with talking_to(answer(400, data=[], errors=said)) as (runware, _):
        snapshot = await runware.fetch(TaskRef(TASK))
    assert (snapshot.known, snapshot.has_results) == (False, False)


@pytest.mark.parametrize(
    "said",
    [
        answer(401, errors=[error("invalidApiKey", taskType="authentication")]),
        answer(200, errors=[error("invalidApiKey", taskType="authentication")]),
        answer(429, errors=[error("rateLimitExceeded", taskUUID=TASK)]),
        answer(500, errors=[error("internalServerError", taskUUID=TASK)]),
        answer(503, data=[], errors=[error("taskNotFound", taskUUID=TASK)]),
        answer(data=[success(task=OTHER)]),
        answer(data=[]),
        answer(),
        httpx.Response(200, json=[]),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, text="[" * 100_000),
        httpx.ReadTimeout("no"),
        httpx.ConnectError("no"),
        httpx.DecodingError("no"),
    ],
)
async def test_an_answer_about_something_else_says_nothing_of_the_task(said: Answer) -> None:
    async with talking_to(said) as (runware, _):
        with pytest.raises(PlatformUnavailable):
            await runware.fetch(TaskRef(TASK))


def archived(response: Any, task: str = TASK) -> Json:
    """The platform's archive entry of a task."""
    return {"taskType": "getTaskDetails", "taskUUID": task, "request": [], "response": response}


async def test_the_archive_gives_the_response_that_it_keeps() -> None:
    kept = {"data": [success()], "errors": [failure()]}
    async with talking_to(answer(data=[archived(kept)])) as (runware, platform):
        snapshot = await runware.fetch_archived(TaskRef(TASK))
    assert (snapshot.known, snapshot.has_results, snapshot.body) == (True, True, kept)
    assert json.loads(snapshot.content) == kept
    assert b'"getTaskDetails"' in platform.asked[0].content


async def test_what_the_archive_keeps_need_not_name_its_task() -> None:
    kept = {"data": [{name: value for name, value in success().items() if name != "taskUUID"}]}
    async with talking_to(answer(data=[archived(kept)])) as (runware, _):
        snapshot = await runware.fetch_archived(TaskRef(TASK))
    assert (snapshot.known, snapshot.has_results) == (True, True)


async def test_a_task_that_is_not_in_the_archive_is_unknown() -> None:
    said = [error("taskNotFound", taskUUID=TASK)]
    async with talking_to(answer(400, errors=said)) as (runware, _):
        assert not (await runware.fetch_archived(TaskRef(TASK))).known


@pytest.mark.parametrize(
    "said",
    [
        answer(data=[archived({"data": [success()]}, task=OTHER)]),
        answer(data=[archived(None)]),
        answer(data=[archived({})]),
        answer(data=[archived({"data": []})]),
        answer(data=[archived({"data": [success(task=OTHER)]})]),
        answer(401, errors=[error("invalidApiKey")]),
        httpx.Response(200, text="<html>"),
        httpx.ReadTimeout("no"),
    ],
)
async def test_an_archive_that_says_nothing_of_the_task_is_not_believed(said: Answer) -> None:
    async with talking_to(said) as (runware, _):
        with pytest.raises(PlatformUnavailable):
            await runware.fetch_archived(TaskRef(TASK))


async def test_a_snapshot_keeps_its_bytes_and_not_our_key() -> None:
    text = f'{{ "data":[{{"taskUUID":"{TASK}","status":"processing","n":1.50,"k":"{API_KEY}"}}]}}'
    async with talking_to(httpx.Response(200, text=text)) as (runware, _):
        snapshot = await runware.fetch(TaskRef(TASK))
    assert snapshot.content.decode() == text.replace(API_KEY, "…")


async def test_a_url_that_is_quoted_back_is_told_to_nobody() -> None:
    token = TokenBox([KEY]).mint(claims())
    said = f"Can't reach https://hooks.example.com/webhooks/runware?sig={token}&a=b"
    async with talking_to(answer(400, errors=[failure(message=said)])) as (runware, _):
        rejection = (await submit(runware, asking(TASK))).rejected[TASK]
    assert rejection.message.endswith("/webhooks/runware?sig=[redacted]&a=b")
    assert token not in repr(rejection)


async def test_a_snapshot_that_has_to_wait_says_how_long() -> None:
    busy = httpx.Response(429, headers={"retry-after": "9"}, json={})
    async with talking_to(busy) as (runware, _):
        with pytest.raises(PlatformUnavailable) as caught:
            await runware.fetch(TaskRef(TASK))
    assert caught.value.retry_after_s == 9


async def test_parameters_cannot_change_whose_request_it_is() -> None:
    task = GenerationTask(
        id=TASK,
        platform="runware",
        model="pixverse:1@6",
        number_results=2,
        parameters={"taskUUID": OTHER, "model": "other:1@1", "deliveryMethod": "sync", "seed": 7},
    )
    assert request_of(task) == {
        "taskType": "videoInference",
        "taskUUID": TASK,
        "model": "pixverse:1@6",
        "includeCost": True,
        "seed": 7,
        "deliveryMethod": "async",
        "numberResults": 2,
    }


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8100/v1", True),
        ("http://localhost:8100", True),
        ("http://[::1]:8100", True),
        ("https://api.runware.ai/v1", False),
        ("https://127.0.0.1.example", False),
        ("https://localhost.example", False),
    ],
)
async def test_only_this_machine_is_local(url: str, local: bool) -> None:
    async with Runware(API_KEY, url) as runware:
        assert runware.is_local is local


@pytest.mark.usefixtures("_no_waits")
@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_the_key_is_told_to_nobody_but_the_platform(
    status: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    knobs = Knobs.model_validate({"submit_status": status})
    async with (
        running(SimulatorConfig(knobs=knobs, api_key=API_KEY)) as url,
        Runware(API_KEY, f"{url}/v1") as runware,
    ):
        said.append(repr(runware))
        task = GenerationTask(
            id=TASK,
            platform="runware",
            model="pixverse:1@6",
            parameters={"positivePrompt": "a paper boat"},
        )
        try:
            got = await submit(runware, [Outgoing(task, URL)])
        except SubmitterError as caught:
            said += [repr(caught), str(caught), repr(vars(caught)), repr(caught.__cause__)]
        else:
            assert got.rejected[TASK].code
            said.append(repr(got))
    out, err = capfd.readouterr()
    assert "HTTP Request" in caplog.text
    assert API_KEY not in "\n".join([*said, caplog.text, out, err])

"""What every platform's client has to do, whichever it is: one suite, and a script of answers each.

A new platform's tests derive a class from PlatformSuite and say in a Script how that platform
answers.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import httpx
import pytest
import stamina
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.platforms import PLATFORMS
from receiver.platforms.items import Category, Item, Kind
from submitter.errors import AmbiguousSubmit, KeyRefused, PlatformUnavailable, SubmitterError
from submitter.platforms.answers import ATTEMPTS, LONGEST_WAIT
from submitter.platforms.catalogue import SHIPPED
from submitter.platforms.protocol import (
    Accepted,
    Outcome,
    Outgoing,
    Platform,
    Rejection,
    TaskRef,
)
from submitter.platforms.snapshots import Standing
from submitter.tasks import GenerationTask
from tests.make import OTHER, TASK
from tests.submitter.stage import API_KEY

Json = dict[str, Any]
Answer = httpx.Response | Exception
URL = "https://hooks.example.com/webhooks/platform?sig=a-token"


class Wire:
    """Answers requests from a script, the last answer for ever; `asked` is what was sent."""

    def __init__(self, *answers: Answer | Callable[[httpx.Request], httpx.Response]) -> None:
        self.asked: list[httpx.Request] = []
        self._answers = answers

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self._answers[min(len(self.asked), len(self._answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        if not isinstance(answer, httpx.Response):
            return answer(request)
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self)


class Script(ABC):
    """How one platform says things. `of` is the task, `run` the platform's own name for it."""

    name: ClassVar[str]
    model: ClassVar[str]
    run: ClassVar[str | None] = None
    key_header: ClassVar[tuple[str, str]]

    @abstractmethod
    def make(self, transport: httpx.AsyncBaseTransport) -> Platform:
        """An account with API_KEY."""

    @abstractmethod
    def parameters(self) -> Json:
        """Such that the platform takes them."""

    @abstractmethod
    def accepts(self, request: httpx.Request) -> httpx.Response:
        """It takes all tasks of a request."""

    @abstractmethod
    def rejects(self, request: httpx.Request) -> httpx.Response:
        """It refuses all tasks of a request: the account is empty, and it quotes the key."""

    @abstractmethod
    def rejects_one(self, request: httpx.Request, prompt: str) -> httpx.Response:
        """It refuses the task with that prompt, and takes the others."""

    @abstractmethod
    def says(self, standing: str) -> Answer:
        """Its answer to a poll: done, working, failed, absent or refused (the key)."""


def outgoing(script: Script, *ids: str, prompt: str = "a boat") -> Sequence[Outgoing]:
    name = "positivePrompt" if "positivePrompt" in script.parameters() else "prompt"
    return [
        Outgoing(
            GenerationTask(
                id=task,
                platform=script.name,
                model=script.model,
                parameters={**script.parameters(), name: f"{prompt} {number}"},
            ),
            URL,
        )
        for number, task in enumerate(ids)
    ]


async def sent(script: Script, wire: Wire, *ids: str) -> Mapping[str, Outcome]:
    platform = script.make(wire.transport)
    try:
        with stamina.set_testing(True, attempts=ATTEMPTS):
            return await platform.submit(outgoing(script, *ids))
    finally:
        await platform.aclose()


AFTER_IT_WAS_SENT = [
    httpx.ReadTimeout,
    httpx.ReadError,
    httpx.WriteError,
    httpx.WriteTimeout,
    httpx.RemoteProtocolError,
    httpx.DecodingError,
]
BEFORE_IT_WAS_SENT = [
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
]
SAY_NOTHING = [
    httpx.Response(200, text="<html><h1>Welcome</h1></html>"),
    httpx.Response(200),
    httpx.Response(204),
    httpx.Response(302, headers={"location": "https://elsewhere.example"}),
    httpx.Response(200, text="[" * 100_000),
    httpx.Response(200, json=[]),
    httpx.Response(200, json={}),
    httpx.Response(200, json={"data": []}),
    httpx.Response(500),
    httpx.Response(500, json={"error": {"message": "Something broke.", "code": "server_error"}}),
    httpx.Response(502, text="<html>Bad Gateway</html>"),
    httpx.Response(503, text="<html>503</html>"),  # a gateway's own may follow an acceptance
    httpx.Response(504, json={"errors": [{"code": "timeout", "message": "Too late."}]}),
]


def shown(said: httpx.Response) -> str:
    return f"{said.status_code}-{said.text[:16]}"


class PlatformSuite:
    """Derive from it, with a `script`."""

    script: ClassVar[Script]

    @property
    def ref(self) -> TaskRef:
        return TaskRef(TASK, self.script.run)

    async def asked(self, *answers: Answer) -> tuple[Any, Wire]:
        """What `fetch` gives, or raises, and what it sent."""
        wire = Wire(*answers)
        platform = self.script.make(wire.transport)
        try:
            return await platform.fetch(self.ref), wire
        except SubmitterError as error:
            return error, wire
        finally:
            await platform.aclose()

    def items(self, body: Any) -> list[Item]:
        """What the receiver makes of a body."""
        return PLATFORMS[self.script.name].parse(body, TASK)

    async def test_it_is_a_platform_that_both_sides_know(self) -> None:
        platform = self.script.make(Wire(httpx.Response(200)).transport)
        assert isinstance(platform, Platform)
        assert platform.name == self.script.name
        assert platform.name in SHIPPED
        assert PLATFORMS[platform.name].calls_back is platform.calls_back
        assert platform.at_once >= 1
        assert SHIPPED[platform.name].most_results >= 1
        assert not platform.is_local
        await platform.aclose()

    @pytest.mark.parametrize(
        ("url", "local"),
        [
            ("http://127.0.0.1:8100/v1", True),
            ("http://localhost:8100", True),
            ("http://[::1]:8100", True),
            ("https://127.0.0.1.example", False),
            ("https://localhost.example", False),
        ],
    )
    async def test_only_this_machine_is_local(self, url: str, local: bool) -> None:
        platform = SHIPPED[self.script.name].make(API_KEY, url)
        assert platform.is_local is local
        assert API_KEY not in repr(platform)
        await platform.aclose()

    async def test_what_it_takes_is_accepted_and_sent_once(self) -> None:
        wire = Wire(self.script.accepts)
        outcomes = await sent(self.script, wire, TASK)
        assert outcomes == {TASK: Accepted(self.script.run)}
        (request,) = wire.asked
        header, value = self.script.key_header
        assert request.headers[header] == value
        assert API_KEY not in str(request.url)
        assert API_KEY.encode() not in request.content

    async def test_several_tasks_are_several_outcomes(self) -> None:
        wire = Wire(self.script.accepts)
        outcomes = await sent(self.script, wire, TASK, OTHER)
        assert outcomes.keys() == {TASK, OTHER}
        assert all(isinstance(said, Accepted) for said in outcomes.values())

    async def test_one_that_is_refused_is_nothing_to_the_others(self) -> None:
        wire = Wire(lambda request: self.script.rejects_one(request, "a boat 1"))
        outcomes = await sent(self.script, wire, TASK, OTHER)
        assert isinstance(outcomes[TASK], Accepted)
        assert isinstance(outcomes[OTHER], Rejection)

    async def test_a_rejection_is_read_by_the_receiver_and_shows_no_key(self) -> None:
        wire = Wire(self.script.rejects)
        said = (await sent(self.script, wire, TASK))[TASK]
        assert isinstance(said, Rejection)
        assert said.code
        assert said.message
        assert API_KEY not in repr(said)
        (item,) = self.items(said.body)
        assert item.kind is Kind.FAILED
        assert item.error is not None
        assert (item.error.code, item.error.category) == (said.code, Category.QUOTA)
        assert len(wire.asked) == 1

    @pytest.mark.parametrize("kind", BEFORE_IT_WAS_SENT)
    async def test_what_never_left_is_sent_again(self, kind: type[httpx.RequestError]) -> None:
        wire = Wire(kind("no"), self.script.accepts)
        assert isinstance((await sent(self.script, wire, TASK))[TASK], Accepted)
        assert len(wire.asked) == 2

    async def test_what_never_left_at_all_was_not_taken(self) -> None:
        wire = Wire(httpx.ConnectError("no"))
        said = (await sent(self.script, wire, TASK))[TASK]
        assert isinstance(said, PlatformUnavailable)
        assert (said.platform, said.task_id) == (self.script.name, TASK)
        assert len(wire.asked) == ATTEMPTS

    @pytest.mark.parametrize("kind", AFTER_IT_WAS_SENT)
    async def test_what_may_have_arrived_is_never_sent_again(
        self, kind: type[httpx.RequestError]
    ) -> None:
        wire = Wire(kind("no"))
        said = (await sent(self.script, wire, TASK))[TASK]
        assert isinstance(said, AmbiguousSubmit)
        assert (said.platform, said.task_id) == (self.script.name, TASK)
        assert kind.__name__ in said.reason
        assert len(wire.asked) == 1

    @pytest.mark.parametrize("answer", SAY_NOTHING, ids=shown)
    async def test_an_answer_that_does_not_tell_leaves_it_open(
        self, answer: httpx.Response
    ) -> None:
        wire = Wire(answer)
        assert isinstance((await sent(self.script, wire, TASK))[TASK], AmbiguousSubmit)
        assert len(wire.asked) == 1

    @pytest.mark.parametrize("text", ["<html>later</html>", '{"error":{"code":"rate_limited"}}'])
    async def test_a_full_platform_is_asked_again_and_then_given_up(self, text: str) -> None:
        busy = httpx.Response(429, headers={"retry-after": "7"}, text=text)
        wire = Wire(busy)
        said = (await sent(self.script, wire, TASK))[TASK]
        assert isinstance(said, PlatformUnavailable)
        assert (said.http_status, said.retry_after_s) == (429, 7)
        assert len(wire.asked) == ATTEMPTS
        wire = Wire(busy, self.script.accepts)
        assert isinstance((await sent(self.script, wire, TASK))[TASK], Accepted)

    async def test_a_wait_that_is_too_long_is_left_to_the_caller(self) -> None:
        later = str(int(LONGEST_WAIT) + 1)
        wire = Wire(httpx.Response(429, headers={"retry-after": later}))
        said = (await sent(self.script, wire, TASK))[TASK]
        assert isinstance(said, PlatformUnavailable)
        assert said.retry_after_s == LONGEST_WAIT + 1
        assert len(wire.asked) == 1

    async def test_a_connection_that_is_cut_was_used_once(self) -> None:
        heard: list[bytes] = []

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.readuntil(b"}"))
            writer.close()

        server = await asyncio.start_server(take, "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            platform = SHIPPED[self.script.name].make(API_KEY, url)
            outcomes = await platform.submit(outgoing(self.script, TASK))
            await platform.aclose()
        assert isinstance(outcomes[TASK], AmbiguousSubmit)
        assert len(heard) == 1

    async def test_a_finished_task_comes_with_its_bytes(self) -> None:
        answer = self.script.says("done")
        assert isinstance(answer, httpx.Response)
        found, wire = await self.asked(answer)
        assert (found.standing, found.known, found.results) == (Standing.WHOLE, True, 1)
        assert found.content == answer.content
        assert [item.kind for item in self.items(json.loads(found.content))] == [Kind.SUCCEEDED]
        header, value = self.script.key_header
        assert wire.asked[0].headers[header] == value

    async def test_a_task_in_work_is_known_and_has_no_results(self) -> None:
        found, _ = await self.asked(self.script.says("working"))
        assert (found.standing, found.known, found.has_results) == (Standing.WHOLE, True, False)
        assert [item.kind for item in self.items(found.body)] == [Kind.PROGRESS]

    async def test_a_failed_task_is_known_with_its_failure(self) -> None:
        found, _ = await self.asked(self.script.says("failed"))
        assert (found.standing, found.known, found.results) == (Standing.WHOLE, True, 1)
        assert [item.kind for item in self.items(found.body)] == [Kind.FAILED]

    async def test_a_task_that_it_does_not_have_is_absent(self) -> None:
        found, _ = await self.asked(self.script.says("absent"))
        assert (found.standing, found.known, found.results) == (Standing.ABSENT, False, 0)

    async def test_a_refused_key_is_told_apart_and_names_its_setting(self) -> None:
        said, _ = await self.asked(self.script.says("refused"))
        assert isinstance(said, KeyRefused)
        assert said.setting == SHIPPED[self.script.name].setting
        assert said.setting in str(said)

    @pytest.mark.parametrize(
        "answer",
        [said for said in SAY_NOTHING if said.status_code != 404]
        + [httpx.Response(403, text="<html>"), httpx.Response(400, text="no")],
        ids=shown,
    )
    async def test_an_answer_about_something_else_says_nothing_of_the_task(
        self, answer: httpx.Response
    ) -> None:
        said, wire = await self.asked(answer)
        assert type(said) is PlatformUnavailable
        assert said.http_status == answer.status_code
        assert len(wire.asked) == 1

    @pytest.mark.parametrize("kind", [*BEFORE_IT_WAS_SENT, *AFTER_IT_WAS_SENT])
    async def test_a_poll_without_an_answer_says_nothing(
        self, kind: type[httpx.RequestError]
    ) -> None:
        said, _ = await self.asked(kind("no"))
        assert type(said) is PlatformUnavailable
        assert kind.__name__ in said.reason

    async def test_a_poll_that_has_to_wait_says_how_long(self) -> None:
        busy = httpx.Response(429, headers={"retry-after": "9"}, json={})
        said, _ = await self.asked(busy)
        assert type(said) is PlatformUnavailable
        assert (said.http_status, said.retry_after_s) == (429, 9)

    async def test_a_key_that_is_quoted_is_passed_on_to_nobody(self) -> None:
        answer = self.script.says("done")
        assert isinstance(answer, httpx.Response)
        quoting = {**answer.json(), "note": f"you are {API_KEY}"}
        found, _ = await self.asked(httpx.Response(200, json=quoting))
        assert API_KEY.encode() not in found.content

    # One test for several classes: none of them has a state that an example could change.
    @settings(suppress_health_check=[HealthCheck.differing_executors])
    @given(
        st.dictionaries(
            st.text("abcdefg_U", min_size=1, max_size=6),
            st.none() | st.integers() | st.text(max_size=5) | st.lists(st.booleans(), max_size=2),
            max_size=4,
        )
    )
    def test_a_request_gives_its_parameters_back(self, parameters: Json) -> None:
        platform = self.script.make(Wire(httpx.Response(200)).transport)
        task = GenerationTask(
            id=TASK, platform=self.script.name, model="a model", parameters=parameters
        )
        request = platform.request_of(task)
        again = GenerationTask(
            id=TASK,
            platform=self.script.name,
            model="a model",
            parameters=platform.parameters_of(json.loads(json.dumps(request))),
        )
        assert platform.request_of(again) == request
        assert request["model"] == "a model"
        assert parameters.items() <= request.items()

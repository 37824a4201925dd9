"""What a request to Runware's endpoint is answered. No I/O; clock and waits are arguments."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from submitter.simulator import contract, pixverse, plans
from submitter.simulator.config import Knobs, SimulatorConfig
from submitter.simulator.contract import Json
from submitter.simulator.courier import Clock
from submitter.simulator.jobs import Callback, Job, Ledger, Result
from submitter.simulator.panel import Panel


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request, as far as the platform's contract looks at it."""

    body: bytes
    authorization: str | None = field(repr=False)
    base_url: str
    is_dry_run: bool


@dataclass(slots=True)
class Reply:
    """`data` and `errors` of an answer; `refused` counts the tasks that were turned down."""

    status: int = 200
    retry_after: str | None = None
    data: list[Json] = field(default_factory=list)
    errors: list[Json] = field(default_factory=list)
    refused: int = 0
    accepted: list[Job] = field(default_factory=list)

    def refuse(self, fault: Json) -> None:
        """Turn one task down."""
        self.errors.append(fault)
        self.refused += 1

    def body(self) -> Json:
        """The JSON of the answer; without errors there is no such key."""
        return {"data": self.data} | ({"errors": self.errors} if self.errors else {})


class Desk:
    """Takes tasks in and answers polls. The knobs may be turned while it works."""

    def __init__(
        self,
        config: SimulatorConfig,
        panel: Panel,
        ledger: Ledger,
        *,
        published: Mapping[str, Json],
        clock: Clock,
    ) -> None:
        self._config = config
        self._panel = panel
        self._ledger = ledger
        self._published = published
        self._clock = clock

    async def answer(self, call: Call, start: Callable[[Job], None]) -> Reply:
        """The reply to one request; `start` sets an accepted task going."""
        self._ledger.counts["requests"] += 1
        tasks = contract.read(call.body)
        if isinstance(tasks, dict):
            return _failed(400, tasks)
        if fault := contract.authenticate(call.authorization, tasks, self._config.api_key):
            return _failed(401, fault)
        work = [task for task in tasks if not _is(task, "authentication")]
        self._ledger.counts.update(each["taskType"] for each in work if _is(each, *contract.POLLS))
        if any(_is(task, *contract.MEDIA) for task in work) and self._panel.refuses_submit():
            return self._refusal(work)
        if any(_is(task, *contract.POLLS) for task in work) and await self._panel.fails_poll():
            return self._failed_poll(work)
        reply = self._handle_all(work, call)
        await self._hand_over(reply, start)
        return reply

    def _handle_all(self, work: list[Any], call: Call) -> Reply:
        reply = Reply()
        for task in work:
            self._handle(task, reply, call)
        self._ledger.counts["refused"] += reply.refused
        if work and reply.refused == len(work):
            reply.status = 400
        return reply

    def _handle(self, task: Any, reply: Reply, call: Call) -> None:
        kind = task.get("taskType") if isinstance(task, dict) else None
        if kind in contract.MEDIA:
            self._submit(task, reply, call)
        elif kind in contract.POLLS:
            (self._poll if kind == "getResponse" else self._details)(task, reply)
        elif kind == "ping":
            reply.data.append({"taskType": "ping", "pong": True})
        else:
            shape = task if isinstance(task, dict) else {}
            reply.refuse(contract.invalid("taskType", "string", shape))

    def _submit(self, task: Json, reply: Reply, call: Call) -> None:
        if fault := fault_of(task, self._panel.knobs, self._ledger.jobs) or self._turned_down(task):
            reply.refuse(fault)
        elif call.is_dry_run:
            # The answer's shape is an assumption: an acknowledgement with the price.
            reply.data.append({**contract.acknowledge(task), "cost": contract.price(task)})
        else:
            reply.data.append(contract.acknowledge(task))
            reply.accepted.append(self._accept(task, call.base_url))

    def _turned_down(self, task: Json) -> Json | None:
        share, code = self._panel.knobs.task_refusals, self._panel.knobs.submit_code
        if not share or self._panel.dice("refused/").stream("task").random() >= share:
            return None
        return contract.error(code or "inferenceRateLimitExceeded", task)

    def _accept(self, task: Json, base_url: str) -> Job:
        knobs, dice = self._panel.knobs, self._panel.dice()
        base = self._config.public_url or base_url
        setting = plans.Setting(knobs, dice, base.rstrip("/"), self._published)
        results = [
            Result(outcome, _owed(task, outcome.bodies), _owed(task, outcome.progress))
            for outcome in plans.plan(task, setting)
        ]
        job = Job(task, knobs, dice, self._clock(), results)
        self._ledger.add(job)
        return job

    def _poll(self, task: Json, reply: Reply) -> None:
        key = str(task.get("taskUUID")).lower()
        if key in self._ledger.ghosts:
            reply.data.append(self._ledger.ghosts[key])
        elif (job := self._ledger.jobs.get(key)) and job.is_archived(self._clock()):
            reply.refuse(contract.error("taskExpired", task))
        elif job:
            data, errors = job.snapshot()
            reply.data.extend(data)
            reply.errors.extend(errors)
        else:
            reply.refuse(contract.error("taskNotFound", task))

    def _details(self, task: Json, reply: Reply) -> None:
        job = self._ledger.jobs.get(str(task.get("taskUUID")).lower())
        if job is None:
            reply.refuse(contract.error("taskNotFound", task))
            return
        data, errors = job.snapshot()
        named = {"data": data, "errors": errors}
        response = {name: items for name, items in named.items() if items}
        reply.data.append(
            {**contract.acknowledge(task), "request": [job.task], "response": response}
        )

    def _failed_poll(self, work: list[Any]) -> Reply:
        knobs = self._panel.knobs
        status = knobs.poll_status or 500
        reply = Reply(status=status, retry_after=knobs.poll_retry_after)
        code = contract.STATUS_CODES[status]
        for task in filter(lambda each: _is(each, *contract.POLLS), work):
            reply.refuse(contract.error(code, _about(status, task)))
        self._ledger.counts["refused"] += reply.refused
        return reply

    def _refusal(self, work: list[Any]) -> Reply:
        knobs = self._panel.knobs
        status = knobs.submit_status or 500
        code = knobs.submit_code or contract.STATUS_CODES[status]
        reply = Reply(status=status, retry_after=knobs.submit_retry_after)
        for task in filter(lambda each: isinstance(each, dict), work):
            reply.refuse(contract.error(code, _about(status, task)))
            self._haunt(task, code)
        self._ledger.counts["refused"] += reply.refused
        return reply

    def _haunt(self, task: Json, code: str) -> None:
        # Seen in the field: a task refused for lack of credits polls as processing for ever.
        key = str(task.get("taskUUID"))
        if code == "insufficientCredits" and _is(task, *contract.MEDIA) and contract.is_uuid(key):
            self._ledger.ghosts[key.lower()] = contract.acknowledge(task) | {"status": "processing"}

    async def _hand_over(self, reply: Reply, start: Callable[[Job], None]) -> None:
        for job in reply.accepted:
            start(job)
        if any(job.knobs.callback_before_ack for job in reply.accepted):
            await self._panel.until(lambda: _tried(reply))
        if reply.accepted:
            await self._panel.pause(self._panel.knobs.submit_hang_s)


def fault_of(task: Json, knobs: Knobs, known: Container[str]) -> Json | None:
    """Why a generation task is refused, or None; `known` are the taskUUIDs already used."""
    fault = contract.check(task) or pixverse.check(task, knobs)
    return fault or contract.conflict(task, known)


def _owed(task: Json, bodies: Iterable[bytes]) -> list[Callback]:
    # Without a webhookURL nobody is owed anything.
    return [Callback(body) for body in bodies if "webhookURL" in task]


async def _tried(reply: Reply) -> None:
    early = [job for job in reply.accepted if job.knobs.callback_before_ack]
    for result in (result for job in early for result in job.results):
        await result.tried.wait()


def _is(task: object, *kinds: str) -> bool:
    return isinstance(task, dict) and task.get("taskType") in kinds


def _about(status: int, task: Json) -> Json:
    # What concerns the key names no task, and so holds for the whole request.
    return {"taskType": "authentication"} if status == 401 else task


def _failed(status: int, fault: Json) -> Reply:
    reply = Reply(status=status)
    reply.refuse(fault)
    return reply

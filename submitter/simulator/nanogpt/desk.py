"""What NanoGPT's endpoints answer. No I/O; clock and waits are arguments."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from submitter.simulator import plans
from submitter.simulator.config import SimulatorConfig
from submitter.simulator.courier import Clock
from submitter.simulator.jobs import Ledger, Result, Run
from submitter.simulator.nanogpt import catalog, contract, errors
from submitter.simulator.nanogpt.contract import Fault
from submitter.simulator.nanogpt.errors import Answer
from submitter.simulator.panel import Panel

Json = dict[str, Any]
Start = Callable[[Result], None]


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request, as far as the contract looks at it; header names are lower case."""

    headers: Mapping[str, str] = field(repr=False)
    query: Mapping[str, str]
    body: bytes
    base_url: str

    def key(self) -> str:
        """The API key: `x-api-key`, or else a bearer token; empty if there is none."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else ""
        return self.headers.get("x-api-key", "").strip() or bearer


class Refused(Exception):
    """Ends the handling of a request with an answer that is an error."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class NanoDesk:
    """Takes jobs in and answers polls, under the same knobs as Runware's desk."""

    def __init__(
        self, config: SimulatorConfig, panel: Panel, ledger: Ledger, *, clock: Clock
    ) -> None:
        self._config = config
        self._panel = panel
        self._ledger = ledger
        self._clock = clock

    async def submit(self, call: Call, start: Start) -> Answer:
        """POST /generate-video: 202 with the run's id and its precharge."""
        owner = self._enter(call, "submit")
        self._may_refuse_submit()
        request = self._read(call)
        self._hold(contract.check(request))
        run = self._accept(request, owner, call.base_url)
        start(run.result)
        await self._panel.pause(self._panel.knobs.submit_hang_s)
        return Answer(202, contract.acknowledge(run, self._balance(owner)))

    async def extend(self, call: Call, start: Start) -> Answer:
        """POST /generate-video/extend: a new run that goes on from one of Midjourney's four."""
        owner = self._enter(call, "extend")
        self._may_refuse_submit()
        request = self._read(call)
        self._hold(contract.check_extension(request))
        source = self._run(request.get("runId") or request["taskId"], owner)
        if source.request["model"] != contract.MIDJOURNEY:
            self._hold(contract.wrong("runId", f"a run of {contract.MIDJOURNEY}"))
        run = self._accept({"model": contract.MIDJOURNEY, **request}, owner, call.base_url)
        start(run.result)
        await self._panel.pause(self._panel.knobs.submit_hang_s)
        told = {"message": f"Extending video {request['index'] + 1} by 5 seconds...", "eta": 60}
        named = {"success": True, "taskId": run.run_id}
        return Answer(200, {**named, **contract.acknowledge(run, self._balance(owner)), **told})

    async def status(self, call: Call) -> Answer:
        """GET /video/status by `requestId` or `runId`."""
        owner = self._enter(call, "status")
        await self._may_fail_poll()
        asked = call.query.get("requestId") or call.query.get("runId")
        if not asked:
            self._hold(contract.missing("requestId"))
        return Answer(200, contract.status(self._glance(self._run(str(asked), owner))))

    async def legacy(self, call: Call) -> Answer:
        """GET /generate-video/status by `runId` and `model`, deprecated."""
        owner = self._enter(call, "legacy")
        await self._may_fail_poll()
        for name in ("runId", "model"):
            if not call.query.get(name):
                self._hold(contract.missing(name))
        run = self._run(call.query["runId"], owner)
        run.polls += 1
        return Answer(200, contract.legacy(contract.Glance(run, self._clock(), "guide")))

    async def recover(self, call: Call) -> Answer:
        """GET /generate-video/recover: the key's newest runs first, at most 50."""
        owner = self._enter(call, "recover")
        await self._may_fail_poll()
        limit = self._limit(call.query.get("limit"))
        wanted = {name: call.query.get(name) for name in ("model", "conversationUUID")}
        runs = [
            run
            for run in reversed(self._ledger.runs.values())
            if run.owner == owner
            and all(value in (None, run.request.get(name)) for name, value in wanted.items())
        ]
        return Answer(200, {"data": [contract.recovered(run) for run in runs[:limit]]})

    async def models(self, call: Call) -> Answer:
        """GET /v1/video-models: the catalog; no key is needed."""
        self._ledger.counts["nanogpt models"] += 1
        detailed = call.query.get("detailed", "true").lower() != "false"
        now = contract.instant(self._clock())
        return Answer(200, catalog.listed(detailed=detailed, now=now))

    def refuse(self, fault: Fault, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
        """The answer for a fault, in the shape that the knobs ask for."""
        self._ledger.counts["refused"] += 1
        rng = self._draw("error")
        shape = self._panel.knobs.nanogpt_errors
        drawn = rng.choice(errors.SHAPES) if shape == "mixed" else shape
        if fault.status == 402 and self._panel.knobs.nanogpt_402 == "x402":
            return errors.challenge(rng, self._clock())
        # What a missing balance is short of is told in one of the bodies alone.
        return Answer(fault.status, errors.body(fault, drawn), headers)

    def _draw(self, purpose: str) -> Random:
        return self._panel.dice("nanogpt/refused/").stream(purpose)

    def _hold(self, fault: Fault | None) -> None:
        if fault is not None:
            raise Refused(self.refuse(fault))

    def _enter(self, call: Call, name: str) -> str:
        self._ledger.counts.update(["requests", f"nanogpt {name}"])
        key = call.key()
        if not key and call.headers.get("x-x402") == "true" and name == "submit":
            self._ledger.counts["refused"] += 1
            raise Refused(errors.challenge(self._draw("x402"), self._clock()))
        if not key:
            self._hold(Fault(401, "missing_api_key", "An API key is needed."))
        if key != (self._config.api_key or key):
            self._hold(Fault(401, "invalid_api_key", "The API key is wrong."))
        return key

    def _may_refuse_submit(self) -> None:
        if self._panel.refuses_submit():
            knobs = self._panel.knobs
            self._refuse_by_knob(knobs.submit_status or 500, knobs.submit_retry_after)

    async def _may_fail_poll(self) -> None:
        if await self._panel.fails_poll():
            knobs = self._panel.knobs
            self._refuse_by_knob(knobs.poll_status or 500, knobs.poll_retry_after, poll=True)

    def _refuse_by_knob(self, status: int, after: str | None, *, poll: bool = False) -> None:
        usual = "not_found" if poll and status == 404 else contract.STATUS_CODES[status]
        code = usual if poll else self._panel.knobs.submit_code or usual
        fault = Fault(status, code, f"The simulator was told to answer {status}: {code}.")
        after = after or ("1" if status == 429 else None)
        raise Refused(self.refuse(fault, (("retry-after", after),) if after else ()))

    def _read(self, call: Call) -> Json:
        try:
            request = json.loads(call.body)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            self._hold(Fault(400, "invalid_json", "The body must be a JSON object."))
        return dict(request or {})

    def _limit(self, given: str | None) -> int:
        if given is not None and not (given.isascii() and given.isdigit() and int(given)):
            self._hold(contract.wrong("limit", "a whole number from 1 to 50"))
        return min(int(given or contract.USUALLY_RECOVERED), contract.MOST_RECOVERED)

    def _run(self, run_id: str, owner: str) -> Run:
        run = self._ledger.runs.get(run_id)
        if run is None:
            raise Refused(self.refuse(Fault(404, "not_found", "There is no such job.")))
        if run.owner != owner:
            self._hold(Fault(403, "permission_denied", "The job belongs to another account."))
        return run

    def _glance(self, run: Run) -> contract.Glance:
        shape = self._panel.knobs.nanogpt_shape
        run.polls += 1
        if shape == "mixed":
            shape = run.dice.stream(f"shape/{run.polls}").choice(("guide", "unified"))
        return contract.Glance(run, self._clock(), shape)

    def _balance(self, owner: str) -> float:
        """Dollars left to a key; failed and canceled runs are refunded when they end."""
        spent = sum(contract.charged(r) for r in self._ledger.runs.values() if r.owner == owner)
        return round(self._panel.knobs.nanogpt_balance - spent, 6)

    def _accept(self, request: Json, owner: str, base_url: str) -> Run:
        if self._balance(owner) < contract.PRECHARGE:
            self._hold(Fault(402, "insufficient_quota", "Insufficient balance"))
        knobs, dice = self._panel.knobs, self._panel.dice("nanogpt/")
        base = (self._config.public_url or base_url).rstrip("/")
        result = Result(_outcome(request, plans.Setting(knobs, dice, base, {})), [])
        run_id = contract.run_id(dice.stream("run"))
        now, cost = self._clock(), contract.PRECHARGE
        run = Run(run_id, owner, request, knobs, dice, now, result, cost)
        self._ledger.add_run(run)
        return run


def _outcome(request: Json, setting: plans.Setting) -> plans.Outcome:
    knobs, rng = setting.knobs, setting.dice.stream("result/0")
    media_id, canceled = plans.uuid4(rng), rng.random() < knobs.nanogpt_cancels
    (fails,) = plans.failing(request, 1, setting)
    ((turn, ready_after_s),) = plans.waits(1, setting)
    if fails:
        item = _failure(knobs.nanogpt_failure)
    elif canceled:
        item = {"status": "error", "outcome": "canceled", "code": "canceled"}
    else:
        cost = round(contract.PRECHARGE * knobs.nanogpt_settles, 6)
        url = f"{setting.base_url}/video/{media_id}.mp4"
        item = {"status": "success", "outcome": "completed", "url": url, "cost": cost}
    kept = media_id if item["status"] == "success" else None
    return plans.Outcome(item, kept, turn, ready_after_s, 0.0, ())


def _failure(kind: str) -> Json:
    failed: Json = {"status": "error", "outcome": "failed", "code": kind}
    if kind == "nsfw":
        advice = "Content flagged as inappropriate. Please modify your prompt and try again."
        told = {"error": "Content policy violation", "isNSFWError": True}
        return {**failed, **told, "userFriendlyError": advice}
    if kind == "friendly":
        told = {"error": "Provider error 502", "isNSFWError": False}
        return {**failed, **told, "userFriendlyError": "The model is busy. Please try again."}
    return {**failed, "error": "Video generation failed"}

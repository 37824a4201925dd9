"""NanoGPT's wire contract: checks of a request, acknowledgements, statuses. Pure: no I/O.

Source of the rules: NanoGPT's generate-video page, and its documentation's pages on the unified and
the legacy status, extending, recovering and errors. What none of them says is an assumption.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from random import Random
from string import ascii_lowercase, digits
from typing import Any, NamedTuple

from submitter.simulator.jobs import Run

Json = dict[str, Any]


class Fault(NamedTuple):
    """Why a request is refused: `code` and `param` as the OpenAI-like body names them."""

    status: int
    code: str
    message: str
    param: str | None = None


PRECHARGE = 0.35  # dollars, as in the published example; never a real quotation
MIDJOURNEY = "midjourney-video"
MOST_RECOVERED, USUALLY_RECOVERED = 50, 10
EXTEND_SUFFIX = "-extend"
TAKES_VIDEO = "wan-wavespeed-25-extend"  # the only extend model that takes plain `video`
SOURCE_VIDEOS = ("videoUrl", "videoDataUrl", "videoAttachmentId")
SCRIPTS = ("script", "storyConfig")
MEDIA_INPUTS = (
    *("imageDataUrl", "imageUrl", "imageAttachmentId", "image", "image_data_url"),
    *("referenceImages", "referenceVideos", "audioDataUrl", "audioUrl", "audio"),
    *(*SOURCE_VIDEOS, "video", "swapImage", "targetVideo"),
)
# The usual code for each status that the knobs can answer with.
STATUS_CODES = {
    400: "invalid_parameter_value",
    401: "invalid_api_key",
    402: "insufficient_quota",
    403: "permission_denied",
    404: "model_not_found",
    408: "timeout",
    409: "conflict",
    413: "payload_too_large",
    429: "rate_limit_exceeded",
    500: "internal_error",
    502: "bad_gateway",
    503: "service_unavailable",
    504: "timeout",
}


def missing(param: str) -> Fault:
    """A required field isn't there."""
    return Fault(400, "missing_required_parameter", f"'{param}' is required.", param)


def wrong(param: str, must: str) -> Fault:
    """A field has a value it can't have."""
    return Fault(400, "invalid_parameter_value", f"'{param}' must be {must}.", param)


def check(request: Json) -> Fault | None:
    """The first error of a request for a video, or None. Unknown keys are ignored."""
    return next((found for rule in CHECKS if (found := rule(request))), None)


def _model(request: Json) -> Fault | None:
    if "model" not in request:
        return missing("model")
    model = request["model"]
    return None if isinstance(model, str) and model else wrong("model", "a model's id")


def _prompt(request: Json) -> Fault | None:
    prompt = request.get("prompt")
    if prompt is not None and not isinstance(prompt, str):
        return wrong("prompt", "a string")
    # That media without a prompt is enough is true of some models; which, is not modelled.
    if prompt or any(request.get(name) for name in (*SCRIPTS, *MEDIA_INPUTS)):
        return None
    return missing("prompt")


def _extension(request: Json) -> Fault | None:
    model = request["model"]
    if not model.endswith(EXTEND_SUFFIX):
        return None
    if not request.get("prompt"):
        return missing("prompt")
    if "video" in request and model != TAKES_VIDEO:
        return wrong("video", "left out: this model takes videoUrl")
    sources = SOURCE_VIDEOS + (("video",) if model == TAKES_VIDEO else ())
    return None if any(request.get(name) for name in sources) else missing("videoUrl")


def _text_or_number(param: str) -> Callable[[Json], Fault | None]:
    def rule(request: Json) -> Fault | None:
        value = request.get(param, "")
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return None
        return wrong(param, "a string or a number")

    return rule


def _between(param: str, low: float, high: float) -> Callable[[Json], Fault | None]:
    def rule(request: Json) -> Fault | None:
        value = request.get(param, low)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and low <= value <= high:
            return None
        return wrong(param, f"a number between {low:g} and {high:g}")

    return rule


def _conversation(request: Json) -> Fault | None:
    value = request.get("conversationUUID", "")
    return None if isinstance(value, str) else wrong("conversationUUID", "a string")


CHECKS: tuple[Callable[[Json], Fault | None], ...] = (
    _model,
    _prompt,
    _extension,
    _text_or_number("duration"),
    _text_or_number("seed"),
    _between("voice_speed", 0.8, 2.0),
    _between("cfg_scale", 0, 20),
    _between("num_inference_steps", 1, 50),
    _between("frames_per_second", 5, 24),
    _conversation,
)


def check_extension(request: Json) -> Fault | None:
    """The first error of the task-based flow: `runId` (or `taskId`) and `index` 0..3."""
    run_id = request.get("runId", request.get("taskId"))
    if not isinstance(run_id, str) or not run_id:
        return missing("runId")
    for name in ("video", *SOURCE_VIDEOS):
        if name in request:
            return wrong(name, "left out: this endpoint extends a job of ours")
    index = request.get("index")
    if index is None:
        return missing("index")
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index <= 3:
        return wrong("index", "0, 1, 2 or 3")
    return None


def run_id(rng: Random) -> str:
    """A job's id in the documented format."""
    return "vid_" + "".join(rng.choices(ascii_lowercase + digits, k=14))


def acknowledge(run: Run, balance: float) -> Json:
    """The body of the 202: `cost` is the precharge, `remainingBalance` what is left after it."""
    return {
        "runId": run.run_id,
        "id": run.run_id,
        "status": "pending",
        "model": run.request["model"],
        "cost": run.cost,
        "paymentSource": "USD",
        "remainingBalance": balance,
        "prechargeLabel": "simulated",
    }


def charged(run: Run) -> float:
    """Dollars that a run has cost so far: the precharge, then what it settled at."""
    if run.result.status == "processing":
        return run.cost
    return float(run.result.outcome.item.get("cost", 0.0))


@dataclass(frozen=True, slots=True)
class Glance:
    """What one poll shows: the run, the moment, and this poll's shape."""

    run: Run
    now: datetime
    shape: str

    @property
    def share(self) -> float:
        """Part of the time that has passed, 0 to 1."""
        whole = self.run.result.outcome.ready_after_s
        passed = (self.now - self.run.accepted_at).total_seconds()
        return min(1.0, max(0.0, passed / whole)) if whole else 1.0


def status(glance: Glance) -> Json:
    """A status answer in the guide's or in the unified shape."""
    return (_guide if glance.shape == "guide" else _unified)(glance)


def legacy(glance: Glance) -> Json:
    """The answer of the deprecated status route: the guide's `data` under another key."""
    data = _guide(glance)["data"]
    return {"data": {"request_id" if name == "requestId" else name: data[name] for name in data}}


def word(glance: Glance) -> str:
    """The status in the words of the shape: upper case in the guide, lower in the unified one."""
    item, knobs = glance.run.result.outcome.item, glance.run.knobs
    if glance.run.result.ready_at is None:
        return _word_in_work(glance)
    if item["outcome"] == "canceled":
        spelled = {"one_l": "canceled", "two_l": "cancelled"}
        by_shape = "canceled" if glance.shape == "guide" else "cancelled"
        said = spelled.get(knobs.nanogpt_canceled, by_shape)
    else:
        said = str(item["outcome"])
    return said.upper() if glance.shape == "guide" else said


def _word_in_work(glance: Glance) -> str:
    words = glance.run.knobs.nanogpt_words
    if words == "granular":
        steps = ("queued", "processing", "generating", "delivering")
        return steps[min(3, int(glance.share * 4))]
    said = "unknown" if words == "unknown" else ""
    if glance.shape == "guide":
        return said.upper() or ("IN_QUEUE" if glance.share < 0.25 else "IN_PROGRESS")
    return said or ("queued" if glance.share < 0.25 else "processing")


def _guide(glance: Glance) -> Json:
    run = glance.run
    data: Json = {"status": word(glance), "requestId": run.run_id}
    if run.result.ready_at is not None:
        item = run.result.outcome.item
        data |= {name: item[name] for name in GUIDE_FIELDS if name in item}
        if "url" in item:
            data["output"] = {"video": {"url": item["url"]}}
    return {"requestId": run.run_id, "model": run.request["model"], "data": data}


GUIDE_FIELDS = ("cost", "error", "isNSFWError", "userFriendlyError")


def _unified(glance: Glance) -> Json:
    run, ready = glance.run, glance.run.result.ready_at
    body: Json = {"status": word(glance), "createdAt": instant(run.accepted_at)}
    if ready is None:
        left = run.result.outcome.ready_after_s * (1 - glance.share)
        return body | {"progress": int(glance.share * 99), "estimatedTimeRemaining": round(left)}
    item = run.result.outcome.item
    named = {"videoUrl": item.get("url"), "error": item.get("error")}
    ended = {"completedAt": instant(ready), "progress": 100, "estimatedTimeRemaining": 0}
    return body | {name: text for name, text in named.items() if text} | ended


def instant(moment: datetime) -> str:
    """UTC with milliseconds and a Z, as the documentation's examples write it."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def recovered(run: Run) -> Json:
    """A run in the list of the recover route."""
    outcome = run.result.outcome.item["outcome"]
    item = {
        "runId": run.run_id,
        "id": run.run_id,
        "model": run.request["model"],
        "status": outcome if run.result.ready_at else "processing",
        "createdAt": instant(run.accepted_at),
    }
    sent = run.request.get("conversationUUID")
    return item | ({"conversationUUID": sent} if sent else {})

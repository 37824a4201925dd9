"""What tests put in: tasks, tokens, bodies, arrivals. Every default is a valid one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from receiver.callbacks import Arrival
from receiver.clock import DAY
from receiver.deliveries import Outcome, State
from receiver.endpoints import EndpointSpec
from receiver.platforms import runware
from receiver.platforms.items import Item
from receiver.platforms.reading import loads
from receiver.store.protocol import Claimed, NewEndpoint, Registration, Settled
from receiver.tasks import TaskSpec, TaskState
from receiver.tokens import Claims, Source, digest_tags
from tests.doubles import SIGNING_KEY, START, sent

KEY = SIGNING_KEY
OLD_KEY = "an-older-key-of-more-than-32-characters"
TASK = "24cd5dff-cb81-4db5-8506-b72a9425f9d1"
OTHER = "86513e43-4646-43df-99d3-415bded9b0b5"
JTI = bytes(range(16))


def uuid(number: int) -> str:
    """A task's or a video's id."""
    return str(UUID(int=(0x4000 << 64) + (0x8 << 60) + number, version=4))


def claims(**changes: Any) -> Claims:
    """A token's claims; `tags` may be a mapping."""
    tags = changes.pop("tags", {})
    values: dict[str, Any] = {
        "jti": JTI,
        "task": TASK,
        "platform": "runware",
        "project": "default",
        "expected": 1,
        "source": Source.CALLBACK,
        "issued_at": START,
        "expires_at": START + DAY,
        "tags": tags if isinstance(tags, str) else digest_tags(tags.items()),
    }
    return Claims(**(values | changes))


def success(number: int = 1, task: str = TASK, **more: Any) -> dict[str, Any]:
    """Runware's item for a finished video."""
    video = uuid(number)
    return {
        "taskType": "videoInference",
        "taskUUID": task,
        "status": "success",
        "videoUUID": video,
        "videoURL": f"https://vm.runware.ai/video/os/a15d18/ws/5/vi/{video}.mp4",
        "seed": 44_372,
        "cost": 0.4715,
    } | more


def failure(code: str = "timeoutProvider", task: str = TASK, **more: Any) -> dict[str, Any]:
    """Runware's item for a failed result."""
    return {
        "taskUUID": task,
        "status": "error",
        "code": code,
        "message": "The external provider did not respond within the timeout window.",
    } | more


def processing(task: str = TASK, **more: Any) -> dict[str, Any]:
    """Runware's item for a result that is not there yet."""
    return {"taskType": "videoInference", "taskUUID": task, "status": "processing"} | more


def wrapped(*items: Mapping[str, Any]) -> bytes:
    """A body in Runware's default envelope."""
    return json.dumps({"data": list(items)}).encode()


def items_of(*found: Mapping[str, Any]) -> list[Item]:
    """What the parser makes of these items."""
    return runware.parse({"data": list(found)}, TASK)


def task(expected: int | None = 1, *, platform: str = "runware", **more: Any) -> TaskState:
    """A task that nothing has been heard of."""
    return TaskState(TASK, platform, "default", expected, **more)


def arrival(*found: Mapping[str, Any], body: bytes | None = None, **changes: Any) -> Arrival:
    """An authentic body of these items, as ingest would hand it over."""
    raw = wrapped(*found) if body is None else body
    items: Sequence[Item] = runware.parse(loads(raw), TASK) if found else ()
    values: dict[str, Any] = {
        "task_id": TASK,
        "platform": "runware",
        "project": "default",
        "expected": 1,
        "source": Source.CALLBACK,
        "issued_at": START,
        "jti": JTI,
        "body": raw,
        "sha256": hashlib.sha256(raw).digest(),
        "received_at": START,
        "remote": "203.0.113.7",
        "items": items,
        "unreadable": None if found else "bad_json",
    }
    return Arrival(**(values | changes))


def registration(task_id: str = TASK, now: int = START, **changes: Any) -> Registration:
    """A PUT of a task; `deadline_at`, `give_up_at` and `project` are the registration's."""
    asked = {
        name: changes.pop(name, default)
        for name, default in (("deadline_at", None), ("give_up_at", None), ("project", "default"))
    }
    spec = TaskSpec(**{"platform": "runware", **changes})
    return Registration(id=task_id, spec=spec, now=now, **asked)


def endpoint(project: str = "default", secret: str = "whsec_x", **spec: Any) -> NewEndpoint:
    """An endpoint to add."""
    wanted = {"url": "https://example.com/hook"} | spec
    return NewEndpoint(EndpointSpec.model_validate(wanted), project, secret, START)


def settled(
    claimed: Claimed,
    state: State = State.SUCCEEDED,
    *,
    now: int = START,
    outcome: Outcome | None = None,
    next_attempt_at: int | None = None,
    disable: str | None = None,
) -> Settled:
    """How an attempt ended; its outcome goes with the state unless one is given."""
    seen = outcome or sent(200 if state is State.SUCCEEDED else 500)
    return Settled(claimed, seen, state, next_attempt_at, now, now, disable)

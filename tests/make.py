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


def task(expected: int | None = 1, **more: Any) -> TaskState:
    """A task that nothing has been heard of."""
    return TaskState(TASK, "runware", "default", expected, **more)


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


# taskUUID, videoUUID, seed and cost of the examples in the PixVerse pages, G1 to G9.
EXAMPLES = (
    (
        "e2474893-c22e-4a37-ad8d-b1cbe9d0aeb8",
        "b9d0b770-261d-438c-a005-e96385406ee7",
        32_923,
        0.299,
    ),
    (
        "3a3f34fe-cc2c-4ffc-9ff8-66a8376f16ec",
        "b1aef99e-bb12-4782-aa86-2c76f1628625",
        74_783,
        0.15,
    ),
    (
        "fd801690-19f0-4db6-b702-f7252136cc90",
        "f5f88c2f-1570-4b25-a898-863671fa4043",
        93_189,
        0.299,
    ),
    (
        "73e9c667-a928-44db-86ce-f0ef5a55cf43",
        "205fc6b3-6d90-482c-a75a-18c0016eb40b",
        20_662,
        0.15,
    ),
    (
        "86513e43-4646-43df-99d3-415bded9b0b5",
        "0b3114d5-397c-45fe-88cc-0b7270e07d7a",
        15_605,
        0.4715,
    ),
    (
        "a9cd0a39-0e7d-4fca-9f8a-77ba79268056",
        "cd92586a-1525-42f4-a14d-8a28cbe71892",
        47_883,
        0.4715,
    ),
    (
        "1f4eeb96-ee66-4b34-b094-34511cd1b3d3",
        "6a5ade1c-56cd-41da-a5bb-49f8ab00b403",
        96_626,
        0.4715,
    ),
    (
        "179fefbf-5352-479b-b8f4-d570a27dd3cb",
        "25d658cf-0719-4805-92b0-c904a258637a",
        80_065,
        0.4715,
    ),
    (
        "94759f56-09e3-42a2-a89d-3d288a8d2055",
        "8ea9fe34-b50a-4bc4-806a-5a38b8b0841d",
        44_372,
        0.4715,
    ),
)


def golden() -> list[tuple[str, bytes, str, list[str]]]:
    """(name, body, task, kinds) of the bodies that the platform's documents show.

    The examples' ids, numbers and shapes; prompts and long messages are shortened. G12 is repaired:
    the document has a trailing comma in it.
    """
    found: list[tuple[str, Any, str, list[str]]] = [
        (
            f"G{number}",
            {
                "taskType": "videoInference",
                "taskUUID": of,
                "videoUUID": video,
                "videoURL": f"https://vm.runware.ai/video/os/a15d18/ws/5/vi/{video}.mp4",
                "seed": seed,
                "cost": cost,
            },
            of,
            ["succeeded"],
        )
        for number, (of, video, seed, cost) in enumerate(EXAMPLES, 1)
    ]
    video = "b7db282d-2943-4f12-992f-77df3ad3ec71"
    done = {
        "taskType": "videoInference",
        "taskUUID": TASK,
        "status": "success",
        "videoUUID": video,
        "videoURL": f"https://im.runware.ai/video/ws/0.5/vi/{video}.mp4",
        "cost": 0.18,
    }
    late = failure(documentation="https://runware.ai/docs/en/video-inference/api-reference")
    unsupported = {
        "code": "unsupportedDuration",
        "message": "Invalid value for duration parameter.",
        "parameter": "duration",
        "type": "float",
        "taskUUID": TASK,
        "allowedValues": [6],
    }
    found += [
        ("G10-ack", {"data": [{"taskType": "video", "taskUUID": TASK}]}, TASK, ["unknown"]),
        ("G10-rejected", {"errors": [unsupported]}, TASK, ["failed"]),
        ("G11-processing", {"data": [processing()]}, TASK, ["progress"]),
        ("G12-success", {"data": [done]}, TASK, ["succeeded"]),
        ("G13-timeout", {"errors": [late]}, TASK, ["failed"]),
        ("G14-both", {"data": [done], "errors": [late]}, TASK, ["succeeded", "failed"]),
    ]
    return [(name, json.dumps(body).encode(), of, kinds) for name, body, of, kinds in found]

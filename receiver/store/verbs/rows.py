"""Floor 2, edges: rows as the objects the API shows. No SQL is run here."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from receiver import ids
from receiver.callbacks import Callback, Kept
from receiver.clock import SECOND, to_datetime
from receiver.deliveries import Attempt, Delivery
from receiver.endpoints import Endpoint
from receiver.errors import NotFound
from receiver.events import Event
from receiver.platforms.reading import dollars
from receiver.repair import Job, Repair
from receiver.results import Result
from receiver.shown import readable
from receiver.store.connection import Row as Row
from receiver.store.seal import Seal
from receiver.store.verbs.health import health_shown
from receiver.store.verbs.secrets import headers_of, overlap_of
from receiver.tasks import Task
from receiver.tokens import Source


def task_key(task_id: str) -> bytes:
    """The 16 bytes under which a task is stored. Raises NotFound for what is no UUID."""
    try:
        return ids.task_bytes(ids.canonical_task(task_id))
    except ValueError:
        raise NotFound(f"There is no task {task_id[:60]!r}: a task's id is a UUID.") from None


def json_of(text: str | None) -> Any:
    """The value of a JSON column that we wrote ourselves."""
    return None if text is None else json.loads(text)


def _moment(ms: int | None) -> datetime | None:
    return None if ms is None else to_datetime(ms)


def _task_id(row: Row) -> str | None:
    return None if row["task_id"] is None else ids.task_text(row["task_id"])


def task_of(row: Row, *, whole: bool) -> Task:
    """A task; its request only when `whole`."""
    return Task(
        id=ids.task_text(row["id"]),
        platform=row["platform"],
        platform_id=row["platform_id"],
        model=row["model"],
        project=row["project"],
        status=row["status"],
        overdue=bool(row["overdue"]),
        expected=row["expected"],
        received=row["succeeded"] + row["failed"],
        succeeded=row["succeeded"],
        failed=row["failed"],
        cost=dollars(row["cost"]),
        tags=json_of(row["tags"]),
        metadata=json_of(row["metadata"]),
        submit_state=row["submit_state"],
        registered=bool(row["registered"]),
        client_ref=row["client_ref"],
        traceparent=row["traceparent"],
        created_at=to_datetime(row["created_at"]),
        deadline_at=_moment(row["deadline_at"]),
        give_up_at=_moment(row["give_up_at"]),
        completed_at=_moment(row["completed_at"]),
        expected_duration_s=None if row["expected_took"] is None else row["expected_took"] / SECOND,
        revision=row["revision"],
        request=json_of(row["request"]) if whole else None,
    )


def result_of(row: Row) -> Result:
    """A result with its raw item."""
    told = json_of(row["told"])
    return Result(
        id=ids.RESULT + ids.encode(row["id"]),
        task_id=ids.task_text(row["task_id"]),
        key=row["key"],
        index=row["idx"],
        kind=row["kind"],
        late=bool(row["late"]),
        superseded=bool(row["superseded"]),
        conflicts=row["conflicts"],
        media=told["media"],
        seed=told["seed"],
        cost=told["cost"],
        nsfw=told["nsfw"],
        error=told.get("error"),
        source=row["source"],
        received_at=to_datetime(row["received_at"]),
        raw=json_of(row["raw"]),
    )


def callback_of(row: Row, *, whole: bool) -> Callback:
    """A callback; its body, as text, only when `whole` and while it is kept."""
    body = _body_of(row) if whole else None
    text, exact = (None, None) if body is None else readable(body)
    return Callback(
        id=ids.CALLBACK + ids.encode(row["id"]),
        task_id=_task_id(row),
        jti=None if row["jti"] is None else row["jti"].hex(),
        platform=row["platform"],
        source=row["source"],
        outcome=row["outcome"],
        reason=row["reason"],
        size=row["size"],
        sha256=row["sha256"].hex(),
        received_at=to_datetime(row["received_at"]),
        repeats=row["repeats"],
        last_received_at=to_datetime(row["last_received_at"]),
        remote=row["remote"],
        body_dropped_at=_moment(row["body_dropped_at"]),
        body=text,
        body_exact=exact,
    )


def kept_of(row: Row) -> Kept:
    """A callback with its bytes."""
    return Kept(
        id=row["id"],
        task_id=_task_id(row),
        project=row["project"],
        platform=row["platform"],
        source=Source(row["source"]),
        jti=row["jti"],
        tags=json_of(row["tags"]) or {},
        received_at=row["received_at"],
        remote=row["remote"],
        body=_body_of(row),
    )


def _body_of(row: Row) -> bytes | None:
    body: bytes = row["body"]
    return body if row["body_dropped_at"] is None else None


def endpoint_of(row: Row, seal: Seal) -> Endpoint:
    """An endpoint, without its secrets."""
    return Endpoint(
        id=ids.ENDPOINT + ids.encode(row["id"]),
        project=row["project"],
        state=row["state"],
        reason=row["reason"],
        created_at=to_datetime(row["created_at"]),
        url=row["url"],
        description=row["description"],
        event_types=json_of(row["event_types"]),
        filters=json_of(row["filters"]),
        headers=headers_of(seal, row["id"], row["headers"]),
        rate_limit=row["rate_limit"],
        concurrency=row["concurrency"],
        schedule=json_of(row["schedule"]),
        signatures=json_of(row["signatures"]),
        ordered=bool(row["ordered"]),
        public_key=row["public_key"],
        overlap_until=_moment(overlap_of(row["secrets"])),
        health=health_shown(row),
        revision=row["revision"],
    )


def event_of(row: Row, *, whole: bool) -> Event:
    """An event; its payload only when `whole`."""
    return Event(
        id=ids.EVENT + ids.encode(row["id"]),
        seq=row["seq"],
        type=row["type"],
        task_id=_task_id(row),
        project=row["project"],
        created_at=to_datetime(row["created_at"]),
        payload=json_of(row["payload"]) if whole else None,
    )


def delivery_of(row: Row) -> Delivery:
    """A delivery, without its attempts."""
    return Delivery(
        id=ids.delivery_id(row["event_id"], row["endpoint_id"]),
        event_id=ids.EVENT + ids.encode(row["event_id"]),
        event_type=row["type"],
        task_id=_task_id(row),
        endpoint_id=ids.ENDPOINT + ids.encode(row["endpoint_id"]),
        endpoint_deleted=row["endpoint_deleted"],
        state=row["state"],
        attempts=row["attempts"],
        next_attempt_at=_moment(row["next_attempt_at"]),
        first_succeeded_at=_moment(row["first_succeeded_at"]),
        created_at=to_datetime(row["created_at"]),
        settled_at=_moment(row["settled_at"]),
        last_error=row["last_error"],
        last_status=row["last_status"],
    )


def attempt_of(row: Row) -> Attempt:
    """One attempt."""
    return Attempt(
        id=ids.attempt_id(row["event_id"], row["endpoint_id"], row["number"]),
        number=row["number"],
        at=to_datetime(row["at"]),
        duration_ms=row["duration_ms"],
        status=row["status"],
        error=row["error"],
        detail=row["detail"] or None,
        request_headers=json_of(row["request_headers"]),
        response_body=row["response_body"].decode("utf-8", "replace"),
        response_truncated=bool(row["truncated"]),
    )


def job_of(row: Row) -> Job:
    """A job out of its row."""
    return Job(
        id=ids.JOB + ids.encode(row["id"]),
        kind=row["kind"],
        state=row["state"],
        project=row["project"],
        asked=Repair.model_validate_json(row["asked"]),
        total=row["total"],
        done=row["done"],
        note=row["note"],
        created_at=to_datetime(row["created_at"]),
        started_at=_moment(row["started_at"]),
        finished_at=_moment(row["finished_at"]),
    )

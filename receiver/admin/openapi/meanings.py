"""Floor 4, doors: what fields mean, in a sentence each. No third party.

A field of one name means one thing, wherever it is; where it needs saying otherwise, a key names
its schema too. What a schema's own description says of its fields needs no second sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

FIELDS: Final[Mapping[str, str]] = {
    # Tasks
    "Task.id": "The UUID that it was submitted with.",
    "platform": "The service that generates.",
    "platform_id": "What the platform calls it, where that is not our id.",
    "model": "The generative model, such as `pixverse:1@6`.",
    "project": "Whose it is: a name that keeps several applications on one receiver apart.",
    "expected": "How many results the task owes; null where nobody knows.",
    "received": "Results that are in, successes and failures.",
    "succeeded": "Of these, successes.",
    "failed": "Of these, failures.",
    "overdue": "The deadline passed with results missing.",
    "cost": "In dollars, as the platform reported it; null if it did not.",
    "tags": "Pairs that stand in the webhookURL, signed and readable, and in every event.",
    "metadata": "JSON of yours, which is kept and forwarded and stands in no URL.",
    "request": "What is sent to the platform, to look at later; its `ttl` dates media.",
    "submit_state": "How the submit went, as far as it is known.",
    "registered": "False: known from a callback alone.",
    "client_ref": "Whatever you call it.",
    "traceparent": "The trace that its deliveries are spans of (W3C Trace Context).",
    "deadline_at": "When it is overdue.",
    "give_up_at": "When what is missing is recorded as failed.",
    "completed_at": "When the last owed result came.",
    "expected_duration_s": "Half of the last tasks of its model took no longer, in seconds.",
    "revision": "Grows with each change; the `ETag` has it.",
    "webhook_url": "Put it into the platform's request as it is. It is a credential.",
    "may_submit": "Whether this call may submit the task: nobody else has, or will.",
    "was": "Change it only if the state is still this one.",
    "lease": "Keep others from submitting it meanwhile.",
    "lease_s": "Seconds for which nobody else gets them.",
    "lease_until": "When the lease lapses.",
    "due_by": "Only those that were due at this moment.",
    "platforms": "Of these alone; all of them when it is not named.",
    "polled": "Whether the platform was asked; if not, they are due again at once.",
    "TaskClaim.limit": "How many at most.",
    "TaskRelease.tasks": "Their ids.",
    # Results
    "key": "What tells it from the others of its task; what comes twice has the same.",
    "index": "The order of arrival, from 0.",
    "late": "It came after its task was complete.",
    "superseded": "It stood for a missed result, which then came late.",
    "conflicts": "How often it was told again with other content.",
    "media": "What was made.",
    "MediaView.url": "Where it is, for as long as the platform keeps it.",
    "MediaView.expires_at": "It is there until then at least; null if nobody knows.",
    "seed": "May be larger than 2^53.",
    "nsfw": "Whether the platform marks it as not safe for work.",
    "raw": "The platform's own item.",
    "category": "Ours, the same over all platforms.",
    "retryable": "Whether the same request may succeed another time.",
    "ErrorView.code": "The platform's.",
    # Callbacks
    "jti": "What its token is called; the token itself is kept nowhere.",
    "outcome": "What became of it.",
    "source": "Who told us.",
    "sha256": "Of the body, in hexadecimal digits.",
    "size": "In bytes.",
    "remote": "The address that it came from.",
    "repeats": "How often the same bytes came again.",
    "last_received_at": "When they came last.",
    "body": "As text; null in lists, and when it is not kept any more.",
    "body_exact": "Whether the text is what came, byte for byte.",
    "body_dropped_at": "When it went.",
    "Callback.reason": "Why it could not be taken, or not whole.",
    "Reprocessed.status": "What the door would have answered.",
    "Reprocessed.results": "How many results are new.",
    "Reprocess.dry_run": "Only say what would come of it.",
    # Endpoints
    "url": "Where events are posted; https.",
    "event_types": "Which events it gets; `*` at an end is a wildcard.",
    "filters": "What their tasks must be: a field, and a value or several, with the same wildcard.",
    "headers": "Sent along with each delivery.",
    "rate_limit": "Attempts a second; null for as many as there are.",
    "concurrency": "How many attempts may be under way at once.",
    "schedule": "Seconds before each attempt; null for the receiver's.",
    "signatures": "The schemes it is signed by; `v1` always.",
    "ordered": "A task's events one after the other.",
    "secret": "`whsec_` and base64; shown once, or one that you bring along.",
    "public_key": "What `v1a` signatures are verified with.",
    "overlap_s": "Seconds for which the secret before signs along.",
    "overlap_until": "Earlier secrets sign along until then.",
    "Endpoint.reason": "Why it is paused or disabled.",
    "Endpoint.state": "Whether deliveries go out; otherwise its queue is held.",
    "Endpoint.health": "How it fares.",
    "breaker": "Whether it is sent to at all.",
    "consecutive_failures": "Since the last 2xx.",
    "failing_since": "The first of these.",
    "held_until": "Nothing is sent before; may have passed.",
    "EndpointHealth.concurrency": "While it gets less at once than was set.",
    "last": "How many of the latest events are looked at.",
    # Events and deliveries
    "seq": "Its number in the order in which all were recorded.",
    "payload": "What endpoints are sent; null in lists.",
    "resent_at": "When somebody had it sent again; null the first time.",
    "ToldAgain.cursor": "Where to go on behind it.",
    "endpoint_deleted": "Then it can't be sent again.",
    "Delivery.state": "Where it stands.",
    "Delivery.attempts": "How many there were.",
    "next_attempt_at": "When it is due; null when it is settled.",
    "first_succeeded_at": "When a 2xx came first.",
    "settled_at": "When it succeeded, died or was canceled.",
    "last_error": "Why its last attempt failed.",
    "last_status": "What its last attempt was answered, if it was.",
    "last_detail": "The same in a sentence.",
    "attempt_log": "Its attempts as far as they are kept; on the single object alone.",
    "number": "The first is 1.",
    "duration_ms": "In milliseconds.",
    "Attempt.at": "When it began.",
    "Attempt.error": "Why it failed; null for a 2xx in time.",
    "Attempt.status": "What was answered; null if nothing was.",
    "Attempt.detail": "What happened, in a sentence.",
    "request_headers": "As they were sent, credentials redacted.",
    "response_body": "As text, up to 64 KiB.",
    "response_truncated": "There was more.",
    # Sending again
    "dry_run": "Only count; nothing is sent or dropped.",
    "missing": "Also what it wants today and was never meant for it.",
    "since": "Nothing from before this moment.",
    "until": "Nothing from this moment on.",
    "limit": "How many deliveries at most; the oldest events come first.",
    "total": "As counted before; null if it is not known.",
    "done": "How many were sent again so far.",
    "note": "What it waits for, or why it ended.",
    "asked": "What it is to send again.",
    "created": "Deliveries that were made.",
    "retried": "Deliveries that got a new round of attempts.",
    "Replayed.deliveries": "Their ids, those that wait included.",
    "Job.started_at": "When its first step was made.",
    "Job.finished_at": "When it was done, canceled or failed.",
    "Replayed.waiting": "On their way already, and left alone.",
    "more": "Ask again for the rest.",
    "complete": "Everything was counted; otherwise there are at least so many.",
    # Lists, and what is kept
    "ListedResults.data": "In the order of arrival.",
    "ListedCosts.total": "Over all groups, on the first page alone.",
    "next_cursor": "The `cursor` of the next page; null when there is none.",
    "PruneAsked.cursor": "The `next_cursor` of the answer before: goes on there.",
    "freed_bytes": "Given back to the file system.",
    "Cost.value": "The group's; null for what has none.",
    "without_cost": "Results whose platform named no cost.",
    # Events' bodies
    "timestamp": "When the event was recorded.",
    "type": "Of event.",
    "Problem.type": "`urn:reelhook:problem:` and the code.",
    "Problem.code": "Stable; programs go by it.",
    "host": "Of its URL.",
    # Times that mean what they say
    "created_at": "When it was made.",
    "received_at": "When it came.",
}


def explained(schemas: Mapping[str, Any]) -> dict[str, Any]:
    """The schemas with what each field means, where something is known and nothing is said yet."""
    return {name: _explained(name, schema) for name, schema in schemas.items()}


def _explained(name: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "properties" not in schema:
        return schema
    fields = {
        field: _said(FIELDS.get(f"{name}.{field}", FIELDS.get(field))) | found
        for field, found in schema["properties"].items()
    }
    return {**schema, "properties": fields}


def _said(meaning: str | None) -> dict[str, Any]:
    return {} if meaning is None else {"description": meaning}

"""What an answer to a poll says of its task: shapes, standings, what follows from two of them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from receiver.platforms.items import Kind
from receiver.platforms.runware import parse
from submitter.errors import KeyRefused, PlatformUnavailable
from submitter.platforms.answers import retry_after
from submitter.platforms.runware import snapshot_of
from submitter.platforms.snapshots import Snapshot, Standing, conclusion
from tests.make import OTHER, TASK, failure, processing, success

Json = dict[str, Any]


def fault(code: str, **more: Any) -> Json:
    """An error as the platform's error page shows it."""
    return {"code": code, "message": "A sentence."} | more


def said(body: Any, status: int = 200, **headers: str) -> Snapshot:
    """What an answer with this body says of TASK."""
    response = httpx.Response(status, json=body, headers=headers)
    return snapshot_of(response, response.content, TASK)


# The five shapes of platforms.md §1.5, and what stands in them.
SHAPES: dict[str, tuple[Any, list[Kind]]] = {
    "A": ({"errors": [failure()]}, [Kind.FAILED]),
    "B": ({"data": [], "errors": [fault("timeoutProvider", taskUUID=TASK)]}, [Kind.FAILED]),
    "C": (
        {"data": [{"taskUUID": TASK, "status": "error", "error": fault("missingPositivePrompt")}]},
        [Kind.FAILED],
    ),
    "D": (
        {"data": [success(1), success(2)], "errors": [fault("safety", taskUUID=TASK)]},
        [Kind.SUCCEEDED, Kind.SUCCEEDED, Kind.FAILED],
    ),
    "E": ({"error": fault("providerError"), "taskUUID": TASK}, [Kind.FAILED]),
    "E, listed": (
        {"error": [fault("providerError"), fault("timeout")], "taskUUID": TASK},
        [Kind.FAILED, Kind.FAILED],
    ),
    "flat": (failure(), [Kind.FAILED]),
    "bare list": ([success(), processing()], [Kind.SUCCEEDED, Kind.PROGRESS]),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("status", [200, 400])
def test_every_shape_is_a_snapshot_with_its_bytes(shape: str, status: int) -> None:
    body, kinds = SHAPES[shape]
    snapshot = said(body, status)
    assert (snapshot.standing, snapshot.known) == (Standing.WHOLE, True)
    assert snapshot.results == sum(kind is not Kind.PROGRESS for kind in kinds)
    assert snapshot.body == body
    # The receiver reads the same of it.
    assert [item.kind for item in parse(json.loads(snapshot.content), TASK)] == kinds


@pytest.mark.parametrize(
    ("codes", "standing", "known"),
    [
        (["taskNotFound"], Standing.ABSENT, False),
        (["taskNotFound", "taskNotFound"], Standing.ABSENT, False),
        # It may have failed, or be unknown: neither may be concluded, nor sent again.
        (["taskFailedOrNotFound"], Standing.ABSENT, True),
        (["taskExpired", "taskNotFound"], Standing.ABSENT, True),
        (["taskExpired"], Standing.OVER, True),
        (["mediaExpired", "mediaExpired"], Standing.OVER, True),
        (["taskCancelled"], Standing.OVER, True),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_what_is_not_there_any_more_is_told_apart_from_what_never_was(
    codes: list[str], standing: Standing, known: bool, named: bool
) -> None:
    owner = {"taskUUID": TASK} if named else {}
    snapshot = said({"errors": [fault(code, **owner) for code in codes]}, 400)
    assert (snapshot.standing, snapshot.known) == (standing, known)
    assert not snapshot.has_results


@pytest.mark.parametrize("rest", [success(), processing(), failure()])
def test_a_snapshot_can_lack_a_part(rest: Json) -> None:
    snapshot = said({"data": [rest], "errors": [fault("mediaExpired", taskUUID=TASK)]})
    assert (snapshot.standing, snapshot.known) == (Standing.LACKING, True)
    assert snapshot.has_results == (rest["status"] != "processing")


@pytest.mark.parametrize(
    ("status", "errors"),
    [
        (401, []),
        (401, [fault("whoKnows", taskUUID=TASK)]),
        (200, [fault("invalidApiKey", taskType="authentication")]),
        (400, [fault("accountSuspended")]),
        (403, [fault("permissionDenied", taskUUID=TASK)]),
    ],
)
def test_a_refused_key_is_told_apart(status: int, errors: list[Json]) -> None:
    with pytest.raises(KeyRefused, match="RUNWARE_API_KEY"):
        said({"errors": errors}, status)


@pytest.mark.parametrize(
    ("status", "body", "known_as"),
    [
        (403, "<html>", 403),
        (429, {"errors": [fault("rateLimitExceeded", taskUUID=TASK)]}, 429),
        (400, {"errors": [fault("rateLimitExceeded")]}, 429),
        (500, {"errors": [fault("taskNotFound", taskUUID=TASK)]}, 500),
        (503, {"data": [success()]}, 503),
        (200, {"data": [success(task=OTHER)]}, 200),
        (200, {"message": "hello"}, 200),
        (200, [], 200),
        (200, None, 200),
    ],
)
def test_what_says_nothing_of_the_task_says_how_it_was_meant(
    status: int, body: Any, known_as: int
) -> None:
    with pytest.raises(PlatformUnavailable) as caught:
        said(body, status)
    assert type(caught.value) is PlatformUnavailable
    assert caught.value.http_status == known_as


def test_a_result_that_failed_by_a_limit_is_the_tasks_own() -> None:
    snapshot = said({"errors": [fault("providerRateLimitExceeded", taskUUID=TASK)]})
    assert (snapshot.standing, snapshot.results) == (Standing.WHOLE, 1)


WHOLE = said({"data": [success(1), success(2)]})
PARTLY = said({"data": [success(1)], "errors": [fault("mediaExpired", taskUUID=TASK)]})
WORKING = said({"data": [processing()]})
OVER = said({"errors": [fault("taskExpired", taskUUID=TASK)]})
ABSENT = said({"errors": [fault("taskNotFound", taskUUID=TASK)]})


@pytest.mark.parametrize(
    ("now", "archived", "found"),
    [
        (ABSENT, WHOLE, WHOLE),
        (OVER, WHOLE, WHOLE),
        (PARTLY, WHOLE, WHOLE),
        (OVER, PARTLY, PARTLY),
        (OVER, WORKING, WORKING),
        (PARTLY, WORKING, PARTLY),
        (PARTLY, PARTLY, PARTLY),
        (PARTLY, OVER, PARTLY),
        (PARTLY, ABSENT, PARTLY),
        (OVER, OVER, OVER),
        (OVER, ABSENT, None),
        (ABSENT, OVER, None),
        (ABSENT, ABSENT, None),
        # Where there is no archive, what is said now is all there is.
        (PARTLY, None, PARTLY),
        (OVER, None, OVER),
        (ABSENT, None, None),
    ],
)
def test_a_task_is_over_only_where_both_say_so(
    now: Snapshot, archived: Snapshot | None, found: Snapshot | None
) -> None:
    assert conclusion(now, archived) is found


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "9" * 400}, None),
        (
            {
                "retry-after": "Fri, 20 Nov 2026 23:59:40 GMT",
                "date": "Fri, 20 Nov 2026 23:59:10 GMT",
            },
            30,
        ),
        (
            {
                "retry-after": "Fri, 20 Nov 2026 23:59:10 GMT",
                "date": "Fri, 20 Nov 2026 23:59:40 GMT",
            },
            0,
        ),
        ({"retry-after": "Fri, 20 Nov 1998 23:59:10 GMT"}, 0),
        ({"retry-after": "Fri, 20 Nov 2026 23:59:10"}, None),
        ({"retry-after": "Fri, 31 Nov 2026 23:59:10 GMT"}, None),
    ],
)
def test_a_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: int | None) -> None:
    assert retry_after(httpx.Response(429, headers=headers)) == seconds

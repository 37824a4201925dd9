"""A receiver as its own process, with a past, against what it says of itself.

Schemathesis makes requests out of the description, well-formed ones and others, for things that are
there and things that are not. None is answered with a 5xx, and each as the description has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from receiver.events import TYPES
from receiver.payloads import PAYLOADS
from tests.doubles import ADMIN_TOKEN, LIMIT_S, running
from tests.make import uuid
from tests.receiver.history import Past, lived
from tests.receiver.test_openapi import DOCUMENT

EXAMPLES: Final = 12  # of each operation, well-formed and not; the whole takes a minute
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
AUTHORIZED: Final = {"authorization": f"Bearer {ADMIN_TOKEN}"}

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Past]]:
    """Where a receiver is, and what happened there."""
    folder = tmp_path_factory.mktemp("openapi")
    environ = {"REELHOOK_ALLOW_NETWORKS": "127.0.0.0/8"}
    with HTTPServer("127.0.0.1") as consumer, running(folder, **environ) as found:
        for status in (204, 410, 500):
            consumer.expect_request(f"/{status}").respond_with_data(status=status)
        url = found.ready["url"]
        with httpx.Client(base_url=url, headers=AUTHORIZED, timeout=LIMIT_S) as api:
            yield url, lived(api, consumer.url_for("").rstrip("/"))


def test_events_are_what_is_said_of_them(past: tuple[str, Past]) -> None:
    seen = {event["type"] for event in past[1].events}
    assert seen == {*TYPES}
    for event in past[1].events:
        told = event["payload"]
        found = PAYLOADS[told["type"]].model_validate(told)
        assert comparable(found.model_dump(mode="json", exclude_unset=True)) == comparable(told)


def comparable(part: Any) -> Any:
    """A payload with times as short as they can be, however many zeros they were written with."""
    if isinstance(part, Mapping):
        return {key: comparable(value) for key, value in part.items()}
    if isinstance(part, list):
        return [comparable(one) for one in part]
    if isinstance(part, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", part):
        return part.removesuffix("Z").rstrip("0")
    return part


def operations() -> list[Any]:
    """Every operation, asked well and asked badly; what takes things away comes last."""
    order = ["get", "patch", "put", "post", "delete"]
    found = [
        (path.startswith("/v1"), order.index(method), mode.is_negative, path, method, mode)
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
        for mode in GenerationMode
        if mode.is_positive or operation.get("parameters") or "requestBody" in operation
    ]
    return [
        pytest.param(path, method, mode, id=f"{method} {path} {mode.value}")
        for *_, path, method, mode in sorted(found)
    ]


def there(path: str, past: Past) -> st.SearchStrategy[str | None]:
    """An id of something that is there, or None: whatever is made up."""
    kind = re.match(r"/v1/([a-z-]+)/{id}", path)
    known = past.ids.get(kind[1], ()) if kind else ()
    return st.sampled_from([None, *known, *known])


# What is right in more ways than a schema can say; half of the well-formed requests have it.
REAL: Final[Mapping[str, Any]] = {
    "url": "https://example.com/hook",
    "event_types": ["result.*"],
    "filters": {"platform": "runware"},
    "headers": {"x-team": "film"},
    "secret": None,
    "tags": {"team": "film"},
    "since": "2026-01-01T00:00:00Z",
    "until": "2026-12-31T00:00:00Z",
    "due_by": None,
    "deadline_at": None,
    "give_up_at": None,
    "tasks": [uuid(1)],
    "lease_until": "2026-12-31T00:00:00Z",
    "cursor": None,
    "endpoint": None,
    "task": uuid(1),
    "tag": "team=film",
    "by": "tag:team",
    "wait": "0.01",
}


def mended(part: Any) -> Any:
    """A query or a body with what is right in it, and without what need not be there."""
    if not isinstance(part, dict):
        return part
    known = {name: REAL[name] for name in part.keys() & REAL.keys()}
    return {name: value for name, value in (part | known).items() if value is not None}


@pytest.mark.parametrize(("path", "method", "mode"), operations())
def test_answers_are_what_is_said_of_them(
    past: tuple[str, Past], path: str, method: str, mode: GenerationMode
) -> None:
    url, before = past
    operation = schemathesis.openapi.from_dict(DOCUMENT)[path][method]

    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[*HealthCheck],
        deadline=None,
        derandomize=True,
        database=None,
    )
    @given(
        case=operation.as_strategy(generation_mode=mode),
        known=there(path, before),
        mend=st.booleans() if mode.is_positive else st.just(False),
    )
    def ask(case: schemathesis.Case[Any], known: str | None, mend: bool) -> None:
        if known is not None:
            case.path_parameters["id"] = known
        if "wait" in (case.query or {}) or path.endswith(
            "/stream"
        ):  # which would go on for an hour
            case.query = {**(case.query or {}), "wait": "0.01"}
        if mend:
            case.query, case.body = mended(case.query), mended(case.body)
        if mend and path.startswith("/webhooks/"):
            case.query = dict(before.door)
        case.call_and_validate(url, headers=AUTHORIZED, checks=CHECKS)

    ask()

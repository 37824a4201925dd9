"""Floor 0, nouns: refusals as RFC 9457 problem details. Pure."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final

REQUEST_ID: Final = "reelhook.request_id"  # where a request's scope says what the log calls it
MEDIA_TYPE: Final = "application/problem+json"


def problem(status: int, code: str, detail: str, **members: Any) -> bytes:
    """The body of a refusal; `code` is stable, `detail` says what to do."""
    body = {
        "type": f"urn:reelhook:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        **members,
    }
    return json.dumps(body).encode()

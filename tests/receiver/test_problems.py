"""Refusals as RFC 9457 problem details."""

from __future__ import annotations

import json

from receiver.problems import MEDIA_TYPE, problem


def test_a_problem_has_the_members_of_the_rfc_a_code_and_the_evidence() -> None:
    assert MEDIA_TYPE == "application/problem+json"
    assert json.loads(problem(409, "conflict", "Another one.", expected=4)) == {
        "type": "urn:reelhook:problem:conflict",
        "title": "Conflict",
        "status": 409,
        "code": "conflict",
        "detail": "Another one.",
        "expected": 4,
    }


def test_a_problem_takes_any_text() -> None:
    assert json.loads(problem(404, "not_found", "\ud800\x00ä"))["detail"] == "\ud800\x00ä"

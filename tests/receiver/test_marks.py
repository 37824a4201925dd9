"""What rows of the dashboard are made of: it escapes by itself, since it is no template."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from markupsafe import Markup

from receiver.admin.dashboard import marks, rows
from receiver.callbacks import Callback, Outcome
from receiver.deliveries import Delivery, State
from receiver.events import Event
from receiver.figures import HealthHour
from receiver.tasks import Status, Task

HOSTILE = """<script>alert(1)</script>" onload='alert(2)' &"""
AT = datetime(2026, 11, 28, 4, 39, 12, 345_000, UTC)


@pytest.mark.parametrize(
    "made",
    [
        marks.icon(HOSTILE),
        marks.badge(HOSTILE),
        marks.badge("dead", HOSTILE),
        marks.ident(HOSTILE),
        marks.ident("1", HOSTILE),
        marks.ident(HOSTILE, HOSTILE, whole=True),
        marks.copy(HOSTILE, HOSTILE),
        marks.copyable(HOSTILE, HOSTILE),
        marks.kind(HOSTILE),
        marks.tags({HOSTILE: HOSTILE}),
    ],
)
def test_nothing_that_a_stranger_wrote_is_markup(made: Markup) -> None:
    assert isinstance(made, Markup)
    assert "<script" not in made
    assert '" onload' not in made
    assert "'alert" not in made
    assert "&amp;" in made


def test_a_state_that_is_not_known_has_an_icon_of_ours() -> None:
    assert marks.sign(HOSTILE) == marks.icon("dot")


def test_a_cause_is_text_which_the_template_escapes() -> None:
    assert not isinstance(marks.cause(HOSTILE, 500), Markup)
    assert marks.cause("bad_status", 500) == "bad status 500"
    assert marks.cause("timeout") == "timeout"


def test_the_name_of_a_request_is_as_short_as_that_of_a_task() -> None:
    name = "0123456789abcdef" * 2
    assert marks.ident(name) == f'<code class="id" title="{name}">01234567</code>'


def test_what_could_be_tried_already_is_due_and_not_in_the_past() -> None:
    def shown(seconds: int) -> str:
        return marks.due(AT + timedelta(seconds=seconds), AT).striptags()

    assert [shown(20), shown(0), shown(-780)] == ["in 20s", "due now", "due 13m ago"]
    assert marks.due(None, AT) == marks.NONE


def test_a_moment_is_in_utc_to_the_millisecond_for_programs() -> None:
    elsewhere = AT.astimezone(timezone(timedelta(hours=-8)))
    iso = "2026-11-28T04:39:12.345Z"
    shown = f'<time datetime="{iso}" title="{iso}" data-when>2026-11-28 04:39:12</time>'
    assert marks.when(elsewhere) == shown
    assert marks.since(elsewhere, AT + timedelta(hours=3)) == (
        f'<time datetime="{iso}" title="2026-11-28 04:39:12 UTC">3h ago</time>'
    )
    assert marks.when(None) == marks.since(None, AT) == marks.ident(None) == marks.NONE


def test_an_hour_has_a_bar_for_what_succeeded_and_one_for_what_failed() -> None:
    hours = [
        HealthHour(at=AT, succeeded=succeeded, failed=failed)
        for succeeded, failed in ((3, 1), (0, 2), (1, 0), (0, 0))
    ]
    strip = marks.strip(hours)
    assert strip.count('class="ground"') == 4
    assert strip.count('class="good"') == strip.count('class="bad"') == 2
    assert "2026-11-28 04:39:12 UTC: 3 succeeded, 1 failed" in strip
    assert 'aria-label="4 attempts succeeded and 3 failed in the last 4 hours"' in strip
    assert 'width="23" height="22"' in strip
    assert 'class="strip tall" viewBox="0 0 75 64"' in marks.strip(hours, tall=True)


def test_a_row_escapes_whatever_a_stranger_wrote() -> None:
    strange = ("platform", "model", "remote", "reason", "project", "type", "event_type")
    facts: dict[str, Any] = dict.fromkeys((*strange, "last_error"), HOSTILE)
    facts |= {"id": "x_1", "created_at": AT, "received_at": AT, "task_id": None, "source": "poll"}
    facts |= {"expected": 2, "received": 0, "succeeded": 0, "overdue": True, "cost": None}
    facts |= {"completed_at": None, "tags": {HOSTILE: HOSTILE}, "size": 9, "repeats": 0, "seq": 1}
    facts |= {"endpoint_id": "ep_1", "attempts": 12, "last_status": 500, "next_attempt_at": None}
    task = Task.model_construct(**{**facts, "status": Status.PENDING})
    callback = Callback.model_construct(**{**facts, "outcome": Outcome.QUARANTINED})
    event = Event.model_construct(**facts)
    delivery = Delivery.model_construct(**{**facts, "state": State.DEAD})
    made = (
        rows.task_row(task, AT),
        rows.callback_row(callback),
        rows.event_row(event),
        rows.delivery_row(delivery, AT, {"ep_1": f"https://example.com/{HOSTILE}"}),
    )
    for row in made:
        assert row.count("<script") == row.count('" onload') == row.count("'alert") == 0
        assert row.count("&lt;script&gt;") >= 2
    assert "</b> of 2</span>" in made[0]
    assert "</svg>overdue</span>" in made[0]
    assert ">example.com/" in made[3]

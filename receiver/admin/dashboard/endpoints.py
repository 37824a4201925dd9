"""Floor 4, doors: the dashboard's pages of endpoints: how they fare, and all that is done by hand.

A secret stands on the answer to the form that made it and nowhere else: not in a cookie, not in a
URL. Starlette and pydantic only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from pydantic import ValidationError
from starlette.responses import Response

from receiver.access import ADMINS
from receiver.admin.dashboard.forms import BLANK, Fields, fields_of, problem_of, spec_in
from receiver.admin.dashboard.pages import PageRow, Visit
from receiver.admin.ops import Begun, Ops, Query
from receiver.admin.routes.parameters import QUERY
from receiver.clock import to_datetime
from receiver.endpoints import (
    Endpoint,
    EndpointAsked,
    EndpointPatch,
    Preview,
    PreviewAsked,
    RotateAsked,
    State,
)
from receiver.errors import Invalid, Refusal
from receiver.events import OPERATIONAL, TYPES
from receiver.repair import LOOK_BACK, Counted, RecoverAsked

LISTED: Final = 10  # deliveries that an endpoint's page shows; the rest has its own list
PATIENCE: Final = 10.0  # seconds that a test's attempt is waited for
ADDING: Final = "/paths/~1v1~1endpoints/post"  # a form's twin is what it would be posted to
RECOVERY: Final = "/v1/endpoints/{id}/recover"
MOVES: Final = {
    "pause": (State.PAUSED, "It is paused: its queue is held."),
    "resume": (State.ENABLED, "It is enabled: its queue goes on."),
    "disable": (State.DISABLED, "It is disabled: its queue is held."),
}


class EndpointPages:
    """Registered downstream callbacks."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[PageRow]:
        """Its pages and forms."""
        return (
            PageRow("GET", "/endpoints", self._endpoints, "/v1/endpoints"),
            PageRow("GET", "/endpoints/new", self._new, "/openapi.json", ADMINS, part=ADDING),
            PageRow("POST", "/endpoints/new", self._add),
            PageRow("GET", "/endpoints/{id}", self._endpoint, "/v1/endpoints/{id}/health"),
            PageRow("GET", "/endpoints/{id}/edit", self._edit, "/v1/endpoints/{id}", ADMINS),
            PageRow("POST", "/endpoints/{id}/edit", self._change, "/v1/endpoints/{id}"),
            PageRow("POST", "/endpoints/{id}/test", self._test),
            *(PageRow("POST", f"/endpoints/{{id}}/{move}", self._move) for move in MOVES),
            PageRow("POST", "/endpoints/{id}/rotate-secret", self._rotate),
            PageRow("GET", "/endpoints/{id}/recover", self._recovery, RECOVERY),
            PageRow("POST", "/endpoints/{id}/recover", self._recover),
            PageRow("POST", "/endpoints/{id}/cancel", self._cancel),
            PageRow("POST", "/endpoints/{id}/delete", self._delete),
        )

    async def _endpoints(self, visit: Visit) -> Response:
        page = await self._ops.endpoints(visit.who, visit.query)
        reports = await self._ops.endpoint_reports(visit.who, [one.id for one in page.data])
        return visit.show("endpoints.html", page=page, reports=reports)

    async def _endpoint(self, visit: Visit) -> Response:
        endpoint = await self._ops.endpoint(visit.who, visit.id())
        report = await self._ops.endpoint_report(visit.who, endpoint.id)
        about = Query(endpoint=endpoint.id, limit=LISTED)
        return visit.show(
            "endpoint.html",
            endpoint=endpoint,
            report=report,
            deliveries=await self._ops.deliveries(visit.who, about),
            since=to_datetime(visit.now) - LOOK_BACK,
        )

    # Adding and changing

    async def _new(self, visit: Visit) -> Response:
        return self._form(visit, None, BLANK)

    async def _edit(self, visit: Visit) -> Response:
        endpoint = await self._ops.endpoint(visit.who, visit.id())
        return self._form(visit, endpoint, fields_of(endpoint))

    def _form(
        self,
        visit: Visit,
        endpoint: Endpoint | None,
        fields: Fields,
        status: int = 200,
        problem: tuple[str, str] = ("", ""),
        preview: Preview | None = None,
    ) -> Response:
        return visit.show(
            "endpoint_form.html",
            status,
            endpoint=endpoint,
            fields={**BLANK, **fields},
            field=problem[0],
            problem=problem[1],
            preview=preview,
            types=[kind for kind in TYPES if kind not in OPERATIONAL],
            operational=sorted(OPERATIONAL),
        )

    async def _add(self, visit: Visit) -> Response:
        form = visit.form
        try:
            if form.get("do") == "preview":
                return await self._previewed(visit, None)
            given = {**spec_in(form), "secret": form.get("secret", "").strip() or None}
            asked = EndpointAsked.model_validate(given)
            project = _project(form.get("project", "").strip())
            endpoint = await self._ops.add_endpoint(visit.who, asked, project)
        except (Refusal, ValidationError) as error:
            return self._form(visit, None, form, 422, problem_of(error))
        return visit.show("secret.html", endpoint=endpoint, is_new=True, overlap_s=0)

    async def _change(self, visit: Visit) -> Response:
        endpoint = await self._ops.endpoint(visit.who, visit.id())
        try:
            if visit.form.get("do") == "preview":
                return await self._previewed(visit, endpoint)
            patch = EndpointPatch.model_validate(spec_in(visit.form))
            await self._ops.change_endpoint(visit.who, endpoint.id, patch)
        except (Refusal, ValidationError) as error:
            return self._form(visit, endpoint, visit.form, 422, problem_of(error))
        return visit.go(f"/endpoints/{endpoint.id}", "It is changed.")

    async def _previewed(self, visit: Visit, endpoint: Endpoint | None) -> Response:
        given = spec_in(visit.form)
        asked = PreviewAsked(event_types=given["event_types"], filters=given["filters"])
        project = _project(visit.form.get("project", "")) if endpoint is None else endpoint.project
        preview = await self._ops.preview(visit.who, asked, project)
        return self._form(visit, endpoint, visit.form, preview=preview)

    # What is done by hand

    async def _test(self, visit: Visit) -> Response:
        delivery = await self._ops.test_endpoint(visit.who, visit.id(), PATIENCE)
        return visit.go(f"/deliveries/{delivery.id}", "A test was sent.")

    async def _move(self, visit: Visit) -> Response:
        state, notice = MOVES[visit.path.rpartition("/")[2]]
        endpoint = await self._ops.move_endpoint(visit.who, visit.id(), state)
        return visit.go(f"/endpoints/{endpoint.id}", notice)

    async def _rotate(self, visit: Visit) -> Response:
        hours = visit.form.get("overlap_h", "24")
        try:
            overlap_s = round(float(hours) * 3_600)
            asked = RotateAsked(overlap_s=overlap_s)
        except (ValueError, OverflowError):
            raise Invalid("The time that the earlier secret signs along is 0 to 168 h.") from None
        endpoint = await self._ops.rotate_secret(visit.who, visit.id(), asked)
        return visit.show("secret.html", endpoint=endpoint, is_new=False, overlap_s=overlap_s)

    async def _recovery(self, visit: Visit) -> Response:
        endpoint = await self._ops.endpoint(visit.who, visit.id())
        asked, counted = _recovery_in(visit.given), None
        if asked is not None:
            counted = cast(Counted, await self._ops.recover(visit.who, endpoint.id, asked, None))
        since = to_datetime(visit.now) - LOOK_BACK if asked is None else asked.since
        return visit.show(
            "recover.html", endpoint=endpoint, asked=asked, counted=counted, since=since
        )

    async def _recover(self, visit: Visit) -> Response:
        asked = _recovery_in(visit.form)
        if asked is None:
            raise Invalid("A recovery begins at a moment: say since when.", parameter="since")
        asked = asked.model_copy(update={"dry_run": False})
        begun = cast(Begun, await self._ops.recover(visit.who, visit.id(), asked, None))
        notice = None if begun.new else "The same job was under way already."
        return visit.go(f"/jobs/{begun.job.id}", notice)

    async def _cancel(self, visit: Visit) -> Response:
        found = await self._ops.cancel_queue(visit.who, visit.id())
        notice = f"{found.canceled:,} deliveries are canceled."
        if found.more:
            notice += " There are more: cancel again."
        return visit.go(f"/endpoints/{visit.id()}", notice)

    async def _delete(self, visit: Visit) -> Response:
        await self._ops.delete_endpoint(visit.who, visit.id())
        return visit.go("/endpoints", "The endpoint is gone, and what waited for it is canceled.")


def _recovery_in(given: Fields) -> RecoverAsked | None:
    """What a form asks to be recovered; None while it says no time. Raises Invalid."""
    if not given.get("since"):
        return None
    times: dict[str, Any] = {
        name: to_datetime(QUERY[name].read(given[name], name))
        for name in ("since", "until")
        if given.get(name)
    }
    return RecoverAsked(**times, missing=given.get("missing") == "true")


def _project(text: str) -> str | None:
    return QUERY["project"].read(text, "project") if text else None

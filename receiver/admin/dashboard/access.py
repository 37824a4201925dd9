"""Floor 4, doors: the dashboard's pages of access: API tokens, and what was done by hand.

A token's text stands on the answer to the form that made it, and nowhere else. Starlette, pydantic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydantic import ValidationError
from starlette.responses import Response

from receiver.access import Action, ApiTokenAsked, Scope
from receiver.admin.dashboard.forms import Fields, problem_of
from receiver.admin.dashboard.pages import PageRow, Visit
from receiver.admin.ops import Ops
from receiver.admin.routes.parameters import QUERY
from receiver.clock import to_datetime
from receiver.errors import Refusal

BLANK: Final[Fields] = {"name": "", "scope": "", "project": "", "expires_at": ""}
# Where an audit row's target has a page, by the beginning of its action.
PLACES: Final = {
    "task": "/tasks/",
    "callback": "/callbacks/",
    "endpoint": "/endpoints/",
    "event": "/events/",
    "delivery": "/deliveries/",
    "job": "/jobs/",
}
GONE: Final = frozenset(
    {Action.TASK_DELETE, Action.CALLBACK_DELETE, Action.ENDPOINT_DELETE, Action.API_TOKEN_DELETE}
)


class AccessPages:
    """Who may do what, and who did it."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[PageRow]:
        """Its pages and forms."""
        return (
            PageRow("GET", "/audit", self._audit, "/v1/audit"),
            PageRow("GET", "/tokens", self._tokens, "/v1/api-tokens"),
            PageRow("POST", "/tokens", self._add, "/v1/api-tokens"),
            PageRow("POST", "/tokens/{id}/delete", self._delete),
        )

    async def _audit(self, visit: Visit) -> Response:
        page = await self._ops.audit(visit.who, visit.query)
        return visit.show("audit.html", page=page, actions=[*Action], place=place_of)

    async def _tokens(self, visit: Visit) -> Response:
        return await self._listed(visit, BLANK)

    async def _listed(
        self, visit: Visit, fields: Fields, status: int = 200, problem: tuple[str, str] = ("", "")
    ) -> Response:
        page = await self._ops.api_tokens(visit.who, visit.query)
        return visit.show(
            "tokens.html",
            status,
            page=page,
            fields={**BLANK, **fields},
            field=problem[0],
            problem=problem[1],
            scopes=[*Scope],
        )

    async def _add(self, visit: Visit) -> Response:
        try:
            token = await self._ops.add_api_token(visit.who, _asked(visit.form))
        except (Refusal, ValidationError) as error:
            return await self._listed(visit, visit.form, 422, problem_of(error))
        return visit.show("token.html", token=token)

    async def _delete(self, visit: Visit) -> Response:
        await self._ops.delete_api_token(visit.who, visit.id())
        return visit.go("/tokens", "The token opens nothing any more.")


def _asked(form: Fields) -> ApiTokenAsked:
    """What a form asks for. Raises Invalid, or pydantic's ValidationError."""
    expires_at = form.get("expires_at", "")
    return ApiTokenAsked.model_validate(
        {
            "name": form.get("name", "").strip(),
            "scope": form.get("scope", ""),
            "project": form.get("project", "").strip() or None,
            "expires_at": to_datetime(QUERY["until"].read(expires_at, "expires_at"))
            if expires_at
            else None,
        }
    )


def place_of(action: str, target: str | None) -> str | None:
    """The page of an audit row's target, if it has one and is still there."""
    place = PLACES.get(action.partition(".")[0])
    return None if place is None or target is None or action in GONE else place + target

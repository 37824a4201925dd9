"""Floor 4, doors: the route that makes a link for a browser to log in with. Starlette only."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from receiver.access import READERS
from receiver.admin.ops import Ops, Principal
from receiver.admin.routes.answers import shown
from receiver.admin.routes.rows import Row
from receiver.sessions import LoginLink


class LoginRoutes:
    """Into the dashboard."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[Row]:
        """Every route."""
        return (
            Row(
                "POST",
                "/v1/login-links",
                self._new,
                READERS,
                "Make a link that logs in to the dashboard, once",
                answers={201: LoginLink},
            ),
        )

    async def _new(self, who: Principal, _request: Request) -> Response:
        return shown(await self._ops.new_login_link(who), 201)

"""Floor 4, doors: the routes of API tokens and the audit log. Starlette only."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from receiver.access import ADMINS, ApiToken, ApiTokenAsked, AuditEntry, NewApiToken
from receiver.admin.ops import Ops, Principal
from receiver.admin.routes.answers import listed, shown
from receiver.admin.routes.requests import body_of, query_of
from receiver.admin.routes.rows import Listed, Row


class AccessRoutes:
    """Who may do what, and who did it."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[Row]:
        """Every route."""
        return (
            Row(
                "GET",
                "/v1/api-tokens",
                self._tokens,
                ADMINS,
                "List API tokens",
                query="project",
                answers={200: Listed[ApiToken]},
            ),
            Row(
                "POST",
                "/v1/api-tokens",
                self._add_token,
                ADMINS,
                "Make an API token; the answer alone has its text",
                body=ApiTokenAsked,
                answers={201: NewApiToken},
            ),
            Row(
                "DELETE",
                "/v1/api-tokens/{id}",
                self._delete_token,
                ADMINS,
                "Revoke an API token",
                answers={204: None},
            ),
            Row(
                "GET",
                "/v1/audit",
                self._audit,
                ADMINS,
                "What was done by hand, and by whom",
                query="actor action target project since until",
                answers={200: Listed[AuditEntry]},
            ),
        )

    async def _tokens(self, who: Principal, request: Request) -> Response:
        return listed(await self._ops.api_tokens(who, query_of(request)))

    async def _add_token(self, who: Principal, request: Request) -> Response:
        asked = await body_of(request, ApiTokenAsked)
        return shown(await self._ops.add_api_token(who, asked), 201)

    async def _delete_token(self, who: Principal, request: Request) -> Response:
        await self._ops.delete_api_token(who, request.path_params["id"])
        return Response(status_code=204)

    async def _audit(self, who: Principal, request: Request) -> Response:
        return listed(await self._ops.audit(who, query_of(request)))

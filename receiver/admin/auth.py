"""Floor 4, doors: who is asking. Starlette only."""

from __future__ import annotations

import hmac
from dataclasses import replace
from typing import Final

from starlette.requests import Request

from receiver.access import PREFIX
from receiver.admin.ops import ADMIN, Ops, Principal
from receiver.admin.sessions import SAFE, Sessions
from receiver.errors import Unauthenticated
from receiver.problems import REQUEST_ID

PRINCIPAL: Final = "reelhook.principal"  # where a request's scope says who asked, for its line
MAX_REMOTE: Final = 64  # characters; IPv6 takes 45


class Auth:
    """Knows the admin token and sessions, and asks the store for API tokens."""

    def __init__(self, ops: Ops, admin_token: str, sessions: Sessions) -> None:
        self._ops = ops
        self._admin_token = admin_token.encode()
        self._sessions = sessions

    async def principal(self, request: Request) -> Principal:
        """Who asks. Raises Unauthenticated; loopback is no credential, tunnels end there.

        A browser that is logged in may look at what its pages show, and no more: what changes
        something through the API needs a token, which no other site's page can make it send.
        """
        return asking(await self._principal(request), request)

    async def _principal(self, request: Request) -> Principal:
        given = request.headers.get("authorization")
        if given is None and request.method in SAFE:
            visitor = await self._sessions.of(request)
            if visitor is not None:
                return visitor.who
        scheme, _, token = (given or "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated
        return await self.known(token.strip())

    async def check(self, who: Principal) -> None:
        """Raises Unauthenticated for somebody who was let in, and would not be any more."""
        if not await self._ops.is_still(who):
            raise Unauthenticated("The token or the session that you came with is no more.")

    async def known(self, token: str) -> Principal:
        """Whose token this is: the admin's, or an API token. Raises Unauthenticated."""
        found = await self._ops.holder(token) if token.startswith(PREFIX) else None
        if found is not None:
            return found
        is_admin = hmac.compare_digest(token.encode(), self._admin_token)
        if not is_admin or not self._admin_token:
            raise Unauthenticated
        return ADMIN


def asking(who: Principal, request: Request) -> Principal:
    """Somebody by this request: what it is called, and the address that it came from."""
    return replace(who, request_id=request_id_of(request), remote=remote_of(request))


def remote_of(request: Request) -> str:
    """The peer's address. A proxy's word, so it has a bound."""
    return request.client.host[:MAX_REMOTE] if request.client else "-"


def request_id_of(request: Request) -> str | None:
    """How a request is called in the log, in its answer, and in what it leaves behind."""
    found: str | None = request.scope.get(REQUEST_ID)
    return found

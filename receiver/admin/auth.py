"""Floor 4, doors: who is asking. Starlette only."""

from __future__ import annotations

import hmac
from typing import Final

from starlette.requests import Request

from receiver.admin.ops import Principal
from receiver.admin.sessions import SAFE, Sessions
from receiver.errors import Unauthenticated

PRINCIPAL: Final = "reelhook.principal"  # where a request's scope says who asked, for its line


class Auth:
    """Knows the admin token and sessions; API tokens with a scope and a project join it later."""

    def __init__(self, admin_token: str, sessions: Sessions) -> None:
        self._admin_token = admin_token.encode()
        self._sessions = sessions

    async def principal(self, request: Request) -> Principal:
        """Who asks. Raises Unauthenticated; loopback is no credential, tunnels end there.

        A browser that is logged in may look at what its pages show, and no more: what changes
        something through the API needs a token, which no other site's page can make it send.
        """
        given = request.headers.get("authorization")
        if given is None and request.method in SAFE:
            session = await self._sessions.of(request)
            if session is not None:
                return Principal(session.name)
        scheme, _, token = (given or "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated
        return self.known(token.strip())

    def known(self, token: str) -> Principal:
        """Whose token this is. Raises Unauthenticated."""
        known = hmac.compare_digest(token.encode(), self._admin_token)
        if not known or not self._admin_token:
            raise Unauthenticated
        return Principal("admin")

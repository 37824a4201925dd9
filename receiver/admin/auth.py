"""Floor 4, doors: who is asking. Starlette only."""

from __future__ import annotations

import hmac
from typing import Final

from starlette.requests import Request

from receiver.admin.ops import Principal
from receiver.errors import Unauthenticated

PRINCIPAL: Final = "reelhook.principal"  # where a request's scope says who asked, for its line


class Auth:
    """Knows the admin token; API tokens with a scope and a project join it later."""

    def __init__(self, admin_token: str) -> None:
        self._admin_token = admin_token.encode()

    def principal(self, request: Request) -> Principal:
        """Who asks. Raises Unauthenticated; loopback is no credential, tunnels end there."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = token.strip().encode()
        known = hmac.compare_digest(given, self._admin_token)
        if scheme.lower() != "bearer" or not known or not self._admin_token:
            raise Unauthenticated
        return Principal("admin")

"""Floor 4, doors: a POST with an `Idempotency-Key` is done once. Starlette only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from receiver.admin.ops import Answered, Ops, Principal
from receiver.admin.routes.requests import key_of
from receiver.admin.routes.rows import Handler

REPEATED: Final = {"idempotent-replayed": "true"}  # as Stripe calls it
_FRESH: Final = frozenset({"content-length", "x-request-id"})  # of each answer anew


async def once(ops: Ops, who: Principal, request: Request, handler: Handler) -> Response:
    """The answer of `handler`, or the one that the first request with this key was given.

    Raises Invalid for an odd key; KeyInUse, KeyReused, AnswerLost.
    """
    key = key_of(request) if request.method == "POST" else None
    if key is None:
        return await handler(who, request)
    who = replace(who, key=key)
    known = await ops.begin_once(who, await _digest(request))
    if known is not None:
        return Response(known.body, known.status, {**known.headers, **REPEATED})
    try:
        response = await handler(who, request)
    except BaseException:
        await ops.drop_once(who)
        raise
    await ops.keep_answer(who, Answered(response.status_code, _headers(response), _body(response)))
    return response


async def _digest(request: Request) -> bytes:
    parts = [request.method, request.scope["path"], request.scope["query_string"].decode("latin-1")]
    head = "\x00".join(parts).encode("utf-8", "surrogateescape")
    return hashlib.sha256(head + b"\x00" + await request.body()).digest()


def _headers(response: Response) -> Mapping[str, str]:
    return {name: text for name, text in response.headers.items() if name not in _FRESH}


def _body(response: Response) -> bytes:
    return bytes(response.body)

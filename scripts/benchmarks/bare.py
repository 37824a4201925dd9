"""The yardstick: a bare Starlette app that reads the body and answers 204, on our own server.

`GET /page` answers a page that is one string, the yardstick of pages.

With the argument `plain`, over uvicorn's own connections.
"""

from __future__ import annotations

import json
import sys
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.server import listen, run, serve
from scripts.proofs.plain import leave_connections_to_uvicorn


async def swallow(request: Request) -> Response:
    """Read the body, say nothing."""
    await request.body()
    return Response(status_code=204)


PAGE: Final = f"<!doctype html><title>page</title><p>{'a line of a page ' * 400}</p>"


async def page(_request: Request) -> Response:
    """A page without a thought in it."""
    return Response(PAGE, media_type="text/html")


def main() -> None:
    """Serve on a free port and print it."""
    if "plain" in sys.argv:
        leave_connections_to_uvicorn()
    swallows = Route("/webhooks/{platform}", swallow, methods=["POST"])
    app = Starlette(routes=[swallows, Route("/page", page)])
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]

    def ready() -> None:
        sys.stdout.write(json.dumps({"event": "ready", "url": f"http://127.0.0.1:{port}"}) + "\n")
        sys.stdout.flush()

    run(serve(app, [listening], forwarded_allow_ips="127.0.0.1", on_ready=ready))


if __name__ == "__main__":
    main()

"""Floor 4, doors: the routes of the API's description. Starlette only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from receiver.access import LEDGER
from receiver.admin.openapi.document import JSON, Described, described
from receiver.admin.openapi.page import HEADERS, rendered
from receiver.admin.ops import Principal
from receiver.admin.routes.rows import HTML, Row

_FRESH: Final = {"cache-control": "private, no-cache"}  # another release may answer tomorrow


class DescriptionRoutes:
    """What the routes of a table are, for machines and for people."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def table(self) -> Sequence[Row]:
        """Every route."""
        return (
            Row(
                "GET",
                "/openapi.json",
                self._document,
                LEDGER,
                "This API as OpenAPI 3.1",
                answers={200: JSON},
            ),
            Row(
                "GET",
                "/docs",
                self._page,
                LEDGER,
                "This API as a page to read",
                answers={200: HTML, 303: None},
            ),
        )

    @cached_property
    def document(self) -> Described:
        """The description of the table, and of these two."""
        return described([*self._rows, *self.table()])

    @cached_property
    def _as_json(self) -> str:
        return json.dumps(self.document, separators=(",", ":"))

    @cached_property
    def _as_html(self) -> str:
        return rendered(self.document)

    # Made when somebody first asks, in a thread: it takes as long as some hundred callbacks.

    async def _document(self, _who: Principal, _request: Request) -> Response:
        body = await asyncio.to_thread(lambda: self._as_json)
        return Response(body, headers=_FRESH, media_type=JSON)

    async def _page(self, _who: Principal, _request: Request) -> Response:
        body = await asyncio.to_thread(lambda: self._as_html)
        return Response(body, headers={**_FRESH, **HEADERS}, media_type=HTML)

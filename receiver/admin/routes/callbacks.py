"""Floor 4, doors: the routes of callbacks, and of what is kept of all this. Starlette only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from receiver.access import ADMINS, READERS
from receiver.admin.ops import Ops, Principal
from receiver.admin.routes.answers import INERT, cursor_text, listed, shown
from receiver.admin.routes.parameters import cursor_of
from receiver.admin.routes.requests import body_of, query_of
from receiver.admin.routes.rows import Listed, Row
from receiver.callbacks import Callback, Reprocess, Reprocessed
from receiver.keeping import PruneAsked, Pruned

BYTES: Final = "application/octet-stream"


class CallbackRoutes:
    """What came in."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[Row]:
        """Every route."""
        return (*self._reading(), *self._managing())

    def _reading(self) -> Sequence[Row]:
        return (
            Row(
                "GET",
                "/v1/callbacks",
                self._callbacks,
                READERS,
                "List callbacks",
                query="outcome task orphan project since until",
                answers={200: Listed[Callback]},
            ),
            Row(
                "GET",
                "/v1/callbacks/{id}",
                self._callback,
                READERS,
                "One callback with its body as text",
                answers={200: Callback},
            ),
            Row(
                "GET",
                "/v1/callbacks/{id}/body",
                self._callback_body,
                ADMINS,  # the bytes may hold a credential, which the text does not
                "The exact bytes of a callback",
                answers={200: BYTES},
            ),
        )

    def _managing(self) -> Sequence[Row]:
        return (
            Row(
                "DELETE",
                "/v1/callbacks/{id}",
                self._delete_callback,
                ADMINS,
                "Delete a callback that brought nothing",
                answers={204: None},
            ),
            Row(
                "POST",
                "/v1/callbacks/{id}/reprocess",
                self._reprocess,
                ADMINS,
                "Take a callback's bytes once more",
                body=Reprocess,
                answers={200: Reprocessed},
            ),
            Row(
                "POST",
                "/v1/prune",
                self._prune,
                ADMINS,
                "Count what is too old, or drop it",
                body=PruneAsked,
                answers={200: Pruned},
            ),
        )

    async def _callbacks(self, who: Principal, request: Request) -> Response:
        return listed(await self._ops.callbacks(who, query_of(request)))

    async def _callback(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.callback(who, request.path_params["id"]))

    async def _callback_body(self, who: Principal, request: Request) -> Response:
        callback_id = request.path_params["id"]
        body = await self._ops.callback_body(who, callback_id)
        name = {"content-disposition": f'attachment; filename="{callback_id}"'}
        return Response(body, 200, {**INERT, **name}, media_type=BYTES)

    async def _delete_callback(self, who: Principal, request: Request) -> Response:
        await self._ops.delete_callback(who, request.path_params["id"])
        return Response(status_code=204)

    async def _reprocess(self, who: Principal, request: Request) -> Response:
        asked = await body_of(request, Reprocess)
        return shown(await self._ops.reprocess(who, request.path_params["id"], asked))

    async def _prune(self, who: Principal, request: Request) -> Response:
        asked = await body_of(request, PruneAsked)
        place = () if asked.cursor is None else cursor_of(asked.cursor)
        pruned, place_next = await self._ops.prune(who, place, dry_run=asked.dry_run)
        return shown(pruned.model_copy(update={"next_cursor": cursor_text(place_next)}))

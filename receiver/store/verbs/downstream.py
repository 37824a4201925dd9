"""Floor 2, edges: the store's verbs of endpoints."""

from __future__ import annotations

from receiver import ids
from receiver.endpoints import Endpoint
from receiver.endpoints import State as EndpointState
from receiver.store.protocol import (
    EndpointChange,
    NewEndpoint,
    Page,
    Query,
    Revisions,
    Rotation,
)
from receiver.store.verbs.endpoints import Deletion, Endpoints, StateChange
from receiver.store.verbs.reads import Reads
from receiver.store.writer import Write, each


class Downstream:
    """A part of SqlStore."""

    _write: Write
    _reads: Reads

    def _make_downstream(self, ends: Endpoints) -> Endpoints:
        self._add_endpoint, self._change_endpoint = each(ends.add), each(ends.change)
        self._rotate_secret = each(ends.rotate)
        self._set_state, self._delete_endpoint = each(ends.set_state), each(ends.delete)
        return ends

    async def add_endpoint(self, new: NewEndpoint) -> Endpoint:
        """Store an endpoint."""
        return await self._write(self._add_endpoint, new)

    async def endpoint(self, endpoint_id: str) -> Endpoint:
        """One endpoint."""
        return await self._reads.endpoint(endpoint_id)

    async def endpoints(self, query: Query) -> Page[Endpoint]:
        """A page of endpoints."""
        return await self._reads.endpoints(query)

    async def change_endpoint(self, change: EndpointChange) -> Endpoint:
        """Apply a patch."""
        return await self._write(self._change_endpoint, change)

    async def rotate_secret(self, rotation: Rotation) -> Endpoint:
        """Sign with a new secret."""
        return await self._write(self._rotate_secret, rotation)

    async def set_endpoint_state(
        self,
        endpoint_id: str,
        state: EndpointState,
        reason: str | None,
        revisions: Revisions = None,
    ) -> Endpoint:
        """Enable, pause or disable."""
        number = ids.parse(ids.ENDPOINT, endpoint_id)
        change = StateChange(number, state, reason, revisions)
        return await self._write(self._set_state, change)

    async def delete_endpoint(
        self, endpoint_id: str, now: int, revisions: Revisions = None
    ) -> None:
        """Forget an endpoint and cancel its queue."""
        number = ids.parse(ids.ENDPOINT, endpoint_id)
        await self._write(self._delete_endpoint, Deletion(number, now, revisions))

"""Floor 3, flows: the use cases of endpoints. The store's protocol."""

from __future__ import annotations

from typing import Final

from receiver.admin.ops.asking import Desk, Principal
from receiver.clock import SECOND
from receiver.deliveries import QueueCanceled
from receiver.delivery.signing import SignatureRefused, new_private_key, new_secret, own_secret
from receiver.endpoints import (
    Endpoint,
    EndpointAsked,
    EndpointPatch,
    EndpointSpec,
    Preview,
    PreviewAsked,
    RotateAsked,
    State,
    check,
    facts_in,
    subscription_of,
)
from receiver.errors import Invalid
from receiver.events import Event
from receiver.store.protocol import (
    EndpointChange,
    NewEndpoint,
    Page,
    Query,
    QueueCancel,
    Rotation,
)

STEP: Final = 20  # events of a preview that are read at once; each may have a payload of a megabyte
CANCEL_STEP: Final = 1_000  # deliveries that one transaction cancels
CANCEL_STEPS: Final = 50  # of one request; clients wait for 10 s


class EndpointOps(Desk):
    """Registered downstream callbacks: whom to tell of what."""

    async def add_endpoint(
        self, who: Principal, spec: EndpointSpec, project: str | None
    ) -> Endpoint:
        """Register a downstream callback. The answer alone carries the secret."""
        self._check_url(who, spec.url)
        check(spec)
        secret = self._secret(spec.secret if isinstance(spec, EndpointAsked) else None)
        project = who.choose(project)
        new = NewEndpoint(spec, project, secret, self._clock(), self._private_key())
        endpoint = await self.store.add_endpoint(new)
        return endpoint.model_copy(update={"secret": secret})

    def _secret(self, own: str | None) -> str:
        if own is None:
            return new_secret(self._random(32))
        try:
            return own_secret(own)
        except SignatureRefused as refused:
            raise Invalid(
                f"That secret can't sign: {refused}. Write whsec_ and the base64"
                " of 24 to 64 bytes.",
                parameter="secret",
            ) from None

    def _private_key(self) -> str:
        return new_private_key(self._random(32))

    async def endpoint(self, who: Principal, endpoint_id: str) -> Endpoint:
        """One endpoint."""
        endpoint = await self.store.endpoint(endpoint_id)
        who.see(endpoint.project)
        return endpoint

    async def endpoints(self, who: Principal, query: Query) -> Page[Endpoint]:
        """A page of endpoints."""
        return await self.store.endpoints(who.within(query))

    async def change_endpoint(
        self, who: Principal, endpoint_id: str, patch: EndpointPatch
    ) -> Endpoint:
        """Change what the patch names; a new URL is used from the next attempt."""
        current = await self.endpoint(who, endpoint_id)
        spec = patch.of(current)
        self._check_url(who, spec.url)
        check(spec)
        change = EndpointChange(endpoint_id, patch, self._private_key())
        return await self.store.change_endpoint(change)

    async def rotate_secret(self, who: Principal, endpoint_id: str, asked: RotateAsked) -> Endpoint:
        """Sign with a new secret and Ed25519 key, for a while beside those before.

        The answer alone carries the secret. Raises Conflict when too many earlier ones sign.
        """
        await self.endpoint(who, endpoint_id)
        secret = self._secret(asked.secret)
        endpoint = await self.store.rotate_secret(
            Rotation(
                id=endpoint_id,
                secret=secret,
                private_key=self._private_key(),
                now=self._clock(),
                overlap=asked.overlap_s * SECOND,
            )
        )
        return endpoint.model_copy(update={"secret": secret})

    async def preview(self, who: Principal, asked: PreviewAsked, project: str | None) -> Preview:
        """Which of the latest events a subscription would have got. Nothing is changed or sent."""
        check(asked)
        wants = subscription_of(asked, who.choose(project)).wants
        examined, found = 0, list[Event]()
        before: tuple[int, ...] | None = None
        while examined < asked.last:
            limit = min(STEP, asked.last - examined)
            query = Query(limit=limit, before=before, project=who.choose(project))
            page = await self.store.events(query, whole=True)
            examined += len(page.data)
            found += [event for event in page.data if wants(event.type, facts_in(event.payload))]
            before = page.next_cursor
            if before is None:
                break
        shown = [event.model_copy(update={"payload": None}) for event in found]
        return Preview(examined=examined, matched=len(found), data=shown)

    async def move_endpoint(self, who: Principal, endpoint_id: str, state: State) -> Endpoint:
        """Enable, pause or disable by hand; a held queue goes on when it is enabled."""
        await self.endpoint(who, endpoint_id)
        reason = None if state is State.ENABLED else f"{state} by hand"
        return await self.store.set_endpoint_state(endpoint_id, state, reason)

    async def cancel_queue(self, who: Principal, endpoint_id: str) -> QueueCanceled:
        """Cancel what waits for an endpoint by now, step by step: others write in between."""
        await self.endpoint(who, endpoint_id)
        canceled, asked = 0, QueueCancel(endpoint_id, self._clock(), CANCEL_STEP)
        for _ in range(CANCEL_STEPS):
            found = await self.store.cancel_queue(asked)
            canceled += found
            if found < CANCEL_STEP:
                return QueueCanceled(canceled=canceled, more=False)
        return QueueCanceled(canceled=canceled, more=True)

    async def delete_endpoint(self, who: Principal, endpoint_id: str) -> None:
        """Forget an endpoint and cancel its queue."""
        await self.endpoint(who, endpoint_id)
        asked = QueueCancel(endpoint_id, self._clock(), CANCEL_STEP)
        while await self.store.cancel_queue(asked) == CANCEL_STEP:
            pass  # step by step: a long queue in one transaction would hold up everybody
        await self.store.delete_endpoint(endpoint_id, asked.now)

"""Floor 3, flows: the use cases of endpoints. The store's protocol."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, Final

from receiver.access import Action
from receiver.admin.ops.asking import Desk, Principal
from receiver.admin.ops.secrecy import endpoint_for, endpoints_for, origin_of
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
from receiver.errors import Invalid, PreconditionFailed
from receiver.events import Event
from receiver.store.protocol import (
    EndpointChange,
    NewEndpoint,
    Page,
    Query,
    QueueCancel,
    Revisions,
    Rotation,
)

STEP: Final = 20  # events of a preview that are read at once; each may have a payload of a megabyte
CANCEL_STEP: Final = 1_000  # deliveries that one transaction cancels
MOVED: Final = {
    State.ENABLED: Action.ENDPOINT_ENABLE,
    State.PAUSED: Action.ENDPOINT_PAUSE,
    State.DISABLED: Action.ENDPOINT_DISABLE,
}
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
        store = self._by(
            who,
            Action.ENDPOINT_CREATE,
            None,
            project,
            of=lambda made: {"target": made.id},
            **_named(spec, spec.model_fields_set - {"secret"}),
        )
        endpoint = await store.add_endpoint(new)
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
        return endpoint_for(who, await self._endpoint(who, endpoint_id))

    async def _endpoint(self, who: Principal, endpoint_id: str) -> Endpoint:
        endpoint = await self.store.endpoint(endpoint_id)
        who.see(endpoint.project)
        return endpoint

    async def endpoints(self, who: Principal, query: Query) -> Page[Endpoint]:
        """A page of endpoints."""
        return endpoints_for(who, await self.store.endpoints(who.within(query)))

    async def change_endpoint(
        self,
        who: Principal,
        endpoint_id: str,
        patch: EndpointPatch,
        revisions: Revisions = None,
    ) -> Endpoint:
        """Change what the patch names; a new URL is used from the next attempt.

        Raises PreconditionFailed unless it has one of the `revisions`.
        """
        current = await self._endpoint(who, endpoint_id)
        spec = patch.of(current)
        self._check_url(who, spec.url)
        check(spec)
        change = EndpointChange(endpoint_id, patch, self._private_key(), revisions)
        details = _named(spec, patch.model_fields_set)
        store = self._by(who, Action.ENDPOINT_CHANGE, current.id, current.project, **details)
        return await store.change_endpoint(change)

    async def rotate_secret(
        self,
        who: Principal,
        endpoint_id: str,
        asked: RotateAsked,
        revisions: Revisions = None,
    ) -> Endpoint:
        """Sign with a new secret and Ed25519 key, for a while beside those before.

        The answer alone carries the secret. Raises Conflict when too many earlier ones sign.
        """
        current = await self._endpoint(who, endpoint_id)
        secret = self._secret(asked.secret)
        store = self._by(
            who,
            Action.ENDPOINT_ROTATE_SECRET,
            current.id,
            current.project,
            overlap_s=asked.overlap_s,
        )
        endpoint = await store.rotate_secret(
            Rotation(
                id=endpoint_id,
                secret=secret,
                private_key=self._private_key(),
                now=self._clock(),
                overlap=asked.overlap_s * SECOND,
                revisions=revisions,
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

    async def move_endpoint(
        self, who: Principal, endpoint_id: str, state: State, revisions: Revisions = None
    ) -> Endpoint:
        """Enable, pause or disable by hand; a held queue goes on when it is enabled."""
        current = await self._endpoint(who, endpoint_id)
        reason = None if state is State.ENABLED else f"{state} by hand"
        store = self._by(who, MOVED[state], current.id, current.project)
        return await store.set_endpoint_state(endpoint_id, state, reason, revisions)

    async def cancel_queue(self, who: Principal, endpoint_id: str) -> QueueCanceled:
        """Cancel what waits for an endpoint by now, step by step: others write in between."""
        endpoint = await self._endpoint(who, endpoint_id)
        canceled, asked = 0, QueueCancel(endpoint_id, self._clock(), CANCEL_STEP)
        store = self._by(who, Action.ENDPOINT_CANCEL, endpoint.id, endpoint.project)
        for _ in range(CANCEL_STEPS):
            found = await store.cancel_queue(asked)
            store = self.store  # one row for all of it, with the first step
            canceled += found
            if found < CANCEL_STEP:
                return QueueCanceled(canceled=canceled, more=False)
        return QueueCanceled(canceled=canceled, more=True)

    async def delete_endpoint(
        self, who: Principal, endpoint_id: str, revisions: Revisions = None
    ) -> None:
        """Forget an endpoint and cancel its queue."""
        endpoint = await self._endpoint(who, endpoint_id)
        if revisions is not None and endpoint.revision not in revisions:
            raise PreconditionFailed(revision=endpoint.revision)  # before its queue is touched
        asked = QueueCancel(endpoint_id, self._clock(), CANCEL_STEP)
        while await self.store.cancel_queue(asked) == CANCEL_STEP:
            pass  # step by step: a long queue in one transaction would hold up everybody
        store = self._by(who, Action.ENDPOINT_DELETE, endpoint.id, endpoint.project)
        await store.delete_endpoint(endpoint_id, asked.now, revisions)


def _named(spec: EndpointSpec, fields: Set[str]) -> Mapping[str, Any]:
    """What was set, without what may be a secret: a URL's host, and the names of headers."""
    found: dict[str, Any] = {"set": sorted(fields)}
    if "url" in fields:
        found["url"] = origin_of(spec.url)
    if "headers" in fields:
        found["headers"] = sorted(spec.headers)
    return found

"""Floor 3, flows: the use cases of endpoints. The store's protocol."""

from __future__ import annotations

from receiver.admin.ops.asking import Desk, Principal
from receiver.delivery.signing import new_secret
from receiver.endpoints import Endpoint, EndpointPatch, EndpointSpec, State, check
from receiver.store.protocol import NewEndpoint, Page, Query


class EndpointOps(Desk):
    """Registered downstream callbacks: whom to tell of what."""

    async def add_endpoint(
        self, who: Principal, spec: EndpointSpec, project: str | None
    ) -> Endpoint:
        """Register a downstream callback. The answer alone carries the secret."""
        self._guard.check_url(spec.url)
        check(spec)
        secret = new_secret(self._random(32))
        new = NewEndpoint(spec, who.choose(project), secret, self._clock())
        endpoint = await self.store.add_endpoint(new)
        return endpoint.model_copy(update={"secret": secret})

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
        spec = EndpointSpec.model_validate(
            current.model_dump(include=set(EndpointSpec.model_fields))
            | patch.model_dump(exclude_unset=True)
        )
        self._guard.check_url(spec.url)
        check(spec)
        return await self.store.change_endpoint(endpoint_id, patch)

    async def move_endpoint(self, who: Principal, endpoint_id: str, state: State) -> Endpoint:
        """Enable, pause or disable by hand; a held queue goes on when it is enabled."""
        await self.endpoint(who, endpoint_id)
        reason = None if state is State.ENABLED else f"{state} by hand"
        return await self.store.set_endpoint_state(endpoint_id, state, reason)

    async def delete_endpoint(self, who: Principal, endpoint_id: str) -> None:
        """Forget an endpoint and cancel its queue."""
        await self.endpoint(who, endpoint_id)
        await self.store.delete_endpoint(endpoint_id, self._clock())

"""Floor 3, flows: the use cases of events and their deliveries. The store's protocol."""

from __future__ import annotations

from receiver.access import Action
from receiver.admin.ops.asking import Desk, Principal
from receiver.admin.ops.secrecy import delivery_for
from receiver.deliveries import DeadLetters, Delivery
from receiver.events import Event
from receiver.store.protocol import Page, Query


class DeliveryOps(Desk):
    """What goes downstream, and how it went."""

    async def events(self, who: Principal, query: Query) -> Page[Event]:
        """A page of events."""
        return await self.store.events(who.within(query))

    async def event(self, who: Principal, event_id: str) -> Event:
        """One event with its payload."""
        event = await self.store.event(event_id)
        who.see(event.project)
        return event

    async def deliveries(self, who: Principal, query: Query) -> Page[Delivery]:
        """A page of deliveries."""
        return await self.store.deliveries(who.within(query))

    async def dead_letters(self, who: Principal, query: Query) -> Page[DeadLetters]:
        """Dead deliveries by endpoint and cause."""
        return await self.store.dead_letters(who.within(query))

    async def delivery(self, who: Principal, delivery_id: str) -> Delivery:
        """One delivery with its attempts."""
        delivery, _ = await self.sent(who, delivery_id)
        return delivery

    async def sent(self, who: Principal, delivery_id: str) -> tuple[Delivery, Event]:
        """One delivery with its attempts, and what it delivers."""
        delivery = await self.store.delivery(delivery_id)
        event = await self.store.event(delivery.event_id)
        who.see(event.project)
        return delivery_for(who, delivery), event

    async def retry(self, who: Principal, delivery_id: str) -> Delivery:
        """Send a settled delivery again, from the start of its schedule."""
        _, event = await self.sent(who, delivery_id)
        store = self._by(who, Action.DELIVERY_RETRY, delivery_id, event.project)
        await store.retry(delivery_id, self._clock())
        return await self.delivery(who, delivery_id)

    async def cancel(self, who: Principal, delivery_id: str) -> Delivery:
        """Drop a pending delivery from its queue."""
        _, event = await self.sent(who, delivery_id)
        store = self._by(who, Action.DELIVERY_CANCEL, delivery_id, event.project)
        await store.cancel(delivery_id, self._clock())
        return await self.delivery(who, delivery_id)

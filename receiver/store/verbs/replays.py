"""Floor 2, edges: an event sent again, and one that only tries an endpoint out. stdlib only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from receiver import ids
from receiver.endpoints import State, Subscription
from receiver.errors import Conflict, NotFound
from receiver.events import ENDPOINT_TEST, announce_test
from receiver.repair import Replayed
from receiver.store.connection import Connection
from receiver.store.protocol import Replay
from receiver.store.verbs.entries import add_deliveries, add_event, is_alive, note_resends
from receiver.store.verbs.queue import begin_rounds
from receiver.store.verbs.wanting import FACTS, wanting
from receiver.store.writer import Transaction

# Attempts that a schedule seems to have behind it, so that a test which fails is not tried again
# for days: whoever looks for a mistake sends another.
ONCE: Final = 1_000_000


class Replays:
    """The verbs. `subscriptions` gives the current endpoints, `next_id` fresh ids."""

    def __init__(
        self, subscriptions: Callable[[], Sequence[Subscription]], next_id: Callable[[], int]
    ) -> None:
        self._subscriptions = subscriptions
        self._next_id = next_id

    def replay(self, tx: Transaction, asked: Replay) -> Replayed:
        """Give each delivery that is wanted today a new round of attempts; make what is missing."""
        event = ids.parse(ids.EVENT, asked.event_id)
        tx.connection.lock("events", "id", [event])  # no prune may take it meanwhile
        wanted = self._wanted(tx.connection, event, asked)
        created = add_deliveries(tx.connection, event, wanted, asked.now)
        there = [(event, endpoint) for endpoint in wanted if endpoint not in created]
        retried = begin_rounds(tx.connection, there, asked.now)
        note_resends(tx.connection, [event], asked.now)  # listeners want it though no endpoint does
        tx.work = True
        return Replayed(
            event_id=asked.event_id,
            created=len(created),
            retried=retried,
            waiting=len(there) - retried,
            deliveries=[ids.delivery_id(event, endpoint) for endpoint in wanted],
        )

    def _wanted(self, connection: Connection, event: int, asked: Replay) -> list[int]:
        row = connection.execute(
            f"SELECT {FACTS}, e.project FROM events e LEFT JOIN tasks t ON t.n = e.task_n"
            " WHERE e.id = ?",
            (event,),
        ).fetchone()
        if row is None:
            raise NotFound(f"There is no event {asked.event_id}.")
        if row[0] == ENDPOINT_TEST:
            raise Conflict("A test is for one endpoint: send it another, or retry its delivery.")
        found = wanting(self._subscriptions(), row[-1], row[:-1])
        wanted = [one.endpoint for one in found if is_alive(connection, one.endpoint)]
        if asked.endpoint_id is None:
            return wanted
        endpoint = ids.parse(ids.ENDPOINT, asked.endpoint_id)
        if endpoint not in wanted:
            raise Conflict(
                f"Endpoint {asked.endpoint_id} does not want {asked.event_id}: its event_types or"
                f" filters let no such {row[0]} through.",
                event_type=row[0],
            )
        return [endpoint]

    def test(self, tx: Transaction, asked: tuple[int, int]) -> str:
        """Queue an `endpoint.test` for one endpoint; the delivery's id. Raises Conflict if held."""
        endpoint, now = asked
        row = tx.connection.execute(
            "SELECT project, description, state FROM endpoints WHERE id = ? AND deleted_at IS NULL",
            (endpoint,),
        ).fetchone()
        name = ids.ENDPOINT + ids.encode(endpoint)
        if row is None:
            raise NotFound(f"There is no endpoint {name}.")
        project, description, state = row
        if state != State.ENABLED:
            raise Conflict(
                f"Endpoint {name} is {state}, so its queue is held, and a test would wait in it."
                f" Enable it first: `reelhook endpoints enable {name}`.",
                state=state,
            )
        event, told = self._next_id(), announce_test(name, project, description, now)
        add_event(tx.connection, (event, told.type, None, project, now, told.payload))
        add_deliveries(tx.connection, event, [endpoint], now, round_=-ONCE)
        tx.work = True
        return ids.delivery_id(event, endpoint)

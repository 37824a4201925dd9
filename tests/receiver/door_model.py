"""What the door owes, written down a second time: plainly, slowly, without the receiver's code.

Everything is kept as lists and looked at anew each time; there are no counters that could drift.
The receiver's words appear as text only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
ORDER = (
    "recorded",
    "conflict",
    "duplicate",
    "progress",
    "quarantined",
    "expired",
    "revoked",
    "limited",
)
NOISE = ("conflict", "quarantined", "expired")


@dataclass(frozen=True)
class Thing:
    """One item of a body. `novel` and `hidden` are videos that a later parser alone can see; a
    hidden one does not even say in a known way whose it is."""

    kind: str  # ok, error, busy, novel, hidden
    task: str
    number: int = 0
    variant: int = 0  # of a video's seed, or of an error's code


@dataclass(frozen=True)
class Post:
    """One request with a good credential. `things` None: no JSON; `task` None: a static key."""

    things: tuple[Thing, ...] | None
    body: bytes
    task: str | None
    source: str = "callback"
    expected: int | None = None
    tags: tuple[tuple[str, str], ...] = ()
    issued_at: int = 0
    expired: bool = False


@dataclass
class Result:
    """One result of a task."""

    key: str
    kind: str
    variant: int
    source: str
    late: bool
    superseded: bool = False
    conflicts: int = 0


@dataclass
class Task:
    """One task."""

    id: str
    expected: int | None
    tags: dict[str, str]
    deadline_at: int
    give_up_at: int
    registered: bool = False
    asked_at: int | None = None  # of one that was registered before anything came
    took: int | None = None
    submit: str = "submitted"
    model: str | None = None
    revoked_at: int | None = None
    overdue: bool = False
    closed: bool = False
    completed: bool = False
    seen_again: int = 0
    results: list[Result] = field(default_factory=list)

    def live(self, kind: str) -> int:
        return sum(found.kind == kind and not found.superseded for found in self.results)

    @property
    def received(self) -> int:
        return self.live("succeeded") + self.live("failed")

    @property
    def status(self) -> str:
        good, bad = self.live("succeeded"), self.live("failed")
        full = self.expected is not None and good + bad >= self.expected
        if not full and not self.closed:
            return "partial" if good + bad else "pending"
        return "succeeded" if not bad else "partially_failed" if good else "failed"

    @property
    def allowance(self) -> int:
        return 2 * (self.expected or 1) + 8

    def by_key(self, key: str) -> Result | None:
        return next((found for found in self.results if found.key == key), None)


@dataclass
class Callback:
    """One kept body."""

    task: Task | None
    post: Post
    outcome: str
    reason: str | None
    received_at: int
    repeats: int = 0


@dataclass(frozen=True)
class Endpoint:
    """Who wants what; patterns end with a star or are exact."""

    name: str
    types: tuple[str, ...] = ("*",)
    status: str | None = None
    model: str | None = None
    team: str | None = None

    def wants(self, kind: str, status: str, task: Task) -> bool:
        if not any(fnmatchcase(kind, pattern) for pattern in self.types):
            return False
        if self.status is not None and status != self.status:
            return False
        if self.model is not None and not fnmatchcase(task.model or "", self.model):
            return False
        return self.team is None or task.tags.get("team") == self.team


@dataclass
class Event:
    """One message for downstream."""

    type: str
    task: Task
    status: str
    wanted_by: set[str]


class Model:
    """The ledger as it should be."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = endpoints
        self.fixed = False  # whether the parser knows the novel shapes
        self.tasks: dict[str, Task] = {}
        self.callbacks: list[Callback] = []
        self.events: list[Event] = []

    # What a body says

    def said(self, post: Post) -> list[tuple[str | None, str, str, int]]:
        """(whose, what, key, variant) of each item, as far as the parser can see."""
        found: list[tuple[str | None, str, str, int]] = []
        for thing in post.things or ():
            video = f"video:{thing.number}"
            if thing.kind == "ok" or (thing.kind in ("novel", "hidden") and self.fixed):
                found.append((thing.task, "succeeded", video, thing.variant))
            elif thing.kind == "error":
                alike = f"error:{thing.variant}:"
                before = sum(w == thing.task and key.startswith(alike) for w, _, key, _ in found)
                found.append((thing.task, "failed", f"{alike}{before}", 0))
            elif thing.kind == "busy":
                found.append((thing.task, "busy", "", 0))
            else:
                whose = post.task if thing.kind == "hidden" else thing.task
                found.append((whose, "unknown", "", 0))
        return found

    # Requests

    def post(self, post: Post, now: int) -> tuple[int, dict[str, object] | None]:
        """The answer: status, and the body of a 200."""
        said = self.said(post)
        if post.task is None:
            whose = list(dict.fromkeys(who for who, *_ in said)) or [None]
            outcomes = [self._arrive(who, said, 0, post, now) for who in whose]
        else:
            foreign = sum(who != post.task for who, *_ in said)
            if said and foreign == len(said) and not post.expired:
                return 403, None
            outcomes = [self._arrive(post.task, said, foreign, post, now)]
        outcome = min((outcome for outcome, _ in outcomes), key=ORDER.index)
        if outcome in ("expired", "revoked", "limited"):
            return (429 if outcome == "limited" else 410), None
        new = sum(count for _, count in outcomes)
        return 200, {"status": outcome} | ({"results": new} if outcome == "recorded" else {})

    def _arrive(
        self,
        whose: str | None,
        said: list[tuple[str | None, str, str, int]],
        foreign: int,
        post: Post,
        now: int,
    ) -> tuple[str, int]:
        if whose is None:
            reason = "bad_json" if post.things is None else "names_no_task"
            self._keep(None, post, "quarantined", reason, now)
            return "quarantined", 0
        task = self.tasks.get(whose)
        if task is not None and task.revoked_at is not None and post.issued_at <= task.revoked_at:
            return "revoked", 0
        if post.expired:
            if task is not None and not task.completed and self.noise(task) < task.allowance:
                self._keep(task, post, "expired", None, now)
            return "expired", 0
        task = task or self._create(whose, post, now)
        if post.things is None:
            return self._quarantine(task, post, "bad_json", now), 0
        own = [found for found in said if found[0] == whose]
        if all(what == "unknown" for _, what, *_ in own):
            return self._quarantine(task, post, "unknown_shape", now), 0
        before, task.expected = task.expected, task.expected or post.expected
        if self._floods(task, own, post):
            task.expected = before
            return "limited", 0
        outcome, new = self._take(task, own, post.source, now)
        part = "foreign_items" if foreign else None
        if any(what == "unknown" for _, what, *_ in own):
            part = part or "unknown_items"
        self._keep_taken(task, post, outcome, part, now)
        return outcome, new

    def _create(self, whose: str, post: Post, now: int) -> Task:
        expected = post.expected if post.task else None
        made = Task(whose, expected, dict(post.tags), now + 15 * MINUTE, now + DAY)
        self.tasks[whose] = made
        return made

    def noise(self, task: Task) -> int:
        return sum(found.task is task and found.outcome in NOISE for found in self.callbacks)

    def _came_before(self, task: Task | None, post: Post) -> list[Callback]:
        return [one for one in self.callbacks if one.task is task and one.post.body == post.body]

    def _floods(
        self,
        task: Task,
        own: list[tuple[str | None, str, str, int]],
        post: Post,
        again: bool = False,
    ) -> bool:
        if post.source == "poll" and not again:
            return False
        new = {key for _, _, key, _ in own if key and task.by_key(key) is None}
        if new:
            return len(task.results) + len(new) > (task.expected or 100) + task.allowance
        if again or self.noise(task) < task.allowance or self._came_before(task, post):
            return False
        known = [(task.by_key(key), variant) for _, _, key, variant in own]
        return any(found and found.variant != variant for found, variant in known)

    def _quarantine(self, task: Task, post: Post, reason: str, now: int) -> str:
        full = self.noise(task) >= task.allowance
        if full and post.source != "poll" and not self._came_before(task, post):
            return "limited"
        self._keep(task, post, "quarantined", reason, now)
        return "quarantined"

    def _keep(
        self, task: Task | None, post: Post, outcome: str, reason: str | None, now: int
    ) -> None:
        if before := self._came_before(task, post):
            for one in before:
                one.repeats += 1
            return
        self.callbacks.append(Callback(task, post, outcome, reason, now))

    def _keep_taken(self, task: Task, post: Post, outcome: str, part: str | None, now: int) -> None:
        before = self._came_before(task, post)
        room = self.noise(task) < task.allowance or post.source == "poll"
        if part and room and not before:
            self.callbacks.append(Callback(task, post, "quarantined", part, now))
        if outcome == "duplicate":
            task.seen_again += 1
            if task.seen_again > task.allowance and not before:
                return
        if outcome == "progress":
            self.callbacks = [
                one for one in self.callbacks if one.task is not task or one.outcome != "progress"
            ]
        elif outcome != "recorded" and before:
            for one in before:
                one.repeats += 1
            return
        self.callbacks.append(Callback(task, post, outcome, None, now))

    # Results

    def _take(
        self,
        task: Task,
        own: list[tuple[str | None, str, str, int]],
        source: str,
        came: int,
        count_conflicts: bool = True,
    ) -> tuple[str, int]:
        was_complete, new, seen = task.completed, list[Result](), set[str]()
        for _, what, key, variant in own:
            known = task.by_key(key) if key else None
            if what in ("busy", "unknown"):
                seen.add("progress" if what == "busy" else what)
            elif known is None:
                new.append(Result(key, what, variant, source, late=was_complete))
                task.results.append(new[-1])
                self._replace_missed(task)
            elif known.variant != variant:
                known.conflicts += count_conflicts
                seen.add("conflict")
            else:
                seen.add("duplicate")
        if new:
            seen.add("recorded")
        outcome = next(word for word in ORDER if word in seen)
        rejected = source == "submit" and any(what == "failed" for _, what, *_ in own)
        settled = source == "poll" and bool(own) and not seen & {"progress", "unknown"}
        task.closed = task.closed or rejected or settled
        if rejected:
            task.submit = "rejected"
        elif task.submit == "registered":
            task.submit = "submitted"
        self._tell(task, new, was_complete)
        if task.completed and not was_complete:
            self._note_took(task, source, came)
        return outcome, len(new)

    def _note_took(self, task: Task, source: str, came: int) -> None:
        if task.asked_at is None or came < task.asked_at or task.live("failed"):
            return
        if source == "callback" or (source == "poll" and not task.overdue):
            task.took = came - task.asked_at

    def _usual_deadline(self) -> int:
        """How long after a registration; of one or two tasks, nearly all are the slowest."""
        took = [task.took for task in self.tasks.values() if task.took is not None]
        return min(max(2 * max(took), MINUTE), DAY) if took else 15 * MINUTE

    def _replace_missed(self, task: Task) -> None:
        for one in task.results:
            if one.source == "deadline" and not one.superseded:
                one.superseded = True
                return

    def _tell(self, task: Task, new: list[Result], was_complete: bool) -> None:
        if not was_complete and task.received and task.status not in ("pending", "partial"):
            task.completed = True
        types = [f"result.{one.kind}" for one in new]
        if task.completed and not was_complete:
            types.append("task.completed")
        elif was_complete and new:
            types.append("task.revised")
        for kind in types:
            self._announce(kind, task)

    def _announce(self, kind: str, task: Task) -> None:
        self.events.append(Event(kind, task, task.status, set()))
        self._match(self.events[-1])

    def _match(self, event: Event) -> None:
        event.wanted_by |= {
            one.name for one in self.endpoints if one.wants(event.type, event.status, event.task)
        }

    # By hand, and by the clock

    def register(self, task_id: str, expected: int, tags: dict[str, str], now: int) -> int:
        """The answer's status."""
        task = self.tasks.get(task_id)
        if task is None:
            task = Task(task_id, expected, tags, now + self._usual_deadline(), now + DAY)
            task.submit, task.asked_at = "registered", now
            self.tasks[task_id] = task
        elif task.expected not in (None, expected):
            return 409
        created = task.submit == "registered" and not task.registered
        task.registered = True
        task.model = task.model or "pixverse:1@6"
        task.tags = task.tags or tags
        if task.expected is None:
            task.expected = expected
            self._tell(task, [], task.completed)
        for event in self.events:
            if event.task is task:
                self._match(event)
        return 201 if created else 200

    def revoke(self, task_id: str, now: int) -> None:
        self.tasks[task_id].revoked_at = now

    def delete(self, task_id: str) -> None:
        task = self.tasks.pop(task_id)
        self.callbacks = [one for one in self.callbacks if one.task is not task]

    def drop(self, place: int) -> int:
        """The answer's status."""
        if self.callbacks[place].outcome == "recorded":
            return 409
        del self.callbacks[place]
        return 204

    def tick(self, now: int) -> None:
        open_ones = [task for task in self.tasks.values() if not task.completed]
        for task in open_ones:
            if task.deadline_at <= now and not task.overdue:
                task.overdue = True
                self._announce("task.overdue", task)
        for task in open_ones:
            if task.give_up_at <= now:
                self._give_up(task)

    def _give_up(self, task: Task) -> None:
        owed = max((task.expected or 1) - task.received, 0)
        new = [Result(f"missed:{n}", "failed", 0, "deadline", late=False) for n in range(owed)]
        task.results += new
        task.closed = True
        self._tell(task, new, was_complete=False)

    def reprocess(self, place: int, now: int) -> tuple[int, str | None, int]:
        """The answer: status, what came of it, how many results."""
        row = self.callbacks[place]
        post, said, task = row.post, self.said(row.post), row.task
        named = list(dict.fromkeys(who for who, *_ in said if who is not None))
        if task is None:
            if not named:
                return 200, "quarantined", 0
            known = self.tasks.get(named[0])
            if known is not None and _revoked(known, row):
                return 409, None, 0
            task = known or self._create(named[0], post, now)
        elif _revoked(task, row):
            return 409, None, 0
        if post.things is None:
            if row.outcome != "recorded":
                row.outcome, row.reason = "quarantined", "bad_json"
            return 200, "quarantined", 0
        own = [found for found in said if found[0] == task.id]
        foreign = len(said) - len(own) if post.task else 0
        if self._floods(task, own, post, again=True):
            return 409, None, 0
        adopted, row.task = row.task is None, task
        unknown = [what == "unknown" for _, what, *_ in own]
        part = "foreign_items" if foreign else "unknown_items" if any(unknown) else None
        outcome, new = "quarantined", 0
        if all(unknown):
            part = "foreign_items" if foreign else "unknown_shape"
        else:
            was_read = row.outcome in ORDER[:4] or row.reason in ("foreign_items", "unknown_items")
            came, anew = row.received_at, not was_read
            outcome, new = self._take(task, own, post.source, came, count_conflicts=anew)
        self._rewrite(row, outcome, part)
        results = [(outcome, new)]
        if adopted:
            results += [self._arrive(who, said, 0, post, row.received_at) for who in named[1:]]
        return 200, min((o for o, _ in results), key=ORDER.index), sum(n for _, n in results)

    def _rewrite(self, row: Callback, outcome: str, reason: str | None) -> None:
        if row.outcome == "recorded":
            return
        if reason and outcome != "recorded":
            outcome = "quarantined"
        row.outcome, row.reason = outcome, reason


def _revoked(task: Task, row: Callback) -> bool:
    return task.revoked_at is not None and row.received_at <= task.revoked_at

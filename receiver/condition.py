"""Floor 0, nouns: in what condition the receiver is, and how it is set up. Stdlib and pydantic."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel


class Origin(StrEnum):
    """Where a setting's value comes from."""

    DEFAULT = "default"
    ENVIRONMENT = "environment"
    OPTION = "option"  # of the command that started the receiver
    DATA_DIR = "data_dir"  # made once and kept there
    HOSTING = "hosting"  # what the hosting platform asks for


class Setting(BaseModel):
    """One setting. `value` is None for a secret: whether there is one, `is_set` says."""

    name: str
    value: str | None
    is_set: bool
    is_secret: bool
    origin: Origin
    meaning: str


class Grade(StrEnum):
    """How good a condition is."""

    OK = "ok"
    WARNING = "warning"
    FAILING = "failing"


class Check(BaseModel):
    """One thing that was looked at."""

    name: str
    grade: Grade
    detail: str


class Role(StrEnum):
    """What a process does."""

    ALL = "all"  # it receives, and delivers
    WEB = "web"  # it receives and answers
    WORKER = "worker"  # it delivers, and does what is due

    @property
    def works(self) -> bool:
        """Whether it delivers."""
        return self is not Role.WEB


class Process(BaseModel):
    """A process that uses the store."""

    role: Role
    host: str
    pid: int
    started_at: datetime
    seen_at: datetime


class StoreCondition(BaseModel):
    """How the store fares. Sizes in bytes; `refusal` says why no callback is taken in, if so.

    What a database server keeps to itself is None. `processes` are those that were seen lately;
    None where there is but one.
    """

    engine: str
    version: str
    schema_version: int
    size: int
    log_size: int | None
    free: int | None
    refusal: str | None
    processes: list[Process] | None = None


class Health(BaseModel):
    """In what condition the receiver is; `grade` is the worst of its checks."""

    grade: Grade
    version: str
    instance: str
    started_at: datetime
    public_url: str
    checks: list[Check]
    store: StoreCondition


def worst(checks: list[Check]) -> Grade:
    """The worst grade of all."""
    order = [*Grade]
    return max((check.grade for check in checks), key=order.index, default=Grade.OK)


class Setup(BaseModel):
    """How the receiver is set up: every setting, as it is in force."""

    settings: list[Setting]

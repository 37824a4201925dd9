"""Floor 0, nouns: what a token may do. Pure."""

from __future__ import annotations

from collections.abc import Set
from enum import StrEnum
from typing import Final


class Scope(StrEnum):
    """What an API token was made for (design §6)."""

    SUBMIT = "submit"  # the ledger's verbs: whoever sends tasks to a platform
    READ = "read"  # everything that is no secret
    ADMIN = "admin"  # everything


# Which scopes a route lets in; an admin may do whatever the others may.
LEDGER: Final[Set[Scope]] = frozenset({Scope.SUBMIT, Scope.READ, Scope.ADMIN})
SUBMITTERS: Final[Set[Scope]] = frozenset({Scope.SUBMIT, Scope.ADMIN})
READERS: Final[Set[Scope]] = frozenset({Scope.READ, Scope.ADMIN})
ADMINS: Final[Set[Scope]] = frozenset({Scope.ADMIN})

"""Floor 2, edges: what a failed write means. Touches nothing.

A job's own fault is its caller's to hear. A fault of the environment (disk full, a foreign lock, a
server that restarts) passes, so the store refuses until a write succeeds. After the rest no write
can be trusted. Which error is which, each engine knows.
"""

from __future__ import annotations

from enum import Enum


class Fault(Enum):
    """Who is to blame, and so what follows."""

    JOB = "this write alone fails"
    AGAIN = "another writer stood in its way; the same may work now"
    ENVIRONMENT = "nothing can be written until it passes"
    END = "no write can be trusted"

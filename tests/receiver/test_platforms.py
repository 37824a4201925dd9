"""Every platform by the one suite."""

from __future__ import annotations

from tests.receiver.platform_suite import PlatformSuite


class TestPlatforms(PlatformSuite):
    """What every platform has in common; what is its own stands in its own test."""

"""The browser and the processes of a module's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.window import Stage, Window, axe, chromium, staged, window


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for the module: its windows share nothing."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A receiver and a simulator, shared by the module's tests."""
    with staged(tmp_path_factory.mktemp("stage")) as found:
        yield found


@pytest.fixture
def desk(stage: Stage, browser: Browser) -> Iterator[Window]:
    """A window of somebody who is logged in."""
    with window(stage, browser) as found:
        found.log_in()
        yield found


@pytest.fixture(scope="session")
def axe_core() -> Iterator[str]:
    """The source of axe-core."""
    with axe() as found:
        yield found

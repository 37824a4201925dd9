"""The page of the API in a real browser: it needs a session and no script, and keeps nobody out."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.browser.window import VIEWS, Stage, Window, barriers, window
from tests.doubles import ADMIN_TOKEN

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]  # a browser shares its machine


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_nothing_keeps_anybody_out_and_everything_fits(
    stage: Stage, browser: Browser, axe_core: str, width: int, scheme: str
) -> None:
    with window(stage, browser, width, color_scheme=scheme) as desk:
        desk.log_in()
        assert desk.open("/docs").status == 200
        assert barriers(desk, axe_core) == []
        assert desk.overflow() == 0


def test_it_reads_well_without_a_script(stage: Stage, browser: Browser) -> None:
    with window(stage, browser, java_script_enabled=False) as desk:
        desk.log_in()
        desk.open("/docs")
        desk.page.get_by_role("navigation").get_by_role("link", name="tasks").click()
        desk.page.get_by_role("heading", name="Tasks", exact=True).wait_for()
        desk.page.get_by_role("link", name="RegisteredTask").first.click()
        desk.page.wait_for_url("**#RegisteredTask")
        section = desk.page.get_by_role("article", name="RegisteredTask")
        assert "webhook_url" in section.inner_text()


def test_who_is_not_logged_in_comes_back_after_the_login(stage: Stage, browser: Browser) -> None:
    with window(stage, browser) as desk:
        desk.open("/docs")
        assert desk.page.url == f"{stage.url}/login?next=%2Fdocs"
        log_in_here(desk)
        desk.page.wait_for_url(f"{stage.url}/docs")


def log_in_here(desk: Window) -> None:
    """By the form that stands there, with the admin token."""
    desk.page.get_by_label("token", exact=False).first.fill(ADMIN_TOKEN)
    desk.page.get_by_role("button", name="Log in").click()

"""The Jobs page in a real browser: live rows, keys, selection, an action on all that match, and without JavaScript."""

from __future__ import annotations

import re
from typing import Any

import pytest
from browser import SCREENSHOTS, BrowserStack, Visitor
from job_stories import waiting
from playwright.async_api import Page, expect

from worker.clock import Clock
from worker.store.admission.rate_limit import RateLimit
from worker.store.apps import Apps
from worker.store.jobs.control_requests import JobControl
from worker.store.jobs.repository import Jobs

pytestmark = pytest.mark.asyncio(loop_scope="session")
CHECKED = "[[sim: check_then_clear hold=600]] Why is the sky blue?"


async def _waiting(stack: BrowserStack, key: str, number: int, **given: Any) -> list[str]:
    return [await waiting(stack.console, key, **given) for _ in range(number)]


async def _picked(page: Page) -> list[str]:
    return [await box.get_attribute("value") or "" for box in await page.locator("[name=ids]:checked").all()]


async def _figures(page: Page) -> dict[str, str]:
    names = await page.locator(".figure dt").all_inner_texts()
    return dict(zip(names, await page.locator(".figure dd").all_inner_texts(), strict=True))


async def test_rows_change_and_come_by_themselves(stack: BrowserStack) -> None:
    key, text = await stack.key()
    first = await stack.submit(text, CHECKED, policy={"on_delay": {"action": "wait"}})
    async with stack.visitor() as visitor:
        page = visitor.page
        await visitor.log_in(key)
        await visitor.open("/jobs")
        row = page.locator(f'[data-row="{first}"]')
        await expect(row).to_contain_text(re.compile(r"checking.*signalled.*began", re.DOTALL), timeout=30_000)
        (newer,) = await _waiting(stack, text, 1)
        await expect(page.locator(f'[data-row="{newer}"]')).to_contain_text("scheduled", timeout=30_000)
        stack.stage.hurry()
        await expect(row).to_contain_text("completed", timeout=30_000)
        await expect(row).to_contain_text("held")
        exact = await row.locator("time").first.get_attribute("title")
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} UTC", exact or "")


async def test_select_by_keys_and_shift_confirm_and_cancel(stack: BrowserStack) -> None:
    key, text = await stack.key()
    jobs = (await _waiting(stack, text, 5))[::-1]
    async with stack.visitor() as visitor:
        page = visitor.page
        await visitor.log_in(key)
        await visitor.open("/jobs")
        for pressed in ("j", "j", "x", "j", "j", "Shift+X"):
            await page.keyboard.press(pressed)
        assert await _picked(page) == jobs[1:4]
        await expect(page.locator("[data-picked]")).to_have_text(" (3)")
        await page.locator("[name=ids]").nth(3).click()
        await page.locator("[name=ids]").nth(1).click(modifiers=["Shift"])
        assert await _picked(page) == [], "the range takes the state of the box that was clicked"
        await page.get_by_label("Select all jobs of this page").click()
        assert await _picked(page) == jobs
        await page.locator("[name=ids]").nth(4).click()
        await page.get_by_role("button", name="to the selected jobs").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Cancel 4 jobs?")
        await page.get_by_role("button", name="Cancel 4 jobs").click()
        await page.wait_for_url("**/jobs/actions/result*")
        assert (await _figures(page))["cancelled"] == "4"
        await page.get_by_role("link", name="All jobs").click()
        await expect(page.locator("tbody .s-cancelled")).to_have_count(4)
        await expect(page.locator(f'[data-row="{jobs[4]}"]')).to_contain_text("scheduled")


async def test_a_selected_row_does_not_leave_the_list(stack: BrowserStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.console.pages.jobs.PAGE", 2)
    key, text = await stack.key()
    oldest, _ = await _waiting(stack, text, 2)
    async with stack.visitor() as visitor:
        page = visitor.page
        await visitor.log_in(key)
        await visitor.open("/jobs")
        box = page.locator(f'[value="{oldest}"]')
        await box.check()
        (newer,) = await _waiting(stack, text, 1)
        await expect(page.locator("#live-state")).to_contain_text("stays as it is", timeout=30_000)
        await expect(box).to_be_checked()
        await box.uncheck()
        await expect(page.locator(f'[data-row="{newer}"]')).to_be_attached(timeout=30_000)
        await expect(page.locator("#live-state")).to_be_hidden()


async def test_all_that_match_go_on_by_themselves_and_survive_a_reload(
    stack: BrowserStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.console.pages.job_actions.PART", 2)
    key, text = await stack.key()
    await _waiting(stack, text, 7, metadata={"batch": "nightly"})
    async with stack.visitor() as visitor:
        page = visitor.page
        await visitor.log_in(key)
        await visitor.open("/jobs")
        await page.get_by_label("Job or response id").fill("batch=nightly")
        await page.get_by_role("button", name="Find").click()
        await expect(page.locator(".chip")).to_contain_text("batch=nightly")
        await page.get_by_role("button", name="to all that match").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Cancel 7 jobs?")
        await page.get_by_role("button", name="Cancel 7 jobs").click()
        await expect(page.get_by_text("7 of 7 jobs.")).to_be_visible(timeout=30_000)
        assert (await _figures(page))["cancelled"] == "7"
        await page.reload()
        assert (await _figures(page))["cancelled"] == "7"
        await page.go_back()
        await expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(r"Cancel \d jobs?\?"))


async def test_an_action_waits_for_the_apps_rate_limit_and_goes_on(
    stack: BrowserStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.console.pages.job_actions.PART", 2)
    _, text = await stack.key()
    jobs = await _waiting(stack, text, 4)
    control = JobControl(Jobs(stack.console.redis, Clock()))
    for job_id in jobs:
        await control.request_cancel(job_id, "key_x")
    await Apps(stack.console.redis, Clock()).set_rate("acme", RateLimit(60, 2))
    key, _ = await stack.key()
    async with stack.visitor() as visitor:
        visitor.expected = ("429",)
        page = visitor.page
        await visitor.log_in(key)
        await visitor.open("/jobs/actions?action=rerun&status=cancelled")
        await page.get_by_role("button", name="Run again 4 jobs").click()
        await expect(page.get_by_text("4 of 4 jobs.")).to_be_visible(timeout=30_000)
        assert (await _figures(page))["submitted again"] == "4"
        await expect(page.locator("#live-state")).to_be_hidden()
        await page.get_by_role("link", name="The new jobs").click()
        await expect(page.locator("tbody tr")).to_have_count(4)


async def test_filters_and_actions_need_no_javascript(stack: BrowserStack) -> None:
    key, text = await stack.key()
    jobs = await _waiting(stack, text, 2, end_user="anna")
    await _waiting(stack, text, 1, end_user="ben")
    async with stack.visitor() as visitor:
        await visitor.log_in(key)
        state = await visitor.page.context.storage_state()
    async with stack.visitor(storage_state=state, java_script_enabled=False) as visitor:
        page = visitor.page
        await visitor.open("/jobs")
        await page.get_by_text("More filters").click()
        await page.get_by_label("End user").fill("anna")
        await page.get_by_role("button", name="Find").click()
        await page.wait_for_url("**/console/jobs?end_user=anna")
        await expect(page.locator("tbody tr")).to_have_count(2)
        await page.get_by_role("link", name="scheduled").click()
        await page.wait_for_url("**/console/jobs?status=scheduled&end_user=anna")
        await page.get_by_label(f"Select {jobs[0]}").check()
        await page.get_by_role("button", name="to the selected jobs").click()
        await page.get_by_role("button", name="Cancel 1 job").click()
        await expect(page.get_by_text("1 of 1 jobs.")).to_be_visible()
        await page.go_back()
        await page.go_back()
        await page.get_by_label("Remove the filter end user").click()
        await page.wait_for_url("**/console/jobs?status=scheduled")


async def test_the_pages_of_an_action_look_right(stack: BrowserStack) -> None:
    """WCAG A and AA by axe and nothing wider than the window: list, filters, faults, confirmation, result."""
    key, text = await stack.key()
    await _waiting(stack, text, 2, metadata={"ticket": "A-17" * 30, "k": "v"}, end_user="a" * 120)
    blocked = await stack.submit(text, "[[sim: check_then_block hold=1]] x", metadata={"ticket": "B"})
    checking = await stack.submit(text, CHECKED, policy={"on_delay": {"action": "wait"}}, end_user="anna")
    await stack.stage.settled(blocked)
    await stack.stage.reaches(checking, "a check", lambda job: job.open_checks)
    paths = {
        "jobs-all": "/jobs",
        "jobs-filtered": f"/jobs?status=scheduled&status=checking&end_user={'a' * 120}&created_after=-24h",
        "jobs-fault": "/jobs?created_after=yesterday",
        "jobs-choices": "/jobs?q=anna",
        "jobs-none": "/jobs?code=overloaded&status=failed",
        "action-confirm": "/jobs/actions?action=delete_content&which=matching&status=scheduled&created_after=-1h",
    }
    looks = [("wide", "light"), ("narrow", "dark")]
    for size, scheme in [*looks, ("narrow", "light"), ("wide", "dark")] if SCREENSHOTS else looks:
        async with stack.visitor(size, scheme) as visitor:
            visitor.expected = ("422",)
            await visitor.log_in(key)
            for name, path in paths.items():
                await visitor.open(path)
                if name == "jobs-filtered":
                    await visitor.page.get_by_text("More filters").click()
                await _looks_right(visitor, f"{name}-{size}-{scheme}")
            await visitor.page.get_by_role("button", name=re.compile("Delete the content")).click()
            await visitor.page.wait_for_url("**/jobs/actions/result*")
            await expect(visitor.page.get_by_role("heading", name="Which jobs refused")).to_be_visible()
            await _looks_right(visitor, f"action-result-{size}-{scheme}")


async def _looks_right(visitor: Visitor, name: str) -> None:
    await visitor.screenshot(name)
    assert await visitor.audit_accessibility() == [], name
    page = visitor.page
    wider = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wider <= 0, f"{name} is {wider} px wider than the window"

"""What every page and action of the console has in common: headers, CSRF, addresses, errors."""

from __future__ import annotations

import re

import pytest
from console_server import serving, submitted
from waiting import next_week

HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
_OTHER_PAGES = (
    *("/webhooks", "/end-users", "/end-users?quarantined=1", "/appeals", "/cost", "/audit", "/lab", "/apps"),
    "/apps/acme",
)
_ACTIONS = (
    *("/webhooks/redeliver", "/webhooks/redeliver-failed", "/webhooks/endpoints/we_x/rotate"),
    *("/webhooks/endpoints/we_x/state", "/end-users/find", "/end-users/quarantine", "/end-users/x/quarantine"),
    *(
        "/end-users/x/lift",
        "/appeals/open",
        "/appeals/appeal_x/sent",
        "/appeals/appeal_x/answer",
        "/audit/verify",
        "/audit/holds/place",
        "/audit/holds/release",
    ),
    *("/appeals/appeal_x/outcome", "/appeals/appeal_x/notes", "/appeals/appeal_x/jobs", "/lab/run"),
)


async def test_every_action_needs_a_token_an_origin_and_a_session(console):
    visitor = await console.logged_in()
    form = {"csrf": await visitor.csrf(), "reason": "r", "job": "all", "end_user": "u", "text": "t"}
    for path in _ACTIONS:
        assert (await visitor.post(f"/console{path}", {**form, "csrf": "x"})).status_code == 403, path
        assert (await visitor.post(f"/console{path}", form, Origin="https://evil.example")).status_code == 403, path
        assert (await console.visitor().post(f"/console{path}", form)).status_code == 303, path
        assert (await visitor.get(f"/console{path}")).status_code in {404, 405}, path
    assert "Nothing is on hold" in (await visitor.get("/console/audit")).text


async def test_every_answer_has_the_headers_once(console):
    visitor = await console.logged_in()
    for path in ("/console", "/console/login", "/console/now", "/console/jobs/nothing", "/console/nowhere"):
        answer = await visitor.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        for name, value in HEADERS.items():
            assert answer.headers.get_list(name) == [value], (path, name)


async def test_pages_have_no_inline_style_script_or_handler(console):
    visitor = await console.logged_in()
    job_id = await submitted(console, (await console.key())[1], metadata={"a": "b"})
    job = f"/jobs/{job_id}"
    lists = ("/jobs?status=queued&metadata=a%3Db", "/jobs?q=x", "/jobs/actions?action=cancel&status=queued")
    for path in (*lists, "/now", "/jobs", job, f"{job}/audit", f"{job}/support", "/try", "/login", *_OTHER_PAGES):
        page = (await visitor.get(f"/console{path}")).text
        assert re.search(r"<style|\sstyle=|\son\w+=|javascript:", page) is None, path
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page)), path
        assert re.search(r'(?:src|href|action)="(?:https?:)?//', page) is None, path


@pytest.mark.parametrize("how", ["missing", "wrong", "of_another_session"])
async def test_an_action_needs_the_token_of_its_session(console, how):
    _, text = await console.key()
    job_id = await submitted(console, text, not_before=next_week())
    visitor, other = await console.logged_in(), await console.logged_in()
    csrf = {"missing": {}, "wrong": {"csrf": "x" * 43}, "of_another_session": {"csrf": await other.csrf()}}[how]
    answer = await visitor.post(f"/console/jobs/{job_id}/cancel", csrf)
    assert answer.status_code == 403
    assert "csrf_token_invalid" in answer.text
    assert "scheduled" in (await visitor.get(f"/console/jobs/{job_id}")).text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_a_form_of_another_site_does_nothing(console, headers):
    _, text = await console.key()
    job_id = await submitted(console, text, not_before=next_week())
    visitor = await console.logged_in()
    form = {"csrf": await visitor.csrf()}
    for path in (f"/console/jobs/{job_id}/cancel", "/console/try", "/console/logout"):
        assert (await visitor.post(path, form, **headers)).status_code == 403
    assert (await console.visitor().post("/console/login", {"secret": text}, **headers)).status_code == 403
    assert "scheduled" in (await visitor.get(f"/console/jobs/{job_id}")).text


async def test_another_site_logs_nobody_out(console):
    """Its form comes without the strict cookie; the answer must not remove the cookie that the browser has."""
    answer = await console.visitor().post(
        "/console/logout", {}, Origin="https://evil.example", **{"Sec-Fetch-Site": "cross-site"}
    )
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


async def test_the_proxy_may_end_tls_without_saying_so(console):
    visitor = console.visitor()
    visitor.origin = visitor.origin.replace("http://", "https://")
    assert (await visitor.log_in((await console.key())[1])).status_code == 303


async def test_a_browser_is_led_to_the_console_and_others_are_not(console):
    visitor = console.visitor()
    assert (await visitor.get("/")).headers["location"] == "/console"
    for headers in ({"Accept": "application/json"}, {"Accept": "*/*"}):
        answer = await visitor.get("/", **headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert (await visitor.client.post("/", headers={"Accept": "text/html"})).status_code == 404


async def test_the_first_page_is_one_that_the_key_may_see(console):
    for scopes, path in ((("read",), "/now"), (("ops",), "/end-users"), (("audit", "content"), "/audit")):
        visitor = await console.logged_in("acme", scopes)
        assert (await visitor.get("/console")).headers["location"] == f"/console{path}"
        assert (await visitor.get(f"/console{path}")).status_code == 200
    assert (await console.visitor().get("/console")).headers["location"] == "/console/now"


async def test_the_setting_turns_it_off(settings, redis, clock):
    async with serving(settings.model_copy(update={"console": False}), redis, clock) as off:
        for path in ("/", "/console", "/console/login"):
            assert (await off.visitor().get(path)).status_code == 404


async def test_files_are_kept_by_their_content(console):
    visitor = console.visitor()
    page = (await visitor.get("/console/login")).text
    addresses = re.findall(r'(?:href|src)="(/console/static/[^"]+)"', page)
    assert {address.rpartition(".")[2] for address in addresses} == {"css", "js", "svg"}
    for address in addresses:
        answer = await visitor.get(address)
        assert answer.headers.get_list("cache-control") == ["public, max-age=31536000, immutable"]
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        old = re.sub(r"static/[0-9a-f]+/", "static/0000000000000000/", address)
        assert (await visitor.get(old)).headers["cache-control"] == "no-store"
    assert (await visitor.get("/console/static/x/..%2fconsole.css")).status_code == 404


async def test_errors_are_pages(console):
    visitor = await console.logged_in()
    answer = await visitor.get("/console/jobs/job_0")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "There is no such job" in answer.text
    assert (await visitor.get("/console/nowhere")).status_code == 404
    wrong = await visitor.client.post(
        "/console/try", content=b"{}", headers={"Origin": visitor.origin, "Content-Type": "application/json"}
    )
    assert wrong.status_code == 415
    large = await visitor.post("/console/jobs/job_0/cancel", {"csrf": "x" * 70_000})
    assert large.status_code == 413


async def test_a_live_page_that_is_current_is_not_sent_again(console):
    visitor = await console.logged_in()
    page = await visitor.get("/console/now")
    version = re.search(r'data-version="([^"]+)"', page.text)
    assert version is not None
    again = await visitor.get("/console/now", **{"If-None-Match": f'"{version[1]}"', "Vigil-Live": "1"})
    assert (again.status_code, again.content) == (304, b"")
    nobody = await console.visitor().get("/console/now", **{"Vigil-Live": "1"})
    assert nobody.status_code == 401

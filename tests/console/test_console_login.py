"""Who gets into the console, and what a session is worth."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta

import pytest
from builders import VAULT
from console_server import serving, submitted
from waiting import until

from api.runtime import login_attempts
from api.runtime.console_sessions import ConsoleSessions
from api.runtime.key_cache import KeyCache
from api.runtime.key_use_log import KeyUseLog
from worker.clock import Clock
from worker.store import console_access, keys
from worker.store.apps import Apps
from worker.store.connection.pool import connect
from worker.store.console_access import ConsoleAccess
from worker.store.key_uses import KeyUses


def cookie_of(answer) -> dict[str, str]:
    """The attributes of the one cookie that the answer sets."""
    (line,) = answer.headers.get_list("set-cookie")
    first, *rest = [part.strip() for part in line.split(";")]
    name, _, value = first.partition("=")
    return {"name": name, "value": value} | {
        key.lower(): value for key, _, value in (part.partition("=") for part in rest)
    }


async def test_a_key_logs_in_and_the_cookie_is_for_this_console_alone(console):
    visitor = console.visitor()
    assert (await visitor.get("/console/now")).headers["location"] == "/console/login?next=%2Fnow"
    answer = await visitor.log_in((await console.key())[1], next="/jobs?status=checking")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/jobs?status=checking")
    cookie = cookie_of(answer)
    assert (cookie["name"], cookie["path"], cookie["max-age"]) == ("vigil_console", "/console", "43200")
    assert cookie["samesite"] == "strict"
    assert "httponly" in cookie
    assert "secure" not in cookie
    assert "Now" in (await visitor.get("/console/now")).text


async def test_behind_tls_the_cookie_is_secure_and_below_the_proxys_prefix(console):
    visitor = console.visitor(**{"X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/ops/vigil"})
    visitor.origin = visitor.origin.replace("http://", "https://")
    answer = await visitor.log_in((await console.key())[1])
    cookie = cookie_of(answer)
    assert (cookie["name"], cookie["path"]) == ("__Secure-vigil_console", "/ops/vigil/console")
    assert "secure" in cookie
    assert answer.headers["location"] == "/ops/vigil/console"
    page = (await visitor.get("/console/login")).text
    assert 'action="/ops/vigil/console/login"' in page
    assert 'href="/ops/vigil/console/static/' in page


@pytest.mark.parametrize("secret", ["", "vgl_" + "x" * 38, "vgo_" + "x" * 32, "vgt_1.2.3", "ключ", "\0"])
async def test_what_is_no_key_gets_nobody_in(console, secret):
    answer = await console.visitor().log_in(secret)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


async def test_a_link_logs_in_once(console):
    key, _ = await console.key("acme", ("read",))
    link = await console.link(key)
    assert (await console.visitor().log_in(link)).status_code == 303
    second = await console.visitor().log_in(link)
    assert second.status_code == 401
    assert "was used before" in second.text


async def test_the_whole_address_of_a_link_may_be_pasted(console):
    """The script takes the link out of the address; a browser without it does not."""
    link = await console.link((await console.key())[0])
    answer = await console.visitor().log_in(f" {console.base_url}/console/login#link={link} ")
    assert answer.status_code == 303


async def test_a_link_used_twice_at_once_lets_one_in(console):
    key, _ = await console.key()
    link = await console.link(key)
    answers = await asyncio.gather(*(console.visitor().log_in(link) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [303, 401, 401, 401, 401, 401]


async def test_a_link_of_a_revoked_key_or_an_old_one_lets_nobody_in(console, redis):
    key, _ = await console.key()
    link, old = await console.link(key), await console.link(key)
    (name,) = [name async for name in redis.scan_iter("vigil:consolelink:*") if await redis.ttl(name) > 0][:1]
    assert 0 < await redis.ttl(name) <= 600
    await Apps(redis, Clock()).revoke(key.id)
    assert (await console.visitor().log_in(link)).status_code == 401
    assert (await console.visitor().log_in(old)).status_code == 401


async def test_a_prepared_cookie_is_worth_nothing_and_a_login_ends_the_session_before(console):
    attacker = await console.logged_in("theirs")
    prepared = attacker.client.cookies["vigil_console"]
    victim = console.visitor()
    victim.client.cookies.set("vigil_console", prepared, path="/console")
    answer = await victim.log_in((await console.key("acme"))[1])
    fresh = cookie_of(answer)["value"]
    assert fresh != prepared
    assert (await attacker.get("/console/now")).status_code == 303  # that session is over
    unknown = console.visitor()
    unknown.client.cookies.set("vigil_console", "vgs_" + "A" * 32, path="/console")
    assert (await unknown.get("/console/now")).status_code == 303


async def test_two_cookies_of_the_name_are_none(console):
    visitor = await console.logged_in()
    token = visitor.client.cookies["vigil_console"]
    other = console.visitor(Cookie=f"vigil_console={token}; vigil_console={token}")
    assert (await other.get("/console/now")).status_code == 303


async def test_a_revoked_key_ends_its_sessions(console, redis):
    key, text = await console.key()
    visitor = console.visitor()
    await visitor.log_in(text)
    assert (await visitor.get("/console/now")).status_code == 200
    await Apps(redis, Clock()).revoke(key.id)

    async def refused() -> bool:
        return (await visitor.get("/console/now")).status_code == 303

    await until("the session to end", refused, 10)


async def test_logging_out_ends_the_session_and_not_only_the_cookie(console):
    visitor = await console.logged_in()
    token = visitor.client.cookies["vigil_console"]
    answer = await visitor.act("/console/logout")
    assert answer.headers["location"] == "/console/login"
    again = console.visitor(Cookie=f"vigil_console={token}")
    assert (await again.get("/console/now")).status_code == 303


@pytest.mark.parametrize("kind", ["changed", "moved", "planted", "without_mac"])
async def test_a_session_that_vigil_did_not_write_lets_nobody_in(valkey_url, settings, redis, clock, kind):
    """Who can write to Redis gets no session by it."""
    async with serving(settings, redis, clock) as console:
        low, _ = await console.key("acme", ("read",))
        high, _ = await console.key("theirs")
        access = ConsoleAccess(redis, clock)
        token = await access.begin_session(low.id)
        (name,) = [name async for name in redis.scan_iter("vigil:console:*")]
        raw = await redis.get(name)
        body = json.loads(raw)
        if kind == "changed":
            digest = (await redis.hget(keys.API_KEYS, high.id)).decode()
            raw = raw.replace(body["key_id"].encode(), high.id.encode())
            raw = raw.replace(body["digest"].encode(), digest.encode())
        elif kind == "moved":
            await access.begin_session(high.id)
            (other,) = [one async for one in redis.scan_iter("vigil:console:*") if one != name]
            raw = await redis.get(other)
        elif kind == "planted":
            plain = connect(valkey_url)
            token = await ConsoleAccess(plain, clock).begin_session(high.id)
            await plain.aclose()
            name, raw = None, None
        else:
            raw = json.dumps({k: v for k, v in body.items() if k != "mac"}).encode()
        if name is not None:
            await redis.set(name, raw, ex=600)
        visitor = console.visitor(Cookie=f"vigil_console={token}")
        assert VAULT.macs.enabled
        assert (await visitor.get("/console/now")).status_code == 303


async def test_failed_attempts_are_bounded_and_lock_nobody_out(console, monkeypatch):
    monkeypatch.setattr(login_attempts, "MAX_FAILURES", 3)
    visitor = console.visitor()
    answers = [await visitor.log_in("vgo_" + "x" * 32) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
    assert int(answers[-1].headers["retry-after"]) <= 60
    assert (await visitor.log_in((await console.key())[1])).status_code == 303


async def test_logins_and_refused_ones_are_events_without_a_secret(console, telemetry_events, monkeypatch):
    monkeypatch.setattr(login_attempts, "MAX_FAILURES", 2)
    key, text = await console.key()
    link, visitor = await console.link(key), console.visitor()
    for secret in (text, link, link, "vgl_" + "x" * 38, "vgo_" + "x" * 32):
        await visitor.log_in(secret)
    emitted = [(name, fields) for name, fields in telemetry_events if name.startswith("console.")]
    assert [(name, fields["what"], fields.get("app")) for name, fields in emitted] == [
        ("console.logged_in", "key", "acme"),
        ("console.logged_in", "link", "acme"),
        ("console.login_refused", "link", None),
        ("console.login_refused", "key", None),
    ], "whoever tries on does not fill the log"
    assert not any(secret[4:] in str(emitted) for secret in (text, link))


@pytest.mark.parametrize(
    "target",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nSet-Cookie: x=y"],
)
async def test_the_login_leads_nowhere_else(console, target):
    answer = await console.visitor().log_in((await console.key())[1], next=target)
    assert answer.headers["location"] in ("/console", "/console/a%0ASet-Cookie:%20x=y")
    assert answer.headers.get("set-cookie", "").count("x=y") == 0


async def test_the_api_knows_no_cookies(console):
    visitor = await console.logged_in()
    assert (await visitor.get("/v1/status")).status_code == 401


async def test_a_link_of_another_site_opens_for_who_is_logged_in(console):
    """A browser sends no strict cookie with it: the answer opens the page again, from this site."""
    answer = await console.visitor().get("/console/now", **{"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert '<meta http-equiv="refresh" content="0">' in answer.text


async def test_a_key_that_may_only_read_sees_no_buttons_and_is_refused(console):
    _, writer = await console.key("acme")
    job_id = await submitted(console, writer)
    reader = await console.logged_in("acme", ("read",))
    page = (await reader.get(f"/console/jobs/{job_id}")).text
    assert job_id in page
    assert "/cancel" not in page
    assert "Try it" not in page
    for path in (f"/console/jobs/{job_id}/cancel", "/console/try"):
        answer = await reader.act(path)
        assert (answer.status_code, "scope submit" in answer.text) == (403, True)
    assert (await reader.get(f"/console/jobs/{job_id}/audit")).status_code == 403


async def test_another_apps_job_is_not_there(console):
    _, other_key = await console.key("theirs")
    job_id = await submitted(console, other_key)
    visitor = await console.logged_in("acme")
    for path in ("", "/audit", "/support"):
        assert (await visitor.get(f"/console/jobs/{job_id}{path}")).status_code == 404
    assert (await visitor.act(f"/console/jobs/{job_id}/cancel")).status_code == 404
    assert job_id not in (await visitor.get("/console/jobs")).text


class AheadClock(Clock):
    """The machine's clock, set forward."""

    ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead


async def test_a_session_ends_after_twelve_hours_and_a_link_after_ten_minutes(redis):
    """Also if Redis keeps the record for longer: its end is a part of it."""
    clock = AheadClock()
    key, _, _ = await Apps(redis, clock).create_key("acme", ("read",))
    access = ConsoleAccess(redis, clock)
    token, link = await access.begin_session(key.id), await access.create_link(key.id)
    sessions = ConsoleSessions(access, KeyCache(Apps(redis, clock), clock, KeyUseLog(KeyUses(redis), clock)), clock)
    for name in [one async for one in redis.scan_iter("vigil:console*")]:
        assert await redis.ttl(name) > 0
        await redis.persist(name)
    clock.ahead = timedelta(minutes=11)
    assert await access.take_link(link) is None
    assert await sessions.find(token) is not None
    clock.ahead = timedelta(hours=12, seconds=1)
    assert await sessions.find(token) is None
    assert await access.session(token) is None


async def test_a_key_has_at_most_so_many_sessions_and_the_oldest_end(console, redis, clock, monkeypatch):
    monkeypatch.setattr(console_access, "MAX_SESSIONS", 3)
    record, key = (await console.key())[:2]
    access = ConsoleAccess(redis, clock)
    tokens = [await access.begin_session(record.id) for _ in range(5)]
    other = await access.begin_session((await console.key("other"))[0].id)
    assert [await access.session(token) is not None for token in (*tokens, other)] == [False, False, *[True] * 4]
    await redis.set(keys.console_sessions(record.id), "of another type")
    visitor = console.visitor()
    assert (await visitor.log_in(key)).status_code == 303
    assert await redis.zcard(keys.console_sessions(record.id)) == 1

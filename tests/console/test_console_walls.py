"""What holds for every page and action of the console, also those to come: whose session, which scope, whose rows."""

from __future__ import annotations

import re

from arq.connections import ArqRedis
from builders import BLOCKED, STARTED, began, done, new_job
from console_server import Console, Visitor

from api.console.console_routes import ConsoleRoute
from api.console.routes import console_routes
from worker.clock import Clock
from worker.jobs.states import Outcome
from worker.safety.appeals import AppealStep
from worker.store.end_users.appeals import Appeals
from worker.store.jobs.repository import Jobs
from worker.store.jobs.stored_job import NewJob
from worker.store.webhooks.endpoints import Endpoints

OTHER_APP, PERSON = "theirs", "e" * 64
ECHOED = "eve@example.com"
SECRETS = ("secret prompt", "A-17", ECHOED, PERSON, "hooks.theirs.example")
_PUBLIC = {"/", "/console", "/console/", "/console/login", "/console/static/{version}/{name}", "/console/{path:path}"}
_FOR_READERS = {"/console/logout", "/console/jobs/{job_id}/support"}
"""Actions that need no more than `read`."""
ROUTES = [route for route in console_routes() if route.path not in _PUBLIC]
PAGES = [route for route in ROUTES if route.method == "GET"]
ACTIONS = [route for route in ROUTES if route.method == "POST"]
FIELDS = {
    "reason": "r",
    "case": "c",
    "outcome": "withdrawn",
    "jobs": "job_0",
    "text": "t",
    "description": "d",
    "end_user": "someone",
    "hours": "0",
    "state": "paused",
    "action": "cancel",
    "run_id": "0" * 20,
    "form_id": "0" * 20,
    "model": "gpt-5.6-luna",
    "input": "x",
}


def filled(route: ConsoleRoute, **params: str) -> str:
    """The route's path with these parameters."""
    return re.sub(r"\{(\w+)(?::path)?\}", lambda found: params[found[1]], route.path)


def shown(text: str, *echoed: str) -> list[str]:
    """What a page shows of another app, but for what its address said."""
    return [one for one in SECRETS if one in text and one not in echoed]


async def their_things(redis: ArqRedis) -> dict[str, str]:
    """A job, an endpoint and an end user of another app, by the names of parameters."""
    jobs = Jobs(redis, Clock())
    new = new_job(app=OTHER_APP, safety_identifier=PERSON, prompt=SECRETS[0])
    private = {"metadata": {"ticket": SECRETS[1]}, "end_user": ECHOED}
    job_id = (await jobs.submit(NewJob(new.fact, private, new.input)))[0].job.id
    await jobs.change(job_id, lambda _: [(STARTED, None), (began(), 1), (done(Outcome.BLOCKED), 1), (BLOCKED, 1)])
    wanted = {"events": ("job.completed",), "payload": "thin", "description": "", "secret": "whsec_" + "A" * 32}
    endpoint = await Endpoints(redis, Clock()).create(OTHER_APP, url=f"https://{SECRETS[4]}/x", **wanted)
    step = AppealStep(kind="opened", at=Clock().now(), by="key_x", text=SECRETS[0], jobs=(job_id,))
    appeal = await Appeals(redis, Clock()).open(OTHER_APP, PERSON, step)
    return {"job_id": job_id, "endpoint_id": endpoint.id, "person": PERSON, "app": OTHER_APP, "appeal": appeal.id}


async def kept(redis: ArqRedis, names: dict[str, str]) -> dict[bytes, bytes]:
    """All that is stored under a name of these."""
    parts = [value.encode() for value in names.values()]
    found = [name async for name in redis.scan_iter("*") if any(part in name for part in parts)]
    return {name: await redis.dump(name) for name in found}


async def visitor_of(console: Console, *scopes: str) -> Visitor:
    return await console.logged_in("acme", scopes)


async def test_without_a_session_every_page_and_action_leads_to_the_login(console: Console) -> None:
    visitor, params = (
        console.visitor(),
        {"job_id": "job_0", "endpoint_id": "we_0", "person": PERSON, "app": "acme", "appeal": "appeal_0"},
    )
    for route in PAGES:
        answer = await visitor.get(filled(route, **params))
        assert (answer.status_code, answer.headers.get("location", "")[:14]) == (303, "/console/login"), route.path
    for route in ACTIONS:
        answer = await visitor.post(filled(route, **params), FIELDS)
        assert (answer.status_code, answer.headers.get("location", "")) == (303, "/console/login"), route.path
        assert answer.headers["x-frame-options"] == "DENY", route.path


async def test_every_action_refuses_a_form_of_another_session_or_site(console: Console) -> None:
    visitor, other = await console.logged_in(), await console.logged_in()
    csrf, foreign = await visitor.csrf(), await other.csrf()
    params = {"job_id": "job_0", "endpoint_id": "we_0", "person": PERSON, "appeal": "appeal_0"}
    for route in ACTIONS:
        path = filled(route, **params)
        for token in ({}, {"csrf": "x" * 43}, {"csrf": foreign}):
            answer = await visitor.post(path, FIELDS | token)
            assert (answer.status_code, "csrf_token_invalid" in answer.text) == (403, True), path
        for headers in ({"Origin": "https://evil.example"}, {"Origin": ""}, {"Sec-Fetch-Site": "same-site"}):
            answer = await visitor.post(path, FIELDS | {"csrf": csrf}, **headers)
            assert (answer.status_code, "foreign_origin" in answer.text) == (403, True), path
    assert (await visitor.get("/console/now")).status_code == 200, "nor did one of them log the session out"


async def test_a_key_that_may_only_read_sees_no_form_and_every_action_refuses_it(
    console: Console, redis: ArqRedis
) -> None:
    reader = await visitor_of(console, "read")
    jobs = Jobs(redis, Clock())
    job_id = (await jobs.submit(new_job(app="acme", safety_identifier=PERSON)))[0].job.id
    params = {"job_id": job_id, "endpoint_id": "we_0", "person": PERSON, "app": "acme", "appeal": "appeal_0"}
    readable = 0
    for route in PAGES:
        answer = await reader.get(filled(route, **params))
        forms = set(re.findall(r'<form[^>]*method="post"[^>]*action="([^"]+)"', answer.text))
        assert forms <= {"/console/logout", f"/console/jobs/{job_id}/support"}, route.path
        readable += answer.status_code == 200
    assert readable >= 5
    for route in ACTIONS:
        if route.path not in _FOR_READERS:
            assert (await reader.act(filled(route, **params), **FIELDS, ids=job_id)).status_code == 403, route.path
    assert str((await jobs.load(job_id)).job.status) == "queued"


async def test_what_is_another_apps_is_nowhere_shown_and_by_nothing_changed(console: Console, redis: ArqRedis) -> None:
    names, visitor = await their_things(redis), await console.logged_in()
    job_id, before = names["job_id"], await kept(redis, names)
    new = new_job(app="acme")
    own = {"jobs": (await Jobs(redis, Clock()).submit(NewJob(new.fact, {"metadata": {}}, new.input)))[0].job.id}
    assert len(before) >= 5
    for route in PAGES:
        for query in ("", f"?q={job_id}", f"?end_user={ECHOED}", f"?action=cancel&which=selected&ids={job_id}"):
            answer = await visitor.get(filled(route, **names) + query)
            assert not shown(answer.text, *([ECHOED] if ECHOED in query else [])), (route.path, query)
            if any(name in route.path for name in ("{job_id}", "{person}", "{appeal}")):
                assert answer.status_code == 404, (route.path, query)
    for route in ACTIONS:
        if route.path == "/console/logout":
            continue
        for given in ({"ids": job_id, "job": job_id}, {"status": "blocked", "app": OTHER_APP}, {"message": "msg_0"}):
            answer = await visitor.act(filled(route, **names), **FIELDS | own | given)
            assert not shown(answer.text), route.path
            if "{" in route.path:
                assert answer.status_code == 404, (route.path, given)
    found = await visitor.act("/console/end-users/find", end_user=PERSON)
    assert found.status_code == 404
    assert await kept(redis, names) == before

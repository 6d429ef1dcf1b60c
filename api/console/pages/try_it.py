"""Try it: submit a job with a policy; with the simulator, pick what its provider does."""

from __future__ import annotations

from typing import Any, Final, get_args

from api.console.console_routes import ConsoleRoutes, Done
from api.console.page_response import Page
from api.console.simulator_scenarios import scenario_choices
from api.console.visit import Form, Visit
from api.jobs.dry_run import dry_run
from api.jobs.request_digests import digests_of
from api.jobs.submission import JobRequest, submit
from api.runtime.store_deadline import with_deadline
from api.schema.requests import Submit
from api.web.params import base_url
from api.web.problems import Problem, bad_field, problem_of
from api.web.rate_limit_headers import meter_of
from api.web.tracing_middleware import trace_of
from api.web.validation import validate
from worker.jobs.errors import QueueFull, RateExceeded, Refused
from worker.jobs.spec import Action

routes = ConsoleRoutes()
_MAX_BYTES: Final = 1024 * 1024  # as a form has it: what is longer, a program submits
_EXAMPLE: Final = "Why is the sky blue?"
_FIRST_SCENARIO: Final = "check_then_clear"
_NUMBERS: Final = ("after_seconds", "silence_seconds", "max_cost_usd", "hold")


@routes.page("/try", "submit")
async def show_form(visit: Visit) -> Page:
    """Show the form with an example."""
    scenarios = await scenario_choices(visit.context)
    names = [one.name for one in scenarios]
    scenario = _FIRST_SCENARIO if _FIRST_SCENARIO in names else ""
    models = list(visit.context.catalogue.models)
    return await _form_page(visit, {"input": _EXAMPLE, "model": models[0] if models else "", "scenario": scenario})


@routes.action("/try", "submit", max_bytes=_MAX_BYTES)
async def submit_form(visit: Visit, form: Form) -> Page | Done:
    """Submit the job and lead to its page, or show what it may cost."""
    sent = {name: value for name, value in form.pairs if name != "csrf"}
    try:
        body = validate(Submit, _request(form))
        if form.text("act") == "price":
            key = await visit.key_with_limits()
            priced = await with_deadline(visit.request, dry_run(visit.context, key, body))
            return await _form_page(visit, sent, priced=priced)
        return Done(f"/jobs/{await _submit(visit, body, form.size)}")
    except (Problem, Refused, RateExceeded, QueueFull) as error:
        return await _form_page(visit, sent, problem=problem_of(error))


async def _submit(visit: Visit, body: Submit, size: int) -> str:
    request, context, key = visit.request, visit.context, await visit.key_with_limits()
    digests = await digests_of(context, key.app, body, size, repeatable=False)
    meter = meter_of(context.settings, key)
    job = JobRequest(key, body, digests, trace_of(request.scope), meter, base_url(request))
    stored, _ = await with_deadline(request, submit(context, job))
    return stored.job.id


def _request(form: Form) -> dict[str, Any]:
    """Return the request of the API that the form stands for. Raises a Problem for what is no number."""
    numbers = {name: _number(name, form.text(name)) for name in _NUMBERS}
    on_delay: dict[str, Any] = {"action": form.text("action", "offer")}
    on_delay |= {name: numbers[name] for name in ("after_seconds", "silence_seconds") if numbers[name] is not None}
    policy: dict[str, Any] = {"on_delay": on_delay, "require_model": form.text("require_model") == "yes"}
    if numbers["max_cost_usd"] is not None:
        policy["max_cost_usd"] = numbers["max_cost_usd"]
    request = {"model": form.text("model"), "input": _directive(form, numbers["hold"]) + form.text("input")}
    if form.text("end_user"):
        request["end_user"] = form.text("end_user")
    return request | {"policy": policy}


def _directive(form: Form, hold: float | None) -> str:
    """Return what tells the simulator which scenario to play; the real provider gets none, for none can be picked."""
    scenario = form.text("scenario")
    if not scenario:
        return ""
    if not scenario.replace("_", "").isalnum() or not scenario.isascii():
        raise bad_field("scenario", "There is no such scenario.")
    return f"[[sim: {scenario}{'' if hold is None else f' hold={hold:g}'}]] "


def _number(name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise bad_field(name, f"{name} must be a number.") from None
    return value


async def _form_page(
    visit: Visit, sent: dict[str, str], problem: Problem | None = None, priced: Any | None = None
) -> Page:
    scenarios = await scenario_choices(visit.context)
    values = {
        "sent": {"action": "offer", "after_seconds": "5", "silence_seconds": "", "max_cost_usd": "", "hold": ""}
        | {"end_user": "", "scenario": "", "require_model": "", "input": "", "model": ""}
        | sent,
        "models": list(visit.context.catalogue.models),
        "any_model": visit.context.settings.allow_unknown_models,
        "actions": get_args(Action),
        "scenarios": scenarios,
        "problem": problem.body() if problem is not None else None,
        "priced": priced,
    }
    return Page("try_it.html", values, status=problem.status if problem is not None else 200)

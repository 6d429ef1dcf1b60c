"""The checks of `vigil doctor` for the provider: reachable, its clock, its models, and whether VIGIL_UPSTREAM fits it.

Nothing is generated unless `--try` names a model.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx2

from worker.cli.doctor.check import DoctorCheck, clock_check
from worker.cli.doctor.external_checks import LOCAL, fetch
from worker.cli.rendering import clean
from worker.clock import Clock
from worker.jobs.errors import Failure
from worker.safety import classify
from worker.safety.codes import normalize_code
from worker.safety.endpoint import Mode, judge_endpoint
from worker.safety.messages import MESSAGES, job_error
from worker.settings import Settings
from worker.upstream.client import OPENAI, Provider
from worker.upstream.endpoints import find_endpoints
from worker.upstream.errors import closed_from
from worker.upstream.probe import model_names
from worker.upstream.trial import TIMEOUT_S, EndpointTrial, try_model

_MAX_MODELS_SHOWN: Final = 5
_NO_KEY: Final = "none"  # a worker without a key sends this too


async def provider_checks(settings: Settings, model: str | None = None) -> AsyncIterator[DoctorCheck]:
    """Check the provider: key, clock, models and APIs; with `model` also one small request to that model."""
    if settings.openai_api_key is None and settings.openai_base_url is None:
        fix = "set it for the real provider, or only OPENAI_BASE_URL for a server that needs no key"
        yield DoctorCheck("provider", "warning", "no OPENAI_API_KEY: `vigil up` uses the simulator", fix)
        return
    base = (settings.openai_base_url or OPENAI).rstrip("/")
    key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else _NO_KEY
    headers = {"Authorization": f"Bearer {key}"}
    if settings.openai_org_id:
        headers["OpenAI-Organization"] = settings.openai_org_id
    if settings.openai_project_id:
        headers["OpenAI-Project"] = settings.openai_project_id
    clock = Clock()
    answer = await fetch(f"{base}/models", headers, local=base.startswith(LOCAL))
    yield _reachability(base, answer)
    if isinstance(answer, Exception):
        return
    try:
        provider_time = parsedate_to_datetime(answer.headers.get("date") or "")
        here = clock.now()
        # the header has whole seconds, and the response took some time to arrive
        yield clock_check(
            "their clock", "the provider", (provider_time - here + timedelta(seconds=0.5)).total_seconds(), slack=2.0
        )
    except (ValueError, TypeError):
        pass
    if (listed := _listed(answer)) is not None:
        yield _models(listed, settings)
    provider = Provider(key, base, settings.openai_org_id, settings.openai_project_id)
    try:
        found = judge_endpoint(
            settings.upstream, await find_endpoints(provider, f"doctor-{clock.random_bytes(8).hex()}"), clock.now()
        )
        detail, state = MESSAGES[found.code].message, {True: "ok", False: "problem", None: "warning"}[found.fits]
        detail = f"VIGIL_UPSTREAM={settings.upstream}: {detail}"
        yield DoctorCheck("endpoint", state, detail, None if found.fits else found.advice)  # type: ignore[arg-type]
        if model is not None:
            yield await _trial(provider, settings.upstream, model)
    finally:
        await provider.aclose()


def _reachability(base: str, answer: httpx2.Response | Exception) -> DoctorCheck:
    if isinstance(answer, Exception):
        failure: Failure = classify.closed(closed_from(answer, opened=False))
        explanation = job_error(failure.code)
        return DoctorCheck(
            "provider",
            "problem",
            f"{base} can't be reached: {explanation.message}",
            _without_doctor_hint(explanation.advice),
        )
    match answer.status_code:
        case 200:
            return DoctorCheck("provider", "ok", f"{base} accepts the key")
        case 401:
            fix = "check OPENAI_API_KEY, OPENAI_ORG_ID and OPENAI_PROJECT_ID: key and organisation must belong together"
            return DoctorCheck("provider", "problem", f"{base} refuses the key (401{_code(answer)})", fix)
        case 403:
            fix = "this key, project or location may not use the API; ask an owner of the organisation"
            return DoctorCheck("provider", "problem", f"{base} forbids the request (403{_code(answer)})", fix)
        case 404 | 405:
            fix = "check OPENAI_BASE_URL, which usually ends in /v1, unless the line `endpoint` is ok"
            return DoctorCheck("provider", "warning", f"{base} has no list of models ({answer.status_code})", fix)
        case 429:
            fix = "check the organisation's limits and credit"
            return DoctorCheck("provider", "warning", f"{base} limits the rate (429{_code(answer)})", fix)
        case status:
            fix = "check OPENAI_BASE_URL; try later"
            return DoctorCheck("provider", "problem", f"{base} answers {status}{_code(answer)}", fix)


def _without_doctor_hint(advice: str) -> str:
    """Return the advice without the hint to run the doctor."""
    return advice.removeprefix("Run `vigil doctor` on the worker's machine and ")


def _listed(answer: httpx2.Response) -> frozenset[str] | None:
    try:
        body: Any = answer.json()
    except ValueError:
        return None
    return model_names(body) if answer.is_success else None


def _models(listed: frozenset[str], settings: Settings) -> DoctorCheck:
    """Compare the provider's list of models with the catalogue."""
    catalogue = settings.catalogue()
    missing = [
        name for name, model in catalogue.models.items() if name not in listed and listed.isdisjoint(model.aliases)
    ]
    shown = [clean(name) for name in sorted(listed)[:_MAX_MODELS_SHOWN]]
    listed_models = ", ".join(shown) + (
        f" and {len(listed) - _MAX_MODELS_SHOWN} more" if len(listed) > _MAX_MODELS_SHOWN else ""
    )
    if not listed:
        return DoctorCheck(
            "their models", "ok", "the provider's list is empty: only a request shows which models it accepts"
        )
    if not missing:
        return DoctorCheck("their models", "ok", "the provider lists every model of the catalogue in use")
    if len(missing) < len(catalogue.models):
        fix = "`vigil probe` says why; or remove them from the file of VIGIL_MODELS_FILE"
        return DoctorCheck("their models", "warning", f"the provider does not list {', '.join(missing)}", fix)
    if settings.allow_unknown_models:
        detail = f"the provider lists {listed_models}: accepted (VIGIL_ALLOW_UNKNOWN_MODELS), without a price"
        return DoctorCheck("their models", "ok", detail)
    fix = f'set VIGIL_MODELS_FILE to a file with [models."{shown[0]}"], or VIGIL_ALLOW_UNKNOWN_MODELS=1'
    return DoctorCheck(
        "their models", "warning", f"the provider lists no model of the catalogue; it lists {listed_models}", fix
    )


async def _trial(provider: Provider, mode: Mode, model: str) -> DoctorCheck:
    """Send one small request in the mode of VIGIL_UPSTREAM, as a job would."""
    name = f"doctor-{Clock().random_bytes(8).hex()}"
    try:
        async with asyncio.timeout(TIMEOUT_S):
            trial = await try_model(provider, model, mode, name)
    except TimeoutError:
        detail = f"{clean(model)} did not finish a small request within {TIMEOUT_S:g} s"
        return DoctorCheck(
            "trial", "problem", detail, "is the model being loaded? try again, or look at the server's log"
        )
    return _judged(trial, mode, model)


def _judged(trial: EndpointTrial, mode: Mode, model: str) -> DoctorCheck:
    verdict, name = trial.verdict, clean(model)
    if verdict.failure is not None:
        explanation = job_error(verdict.failure.code, verdict.failure.outcome.value)
        error = verdict.failure.provider
        code = f" ({error.http_status or ''} {normalize_code(error.code) or ''})".replace("( ", "(") if error else ""
        detail = f"{name} gave no answer: {explanation.message.rstrip('.')}{code.replace(' )', ')').replace(' ()', '')}"
        return DoctorCheck("trial", "problem", detail, _without_doctor_hint(explanation.advice))
    tokens = "no usage" if verdict.usage is None else f"{verdict.usage.total_tokens} tokens"
    detail = f"{name} answered ({verdict.outcome.value}, {tokens}, id {clean(trial.response_id or 'none')})"
    if mode == "background" and trial.kept is False:
        fix = "set VIGIL_UPSTREAM=stream for the workers: this server answers, but stores no response to resume"
        return DoctorCheck("trial", "problem", detail, fix)
    if trial.characters == 0:
        return DoctorCheck("trial", "warning", f"{detail}, without any text", "look at that server's log")
    return DoctorCheck("trial", "ok", detail)


def _code(answer: httpx2.Response) -> str:
    try:
        code = answer.json()["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f" {code}" if isinstance(code, str) and code.replace("_", "").isalnum() else ""

"""The checks of `vigil doctor` for the provider: reachable, its clock, its models, and whether VIGIL_UPSTREAM fits it.

Nothing is generated unless `--try` names a model.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import httpx2

from worker.cli.doctor.check import DoctorCheck, clock_check
from worker.cli.doctor.external_checks import LOCAL, fetch
from worker.cli.rendering import clean
from worker.clock import Clock
from worker.http_headers import parse_http_date
from worker.jobs.account_name import DEFAULT_ACCOUNT
from worker.jobs.errors import Failure
from worker.provider_accounts import ProviderAccount, ProviderAccounts, provider_accounts, secret_variable
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


async def provider_checks(settings: Settings, model: str | None = None) -> AsyncIterator[DoctorCheck]:
    """Check each account: key, clock, models and APIs; with `model` also one small request to that model.

    The request goes through the account that the model is bound to.
    """
    accounts = provider_accounts(settings)
    tried = accounts.bindings.account_of("", model, settings.catalogue()) if model is not None else None
    for name, account in accounts.by_name.items():
        async for check in _account_checks(settings, account, model if name == tried else None):
            yield check if name == DEFAULT_ACCOUNT else replace(check, name=f"{check.name} ({name})")
    if accounts.several:
        for check in _binding_checks(settings, accounts):
            yield check


def _binding_checks(settings: Settings, accounts: ProviderAccounts) -> Iterator[DoctorCheck]:
    """Tell which bindings overrule others, and which accounts nobody uses."""
    bindings = accounts.bindings
    overruled = list(bindings.overruled(settings.catalogue()))
    used = {*bindings.apps.values(), *bindings.models.values(), *bindings.families.values(), DEFAULT_ACCOUNT}
    unused = sorted(set(accounts.by_name) - used)
    fix = "see the tables [apps], [models] and [families] of the file of VIGIL_ACCOUNTS_FILE"
    if unused:
        yield DoctorCheck("accounts", "warning", f"nothing is bound to {', '.join(unused)}", fix)
    for sentence in overruled:
        yield DoctorCheck("accounts", "warning", sentence, f"if that is not meant, {fix}")
    if not unused and not overruled:
        yield DoctorCheck("accounts", "ok", f"{len(accounts.by_name)} accounts; no binding overrules another one")


async def _account_checks(
    settings: Settings, account: ProviderAccount, model: str | None
) -> AsyncIterator[DoctorCheck]:
    if account.api_key is None and (account.base_url is None or account.name != DEFAULT_ACCOUNT):
        fix = "set it for the real provider, or only OPENAI_BASE_URL for a server that needs no key"
        detail = "no OPENAI_API_KEY: `vigil up` uses the simulator"
        if account.name != DEFAULT_ACCOUNT:
            variable = secret_variable(account.name, "api_key")
            fix, detail = f"set {variable} for the workers", f"no {variable} here, which every worker needs"
        yield DoctorCheck("provider", "warning", detail, fix)
        return
    base = (account.base_url or OPENAI).rstrip("/")
    headers = {"Authorization": f"Bearer {account.key}"}
    if account.organization:
        headers["OpenAI-Organization"] = account.organization
    if account.project:
        headers["OpenAI-Project"] = account.project
    clock = Clock()
    answer = await fetch(f"{base}/models", headers, local=base.startswith(LOCAL))
    yield _reachability(base, answer, account)
    if isinstance(answer, Exception):
        return
    if (provider_time := parse_http_date(answer.headers.get("date"))) is not None:
        # the header has whole seconds, and the response took some time to arrive
        ahead = (provider_time - clock.now() + timedelta(seconds=0.5)).total_seconds()
        yield clock_check("their clock", "the provider", ahead, slack=2.0)
    if (listed := _listed(answer)) is not None:
        yield _models(listed, settings)
    provider = Provider(account.key, base, account.organization, account.project)
    try:
        found = judge_endpoint(
            account.upstream, await find_endpoints(provider, f"doctor-{clock.random_bytes(8).hex()}"), clock.now()
        )
        detail, state = MESSAGES[found.code].message, {True: "ok", False: "problem", None: "warning"}[found.fits]
        detail = f"VIGIL_UPSTREAM={account.upstream}: {detail}"
        yield DoctorCheck("endpoint", state, detail, None if found.fits else found.advice)  # type: ignore[arg-type]
        if model is not None:
            yield await _trial(provider, account.upstream, model)
    finally:
        await provider.aclose()


def _reachability(base: str, answer: httpx2.Response | Exception, account: ProviderAccount) -> DoctorCheck:
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
            named = "OPENAI_API_KEY, OPENAI_ORG_ID and OPENAI_PROJECT_ID"
            if account.name != DEFAULT_ACCOUNT:
                named = f"{secret_variable(account.name, 'api_key')}, and organization and project of the account"
            fix = f"check {named}: key and organisation must belong together"
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

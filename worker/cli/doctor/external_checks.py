"""The checks of `vigil doctor` for other services: the API, webhook receivers, Sentry."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

import httpx2

from worker.cli.doctor.check import DoctorCheck
from worker.cli.errors import CliError
from worker.cli.processes import address
from worker.cli.profile import load_profile
from worker.client.environment import DEFAULT_URL
from worker.clock import Clock
from worker.jobs.errors import Refused
from worker.settings import Settings
from worker.webhooks.guard import AddressPolicy, check_url
from worker.webhooks.resolver import SystemResolver
from worker.webhooks.sender import WebhookSender

_TIMEOUT_S: Final = 10.0
LOCAL: Final = ("http://127.", "http://localhost", "http://[::1]")


async def fetch(
    url: str, headers: dict[str, str], *, local: bool, body: bytes | None = None
) -> httpx2.Response | Exception:
    """Request a URL and return the response, or the exception. `local`: on this machine, so no proxy is used."""
    try:
        async with httpx2.AsyncClient(timeout=_TIMEOUT_S, trust_env=not local) as http:
            method = "GET" if body is None else "POST"
            return await http.request(method, url, headers=headers, content=body)
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeEncodeError, ValueError) as error:
        return error


async def api_check(settings: Settings) -> DoctorCheck:
    """Check whether the API of the client commands answers and knows the key."""
    try:
        profile = load_profile(address(settings) if settings.port else DEFAULT_URL)
    except CliError as error:
        return DoctorCheck("api", "problem", str(error), f"unset it for {DEFAULT_URL}, or correct it")
    local = "//127." in profile.url or "//localhost" in profile.url or "//[::1]" in profile.url
    headers = {"Authorization": f"Bearer {profile.key.get_secret_value()}"} if profile.key else {}
    answer = await fetch(f"{profile.url}/v1/jobs?limit=1", headers, local=local)
    if isinstance(answer, Exception):
        return DoctorCheck(
            "api",
            "warning",
            f"nothing answers at {profile.url} ({type(answer).__name__})",
            "start `vigil up`, or set VIGIL_URL",
        )
    match answer.status_code:
        case 200:
            return DoctorCheck("api", "ok", f"{profile.url} answers and knows the key")
        case 401 if profile.key is None:
            return DoctorCheck("api", "warning", f"{profile.url} answers; there is no key to try", "set VIGIL_API_KEY")
        case 401:
            return DoctorCheck(
                "api", "problem", f"{profile.url} doesn't know the key", "`vigil keys create --app NAME` makes one"
            )
        case 403:
            return DoctorCheck(
                "api", "warning", f"{profile.url} answers; the key lacks the scope read", "make one with --scope read"
            )
        case status:
            return DoctorCheck(
                "api",
                "problem",
                f"{profile.url} answers {status}",
                "is that a Vigil? set VIGIL_URL, or look at its log",
            )


async def webhook_checks(settings: Settings, target: str | None) -> AsyncIterator[DoctorCheck]:
    """Check where webhooks may be sent and how often they are tried, and with `target` whether a receiver answers."""
    total = timedelta(seconds=sum(settings.webhook_schedule))
    detail = f"{len(settings.webhook_schedule) + 1} tries over {str(total).split('.')[0]}"
    if settings.webhook_allow_private:
        fix = "set VIGIL_WEBHOOK_ALLOW_PRIVATE=0, unless this is a development machine"
        yield DoctorCheck("webhooks", "warning", f"{detail}; they may be sent to private addresses and any port", fix)
    else:
        ports = ", ".join(str(port) for port in settings.webhook_ports)
        yield DoctorCheck("webhooks", "ok", f"{detail}; only public addresses, ports {ports}")
    if target is not None:
        yield await _receiver(settings, target)


async def _receiver(settings: Settings, target: str) -> DoctorCheck:
    policy, resolver = AddressPolicy.of(settings), SystemResolver()
    try:
        url = check_url(target, policy)
    except Refused as error:
        return DoctorCheck("receiver", "problem", str(error), "give a URL to which webhooks may be sent")
    try:
        sender = WebhookSender(policy, resolver, Clock(), total=_TIMEOUT_S)
        answer = await sender.post(url, {"content-type": "application/json"}, b"{}")
    finally:
        resolver.close()
    if answer.status is not None:
        return DoctorCheck("receiver", "ok", f"{url.origin} answers (an unsigned {{}} got {answer.status})")
    fix = "is it up, does its name resolve to public addresses, may this machine call out?"
    return DoctorCheck("receiver", "problem", f"{url.origin} can't be reached ({answer.error})", fix)


async def sentry_check(settings: Settings) -> DoctorCheck:
    """Check whether Sentry accepts an empty envelope."""
    if settings.sentry_dsn is None:
        return DoctorCheck("sentry", "ok", "off: no SENTRY_DSN")
    parts = urlsplit(settings.sentry_dsn.get_secret_value())
    project = parts.path.rpartition("/")[2]
    where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    path = f"{parts.path.rpartition('/')[0]}/api/{project}/envelope/"
    auth = f"Sentry sentry_version=7, sentry_client=vigil-doctor/1, sentry_key={parts.username}"
    body = json.dumps({}).encode() + b"\n"
    answer = await fetch(where + path, {"X-Sentry-Auth": auth}, local=where.startswith(LOCAL), body=body)
    if isinstance(answer, Exception):
        return DoctorCheck(
            "sentry",
            "warning",
            f"{where} can't be reached ({type(answer).__name__})",
            "check SENTRY_DSN, network, proxy",
        )
    if answer.status_code in {401, 403}:
        return DoctorCheck("sentry", "warning", f"{where} refuses the DSN ({answer.status_code})", "use an active key")
    if answer.status_code >= 500 or answer.status_code == 404:  # noqa: PLR2004
        return DoctorCheck(
            "sentry", "warning", f"{where} answers {answer.status_code}", "is SENTRY_DSN right? try later"
        )
    return DoctorCheck("sentry", "ok", f"{where} accepts envelopes")

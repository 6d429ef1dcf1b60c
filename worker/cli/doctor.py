"""`vigil doctor`: looks at everything a Vigil needs, one line each: ok, warning or problem, and what mends it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, Literal

import httpx2
import typer

from worker.cli.door import DEFAULT_URL, find_door
from worker.cli.errors import BAD, CliError
from worker.cli.serve import with_redis
from worker.clock import Clock
from worker.jobs.errors import SettingsError, StoreUnavailable, UnsafeStore
from worker.settings import Settings, load
from worker.store.pool import asking, check_safe, connect, durability

_PROVIDER: Final = "https://api.openai.com/v1"
_SKEW_WARNING, _SKEW_PROBLEM = 1.0, 5.0
_PATIENCE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, how it stands, what mends it."""

    name: str
    state: Literal["ok", "warning", "problem"]
    detail: str
    fix: str | None = None


async def examine() -> AsyncIterator[Check]:
    """All checks, in the order in which one builds on the other."""
    try:
        settings = load()
    except SettingsError as error:
        for fault in error.faults:
            yield Check("settings", "problem", fault, "correct it in the environment or in .env; see ops/env.example")
        return
    yield Check("settings", "ok", "all settings can be used")
    models = settings.catalogue().models
    yield Check("models", "ok", f"{len(models)} models: {', '.join(models)}")
    async for check in _redis(settings):
        yield check
    yield await _api()
    yield await _provider(settings)
    yield _encryption(settings)
    yield _identifiers(settings)


async def _redis(settings: Settings) -> AsyncIterator[Check]:
    kind = "external (VIGIL_REDIS_URL)" if settings.redis_url else f"embedded, data in {settings.data_dir}"
    fix = "start it, or correct VIGIL_REDIS_URL" if settings.redis_url else f"see {settings.data_dir / 'valkey.log'}"
    try:
        async with with_redis(settings) as ours:
            redis = connect(ours.redis_url or "", max_connections=2, patience=1)
            try:
                said = await check_safe(redis, allow_eviction=True)
                yield Check("redis", "ok", f"{kind}; version {said['version']}")
                yield _persistence(said)
                yield _eviction(said, settings)
                clock = Clock()
                before = clock.now().timestamp()
                async with asking("tell the time"):
                    seconds, micros = await redis.time()
                after = clock.now().timestamp()
                yield _skew(seconds + micros / 1e6 - (before + after) / 2)
            finally:
                await redis.aclose()
    except (StoreUnavailable, UnsafeStore) as error:
        yield Check("redis", "problem", f"{kind}: {error}", fix)
    except OSError as error:
        yield Check("redis", "problem", f"{kind}: {error.strerror or type(error).__name__}", fix)


def _persistence(said: dict[str, str]) -> Check:
    sentence = durability(said)
    if said["appendonly"] != "yes":
        return Check("persistence", "problem", sentence, "set appendonly yes and appendfsync always")
    if said["appendfsync"] == "always":
        return Check("persistence", "ok", sentence)
    return Check("persistence", "warning", sentence, "set appendfsync always")


def _eviction(said: dict[str, str], settings: Settings) -> Check:
    policy = said["maxmemory_policy"]
    if policy == "noeviction":
        return Check("eviction", "ok", "noeviction: accepted jobs are never dropped for memory")
    if policy == "unknown":
        return Check("eviction", "warning", "the eviction policy can't be read here", "make sure that it is noeviction")
    state: Literal["warning", "problem"] = "warning" if settings.allow_eviction else "problem"
    return Check("eviction", state, f"maxmemory-policy is {policy}: accepted jobs could vanish", "set it to noeviction")


def _skew(seconds: float) -> Check:
    said = f"{abs(seconds):.3f} s {'behind' if seconds > 0 else 'ahead of'} Redis"
    if abs(seconds) < _SKEW_WARNING:
        return Check("clock", "ok", said)
    state: Literal["warning", "problem"] = "warning" if abs(seconds) < _SKEW_PROBLEM else "problem"
    return Check("clock", state, said, "let both machines follow one time server: leases and deadlines need it")


async def _ask(url: str, headers: dict[str, str], *, local: bool) -> httpx2.Response | str:
    try:
        async with httpx2.AsyncClient(timeout=_PATIENCE, trust_env=not local) as http:
            return await http.get(url, headers=headers)
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeEncodeError, ValueError) as error:
        return type(error).__name__


async def _api() -> Check:
    try:
        door = find_door()
    except CliError as error:
        return Check("api", "problem", str(error), f"unset it for {DEFAULT_URL}, or correct it")
    local = "//127." in door.url or "//localhost" in door.url or "//[::1]" in door.url
    headers = {"Authorization": f"Bearer {door.key.get_secret_value()}"} if door.key else {}
    answer = await _ask(f"{door.url}/v1/jobs?limit=1", headers, local=local)
    if isinstance(answer, str):
        return Check(
            "api", "warning", f"nothing answers at {door.url} ({answer})", "start `vigil up`, or set VIGIL_URL"
        )
    match answer.status_code:
        case 200:
            return Check("api", "ok", f"{door.url} answers and knows the key")
        case 401 if door.key is None:
            return Check("api", "warning", f"{door.url} answers; there is no key to try", "set VIGIL_API_KEY")
        case 401:
            return Check(
                "api", "problem", f"{door.url} doesn't know the key", "`vigil keys create --app NAME` makes one"
            )
        case 403:
            return Check("api", "warning", f"{door.url} answers; the key may not read", "make one with --scope read")
        case status:
            return Check(
                "api", "problem", f"{door.url} answers {status}", "is that a Vigil? set VIGIL_URL; see its log"
            )


async def _provider(settings: Settings) -> Check:
    if settings.openai_api_key is None:
        return Check(
            "provider", "warning", "no OPENAI_API_KEY: `vigil up` uses the simulator", "set it for the real provider"
        )
    base = (settings.openai_base_url or _PROVIDER).rstrip("/")
    headers = {"Authorization": f"Bearer {settings.openai_api_key.get_secret_value()}"}
    if settings.openai_org_id:
        headers["OpenAI-Organization"] = settings.openai_org_id
    if settings.openai_project_id:
        headers["OpenAI-Project"] = settings.openai_project_id
    answer = await _ask(
        f"{base}/models", headers, local=base.startswith(("http://127.", "http://localhost", "http://[::1]"))
    )
    if isinstance(answer, str):
        return Check(
            "provider", "problem", f"{base} can't be reached ({answer})", "check OPENAI_BASE_URL, network, proxy"
        )
    match answer.status_code:
        case 200:
            return Check("provider", "ok", _models_seen(base, answer, settings))
        case 401:
            fix = "check OPENAI_API_KEY, OPENAI_ORG_ID and OPENAI_PROJECT_ID: key and organisation must belong together"
            return Check("provider", "problem", f"{base} refuses the key (401{_code(answer)})", fix)
        case 403:
            fix = "this key, project or location may not use the API; ask an owner of the organisation"
            return Check("provider", "problem", f"{base} forbids it (403{_code(answer)})", fix)
        case 429:
            fix = "look at the organisation's limits and credit"
            return Check("provider", "warning", f"{base} limits us (429{_code(answer)})", fix)
        case status:
            return Check(
                "provider", "problem", f"{base} answers {status}{_code(answer)}", "check OPENAI_BASE_URL; try later"
            )


def _models_seen(base: str, answer: httpx2.Response, settings: Settings) -> str:
    try:
        listed = {str(one["id"]) for one in answer.json()["data"]}
    except (ValueError, KeyError, TypeError):
        return f"{base} accepts the key"
    missing = [name for name in settings.catalogue().models if name not in listed]
    return f"{base} accepts the key" + (f"; it doesn't list {', '.join(missing)}" if missing else "")


def _code(answer: httpx2.Response) -> str:
    try:
        code = answer.json()["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f" {code}" if isinstance(code, str) and code.replace("_", "").isalnum() else ""


def _encryption(settings: Settings) -> Check:
    if settings.encryption_keys:
        return Check("encryption", "ok", f"on; {len(settings.encryption_keys)} key(s), the first encrypts")
    fix = "VIGIL_ENCRYPTION_KEYS; `vigil keys generate-encryption` makes one"
    return Check("encryption", "warning", "off: prompts and answers lie in Redis as they are", fix)


def _identifiers(settings: Settings) -> Check:
    if settings.identifier_secret:
        return Check("identifiers", "ok", "end users are sent on as keyed digests of your own secret")
    return Check(
        "identifiers",
        "warning",
        "VIGIL_IDENTIFIER_SECRET is not set",
        "set a long random text, the same on every machine",
    )


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say what is wrong here and what mends it.

    Looks at settings, Redis and what it keeps, API and key, clock, provider, encryption. Exits 1 on a problem.
    """

    async def go() -> list[Check]:
        found = []
        async for check in examine():
            found.append(check)
            if not as_json:
                _print(check)
        return found

    found = asyncio.run(go())
    worst = next((s for s in ("problem", "warning") if any(c.state == s for c in found)), "ok")
    if as_json:
        body: dict[str, Any] = {"state": worst, "checks": [asdict(check) for check in found]}
        print(json.dumps(body, indent=2))
    if worst == "problem":
        raise typer.Exit(BAD)


def _print(check: Check) -> None:
    print(
        f"{check.state:<8} {check.name:<12} {check.detail}"
        + (f"\n{'':<9}{'':<12} fix: {check.fix}" if check.fix else "")
    )


def register(app: typer.Typer) -> None:
    """Put the command on the app."""
    app.command()(doctor)

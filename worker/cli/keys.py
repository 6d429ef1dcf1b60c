"""`vigil keys`: API keys and encryption keys. Uses Redis directly: the first key can't be made over HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

import typer

from worker.cli.acting import By, actor_of
from worker.cli.errors import EXIT_FAILED, EXIT_USAGE, CliError
from worker.cli.processes import with_redis
from worker.cli.rendering import clean, print_columns
from worker.cli.times import parse_end
from worker.clock import Clock, from_ms, to_ms
from worker.embedded import EmbeddedValkey
from worker.jobs.errors import Refused
from worker.jobs.timestamps import iso_utc
from worker.settings import Settings
from worker.settings_loader import load
from worker.store.admission.app_quota import MAX_BYTES, MAX_WAITING, AppQuota, QuotaUse
from worker.store.admission.rate_limit import MAX_RATE, RateLimit
from worker.store.apps import SCOPES, ApiKey, Apps, RefusedKey
from worker.store.audit.acts import ROTATED, Acts
from worker.store.connection.pool import Redis, connect, keyring_from
from worker.store.connection.store_guard import StoreGuard
from worker.store.key_uses import KeyUses
from worker.store.lifecycle.key_rotation import KeyRotation

T = TypeVar("T")
DEFAULT_SCOPES = ("submit", "read")
_MAX_NAME_LENGTH = 64
_REFUSED = {
    "no_mac": "has no MAC: it is older than MACs (`vigil store seal` accepts it), or was planted",
    "wrong_mac": "has a wrong MAC: something else than Vigil wrote or changed it",
    "unknown_key": "has a MAC of a master key that VIGIL_ENCRYPTION_KEYS does not hold",
}

app = typer.Typer(
    help="Manage API keys and encryption keys.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@asynccontextmanager
async def open_redis(settings: Settings) -> AsyncIterator[Redis]:
    """Open the Redis of the settings; starts the embedded server if it does not run."""
    embedded = None if settings.redis_url else EmbeddedValkey(settings.data_dir)
    if embedded:
        await embedded.start()
    try:
        url = settings.redis_url or (embedded.url if embedded else "")
        given = settings.model_copy(update={"redis_url": url})
        guard = StoreGuard(given.mark_file, Clock().random_bytes)  # refuses to write to a store that lost its data
        redis = connect(url, keyring=keyring_from(settings), guard=guard, max_connections=2)
        try:
            yield redis
        finally:
            await redis.aclose()
    finally:
        if embedded:
            await embedded.stop()


@asynccontextmanager
async def open_apps(settings: Settings, by: str = "") -> AsyncIterator[Apps]:
    """Open the apps and keys in the Redis of the settings; `by`: who changes them."""
    async with open_redis(settings) as redis:
        yield Apps(redis, Clock(), actor_of(by))


def with_apps(work: Callable[[Apps], Awaitable[T]], by: str = "") -> T:
    """Run `work` on the Redis of the settings and return its result; what it changes is recorded as done by `by`."""

    async def go() -> T:
        async with open_apps(load(), by) as apps:
            return await work(apps)

    return asyncio.run(go())


def to_json(key: ApiKey, last_used: int = 0) -> dict[str, Any]:
    """Return the public fields of a key, never the key itself; `last_used`: in ms, 0 = never."""
    return {
        "id": key.id,
        "app": key.app,
        "scopes": list(key.scopes),
        "last4": key.last4,
        "person": key.person or None,
        "created_at": _time(key.created_at),
        "expires_at": _time(key.expires_at),
        "last_used_at": _time(last_used),
        "revoked_at": _time(key.revoked_at),
    }


def _time(ms: int) -> str | None:
    return iso_utc(from_ms(ms), "seconds") if ms else None


@app.command()
def create(
    name: Annotated[str, typer.Option("--app", help="The app of the key; a new name makes a new app.")],
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", "-s", help=f"May be repeated: {', '.join(SCOPES)}.  [default: submit, read]"),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(
            min=0, max=MAX_RATE, help="Jobs that the app may submit per minute; 0 = no limit.", show_default=False
        ),
    ] = None,
    person: Annotated[
        str, typer.Option("--person", help="Who has the key: a name that records of the audit trail show.")
    ] = "",
    expires: Annotated[
        str | None,
        typer.Option(metavar="90d|DATE", help="When it ends: in so many days, or at a date.", show_default=False),
    ] = None,
    by: By = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make an API key. It is shown only once: Vigil stores its digest."""
    ends = parse_end("--expires", expires, Clock().now()) if expires is not None else None
    if not name.isprintable() or not name.strip() or len(name) > _MAX_NAME_LENGTH or any(c.isspace() for c in name):
        raise CliError(f"--app is a name of 1-{_MAX_NAME_LENGTH} characters without spaces", EXIT_USAGE)
    scopes = tuple(dict.fromkeys(name for one in scope or DEFAULT_SCOPES for name in one.split(",") if name))
    unknown = [name for name in scopes if name not in SCOPES]
    if unknown or not scopes:
        raise CliError(f"unknown scope {', '.join(unknown) or repr('')}; known: {', '.join(SCOPES)}", EXIT_USAGE)
    limit = None if rate is None else RateLimit(rate)
    try:
        record, key, secret = with_apps(
            lambda apps: apps.create_key(name, scopes, limit, person=person, expires_at=ends), by
        )
    except Refused as error:
        raise CliError(error.detail, EXIT_USAGE) from None
    if as_json:
        body = {"id": record.id, "app": record.app, "key": key, "webhook_secret": secret, "scopes": list(record.scopes)}
        more = {"person": record.person, "expires_at": _time(record.expires_at)}
        print(json.dumps({**body, **{field: value for field, value in more.items() if value}}, indent=2))
        return
    print(f"app             {record.app}")
    print(f"id              {record.id}")
    print(f"scopes          {', '.join(record.scopes)}")
    if record.person:
        print(f"person          {clean(record.person)}")
    if record.expires_at:
        print(f"expires         {_time(record.expires_at)}")
    print(f"key             {key}")
    print(f"webhook secret  {secret}")
    print(
        "The key is shown only now. Clients send it as `Authorization: Bearer …`; `vigil` reads it from VIGIL_API_KEY."
    )


@app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the ids of all keys, oldest first.

    Shows who has each key, when it ends and when it was used last, to about a minute. Also names those that are
    refused, because it can't be told that Vigil wrote their records.
    """

    async def work() -> tuple[list[ApiKey], list[RefusedKey], dict[str, int]]:
        async with open_redis(load()) as redis:
            apps = Apps(redis, Clock())
            return await apps.list_keys(), await apps.refused_keys(), await KeyUses(redis).all()

    keys, refused, uses = asyncio.run(work())
    found = [to_json(key, uses.get(key.id, 0)) for key in keys]
    if as_json:
        rows_refused = [{"id": key.id, "app": key.app, "why": key.why} for key in refused]
        print(json.dumps({"object": "list", "data": found, "refused": rows_refused}, indent=2))
        return
    for key in refused:
        name = f"key {clean(key.id)} of app {clean(key.app)}" if key.id else "a key without an id"
        print(f"REFUSED: {name} {_REFUSED.get(key.why, 'has a record that can not be read')}")
    if not found:
        print("There are no keys; `vigil keys create --app NAME` makes one.")
        return
    now = to_ms(Clock().now())
    rows = [
        (
            *(k["id"], k["app"], ",".join(k["scopes"]), "…" + k["last4"], clean(k["person"] or "-")),
            *(k["created_at"], _end_text(key, now), k["last_used_at"] or "never", k["revoked_at"] or "-"),
        )
        for k, key in zip(found, keys, strict=True)
    ]
    print_columns(("ID", "APP", "SCOPES", "KEY", "PERSON", "CREATED", "EXPIRES", "LAST USED", "REVOKED"), rows)


def _end_text(key: ApiKey, now: int) -> str:
    text = _time(key.expires_at) or "never"
    return f"expired {text}" if key.is_expired(now) else text


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `vigil keys list` shows it.")],
    by: By = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Revoke a key for good. The app's jobs stay; its other keys see them."""
    try:
        found = to_json(with_apps(lambda apps: apps.revoke(key_id), by))
    except Refused as error:
        raise CliError(error.detail) from None
    print(json.dumps(found, indent=2) if as_json else f"revoked {found['id']} of app {found['app']}")


@app.command("rate")
def rate_(
    name: Annotated[str, typer.Argument(metavar="APP", help="The app.")],
    per_minute: Annotated[
        int | None, typer.Argument(min=0, max=MAX_RATE, help="Jobs per minute; 0 = no limit.", show_default=False)
    ] = None,
    burst: Annotated[
        int, typer.Option(min=0, max=MAX_RATE, help="Jobs at once.  [as many as per minute]", show_default=False)
    ] = 0,
    default: Annotated[
        bool, typer.Option("--default", help="Remove the app's own rate: the default applies again.")
    ] = False,
    by: By = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show or set an app's submit rate. The default is VIGIL_RATE_PER_MINUTE."""
    if (default and per_minute is not None) or (burst and not per_minute):
        raise CliError("give jobs per minute (and --burst if you like), or --default, or neither", EXIT_USAGE)

    async def work(apps: Apps) -> RateLimit | None:
        if per_minute is not None or default:
            await apps.set_rate(name, None if per_minute is None else RateLimit(per_minute, burst))
        return await apps.rate(name)

    try:
        own = with_apps(work, by)
    except Refused as error:
        raise CliError(error.detail) from None
    settings = load()
    rate = own or RateLimit(settings.rate_per_minute, settings.rate_burst)
    if as_json:
        body = {"app": name, "per_minute": rate.per_minute, "burst": rate.capacity, "default": own is None}
        print(json.dumps(body, indent=2))
        return
    text = f"{rate.per_minute} jobs per minute, {rate.capacity} at once" if rate.per_minute else "no limit"
    print(f"{name}: {text}{' (the default)' if own is None else ''}")


@app.command("quota")
def quota_(
    name: Annotated[str, typer.Argument(metavar="APP", help="The app.")],
    waiting: Annotated[
        int | None, typer.Option(min=0, max=MAX_WAITING, help="Jobs waiting; 0 = any number.", show_default=False)
    ] = None,
    size: Annotated[
        int | None,
        typer.Option("--bytes", min=0, max=MAX_BYTES, help="Bytes stored; 0 = any number.", show_default=False),
    ] = None,
    default: Annotated[
        bool, typer.Option("--default", help="Remove the app's own quota: the default applies again.")
    ] = False,
    by: By = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show or set an app's quota, and show its use.

    The defaults are VIGIL_APP_MAX_WAITING and VIGIL_APP_MAX_BYTES.
    """
    changed = waiting is not None or size is not None
    if default and changed:
        raise CliError("give --waiting and --bytes, or --default, or neither", EXIT_USAGE)

    async def work(apps: Apps) -> tuple[AppQuota | None, QuotaUse]:
        if changed:
            await apps.set_quota(name, AppQuota(waiting, size).over(await apps.quota(name) or AppQuota(None, None)))
        elif default:
            await apps.set_quota(name, None)
        return await apps.quota(name), await apps.quota_use(name)

    try:
        own, use = with_apps(work, by)
    except Refused as error:
        raise CliError(error.detail) from None
    settings = load()
    quota = (own or AppQuota(None, None)).over(AppQuota(settings.app_max_waiting, settings.app_max_bytes))
    rows = (("jobs waiting", use.waiting, quota.waiting), ("bytes stored", use.bytes, quota.bytes))
    if as_json:
        keys = ("jobs_waiting", "bytes_held")
        limits = {
            key: {"current": now, "maximum": most or None} for key, (_, now, most) in zip(keys, rows, strict=True)
        }
        print(json.dumps({"app": name, **limits, "default": own is None}, indent=2))
        return
    print(f"{name}{' (the default quota)' if own is None else ''}")
    for text, now, most in rows:
        print(f"  {text}  {now} of {most or 'any number'}")


@app.command("generate-encryption")
def generate_encryption() -> None:
    """Print a new key for VIGIL_ENCRYPTION_KEYS. It is 32 random bytes as urlsafe base64; store it safely."""
    print(new_encryption_key())


def new_encryption_key() -> str:
    """Return a new value for VIGIL_ENCRYPTION_KEYS."""
    return base64.urlsafe_b64encode(Clock().random_bytes(32)).decode()


@app.command()
def rewrap(by: By = "", as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Re-encrypt everything with the first key. Workers may run; it may be repeated.

    Put the new key first in VIGIL_ENCRYPTION_KEYS of every process and keep the old one after it, run this, then remove
    the old one. Exits 1 while something still needs another key than the first.
    """

    async def go() -> dict[str, int]:
        settings = load()
        if not settings.encryption_keys:
            raise CliError("VIGIL_ENCRYPTION_KEYS is not set; `vigil keys generate-encryption` makes a key", EXIT_USAGE)
        async with with_redis(settings) as actual:
            guard = StoreGuard(actual.mark_file, Clock().random_bytes)
            vault = keyring_from(settings)
            redis = connect(actual.redis_url or "", keyring=vault, guard=guard, max_connections=2)
            try:
                kids = len(settings.encryption_keys)
                await Acts(redis, Clock(), actor_of(by)).record(ROTATED, keys=kids)
                return dict(await KeyRotation(redis).run())
            finally:
                await redis.aclose()

    counts = asyncio.run(go())
    left = counts["unreadable"] + counts["changed_meanwhile"]
    if as_json:
        print(json.dumps({**counts, "done": not left}, indent=2))
    else:
        print(", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))
        print("run it again: something still needs another key" if left else "done: the other keys can be removed")
    if left:
        raise typer.Exit(EXIT_FAILED)


def register(root: typer.Typer) -> None:
    """Add the commands to `root`."""
    root.add_typer(app, name="keys")

"""`vigil keys`: API keys and encryption keys. Uses Redis directly: the first key can't be made over HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

import typer

from worker.cli.acting import By, actor_of
from worker.cli.errors import EXIT_FAILED, EXIT_USAGE, CliError
from worker.cli.partitions import in_each, in_one, open_stores
from worker.cli.rendering import clean, print_columns
from worker.cli.times import parse_end
from worker.clock import Clock, from_ms, to_ms
from worker.jobs.errors import Refused
from worker.jobs.timestamps import iso_utc
from worker.settings import Settings
from worker.settings_loader import load
from worker.store.admission.app_quota import MAX_BYTES, MAX_WAITING, AppQuota, QuotaUse
from worker.store.admission.rate_limit import MAX_RATE, RateLimit
from worker.store.apps import SCOPES, ApiKey, Apps, RefusedKey
from worker.store.audit.acts import ROTATED, Acts
from worker.store.key_uses import KeyUses
from worker.store.lifecycle.key_rotation import KeyRotation
from worker.store.partitions.pins import Pins
from worker.store.partitions.stores import PartitionStore

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


def with_app(app: str, work: Callable[[Apps], Awaitable[T]], by: str = "") -> T:
    """Run `work` on the store of the app and return its result; what it changes is recorded as done by `by`."""
    return in_one(load(), lambda store: work(Apps(store.redis, Clock(), actor_of(by))), writes=True, app=app)


def with_each_apps(work: Callable[[Apps], Awaitable[T]], by: str = "") -> list[tuple[str, T]]:
    """Run `work` on each partition; return the results with the names of the partitions."""
    return in_each(load(), lambda store: work(Apps(store.redis, Clock(), actor_of(by))), writes=True)


async def place_app(
    settings: Settings, stores: Sequence[PartitionStore], app: str, partition: str | None = None
) -> PartitionStore:
    """Return the store that an app is in, and pin it there; a new one is put where its name or `partition` says."""
    wanted = partition or settings.cli_partition
    return await Pins(stores).place(app, wanted, settings.new_apps_partitions)


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
    partition: Annotated[
        str | None,
        typer.Option(help="Of a new app: its store, by the name in VIGIL_REDIS_URL.  [by its name]"),
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

    async def work() -> tuple[PartitionStore, tuple[ApiKey, str, str]]:
        settings = load()
        async with open_stores(settings, writes=True) as stores:
            store = await place_app(settings, stores, name, partition)
            apps = Apps(store.redis, Clock(), actor_of(by))
            return store, await apps.create_key(name, scopes, limit, person=person, expires_at=ends)

    try:
        store, (record, key, secret) = asyncio.run(work())
    except Refused as error:
        raise CliError(error.detail, EXIT_USAGE) from None
    where = store.partition.name if len(store.settings.partitions) > 1 else ""
    if as_json:
        body = {"id": record.id, "app": record.app, "key": key, "webhook_secret": secret, "scopes": list(record.scopes)}
        more = {"person": record.person, "expires_at": _time(record.expires_at), "partition": where}
        print(json.dumps({**body, **{field: value for field, value in more.items() if value}}, indent=2))
        return
    print(f"app             {record.app}")
    if where:
        print(f"partition       {where}")
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

    async def work(store: PartitionStore) -> tuple[list[ApiKey], list[RefusedKey], dict[str, int]]:
        apps = Apps(store.redis, Clock())
        return await apps.list_keys(), await apps.refused_keys(), await KeyUses(store.redis).all()

    parts = in_each(load(), work, writes=True)
    rows_of = [(key, uses.get(key.id, 0), name) for name, (some, _, uses) in parts for key in some]
    rows_of.sort(key=lambda row: row[0].id)
    keys, refused = [row[0] for row in rows_of], [key for _, (_, some, _) in parts for key in some]
    several = len(parts) > 1
    found = [to_json(key, used) | ({"partition": name} if several else {}) for key, used, name in rows_of]
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
            *((k["partition"],) if several else ()),
        )
        for k, key in zip(found, keys, strict=True)
    ]
    columns = ("ID", "APP", "SCOPES", "KEY", "PERSON", "CREATED", "EXPIRES", "LAST USED", "REVOKED")
    print_columns((*columns, *(("PARTITION",) if several else ())), rows)


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

    async def work(apps: Apps) -> ApiKey | Refused:
        try:
            return await apps.revoke(key_id)
        except Refused as error:
            return error

    results = [result for _, result in with_each_apps(work, by)]
    revoked = next((one for one in results if isinstance(one, ApiKey)), None)
    if revoked is None:
        raise CliError(next(one.detail for one in results if isinstance(one, Refused)))
    found = to_json(revoked)
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
        own = with_app(name, work, by)
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
        own, use = with_app(name, work, by)
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
    settings = load()
    if not settings.encryption_keys:
        raise CliError("VIGIL_ENCRYPTION_KEYS is not set; `vigil keys generate-encryption` makes a key", EXIT_USAGE)

    async def work(store: PartitionStore) -> dict[str, int]:
        await Acts(store.redis, Clock(), actor_of(by)).record(ROTATED, keys=len(settings.encryption_keys))
        return dict(await KeyRotation(store.redis).run())

    each = [counts for _, counts in in_each(settings, work, writes=True)]
    counts = {name: sum(one[name] for one in each) for name in each[0]}
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

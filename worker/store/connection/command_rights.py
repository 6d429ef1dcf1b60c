"""Find the permissions that the Redis user lacks, without running any of the commands that need them.

Every command is queued in a transaction that is then discarded: a server checks permissions when it queues, and runs
nothing. One round trip on any server (ACL DRYRUN needs an administrator).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from arq.connections import ArqRedis
from redis.exceptions import NoPermissionError, ResponseError

from worker.store.connection.key_tag import tag_of, with_tag
from worker.store.connection.required_commands import IN_CLUSTER, REQUIRED, Arguments, Role, name_of
from worker.store.errors import store_errors


async def missing_rules(redis: ArqRedis, role: Role) -> list[str]:
    """Return what the user of this client lacks, as ACL rules that grant it (`+time`, `~vigil:*`, `&vigil:*`).

    Raises StoreUnavailable.
    """
    async with store_errors("report the rights of its user"):
        return await _find_missing(redis.connection_pool, role, tag_of(redis))


async def _find_missing(pool: Any, role: Role, tag: str) -> list[str]:
    needed = (*REQUIRED[role], *(IN_CLUSTER if tag else ()))
    connection, clean = await pool.get_connection(), False
    try:
        refused = await _refused(connection, [("MULTI",)])
        if not refused:  # outside a transaction the others would be executed
            refused += await _refused(connection, [*needed, ("DISCARD",)])
            refused += await _refused(connection, [("MULTI",), ("EXEC",)])
        clean = not refused
        return _rules(refused, tag)
    finally:
        if not clean:
            await connection.disconnect()  # it may be inside a transaction
        await pool.release(connection)


async def _refused(connection: Any, commands: Iterable[Arguments]) -> list[tuple[Arguments, str]]:
    sent = list(commands)
    await connection.send_packed_command(connection.pack_commands(sent))
    refused = []
    for command in sent:
        try:
            await connection.read_response()
        except NoPermissionError as error:
            refused.append((command, str(error)))
        except ResponseError:
            pass  # full, a replica, WATCH inside a transaction: permitted; other checks report it
    return refused


async def user_of(redis: ArqRedis) -> str | None:
    """Return the name of this client's user, or None where it may not run ACL WHOAMI."""
    try:
        name = await redis.execute_command("ACL WHOAMI")
    except ResponseError:  # NoPermissionError is one
        return None
    return name.decode() if isinstance(name, bytes) else str(name)


def _rules(refused: list[tuple[Arguments, str]], tag: str) -> list[str]:
    found: dict[str, None] = {}
    for plain, message in refused:
        command = with_tag(tag, plain) if tag else plain
        if "channel" in message:
            found[f"&{tag}vigil:*"] = None
        elif " key" in message:
            found[f"~{command[_key_at(command)].partition(':')[0]}:*"] = None
        else:
            found[f"+{name_of(command)}"] = None
    return sorted(found)


def _key_at(command: Arguments) -> int:
    return {"EVALSHA": 3, "ZINTER": 2, "ZINTERCARD": 2}.get(command[0], 1)


def advice(user: str | None, rules: list[str]) -> str:
    """Return one line that says what is missing, and the command that grants it."""
    return (
        f"the Redis user {user or 'of VIGIL_REDIS_URL'} lacks {' '.join(rules)}: take the rules of ops/users.acl, or "
        f"ACL SETUSER {user or 'NAME'} {' '.join(rules)}"
    )

"""Computes keyed digests of a request: of its input, for the audit trail, and of what an Idempotency-Key stands for."""

from __future__ import annotations

from typing import Any, NamedTuple

from api.runtime.context import AppContext
from api.runtime.large_work import is_large
from api.runtime.store_deadline import STORE_TIMEOUT_S, with_timeout
from api.schema.requests import Submit
from worker.store.connection import kept_secrets
from worker.store.connection.kept_secrets import DIGEST
from worker.store.media import MediaStrings


class Digests(NamedTuple):
    """Keyed digests of a request."""

    input: str
    """Of {model, input, instructions, params}, for the audit trail."""
    request: str
    """Of everything that an Idempotency-Key stands for; "" without one."""


async def digests_of(
    context: AppContext,
    app: str,
    body: Submit,
    size: int,
    *,
    repeatable: bool,
    media: MediaStrings | None = None,
    group: str | None = None,
) -> Digests:
    """Return the digests of a request of `size` bytes; `repeatable`: it has an Idempotency-Key.

    `group`: the group that it names. The same job for another group is another request, else no count would have it.
    """
    secret = context.secrets.known(DIGEST)
    if secret is None:
        secret = await with_timeout(STORE_TIMEOUT_S, context.secrets.get(DIGEST))
    options: dict[str, Any] = {"large": is_large(size), "media": media}
    return await context.large_work.run(app, size, digests, secret, body, options, repeatable=repeatable, group=group)


def digests(
    secret: bytes, body: Submit, options: dict[str, Any], *, repeatable: bool, group: str | None = None
) -> Digests:
    """Return the digests of a request; `options`: those of `kept_secrets.input_digest`."""
    return Digests(
        kept_secrets.input_digest(secret, {"model": body.model, **input_of(body)}, **options),
        _fingerprint(secret, body, group=group, **options) if repeatable else "",
    )


def _fingerprint(
    secret: bytes, body: Submit, *, group: str | None = None, large: bool = False, media: MediaStrings | None = None
) -> str:
    """Return a keyed digest of the request that is the same for every spelling of it: with defaults, and without the
    params that Vigil sets itself.
    """
    normalised: dict[str, Any] = body.model_dump(mode="json", exclude={"input", "params", "idempotency_key"})
    normalised |= {"input": body.input, "params": body.passed_params(), "store": is_stored(body)}
    normalised |= {"group": group} if group is not None else {}
    return kept_secrets.input_digest(secret, normalised, large=large, media=media)


def input_of(body: Submit) -> dict[str, Any]:
    """Return what the worker sends to the provider, beside the model."""
    return {"input": body.input, "instructions": body.instructions, "params": body.passed_params()}


def is_stored(body: Submit) -> bool:
    """Return whether input and output may be kept once they were delivered."""
    return body.store and body.params.get("store") is not False

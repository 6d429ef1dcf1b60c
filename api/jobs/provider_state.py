"""The one rule, for both APIs, of what a request may have the provider open: shared state, and public addresses.

What the app itself made here is resolved before (earlier_items.py), and does not reach this. Which fields name state or
an address is decided in `worker/jobs/request_references.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from api.runtime.context import AppContext
from api.runtime.name_check import MAX_NAMES, RequestNames
from api.web.problems import Fault, Problem, fault
from worker.jobs.errors import Refused
from worker.jobs.request_references import (
    AddressReference,
    References,
    find_references,
    is_shared,
    pointer_of,
)
from worker.webhooks.guard import AddressPolicy, check_fetched_host, host_of_fetched_url

_MAX_FIELDS_INLINE: Final = 5_000  # more are searched by a thread: the loop must not stand still
_MAX_HOSTS: Final = 32
_MAX_ERRORS: Final = 20
_EARLIER: Final = "A job carries its whole input: send the earlier items in `input`."
_STATE: Final = (
    "names state that the provider keeps, and an account there serves several apps of this Vigil. Send the "
    "content itself; the operators can allow a name for every app (VIGIL_SHARED_PROVIDER_STATE)."
)


async def check_references(
    context: AppContext,
    app: str,
    params: dict[str, Any],
    items: Any,
    names: RequestNames | None = None,
    model: str | None = None,
) -> None:
    """Raise a Problem (422) for state of the provider that is not shared, and for forbidden addresses.

    `names`: of the request, if it has several jobs. `model`: the requested one, None before one is.
    """
    found = find_references(params, items, _MAX_FIELDS_INLINE)
    if found is None:
        found = await asyncio.to_thread(find_references, params, items)
    if found is None or not (found.names or found.addresses):
        return
    _check_names(found, _shared_state(context, app, model))
    await _check_addresses(context, found.addresses, names or RequestNames(context.name_check, app))


def is_shared_state(context: AppContext, app: str, model: str | None, name: str) -> bool:
    """Return whether operators let every app use this name of the provider's state, with the account of the model."""
    return is_shared(name, _shared_state(context, app, model))


def _shared_state(context: AppContext, app: str, model: str | None) -> tuple[str, ...]:
    """Return the shared names of the account that serves the app's requests to the model, or of any that may."""
    if model is not None:
        return context.accounts.of(app, model, context.catalogue).shared_state
    return tuple(name for account in context.accounts.for_app(app) for name in account.shared_state)


def _check_names(found: References, shared: tuple[str, ...]) -> None:
    faults = list[Fault]()
    for reference in found.names:
        if not is_shared(reference.name, shared):
            earlier = str(reference.path[1]).startswith(("previous", "conversation"))
            detail = f"is not supported: it {_STATE}" + (f" {_EARLIER}" if earlier else "")
            faults.append(fault(pointer_of(reference.path), detail, "unsupported_parameter"))
    if faults:
        detail = f"A field of the request {_STATE}"
        raise Problem(422, "unsupported_parameter", detail, faults[:_MAX_ERRORS])


async def _check_addresses(context: AppContext, addresses: list[AddressReference], names: RequestNames) -> None:
    hosts, faults = _hosts_of(AddressPolicy.of(context.settings), addresses)
    if len(hosts) > _MAX_HOSTS:
        detail = f"The request has addresses of more than {_MAX_HOSTS} hosts."
        raise _not_allowed([fault(list(hosts.values())[_MAX_HOSTS], detail, "url_not_allowed")])
    if faults:
        raise _not_allowed(faults)
    found = await names.forbidden(hosts)
    if left_out := names.left_out(hosts):
        detail = f"The batch has addresses of more than {MAX_NAMES} hosts; send this job in another one."
        raise _not_allowed([fault(hosts[left_out[0]], detail, "url_not_allowed")])
    detail = "The provider must not be sent to this address. Its name leads to a private or reserved address."
    if found:
        raise _not_allowed([fault(hosts[host], detail, "url_not_allowed") for host in found])


def _not_allowed(faults: list[Fault]) -> Problem:
    return Problem(422, "url_not_allowed", faults[0]["detail"], faults[:_MAX_ERRORS])


def hosts_of_jobs(policy: AddressPolicy, jobs: list[Any]) -> list[str]:
    """Return the hosts that the jobs of a batch name, as they were sent and in order; no more than are looked up."""
    found = dict[str, None]()
    for job in jobs:
        if not isinstance(job, dict) or len(found) >= MAX_NAMES:
            continue
        params = job.get("params")
        references = find_references(params if isinstance(params, dict) else {}, job.get("input"))
        hosts = _hosts_of(policy, references.addresses)[0] if references is not None else {}
        if len(hosts) <= _MAX_HOSTS:
            found |= dict.fromkeys(hosts)
    return list(found)[:MAX_NAMES]


def _hosts_of(policy: AddressPolicy, addresses: list[AddressReference]) -> tuple[dict[str, str], list[Fault]]:
    """Return the hosts that are to be looked up with where they stand, and what is wrong with other addresses."""
    hosts, faults = dict[str, str](), list[Fault]()
    for one in addresses:
        try:
            host = _host_of(one, policy)
        except Refused as refused:
            faults.append(fault(pointer_of(one.path), refused.detail, refused.code))
        else:
            if host is not None:
                hosts.setdefault(host, pointer_of(one.path))
    return hosts, faults


def _host_of(one: AddressReference, policy: AddressPolicy) -> str | None:
    """Return the host that is to be looked up, if any. Raises Refused."""
    is_url = one.is_url or "://" in one.text
    return host_of_fetched_url(one.text, policy) if is_url else _plain_host(one.text, policy)


def _plain_host(text: str, policy: AddressPolicy) -> str | None:
    """Return the host of text such as `host:port/path`, if it looks like one with a domain."""
    host = text.strip().partition("/")[0]
    if host.startswith("["):
        host = host.partition("]")[0][1:]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    is_host = ("." in host or ":" in host or host.lower() == "localhost") and not any(c.isspace() for c in host)
    return check_fetched_host(host, policy) if is_host else None

"""Pages of items as OpenAI's clients ask for them: `limit`, `order`, `after`.

Every item is whole, whatever `include` asks for: nothing of it has to be fetched from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from api.web.params import integer_param
from api.web.problems import bad_parameter
from worker.jobs.input_items import KeptItem, page_of, shown

_MAX_LIMIT: Final = 100
_DEFAULT_LIMIT: Final = 20
_ORDERS: Final = ("asc", "desc")


def page_view(request: Request, items: Sequence[KeptItem]) -> dict[str, Any]:
    """Return the page of these items, oldest first, that the request asks for; raise a Problem for bad parameters."""
    limit, order, after = page_params(request)
    found = page_of(items, limit, order, after)
    if found is None:
        raise bad_parameter("after", "after must be the id of an item of this list.")
    page, has_more = found
    return list_view(page, has_more=has_more)


def page_params(request: Request) -> tuple[int, str, str | None]:
    """Return (limit, order, after) of the query; raise a Problem for bad ones."""
    sent = lenient_params(request)
    limit = integer_param("limit", sent.get("limit"), _DEFAULT_LIMIT, 1, _MAX_LIMIT)
    order = sent.get("order", "desc")
    if order not in _ORDERS:
        raise bad_parameter("order", "order must be asc or desc.")
    return limit, order, sent.get("after")


def list_view(items: Sequence[KeptItem], *, has_more: bool = False) -> dict[str, Any]:
    """Return items as a list of OpenAI's."""
    return {
        "object": "list",
        "data": [shown(one) for one in items],
        "first_id": items[0].id if items else None,
        "last_id": items[-1].id if items else None,
        "has_more": has_more,
    }


def lenient_params(request: Request) -> dict[str, str]:
    """Return the query parameters; unknown ones of OpenAI are ignored."""
    try:
        raw = request.scope["query_string"].decode("ascii")
        return dict(parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=50))
    except ValueError:
        raise bad_parameter("", "The query is not percent-encoded UTF-8 of at most 50 parameters.") from None

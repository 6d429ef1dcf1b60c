"""The events of a job as the API shows them: one type for each kind of event, made from the facts of `worker.jobs`.

`data` may lack a field that has a default: events are shown as they were stored, perhaps by an older release.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from worker.jobs.events import FACTS, Fact
from worker.jobs.view_schema import Iso, documented

_TYPED_DICT: Final[Any] = TypedDict
_TYPE_ALIAS: Final[Any] = TypeAliasType
"""Made at run time, from the list of facts: out of reach for mypy."""


class OutputDeltaDataView(TypedDict):
    """New text, and the number of characters of the attempt's text before it."""

    offset: int
    delta: str


class OutputDeltaEventView(TypedDict):
    """New text of the answer. Only streams have it; it has no `seq`."""

    type: Literal["job.output.delta"]
    at: Iso
    job_id: str
    attempt: int
    data: OutputDeltaDataView


def _event_type(fact: type[Fact]) -> Any:
    """Return the type of the events with this fact."""
    members = {
        "seq": Annotated[int, Field(description="Rises by one from 1 within a job.")],
        "type": Literal[fact.TYPE],
        "at": Iso,
        "job_id": str,
        "attempt": int | None,
        "data": fact,
    }
    return _made(f"{fact.__name__}Event", members, fact.__doc__)


def _made(name: str, members: dict[str, Any], doc: str | None) -> Any:
    made = _TYPED_DICT(name, members)
    made.__doc__ = doc
    return made


def _tagged(name: str, kinds: list[Any], about: str) -> Any:
    """Return the union of event types; `type` tells which one an event is."""
    about += " `type` tells which kind it is; later releases may add kinds, so skip those that you don't know."
    return _TYPE_ALIAS(name, Annotated[reduce(or_, kinds), Field(discriminator="type", description=about)])


_EVENT_TYPES: Final = [_event_type(fact) for fact in FACTS.values()]
EVENT: Final = _tagged("Event", _EVENT_TYPES, "One event of a job.")
STREAMED_EVENT: Final = _tagged("StreamedEvent", [*_EVENT_TYPES, OutputDeltaEventView], "What a stream sends.")
EVENT_LIST: Final = _made(
    "EventListView",
    {"object": Literal["list"], "data": list[EVENT], "next_cursor": str | None},  # type: ignore[valid-type]
    "All events of a job, by seq.",
)


@documented
class ServerSentEventView(TypedDict):
    """One server-sent event."""

    id: NotRequired[str]
    """To be sent back as Last-Event-ID when the connection breaks."""
    event: str
    data: str
    """JSON."""


@documented
class JobServerSentEventView(ServerSentEventView):
    """One event of a job as a server-sent event."""

    data: Annotated[
        str,
        Field(
            json_schema_extra={
                "contentMediaType": "application/json",
                "contentSchema": {"$ref": "#/components/schemas/StreamedEvent"},
            }
        ),
    ]
    """JSON."""

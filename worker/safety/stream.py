"""Defines the events of a provider's stream: one union for Responses, Chat Completions and polling.

`worker/upstream` translates the wire into these; the watch judges them. An event of an unknown type is a `Keepalive`:
it shows that the stream is alive. Named tuples, because one of them is made for every delta of every stream.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from worker.jobs.record import Carrier, InputTransformation, Misalignment, Usage
from worker.jobs.states import RetryModelState


class Opened(NamedTuple):
    """The provider accepted the call (HTTP 2xx); headers as they came."""

    http_status: int
    request_id: str | None = None
    organization: str | None = None
    project: str | None = None
    processing_ms: int | None = None
    served_header: str | None = None  # `openai-model`
    rate_limits: dict[str, str] = {}  # x-ratelimit-*
    context: dict[str, str] = {}  # account-level headers: kept, never a signal (wire.md section 0.5)
    resumed: bool = False  # this is a resumed stream or a poll, not the first call


class Created(NamedTuple):
    """The response has an id; `status` is queued or in_progress."""

    sequence: int | None
    response_id: str | None
    model: str | None
    status: str
    service_tier: str | None = None
    background: bool = False  # the provider says that the response runs in the background
    is_snapshot: bool = False  # it is the state of a response, sent instead of a stream of events


class CheckNotice(NamedTuple):
    """The provider says that additional safety checks run (wire.md section 2.1)."""

    sequence: int | None
    use_cases: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    retry_model: str | None = None
    retry_model_state: RetryModelState = RetryModelState.ABSENT
    piggybacked: bool = False  # it was part of an output or terminal event, so it can't open a check that lasts


class Delta(NamedTuple):
    """Output-bearing: a piece of the answer. Only `text` and `refusal` belong to the text of the answer."""

    sequence: int | None
    text: str
    kind: Literal["text", "refusal", "other"] = "text"  # other: reasoning, arguments, audio …


class ItemDone(NamedTuple):
    """Output-bearing: a complete output item (an unchanged Responses output item)."""

    sequence: int | None
    index: int  # type: ignore[assignment]  # shadows tuple.index, which is not used
    item: dict[str, Any]
    flags: tuple[str, ...] = ()  # what had to be repaired to read it


class PartDone(NamedTuple):
    """Output-bearing: a content part is complete; its text came in deltas, or with some servers only here."""

    sequence: int | None
    index: int = 0  # type: ignore[assignment]  # of its output item; shadows tuple.index, which is not used
    part: int = 0
    text: str = ""
    kind: Literal["text", "refusal"] = "text"
    item: str = ""  # the id of its output item


class CallDone(NamedTuple):
    """Output-bearing: the arguments of a tool call are complete; some servers send them only here.

    With `is_piece` they are the next piece, because some servers send nothing else. Without arguments it reports that a
    call with this name has begun, and is no output.
    """

    sequence: int | None
    index: int  # type: ignore[assignment]  # of its output item; shadows tuple.index, which is not used
    item: str  # the id of its output item
    type: str  # of its output item
    field: str  # of the item, to which the arguments belong
    arguments: str
    name: str | None = None
    call_id: str | None = None
    is_piece: bool = False


class Keepalive(NamedTuple):
    """A sign that the stream is alive: keepalive, unknown types, in_progress, item added, late events."""

    sequence: int | None
    type: str


class Served(NamedTuple):
    """A model name in the stream's own `headers` (wire.md section 5)."""

    model: str


class Flagged(NamedTuple):
    """`openai_verification_recommendation` on this account."""

    programs: tuple[str, ...]


class ProviderProblem(NamedTuple):
    """The fields of a provider's error: codes as sent, and the wait that its message asks for."""

    code: str | None
    type: str | None
    param: str | None = None
    retry_after: float | None = None
    message: str | None = None  # shown to the app alone; may quote the prompt, so never logged or recorded
    mentions_access: bool = False  # the body names access programs
    quoted: bool = False  # a gateway quotes the error of the server behind it
    misalignment: Misalignment | None = None
    worded_as_block: bool = False  # no code, and a message that begins like one of a block: never a block by itself


class StreamError(NamedTuple):
    """An error event inside a stream, nested or flat, or an error chunk of a chat stream. Not the end."""

    sequence: int | None
    problem: ProviderProblem
    carrier: Carrier


class Rejected(NamedTuple):
    """An HTTP error instead of a stream: the end of the call. `problem` is None if the body was not JSON."""

    http_status: int
    problem: ProviderProblem | None
    request_id: str | None = None
    organization: str | None = None
    project: str | None = None
    processing_ms: int | None = None
    retry_after: float | None = None
    rate_limits: dict[str, str] = {}
    on: Literal["create", "resume", "poll"] = "create"
    next_differs: bool = False  # refused for the name of a parameter; the next request uses another one
    forwarded: bool = False  # a gateway's headers name the deployment that answered, so it was not the gateway itself


class Terminal(NamedTuple):
    """The terminal event of a response."""

    sequence: int | None
    status: Literal["completed", "incomplete", "failed", "cancelled"]
    model: str | None = None
    usage: Usage | None = None
    output: tuple[dict[str, Any], ...] = ()
    incomplete_reason: str | None = None
    problem: ProviderProblem | None = None
    service_tier: str | None = None
    carrier: Carrier = "response_failed"
    response_id: str | None = None
    flags: tuple[str, ...] = ()  # what had to be repaired to read it
    input_transformations: tuple[InputTransformation, ...] = ()


NoConnection = Literal["untrusted", "certificate", "tls", "name", "refused", "unreachable", "timeout", "proxy"]
"""Why there was no connection: a certificate of an unknown issuer, another fault of the certificate, TLS, DNS, a closed
port, no route, a timeout, the proxy.
"""


class Closed(NamedTuple):
    """The connection ended. `clean` = an orderly end, which says only that nothing more comes."""

    how: Literal[
        # "nothing": headers, and an orderly end without a byte
        "clean", "nothing", "cut", "half_frame", "bad_json", "not_an_answer", "page", "connect_failed", "lost",
        "unreachable", "no_route", "bad_id",
    ]  # fmt: skip
    detail: str = ""  # the class of the foreign exception; never its text
    opened: bool = True  # bytes were sent and headers came back, so the call may have run
    reason: NoConnection | None = None  # of "connect_failed", if the system gives it


StreamEvent = (
    Opened
    | Created
    | CheckNotice
    | Delta
    | ItemDone
    | PartDone
    | CallDone
    | Keepalive
    | Served
    | Flagged
    | StreamError
    | Rejected
    | Terminal
    | Closed
)

"""Translates one parsed event of a Responses stream, or one polled snapshot, into StreamEvents.

Pure: it accepts any JSON value and never raises or judges (the watch does).
The facts are wire.md sections 1-3 and 5: the JSON's own `type` decides, never the SSE event name, never a message.
"""

from __future__ import annotations

from typing import Any, Final, Literal, cast

from worker.jobs.states import RetryModelState
from worker.safety.finish import CODES, MAX_TOKENS, Finish, finish_word, meaning
from worker.safety.output import text_length
from worker.safety.stream import (
    CallDone,
    CheckNotice,
    Created,
    Delta,
    Flagged,
    ItemDone,
    Keepalive,
    PartDone,
    ProviderProblem,
    Served,
    StreamError,
    StreamEvent,
    Terminal,
)
from worker.upstream.call_events import call_done, call_piece, call_started
from worker.upstream.call_outcome import OUTCOME_KEYS, outcome_code
from worker.upstream.content import ContentReader, output_text
from worker.upstream.problems import is_block, is_empty_error, item_error, problem_in, problem_of
from worker.upstream.response_details import UNFILTERED, buffering_object, input_transformations, is_unfiltered
from worker.upstream.tolerant_fields import identifier, mapping, non_negative, strings, text, text_or_number, usage_of
from worker.upstream.wrapped_answer import shape_of

TerminalStatus = Literal["completed", "incomplete", "failed", "cancelled"]

_TERMINAL_TYPES: Final[dict[str, TerminalStatus]] = {
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "cancelled",
}
_START_TYPES: Final = {
    "response.created": "in_progress",
    "response.queued": "queued",
    "response.in_progress": "in_progress",
}
_ERROR_TYPES: Final = ("error", "response.error")  # a tuple, like the statuses
_STATUSES: Final = tuple(_TERMINAL_TYPES.values())  # a tuple: what is looked up may be unhashable
_PART_TYPES: Final = frozenset({"response.content_part.done", "response.output_text.done", "response.refusal.done"})
_PROGRAMS: Final = frozenset({"trusted_access_for_cyber"})
_LABEL_KEYS: Final = (("use_cases", "use_case"), ("reasons", "reason"))  # one client's fixtures have a single word
_MODEL_HEADERS: Final = frozenset({"openai-model", "x-openai-model"})
NOT_TEXT: Final = "\ufffc"
"""The text of a delta that is not a string (audio, objects); not empty, because it is output too."""


def translate(data: object) -> list[StreamEvent]:
    """Translate one event of a Responses stream into at least one StreamEvent, since any frame is a sign of life."""
    if (
        type(data) is dict
        and data.get("type") == "response.output_text.delta"
        and "safety_buffering" not in data
        and "headers" not in data
        and "response" not in data
        and "error" not in data
    ):
        piece, number = data.get("delta"), data.get("sequence_number")
        if type(piece) is str and piece and type(number) is int and number >= 0:
            return [Delta(number, piece)]
    return _translate(data)


def translate_snapshot(data: object) -> list[StreamEvent]:
    """Translate a polled or unstreamed response: Created while it runs, Terminal once it has ended."""
    if type(data) is not dict:
        return [Keepalive(None, "")]
    status = data.get("status")
    if status in _STATUSES:
        main: StreamEvent = _terminal(None, cast("TerminalStatus", status), data, None)
    elif not is_empty_error(data.get("error")) or is_error(data) or outcome_code(data):
        main = StreamError(None, problem_of(data), "error_event")
    elif identifier(data.get("id")) is None:
        main = Keepalive(None, "response")
    else:
        main = _created(None, "queued" if status == "queued" else "in_progress", data)._replace(is_snapshot=True)
    return [*side_signals("", {"response": data}, main), main]


def side_signals(kind: str, data: dict[str, Any], main: StreamEvent) -> list[StreamEvent]:
    """Return the events that a frame has beside its main event: serving model, account flags, a safety notice."""
    found: list[StreamEvent] = []
    if served := _served_model(data):
        found.append(Served(served))
    metadata = mapping(data.get("metadata")) if kind == "response.metadata" else {}
    if programs := tuple(p for p in strings(metadata.get("openai_verification_recommendation")) if p in _PROGRAMS):
        found.append(Flagged(programs))
    fields = buffering_object(kind, data, metadata)
    if fields is not None:
        # output or an end in the same frame would at once close the check that the notice opens
        piggybacked = type(main) in (Delta, ItemDone, PartDone, CallDone, Terminal, StreamError)
        found.append(_notice(non_negative(data.get("sequence_number")), fields, piggybacked))
    return found


def _translate(data: object) -> list[StreamEvent]:
    if type(data) is not dict:
        return [Keepalive(None, "")]
    kind = text(data.get("type"), 64) or ""
    if kind not in _ERROR_TYPES and shape_of(data) == "response":
        return translate_snapshot(data)  # the response itself instead of an event about it
    main = _main(kind, non_negative(data.get("sequence_number")), data)
    events = side_signals(kind, data, main)
    events.append(main)
    if kind == "response.output_item.added" and (begun := call_started(data)) is not None:
        events.append(begun)
    if (piece := call_piece(kind, data)) is not None:
        events.append(piece)
    if type(main) not in (StreamError, Terminal):
        problem = problem_in(mapping(data.get("response")), _errors_in_event(data))
        if problem is not None and is_block(problem):
            events.append(StreamError(None, problem, "error_event"))  # a block inside another event
    return events


def _errors_in_event(data: dict[str, Any]) -> dict[str, Any]:
    """Return what an event that is no error event may report of one; a filter only if it blocked (Azure OpenAI)."""
    filters = data.get("content_filters")
    blocking = [one for one in filters if mapping(one).get("blocked") is True] if type(filters) is list else []
    beside = {key: data.get(key) for key in ("error", *OUTCOME_KEYS)}
    return {**beside, "content_filters": blocking, "errors": item_error(data.get("item"))}


def is_error(data: dict[str, Any]) -> bool:
    """Return whether a frame or a body is nothing but an error: an envelope without an event type."""
    if data.get("object") == "error":
        return True  # vLLM and others
    if "choices" in data or "id" in data or "object" in data:
        return False
    if data.get("errors") and type(data["errors"]) in (dict, list):
        return True  # GraphQL and JSON:API
    return bool(data.get("error")) or "code" in data or "detail" in data or bool(outcome_code(data))


def _main(kind: str, sequence: int | None, data: dict[str, Any]) -> StreamEvent:
    if kind.endswith(".delta"):
        return _delta(kind, sequence, data.get("delta"))
    snapshot = data.get("response")
    if kind in _TERMINAL_TYPES:
        return _terminal(sequence, _TERMINAL_TYPES[kind], mapping(snapshot), data)
    if kind == "response.done" and type(snapshot) is dict and snapshot.get("status") in _STATUSES:
        return _terminal(sequence, cast("TerminalStatus", snapshot["status"]), snapshot, data)  # one type for all ends
    if kind in _START_TYPES and type(snapshot) is dict:
        return _created(sequence, _START_TYPES[kind], snapshot)
    if kind == "response.output_item.done" and type(data.get("item")) is dict:
        reading = ContentReader()
        item = reading.item(data["item"])
        return ItemDone(sequence, non_negative(data.get("output_index")) or 0, item, tuple(sorted(reading.flags)))
    if (call := call_done(kind, sequence, data)) is not None:
        return call
    if kind in _PART_TYPES and (part := _part_done(kind, sequence, data)) is not None:
        return part
    if kind in _ERROR_TYPES or data.get("object") == "error" or (not kind and is_error(data)):
        around = {key: value for key, value in data.items() if key != "type" or value not in _ERROR_TYPES}
        return StreamError(sequence, problem_of(around), "error_event")
    return Keepalive(sequence, kind)


def _delta(kind: str, sequence: int | None, piece: object) -> StreamEvent:
    piece = text_or_number(piece) if type(piece) in (int, float) else piece
    if type(piece) is str and piece:
        if kind == "response.output_text.delta":
            return Delta(sequence, piece)
        return Delta(sequence, piece, "refusal" if kind == "response.refusal.delta" else "other")
    if piece and type(piece) in (dict, list) and kind not in ("response.output_text.delta", "response.refusal.delta"):
        return Delta(sequence, NOT_TEXT, "other")
    return Keepalive(sequence, kind)


def _created(sequence: int | None, status: str, snapshot: dict[str, Any]) -> Created:
    reported = snapshot.get("status")
    return Created(
        sequence,
        identifier(snapshot.get("id")),
        text(snapshot.get("model")),
        reported if reported in ("queued", "in_progress") else status,
        text(snapshot.get("service_tier"), 32),
        snapshot.get("background") is True,
    )


def _part_done(kind: str, sequence: int | None, data: dict[str, Any]) -> PartDone | None:
    """Return a content part with its full text, sent as an object or as the text alone; else None."""
    part: object = data.get("part")
    if kind == "response.output_text.done":
        part = {"type": "output_text", "text": data["text"]} if data.get("text") else None
    elif kind == "response.refusal.done":
        part = {"type": "refusal", "refusal": data["refusal"]} if data.get("refusal") else None
    if type(part) is not dict:
        return None
    index, number = non_negative(data.get("output_index")) or 0, non_negative(data.get("content_index")) or 0
    item = text(data.get("item_id")) or ""
    for read in ContentReader().parts(part):
        if read.get("type") == "refusal":
            return PartDone(sequence, index, number, read["refusal"], "refusal", item)
        if read.get("type") == "output_text":
            return PartDone(sequence, index, number, read["text"], "text", item)
    return PartDone(sequence, index, number) if kind == "response.content_part.done" else None


def _items(reading: ContentReader, snapshot: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return the output of a response; if its messages have no text, that of the `output_text` beside it."""
    items, beside = reading.items(snapshot.get("output")), text_or_number(snapshot.get("output_text"))
    if not beside or text_length(items):
        return items
    silent = [item for item in items if item.get("type") != "message"]
    return (*silent, {"type": "message", "role": "assistant", "status": "completed", "content": [output_text(beside)]})


def _terminal(
    sequence: int | None, status: TerminalStatus, snapshot: dict[str, Any], frame: dict[str, Any] | None
) -> Terminal:
    reported = snapshot.get("status")
    if status == "completed" and reported in _STATUSES:
        status = cast("TerminalStatus", reported)  # a "completed" event around a failed snapshot is not a success
    problem = problem_in(snapshot, frame)
    reason = finish_word(mapping(snapshot.get("incomplete_details")).get("reason"))
    if status == "completed" and reason is not None and meaning(reason) is not Finish.END:
        status = "incomplete"  # an answer that was cut short is not complete
    if status == "incomplete" and reason is not None:
        status, reason, problem = terminal_for_finish(reason, problem)
    reading, counted = ContentReader(), usage_of(snapshot.get("usage"))
    return Terminal(
        sequence,
        status,
        model=text(snapshot.get("model")),
        usage=counted.usage,
        output=_items(reading, snapshot),
        incomplete_reason=reason,
        problem=problem,
        service_tier=text(snapshot.get("service_tier"), 32),
        carrier="incomplete" if status == "incomplete" else "response_failed",
        response_id=identifier(snapshot.get("id")),
        flags=(*sorted(reading.flags), *counted.flags, *((UNFILTERED,) if is_unfiltered(snapshot) else ())),
        input_transformations=input_transformations(snapshot),
    )


def terminal_for_finish(
    word: str, problem: ProviderProblem | None = None
) -> tuple[TerminalStatus, str | None, ProviderProblem | None]:
    """Return (status, reason, error) of an answer whose finish reason `word` is not a normal end."""
    finish = meaning(word)
    if finish is Finish.LENGTH:
        return "incomplete", MAX_TOKENS, problem
    if finish is Finish.BLOCK:
        named = ProviderProblem(word, None) if problem is None and word != "content_filter" else problem
        return "incomplete", "content_filter", named
    if finish in CODES:
        return (
            "failed",
            None,
            problem or ProviderProblem(CODES[finish], None, message=f"The server stopped with {word!r}."),
        )
    return "incomplete", word, problem


def _notice(sequence: int | None, fields: dict[str, Any], piggybacked: bool) -> CheckNotice:
    model, state = None, RetryModelState.ABSENT
    if "retry_model" in fields:
        model = text(fields["retry_model"])
        if model is not None:
            state = RetryModelState.NAMED
        elif fields["retry_model"] is None:
            state = RetryModelState.NONE
    use_cases, reasons = (strings(fields.get(many)) or strings([fields.get(one)]) for many, one in _LABEL_KEYS)
    return CheckNotice(sequence, use_cases, reasons, model, state, piggybacked)


def _served_model(data: dict[str, Any]) -> str | None:
    """Return the model named by the stream's own headers, or None; those of the snapshot win."""
    snapshot = data.get("response")
    inner = _model_header(snapshot.get("headers")) if type(snapshot) is dict else None
    return inner or _model_header(data.get("headers"))


def _model_header(headers: object) -> str | None:
    for name, value in mapping(headers).items():
        if type(name) is str and name.lower() in _MODEL_HEADERS:
            one = value[0] if type(value) is list and len(value) == 1 else value
            if model := text(one):
                return model
    return None

"""The one rule, for both APIs, of what a request continues: a response, a conversation, or single items of its own app.

All three are kept by Vigil, which sends them whole with the request. So a chain goes on with another model, in another
mode and after a restart, and nothing of another app can be named. A response can be continued if it was stored, has
completed and nothing of its chain was deleted; a blocked one can't be, for that would send again what was blocked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from api.jobs.continued_size import ContinuedSize
from api.jobs.provider_state import is_shared_state
from api.runtime.context import AppContext
from api.schema.requests import Submit
from api.web.problems import Problem, fault
from worker.jobs import ids
from worker.jobs.conversation import Conversation
from worker.jobs.errors import Refused
from worker.jobs.input_items import (
    MAX_BYTES,
    MAX_ITEMS,
    Json,
    KeptItem,
    input_id,
    items_of,
    kept_input,
    kept_output,
    own_item,
    referenced_id,
    sent_again,
)
from worker.jobs.states import Status
from worker.store.jobs.stored_job import StoredJob

_MAX_REFERENCED_JOBS: Final = 200
_PREVIOUS, _CONVERSATION = "previous_response_id", "conversation"
_FIELDS: Final = frozenset({_PREVIOUS, _CONVERSATION})
_GONE: Final = (
    "There is no such response that can be continued: it is unknown, was not stored (store: false), was deleted, or is "
    "no longer kept. Send the earlier items in `input`."
)
_CHAIN_CUT: Final = (
    "The chain of this response can't be continued: an earlier response in it was deleted. Send what is to be kept of "
    "it in `input`."
)
_RUNNING: Final = "This response is still being made; it can be continued once it has completed."
_ENDED: Final = (
    "This response has no answer to continue: it was blocked, failed, was cancelled or expired. Continue the response "
    "before it."
)
_BOTH: Final = (
    "Mutually exclusive parameters: 'previous_response_id' and 'conversation'. Send only one of them: a conversation "
    "has the earlier responses."
)
_NOT_STORED: Final = (
    "A response in a conversation must be stored: leave out `store: false`, or send the earlier items in `input`."
)


class Earlier(NamedTuple):
    """What a request continues, resolved."""

    request: Submit
    """The request without the names of state, and without the items that it refers to."""
    items: Sequence[KeptItem] = ()
    """What comes before its own items."""
    found: dict[int, list[KeptItem]] = {}
    """Items of its input that are references -> what they refer to."""
    turns: tuple[str, ...] = ()
    """The jobs whose content this is."""
    previous: str | None = None
    conversation: Conversation | None = None
    size: int = 0
    """Bytes of all that is continued."""

    @property
    def continues(self) -> bool:
        """Whether the request has anything that was resolved."""
        return bool(self.found or self.previous or self.conversation)

    def whole(self, request: Submit, job_id: str) -> tuple[Submit, list[str | None], list[KeptItem]]:
        """Return the checked request with all items, their known ids, and those that are the request's own."""
        before = [(one.id, sent) for one in self.items if (sent := sent_again(one.item)) is not None]
        known: list[str | None] = [name for name, _ in before]
        items: list[Json] = [item for _, item in before]
        own: list[KeptItem] = []
        for place, item in enumerate(items_of(request.input)):
            for one in self.found.get(place, (None,)):
                sent = item if one is None else sent_again(one.item)
                if sent is not None:
                    name = input_id(sent, job_id, len(items)) if one is None else one.id
                    own.append(KeptItem(name, sent))
                    known.append(name)
                    items.append(sent)
        return request.model_copy(update={"input": items}), known, own

    def kept_state(self) -> Json:
        """Return what the job keeps of this for its app."""
        return {
            _PREVIOUS: self.previous,
            _CONVERSATION: self.conversation.id if self.conversation is not None else None,
            "turns": list(self.turns),
        }


async def find_earlier(context: AppContext, app: str, body: Submit) -> Earlier:
    """Return what the request continues. Raises a Problem or Refused if it names what can't be continued."""
    if not body.params and isinstance(body.input, str):
        return Earlier(body)
    previous, conversation_id = _named(body.params)
    references = _references(body.input)
    if previous is None and conversation_id is None and not references:
        return Earlier(body)
    earlier = Earlier(body)
    if previous is not None:
        earlier = await _of_response(context, app, earlier, previous)
    elif conversation_id is not None:
        earlier = await _of_conversation(context, app, earlier, conversation_id)
    size = _size_of(context, earlier, len(references))
    if references:
        earlier = await _with_references(context, app, earlier, references, size)
    return earlier._replace(size=size.bytes) if earlier.continues else earlier


def _size_of(context: AppContext, earlier: Earlier, references: int) -> ContinuedSize:
    """Return the size of the items before the request's own, to which those are added that it refers to."""
    sent = earlier.request.input
    field = "/params/conversation" if earlier.conversation is not None else "/params/previous_response_id"
    most = max(MAX_BYTES, context.settings.body_limit)
    size = ContinuedSize(field, 1 if isinstance(sent, str) else len(sent) - references, most)
    size.add(earlier.items)
    return size


def names_state(body: Submit) -> bool:
    """Return whether the request may continue something."""
    return any(body.params.get(name) for name in _FIELDS) or bool(_references(body.input))


def names_of(body: Submit) -> tuple[str | None, str | None]:
    """Return (the response that the request continues, its conversation), as the job that it makes keeps them."""
    previous, conversation = _named(body.params)
    return (ids.response_id_of(ids.job_id_of(previous)) if previous is not None else None), conversation


def named_by(stored: StoredJob) -> tuple[str | None, str | None]:
    """Return (the response that this job continues, its conversation)."""
    state = stored.private.get("state") or {}
    return state.get(_PREVIOUS), state.get(_CONVERSATION)


def _named(params: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return (the response that is continued, the conversation); raise a Problem for anything that is no name."""
    previous, conversation = params.get(_PREVIOUS) or None, params.get(_CONVERSATION)
    if isinstance(conversation, dict) and isinstance(conversation.get("id"), str):
        conversation = conversation["id"]
    for field, value in ((_PREVIOUS, previous), (_CONVERSATION, conversation)):
        if value is not None and not isinstance(value, str):
            raise _problem(field, "validation_error", "must be the id of one", 422)
    conversation = conversation or None
    if previous is not None and conversation is not None:
        raise _problem(_PREVIOUS, "mutually_exclusive_parameters", _BOTH)
    return previous, conversation


def conversation_problem(refused: Refused) -> Problem:
    """Return the Problem for a conversation that can't be continued, with the name of the field."""
    status = 422 if refused.code == "conversation_not_found" else refused.status
    return _problem(_CONVERSATION, refused.code, refused.detail, status)


def _references(sent: Any) -> dict[int, str]:
    if isinstance(sent, str):
        return {}
    found = ((place, referenced_id(item)) for place, item in enumerate(sent))
    return {place: name for place, name in found if name is not None}


async def _of_response(context: AppContext, app: str, earlier: Earlier, named: str) -> Earlier:
    stored = await _own_job(context, app, named)
    if stored is None and is_shared_state(context, app, earlier.request.model, named):
        return earlier  # the provider's own, which operators let every app use
    if stored is None or stored.job.content_removed is not None or not stored.job.store:
        raise _problem(_PREVIOUS, "previous_response_not_found", _GONE)
    if not stored.job.settled:
        raise _problem(_PREVIOUS, "previous_response_in_progress", _RUNNING)
    if stored.job.status is not Status.COMPLETED:
        raise _problem(_PREVIOUS, "previous_response_not_completed", _ENDED)
    job_id, before = stored.job.id, stored.private.get("state") or {}
    most = max(MAX_BYTES, context.settings.body_limit)
    size = await context.jobs.input_bytes(job_id) + await context.jobs.output_bytes(job_id)
    if size > 2 * most:  # it is not read only to be refused; sealed and as JSON it is never twice as long
        detail = f"This response and its input have {size} bytes; at most {most} can be continued. Send what is needed."
        raise _problem(_PREVIOUS, "input_too_large", detail, 413)
    sent, answer = await context.jobs.load_input(job_id), await context.jobs.load_output(job_id)
    if sent is None or answer is None:
        raise _problem(_PREVIOUS, "previous_response_not_found", _GONE)
    turns = (*before.get("turns", ()), job_id)
    if not await context.job_access.are_kept(turns):
        raise _problem(_PREVIOUS, "previous_response_not_found", _CHAIN_CUT)
    items = [*kept_input(job_id, sent), *kept_output(job_id, answer.get("output") or [])]
    return earlier._replace(
        request=_without_names(earlier.request), items=items, turns=turns, previous=ids.response_id_of(job_id)
    )


async def _of_conversation(context: AppContext, app: str, earlier: Earlier, named: str) -> Earlier:
    request = earlier.request
    try:
        found = await context.conversations.ready(app, named)
    except Refused as refused:
        if refused.code == "conversation_not_found" and is_shared_state(context, app, request.model, named):
            return earlier
        raise conversation_problem(refused) from None
    if not request.store or request.params.get("store") is False:
        raise _problem(_CONVERSATION, "unsupported_parameter", _NOT_STORED)
    return earlier._replace(
        request=_without_names(request), items=found.items, turns=tuple(found.jobs), conversation=found
    )


async def _with_references(
    context: AppContext, app: str, earlier: Earlier, references: dict[int, str], size: ContinuedSize
) -> Earlier:
    """Return it with the items that its input refers to; what is not the app's own stays, and is refused later."""
    places = Counter(references.values())
    if len(references) > MAX_ITEMS:
        detail = f"The input refers to {len(references)} items; at most {MAX_ITEMS} can be continued."
        raise Problem(413, "input_too_large", detail, [fault("/input", detail, "input_too_large")])
    known = {one.id: [one] for one in earlier.items if one.id in places}
    for name, items in known.items():
        size.add(items, places[name])
    missing = [name for name in places if name not in known]
    by_name = {name: own.job_id for name in missing if (own := own_item(name)) is not None}
    others = [name for name in missing if name not in by_name]
    by_name |= await context.job_access.jobs_of_items(app, others)
    jobs: dict[str, list[str]] = {}
    for name, job_id in by_name.items():
        jobs.setdefault(job_id, []).append(name)
    if len(jobs) > _MAX_REFERENCED_JOBS:
        detail = f"The input refers to items of more than {_MAX_REFERENCED_JOBS} responses: send the items themselves."
        raise Problem(413, "input_too_large", detail, [fault("/input", detail, "input_too_large")])
    for job_id, names in jobs.items():
        for name, items in (await _named_items(context, app, job_id, names, size)).items():
            size.add(items, places[name])
            known[name] = items
    found_at = {place: known[name] for place, name in references.items() if name in known}
    if not found_at:
        return earlier
    used = {by_name[references[place]] for place in found_at if references[place] in by_name}
    # what stands in their places names nothing, so that the other items keep their places in errors
    rest = [{} if place in found_at else item for place, item in enumerate(earlier.request.input)]
    return earlier._replace(
        request=earlier.request.model_copy(update={"input": rest}),
        found=found_at,
        turns=tuple(dict.fromkeys((*earlier.turns, *sorted(used)))),
    )


async def _named_items(
    context: AppContext, app: str, job_id: str, names: Sequence[str], size: ContinuedSize
) -> dict[str, list[KeptItem]]:
    """Return the items of these ids of a job's output; the messages of the answer for the one that was streamed.

    Nothing for a job that is not the app's own, was not stored or has not completed. Raises a Problem if the answer is
    too long to be read.
    """
    stored = await _own_job(context, app, job_id)
    if stored is None or not stored.job.store or stored.job.status is not Status.COMPLETED:
        return {}
    size.add_stored(await context.jobs.output_bytes(job_id))
    answer = await context.jobs.load_output(job_id)
    items = kept_output(job_id, answer.get("output") or []) if answer is not None else []
    by_id = {one.id: [one] for one in reversed(items)}
    messages = [one for one in items if one.item.get("type") == "message"]
    found = {name: messages if (own := own_item(name)) and own.kind == "live" else by_id.get(name) for name in names}
    return {name: some for name, some in found.items() if some}


async def _own_job(context: AppContext, app: str, named: str) -> StoredJob | None:
    job_id = ids.job_id_of(named)
    stored = await context.jobs.load(job_id, locked=True) if ids.is_job_id(job_id) else None
    return stored if stored is not None and stored.job.app == app else None


def _without_names(request: Submit) -> Submit:
    params = {name: value for name, value in request.params.items() if name not in _FIELDS}
    return request.model_copy(update={"params": params})


def _problem(field: str, code: str, detail: str, status: int = 422) -> Problem:
    return Problem(status, code, detail, [fault(f"/params/{field}", detail, code)])

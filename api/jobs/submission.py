"""Submits a validated request as a job: checks models, derives the safety identifier, continues the trace.

Must not know how a request was read nor how a response looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter, ValidationError

from api.jobs.earlier_items import Earlier, conversation_problem, find_earlier, named_by, names_of, names_state
from api.jobs.provider_state import check_references
from api.jobs.request_digests import Digests, digests, input_of, is_stored
from api.jobs.webhook_url import check_webhook_url
from api.runtime.context import AppContext
from api.runtime.large_work import is_large
from api.runtime.name_check import RequestNames
from api.schema.requests import OWNED_PARAMS, EndUser, Submit
from api.web.problems import Fault, Problem, bad_field, fault
from api.web.rate_limit_headers import quota_of
from worker.jobs import ids
from worker.jobs.conversation import Conversation
from worker.jobs.errors import (
    ContentTooLarge,
    EarlierCallerWaits,
    QueueFull,
    RateExceeded,
    Refused,
)
from worker.jobs.events import Queued
from worker.jobs.input_items import KeptItem
from worker.jobs.record import Job
from worker.jobs.request_references import ITEMS
from worker.jobs.spec import MEASURED, SILENCE, optional_fields
from worker.store.admission.rate_limit import RateMeter
from worker.store.apps import ApiKey
from worker.store.connection import kept_secrets
from worker.store.connection.kept_secrets import DIGEST, IDENTIFIER
from worker.store.jobs.stored_job import Caller, NewJob, StoredJob
from worker.store.jobs.uploads import Upload
from worker.telemetry.tracing import publishing

_DAY_S: Final = 86_400
_END_USER: Final[TypeAdapter[str]] = TypeAdapter(EndUser)


class Rerun(NamedTuple):
    """What a job takes over from the one that it runs again, beside what a request may have."""

    job: Job
    state: dict[str, Any] | None
    """What that one continued, which stands in its input."""
    ids: list[str | None] | None
    """The known ids of its input's items."""

    def added_to(self, new: NewJob) -> NewJob:
        """Return the new job with it. It is no turn of a conversation, which may have gone on meanwhile."""
        series = {"rerun_of": self.job.id, "rerun_root": self.job.rerun_root or self.job.id}
        silence = {SILENCE: MEASURED} if self.job.silence_is_measured else {}
        new = replace(new, fact=new.fact.evolve(optional={**series, **silence}))
        if self.state is not None:
            new = replace(new, private={**new.private, "state": {**self.state, "conversation": None}})
        return new if self.ids is None else replace(new, input={**new.input, "ids": self.ids})


@dataclass(slots=True)
class JobRequest:
    """A request for a new job: who sends it, what it says, and what comes with it."""

    key: ApiKey
    body: Submit
    digests: Digests
    trace: dict[str, str]
    meter: RateMeter
    """Is charged for a new job."""
    base: str
    """The address at which its app reached the API; the job's webhooks name it."""
    idempotency_key: str | None = None
    upload: Upload | None = None
    """The strings for which placeholders stand in the request."""
    media_sizes: list[int] = field(default_factory=list)
    """The pieces of each of them."""
    rerun_of: Rerun | None = None
    """Of the job that it runs again."""
    names: RequestNames | None = None
    """Those of the HTTP request, if it has several jobs."""
    group: str | None = None
    """The group that the job belongs to."""


PROMPT_OBJECTS_ENDED: Final = (
    "The provider removed stored prompts (prompt objects) on 2026-11-30: "
    "send the prompt's text in input and instructions."
)


async def submit(context: AppContext, request: JobRequest, *, caller: Caller | None = None) -> tuple[StoredJob, bool]:
    """Return (the job, whether it existed already); it is durable then.

    `caller`: of an SDK that may send the request again.
    """
    key, body, idempotency_key = request.key, request.body, request.idempotency_key
    if (idempotency_key is not None or caller is not None) and names_state(body):
        # what it continues may have changed since the first request
        if idempotency_key is not None:
            repeated = await context.jobs.find_repeated(key.app, idempotency_key, request.digests.request)
            if repeated is not None:
                return repeated, True
        if caller is not None:
            joined = await _joined(context, key.app, body, caller)
            if joined is not None:
                return joined, True
    earlier = await find_earlier(context, key.app, body)
    body = await check_request(context, key.app, earlier.request, request.names)
    require_end_user(key, body)
    with publishing(request.trace) as (trace_headers, published):
        new = await _new_job(context, request, body, trace_headers, caller)
        if request.rerun_of is not None:
            new = request.rerun_of.added_to(new)
        own: list[KeptItem] = []
        if earlier.continues:
            new, own = await _continuing(context, key.app, new, body, earlier)
        stored, replayed = await _create(context, key, body, new, earlier.conversation, own)
        published(stored.job.id)
        return stored, replayed


async def new_job_of(context: AppContext, request: JobRequest, trace: dict[str, str]) -> NewJob:
    """Return the job of a request, which is still to be created; raise what `submit` raises before that.

    Not for a turn of a conversation (422), because only one of these may run at a time.
    """
    earlier = await find_earlier(context, request.key.app, request.body)
    if earlier.conversation is not None:
        detail = "is a turn of a conversation: turns run one after the other, so submit each by itself"
        raise Problem(422, "validation_error", detail, [fault("/params/conversation", detail, "invalid")])
    body = await check_request(context, request.key.app, earlier.request, request.names)
    require_end_user(request.key, body)
    new = await _new_job(context, request, body, trace, None)
    if not earlier.continues:
        return new
    return (await _continuing(context, request.key.app, new, body, earlier))[0]


async def _joined(context: AppContext, app: str, body: Submit, caller: Caller) -> StoredJob | None:
    """Return the job of the request that an SDK repeats, or None. Its first try may have changed what it continues."""
    job_id = await context.callers.join(app, caller)
    if job_id is None:
        return None
    stored = await context.jobs.load(job_id, locked=True) if ids.is_job_id(job_id) else None
    if stored is not None and stored.job.app == app and stored.job.content_removed is None:
        same = (stored.job.requested_model, named_by(stored)) == (body.model, names_of(body))
        if same:
            return stored
    await context.callers.end(app, caller, job_id, answered=True)
    return None


async def _continuing(
    context: AppContext, app: str, new: NewJob, body: Submit, earlier: Earlier
) -> tuple[NewJob, list[KeptItem]]:
    """Return (the job with all that it continues, the items that are the request's own).

    The job keeps all of it, and its audit trail has the digest of the whole.
    """
    job_id = context.jobs.new_id()
    whole, known, own = earlier.whole(body, job_id)
    secret, size = await context.secrets.get(DIGEST), earlier.size
    options = {"large": is_large(size), "media": None}
    made_of = await context.large_work.run(app, size, digests, secret, whole, options, repeatable=False)
    made = replace(
        new,
        fact=new.fact.model_copy(update={"input_digest": made_of.input}),
        private={**new.private, "state": earlier.kept_state()},
        input={**input_of(whole), "ids": known},
        job_id=job_id,
    )
    return made, own


async def _create(
    context: AppContext,
    key: ApiKey,
    body: Submit,
    new: NewJob,
    conversation: Conversation | None,
    own: Sequence[KeptItem],
) -> tuple[StoredJob, bool]:
    """Return (the job, whether it existed already). In a conversation it is a turn; only one runs at a time."""
    job_id = new.job_id
    if conversation is None or job_id is None:
        return await context.jobs.submit(new)
    conversations, quota = context.conversations, quota_of(context.settings, key)
    try:
        await conversations.begin(key.app, conversation, job_id, own, _longest(context, body), quota)
    except Refused as refused:
        raise conversation_problem(refused) from None
    try:
        stored, replayed = await context.jobs.submit(new)
    except (Refused, RateExceeded, QueueFull, ContentTooLarge, EarlierCallerWaits):  # there is no such job, surely
        await conversations.give_up(key.app, conversation.id, job_id)
        raise
    if replayed:
        await conversations.give_up(key.app, conversation.id, job_id)
    return stored, replayed


def _longest(context: AppContext, body: Submit) -> float:
    """Return the seconds after which the job has ended whatever happens."""
    ahead = (body.not_before - context.clock.now()).total_seconds() if body.not_before is not None else 0.0
    waiting = body.policy.queue_deadline_seconds or context.settings.max_ahead_seconds
    return max(ahead, 0.0) + waiting + body.policy.run_deadline_seconds


async def check_request(context: AppContext, app: str, body: Submit, names: RequestNames | None = None) -> Submit:
    """Return the request with its end user and webhook normalised; raise a Problem if it must be refused."""
    check_models(context, body)
    check_times(context, body)
    if body.params.get("prompt") is not None:
        errors = [fault("/params/prompt", PROMPT_OBJECTS_ENDED, "unsupported_parameter")]
        raise Problem(422, "unsupported_parameter", PROMPT_OBJECTS_ENDED, errors)
    body = with_end_user(body)
    if body.params or not isinstance(body.input, str):
        params = {name: value for name, value in body.params.items() if name in ITEMS or name not in OWNED_PARAMS}
        await check_references(context, app, params, body.input, names, body.model)
    if body.webhook is None:
        return body
    url = check_webhook_url(body.webhook.url, context.settings)
    return body.model_copy(update={"webhook": body.webhook.model_copy(update={"url": url})})


def check_models(context: AppContext, body: Submit) -> None:
    """Raise a Problem (422) if models.toml does not know a model of the request, unless the settings allow it."""
    named = [("/model", body.model), ("/policy/on_delay/model", body.policy.on_delay.model)]
    if body.policy.fallback != "default":
        named += [(f"/policy/fallback/{i}", model) for i, model in enumerate(body.policy.fallback)]
    require_known(context, named)


def with_end_user(body: Submit) -> Submit:
    """Return the request with the end user that `params.user` names, unless it names one itself.

    Raises a Problem (422) for a `user` that can't be one.
    """
    user = body.params.get("user")
    if user is None or body.end_user is not None:
        return body
    try:
        return body.model_copy(update={"end_user": _END_USER.validate_python(user, strict=True)})
    except ValidationError:
        detail = "must be 1 to 200 characters without control characters, as `end_user`"
        raise Problem(422, "validation_error", detail, [fault("/params/user", detail, "invalid")]) from None


def require_end_user(key: ApiKey, body: Submit) -> None:
    """Raise a Problem (422) for a request without an end user, where the key's app must name one; blanks name none."""
    if key.require_end_user and (body.end_user is None or not body.end_user.strip()):
        detail = (
            "Each request of this app must name its end user: in `end_user`, or in `safety_identifier` or `user` of "
            "the OpenAI-compatible APIs. The operators require it (`vigil apps set --require-end-user`)."
        )
        raise Problem(422, "end_user_required", detail, [fault("/end_user", detail, "end_user_required")])


def check_times(context: AppContext, body: Submit) -> None:
    """Raise a Problem (422) for a job that may wait longer than the settings allow: waiting jobs fill the store."""
    most, policy = context.settings.max_ahead_seconds, body.policy
    too_far: list[str] = []
    if body.not_before is not None and (body.not_before - context.clock.now()).total_seconds() > most:
        too_far.append("/not_before")
    if policy.queue_deadline_seconds is not None and policy.queue_deadline_seconds > most:
        too_far.append("/policy/queue_deadline_seconds")
    if policy.run_deadline_seconds > most:
        too_far.append("/policy/run_deadline_seconds")
    if too_far:
        text = f"{most / 86_400:g} days" if most >= _DAY_S else f"{most:g} seconds"
        ahead = f"must be at most {text} ahead (VIGIL_MAX_AHEAD_SECONDS)"
        seconds = f"must be at most {most} seconds, that is {text} (VIGIL_MAX_AHEAD_SECONDS)"
        faults: list[Fault] = [
            fault(pointer, ahead if pointer == "/not_before" else seconds, "too_far_ahead") for pointer in too_far
        ]
        raise Problem(422, "validation_error", "A time of the request is too far ahead; see errors.", faults)


def require_known(context: AppContext, named: Sequence[tuple[str, str | None]]) -> None:
    """Raise a Problem (422) for each (pointer, model) that models.toml does not know, unless the settings allow it."""
    if context.settings.allow_unknown_models:
        return
    find = context.catalogue.find
    unknown = [pointer for pointer, name in named if name and find(name) is None]
    if unknown:
        detail = (
            "models.toml does not know this model: the operators can add it to the file of VIGIL_MODELS_FILE, "
            "or allow any name with VIGIL_ALLOW_UNKNOWN_MODELS=1; "
            f"known: {', '.join(sorted(context.catalogue.models))}."
        )
        faults: list[Fault] = [fault(pointer, detail, "unknown_model") for pointer in unknown]
        raise Problem(422, "unknown_model", detail, faults)


async def _new_job(
    context: AppContext, request: JobRequest, body: Submit, trace: dict[str, str], caller: Caller | None
) -> NewJob:
    """Return the job to create; `body`: the request as it was checked."""
    key, hook = request.key, body.webhook
    fact = Queued(
        app=key.app,
        key_id=key.id,
        requested_model=body.model,
        policy=body.policy,
        priority=body.priority,
        safety_identifier=await identifier(context, key.app, body.end_user) if body.end_user is not None else None,
        input_digest=request.digests.input,
        store=is_stored(body),
        not_before=body.not_before,
        trace=trace,
        webhook_events=hook.events if hook else (),
        optional=optional_fields(body.policy, request.group),
    )
    private = {
        "metadata": body.metadata,
        "end_user": body.end_user,
        "base": request.base,
        "webhook": {"url": hook.url, "payload": hook.payload, "events": hook.events} if hook else None,
    }
    return NewJob(
        fact,
        private,
        input_of(body),
        request.idempotency_key,
        request.digests.request,
        request.meter,
        quota_of(context.settings, key),
        caller=caller,
        upload=request.upload,
        media_sizes=request.media_sizes,
    )


async def identifier(context: AppContext, app: str, end_user: str | None) -> str | None:
    """Return the safety identifier of an app's end user, or None without one."""
    if end_user is None:
        return None
    return kept_secrets.safety_identifier(await context.secrets.get(IDENTIFIER), app, end_user)


def require_future(until: datetime | None, context: AppContext) -> None:
    """Raise a Problem (422) for a time that has passed."""
    if until is not None and until <= context.clock.now():
        raise bad_field("until", "until must be in the future.")

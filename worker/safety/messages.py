"""Renders the messages for a person: what happened and what to do next, for every code that Vigil can show.

From the access and safety tables of wire.md sections 3 to 6. Every advice is one sentence. The provider's messages are
never quoted, because they can quote the prompt.
"""

from __future__ import annotations

from typing import Final

from worker.jobs.errors import Failure
from worker.jobs.record import Block, BlockCategory, DisclosureReason, JobError, ProviderError
from worker.safety.connection_cuts import ConnectionCuts
from worker.safety.messages_access import ACCESS, Message
from worker.safety.messages_failures import FAILURES

MESSAGES: Final[dict[str, Message]] = {**ACCESS, **FAILURES}

_WHOLE_SECONDS: Final = 10
_TIMES: Final = ("", "once", "twice", "three times", "four times", "five times")
_CHECK_ADVICE: Final = (
    "Submit the job again if it should be asked anew: Vigil does not send a prompt again by itself once a safety check "
    "was signalled for it, and with VIGIL_UPSTREAM=background a cut stream is resumed instead."
)
_MISTAKE = "use the support packet of this job if you think that it is a mistake."
_NO_FINDING = "a block is no finding of a violation, so"

_BLOCK_ADVICE: Final[dict[BlockCategory, str]] = {
    "cyber": "Do not send the same prompt again as it is: state the defensive purpose more clearly or ask for Trusted "
    f"Access for Cyber; {_NO_FINDING} {_MISTAKE}",
    "bio": "Do not send the same prompt again as it is: reword it without the biological detail that it does not need; "
    f"{_NO_FINDING} {_MISTAKE}",
    "prompt": f"Do not send the same prompt again as it is: reword it; {_NO_FINDING} {_MISTAKE}",
    "misalignment": "Stop this conversation and review what the model was doing before you begin a new one; "
    f"{_NO_FINDING} {_MISTAKE}",
    "image": f"Do not send the same images and prompt again as they are: change them; {_NO_FINDING} {_MISTAKE}",
    "content_filter": f"Do not send the same prompt again as it is: reword or narrow it; {_NO_FINDING} {_MISTAKE}",
    "unknown": f"Do not send the same prompt again as it is: review it with the block's code at hand; {_NO_FINDING} "
    f"{_MISTAKE}",
}

_DISCLOSURE_REASONS: Final[dict[DisclosureReason, str]] = {
    "safety_check_delay": "because an additional safety check delayed the requested model",
    "silence": "because the requested model had been silent for too long",
    "access_denied": "because the provider denied access to the requested model",
    "provider_reroute": "because the provider rerouted the request by itself",
    "offer_accepted": "because the app accepted the offer of a faster model",
}


def job_error(code: str, type: str | None = None, provider: ProviderError | None = None) -> JobError:  # noqa: A002
    """Return the error of a job; an unknown `code` keeps its name and gets the message of its `type`."""
    words = MESSAGES.get(code) or MESSAGES.get(type or "") or MESSAGES["unknown_error"]
    return JobError(type=type or words.type, code=code, message=words.message, advice=words.advice, provider=provider)


def failure_error(failure: Failure) -> JobError:
    """Return the error of a failed attempt."""
    return job_error(failure.code, failure.outcome.value, failure.provider)


def final_error(failure: Failure, why: str, cuts: ConnectionCuts | None) -> JobError:
    """Return the error of a job that is not retried; `why` is the reason that `retry` gives."""
    error = failure_error(failure)
    if cuts is not None and cuts.times > 1:
        words = MESSAGES["proxy_timeout"]
        lasted = round(cuts.seconds) if cuts.seconds >= _WHOLE_SECONDS else round(cuts.seconds, 1)
        often = _TIMES[cuts.times] if cuts.times < len(_TIMES) else f"{cuts.times} times"
        message = f"The request was cut by a proxy after {lasted:g} s {often}."
        return error.evolve(code="proxy_timeout", message=message, advice=words.advice)
    if why == "check_signalled":
        return error.evolve(advice=_CHECK_ADVICE)
    return error


def block_error(block: Block) -> JobError:
    """Return the error of a block, under the provider's own code."""
    words = MESSAGES["end_user_limited" if block.scope == "end_user" else "blocked"]
    return JobError(type="blocked", code=block.code, message=words.message, advice=block.advice)


def block_advice(category: BlockCategory) -> str:
    """Return what to do after content was withheld, in one sentence."""
    return _BLOCK_ADVICE[category]


def limited_advice() -> str:
    """Return what to do after the provider limited an end user's access, in one sentence."""
    return MESSAGES["end_user_limited"].advice


def disclosure_message(requested: str, served: str, reason: DisclosureReason) -> str:
    """Return the sentence that names the serving and the requested model, and why; true even if no answer follows."""
    return (
        f"The model {served} serves this request instead of the requested {requested}, {_DISCLOSURE_REASONS[reason]}."
    )


def asked_message(requested: str, other: str, reason: DisclosureReason) -> str:
    """Return the sentence that names the model that was asked for the requested one, and why, if none answered."""
    return f"The model {other} was asked instead of the requested {requested}, {_DISCLOSURE_REASONS[reason]}."

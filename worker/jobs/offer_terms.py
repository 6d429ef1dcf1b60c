"""States what an app agrees to when it accepts an offer of a faster model, and the digest of that. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Final

from worker.jobs.offers import Offer
from worker.jobs.record import Job
from worker.jobs.timestamps import iso_utc
from worker.jobs.view_schema import OfferView

_ALGORITHM: Final = "sha256:"


def offer_message(requested: str, offered: str) -> str:
    """Return the sentence that is shown with an offer; a change of it changes the digest of new offers."""
    return (
        f"The requested {requested} is delayed: if you accept, the model {offered} serves this request instead, its "
        "answer may differ in quality, and what the first model has done so far is dropped and may be billed."
    )


def terms_digest(job: Job, offer: Offer) -> str:
    """Return the digest of the offer as it is shown: its sentence, its models and time, and the job's delay rule.

    It is SHA-256 of canonical JSON (sorted keys, no spaces) of these members, so anybody who has the job's trail can
    compute it again.
    """
    terms = {
        "policy_version": offer.policy_version,
        "on_delay": job.policy.on_delay.model_dump(mode="json"),
        "requested_model": job.requested_model,
        "offered_model": offer.model,
        "offered_at": iso_utc(offer.since),
        "message": offer_message(job.requested_model, offer.model),
    }
    text = json.dumps(terms, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return _ALGORITHM + hashlib.sha256(text.encode()).hexdigest()


def offer_view(job: Job) -> OfferView | None:
    """Return the job's open offer as its app sees it, or None."""
    offer = job.offer
    if offer is None:
        return None
    return {
        "model": offer.model,
        "since": offer.since,
        "until": offer.until,
        "message": offer_message(job.requested_model, offer.model),
        "policy_version": offer.policy_version,
        "terms_digest": terms_digest(job, offer),
    }

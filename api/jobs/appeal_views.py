"""Appeals as the people of their app see them."""

from __future__ import annotations

from urllib.parse import quote

from api.schema.end_user_schema import AppealStepView, AppealView, LinkedJobView
from worker.safety.appeals import Appeal, AppealStep


def appeal_view(appeal: Appeal, base: str) -> AppealView:
    """Return an appeal with all its steps."""
    return {
        "id": appeal.id,
        "object": "appeal",
        "state": appeal.state,
        "safety_identifier": appeal.safety_identifier,
        "reason": appeal.reason,
        "provider_case": appeal.provider_case,
        "opened_at": appeal.opened_at,
        "opened_by": appeal.steps[0].by if appeal.steps else "",
        "sent_at": appeal.sent_at,
        "answered_at": appeal.answered_at,
        "answer": appeal.answer,
        "closed_at": appeal.closed_at,
        "outcome": appeal.outcome,
        "jobs": [job_link(job, base) for job in appeal.jobs],
        "steps": [_step(step) for step in appeal.steps],
        "urls": {"self": f"{base}/v1/appeals/{quote(appeal.id, safe='')}"},
    }


def job_link(job_id: str, base: str) -> LinkedJobView:
    """Return a job's id and address."""
    return {"id": job_id, "url": f"{base}/v1/jobs/{quote(job_id, safe='')}"}


def _step(step: AppealStep) -> AppealStepView:
    return {
        "kind": step.kind,
        "at": step.at,
        "by": step.by,
        "by_person": step.by_person or None,
        "text": step.text,
        "provider_case": step.provider_case,
        "outcome": step.outcome,
        "jobs": list(step.jobs),
        "notice": step.notice,
    }

"""Defines the packet for the provider's support: what `packet.build_packet` makes and the OpenAPI document shows."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from worker.jobs.states import Evidence, Outcome, Status
from worker.jobs.view_schema import Iso, MessageCut, documented
from worker.safety.appeals import AppealOutcome, AppealState

Relevance = Literal["blocked", "denied", "checked", "rerouted", "delayed", "failed", "other"]


class PacketErrorView(TypedDict):
    """The provider's error: its code, type and status, each only if it looks like one."""

    code: str | None
    type: str | None
    http_status: int | None


class PacketCheckView(TypedDict):
    """A safety check during a request."""

    evidence: Evidence
    seconds: float | None
    use_cases: list[str]
    reasons: list[str]


@documented
class PacketRequestView(TypedDict):
    """One request to the provider, with what its support asks for."""

    attempt: int
    why: Relevance
    """Why this request matters."""
    surface: str
    model: str
    served_model: str | None
    model_line: str
    """The model, and the one that served if it is another."""
    organization: str
    project: str | None
    organization_line: str
    """The id that the surface asks for: of the API organization or of the Codex workspace, and where it is from."""
    account: str
    account_email: str | None
    """The approved address as it is set; null if it is not."""
    account_line: str
    exact_message: str
    """The provider's message and codes, without what the message quotes; or what is known instead."""
    exact_message_cut: list[MessageCut]
    """Why the provider's message is not shown word for word; empty if it is."""
    outcome: Outcome | None
    error: PacketErrorView
    checks: list[PacketCheckView]
    request_id: str
    client_request_id: str | None
    response_id: str | None
    started_at: Iso
    ended_at: Iso | None
    timestamp: str
    proxy: bool
    vpn_or_proxy: str


class PacketNoticeView(TypedDict):
    """A notice of the provider's safety team about the job."""

    type: str
    at: Iso
    subject: str | None
    category: str | None
    request_id: str | None


class PacketAppealView(TypedDict):
    """An appeal that is linked to the job; its texts stay with the app."""

    id: str
    state: AppealState
    outcome: AppealOutcome | None
    provider_case: str | None
    opened_at: Iso
    sent_at: Iso | None
    answered_at: Iso | None
    closed_at: Iso | None


class RedactionView(TypedDict):
    """Secrets that were removed from the description: the detector that found them, and how many."""

    detector: str
    count: int


@documented
class SupportPacketView(TypedDict):
    """What the provider's support asks for about a job. Has no prompt and no output."""

    object: Literal["support_packet"]
    job: str
    status: Status
    created_at: Iso
    requests: list[PacketRequestView]
    """The most relevant first."""
    notices: list[PacketNoticeView]
    appeals: list[PacketAppealView]
    """The newest first."""
    description: str | None
    redactions: list[RedactionView]
    advice: list[str]
    """What to check before the packet is sent."""
    text: str
    """The same in the template of the provider's support."""

"""Says what to check before a support packet is sent: by surface and kind of failure. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from worker.jobs.account_name import DEFAULT_ACCOUNT
from worker.jobs.record import Job
from worker.jobs.states import Outcome

Surface = Literal["api", "codex"]

NO_EMAIL: Final = "not known to Vigil (write the approved address here, or set VIGIL_ACCOUNT_EMAIL)"
NO_WORKSPACE: Final = "not known to Vigil (write the Codex workspace ID here, or set VIGIL_CODEX_WORKSPACE_ID)"

_DENIED: Final = frozenset({Outcome.ACCESS_DENIED, Outcome.AUTH_FAILED})
_API_GRANT: Final = (
    "A grant belongs to one API organization: check that the key and the project are of the organization that was "
    "approved, because a grant for a Codex workspace or another program is not one for the API."
)
_CODEX_GRANT: Final = (
    "A grant belongs to one Codex workspace: sign in with the approved account, choose that workspace, and give its ID "
    "here, because a grant for an API organization is not one for Codex."
)
_TEAMMATE: Final = (
    "If it works for one teammate and not for another, compare their account, organization or workspace, project, key, "
    "country and VPN, and send the packets of both requests: grants become active gradually."
)
_REGION: Final = (
    "The provider judges the country by the address that the request leaves from: send it once without VPN or proxy "
    "from a supported country, and name the country and the exit of the VPN or proxy here."
)
_LIMITED: Final = (
    "The provider limits one end user: give the safety_identifier and the time, and say what this end user does with "
    "the model; other end users are not concerned."
)
_QUOTED: Final = (
    "Parts of the provider's message are cut, because they quote the request or hold a secret: the app reads them "
    "nowhere else, so describe them in your own words if support needs them."
)


class AccountFacts(NamedTuple):
    """What the settings say of the account; None is not known. `others`: organisations of other accounts, by name."""

    surface: Surface = "api"
    email: str | None = None
    organization: str | None = None
    workspace: str | None = None
    others: Mapping[str, str] = {}

    def stated(self, name: str) -> tuple[str | None, str]:
        """Return (the organisation that the settings state for the account of this name, or None, and where)."""
        if name == DEFAULT_ACCOUNT:
            return self.organization, "OPENAI_ORG_ID is set"
        return self.others.get(name), f"VIGIL_ACCOUNTS_FILE states for the account {name}"


def packet_advice(job: Job, account: AccountFacts, *, cut: bool) -> list[str]:
    """Return what to check before the packet is sent, one sentence each; `cut`: a message is not shown in full."""
    advice: list[str] = []
    denied = [attempt for attempt in job.attempts if attempt.outcome in _DENIED]
    codes = {attempt.error.code for attempt in denied if attempt.error is not None}
    if denied:
        advice.append(_CODEX_GRANT if account.surface == "codex" else _API_GRANT)
        advice.append(_TEAMMATE)
    elif account.surface == "codex" and account.workspace is None:
        advice.append(_CODEX_GRANT)
    if "region_unsupported" in codes:
        advice.append(_REGION)
    if job.block is not None and job.block.scope == "end_user":
        advice.append(_LIMITED)
    if cut:
        advice.append(_QUOTED)
    return advice

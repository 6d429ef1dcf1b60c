"""Lists the messages about access: the model, the key, the organisation, and the server that VIGIL_UPSTREAM must fit.

From the access tables of wire.md sections 4 and 6. Every advice is one sentence.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Message(NamedTuple):
    """What to show for one code; `type` is the outcome that it belongs to."""

    type: str
    message: str
    advice: str


ACCESS: Final[dict[str, Message]] = {
    # access: the model
    "model_not_granted": Message(
        "access_denied",
        "The provider says that this model does not exist or is not granted to this organisation.",
        "Check the model's name, then ask the organisation's owner whether this model is granted to the API "
        "organisation and project that this key belongs to: a grant for a Codex workspace or another program is not "
        "one for the API, and a new grant may take a while to become active.",
    ),
    "wrong_project": Message(
        "access_denied",
        "The project of this key may not use the model.",
        "Ask the organisation's owner to allow this model in the project's limits, or use a key of a project that "
        "has it.",
    ),
    # access: everything else
    "region_unsupported": Message(
        "access_denied",
        "The provider does not serve the country or region that the request came from.",
        "Send the requests from a supported country and check whether a VPN or proxy exit stands in another one.",
    ),
    "edge_refused": Message(
        "access_denied",
        "A network edge refused the request before it reached the API.",
        "Check the proxy, VPN or firewall between this worker and the API, because the refusal was a web page and "
        "not an answer of the API.",
    ),
    "access_refused": Message(
        "access_denied",
        "The API refused the request without a reason.",
        "Ask the organisation's owner about the rights of this key and project, and give the provider's support the "
        "packet of this job.",
    ),
    "verification_required": Message(
        "access_denied",
        "The organisation is not verified for streaming or reasoning summaries with this model.",
        "Verify the organisation in the provider's settings and try again after 15 minutes, or leave the summary out.",
    ),
    "program_required": Message(
        "access_denied",
        "The model needs an access program that this organisation does not have.",
        "Apply for the access program that the model belongs to, and remember that finishing the enrolment does not "
        "yet make it active.",
    ),
    "data_residency_mismatch": Message(
        "access_denied",
        "The project's data residency does not fit the address or the model that was called.",
        "Use the base URL of the project's region, or a project whose residency fits the model.",
    ),
    "model_or_path_not_found": Message(
        "access_denied",
        "The server answered that the model or this endpoint does not exist.",
        "Check the model's name in the gateway or server, and if the answer is the same for every model, "
        "OPENAI_BASE_URL and VIGIL_UPSTREAM.",
    ),
    "access_denied": Message(
        "access_denied",
        "The provider denied access.",
        "Run `vigil probe` to see which models this organisation may call and what each denial means.",
    ),
    # results of a probe of a model's access that no failure describes
    "access_ok": Message(
        "probe",
        "The provider lists this model for this key.",
        "There is nothing to do: jobs that ask for this model are sent to it.",
    ),
    "access_not_probed": Message(
        "probe",
        "The access to this model has not been probed yet.",
        "Not probed yet: run `vigil probe` to learn whether this key may call it.",
    ),
    "probe_not_offered": Message(
        "probe",
        "The address has no page about this model, which a compatible server need not have.",
        "Check OPENAI_BASE_URL, and submit a small job with this model, because here only a real call shows it.",
    ),
    "model_not_listed": Message(
        "probe",
        "The server's own list of models does not have this model.",
        "Compare its name with the list (GET /models of OPENAI_BASE_URL), and name the models that the server has in "
        "the file of VIGIL_MODELS_FILE.",
    ),
    # whether VIGIL_UPSTREAM fits the server
    "upstream_fits": Message(
        "probe",
        "The server has what this VIGIL_UPSTREAM needs.",
        "There is nothing to do: `vigil doctor --try MODEL` sends one small request to be sure.",
    ),
    "upstream_background": Message(
        "probe",
        "The server does not have what this VIGIL_UPSTREAM needs.",
        "Set VIGIL_UPSTREAM=background for the workers: this server has the Responses API and keeps responses.",
    ),
    "upstream_stream": Message(
        "probe",
        "The server does not have what this VIGIL_UPSTREAM needs.",
        "Set VIGIL_UPSTREAM=stream for the workers: this server has the Responses API and keeps no responses, so that "
        "none can be resumed.",
    ),
    "upstream_chat": Message(
        "probe",
        "The server does not have what this VIGIL_UPSTREAM needs.",
        "Set VIGIL_UPSTREAM=chat for the workers: this server has Chat Completions and no Responses API.",
    ),
    "upstream_unfit": Message(
        "probe",
        "The server has neither the Responses API nor Chat Completions at this address.",
        "Check OPENAI_BASE_URL, which usually ends in /v1.",
    ),
    "upstream_unclear": Message(
        "probe",
        "The server did not say which of the two APIs it has.",
        "Run `vigil doctor --try MODEL` on the worker's machine, which sends one small request.",
    ),
    "probe_refused": Message(
        "probe",
        "The API refused the request about this model.",
        "Give the key the right to read models, or ask the provider's support with the request id and the time of "
        "this probe.",
    ),
    "probe_unclear": Message(
        "probe",
        "The provider gave no clear answer about this model.",
        "Probe again in a few minutes; until then jobs that ask for this model are sent to it.",
    ),
    # the key and its organisation
    "wrong_organization": Message(
        "auth_failed",
        "The organisation in the request is not the one that the key belongs to.",
        "Set OPENAI_ORG_ID to the organisation of the key, or leave it out.",
    ),
    "invalid_key": Message(
        "auth_failed",
        "The provider does not accept the API key.",
        "Put a valid key of the right organisation into OPENAI_API_KEY and restart the worker.",
    ),
    "auth_failed": Message(
        "auth_failed",
        "The provider did not accept the credentials.",
        "Check that the key is active, that it belongs to the organisation and project in the settings, and that this "
        "machine's address is on the organisation's allow-list.",
    ),
    "deployment_auth_failed": Message(
        "auth_failed",
        "The gateway's own key for this model was refused by the server behind it.",
        "Correct the key of this model's deployment in the gateway; jobs for other models go on meanwhile.",
    ),
}

"""Lists the messages for everything else that can end a job: limits, capacity, the request, the connection, deadlines.

From the tables of wire.md sections 3 and 5. Every advice is one sentence.
"""

from __future__ import annotations

from typing import Final

from worker.safety.messages_access import Message

_RETRIED = "Submit the job again later; if it keeps failing, give the provider's support the packet of this job."

FAILURES: Final[dict[str, Message]] = {
    # money and limits
    "quota_exhausted": Message(
        "quota_exhausted",
        "The organisation's quota is used up.",
        "Ask the organisation's owner to check the plan and the billing, because waiting alone does not help.",
    ),
    "deployment_quota_exhausted": Message(
        "quota_exhausted",
        "The quota of the key that the gateway uses for this model is used up.",
        "Check the plan and the billing behind this model's deployment in the gateway; jobs for other models go on "
        "meanwhile.",
    ),
    "credit_exhausted": Message(
        "quota_exhausted",
        "The organisation has no API credit left, or its billing is not active.",
        "Ask the organisation's owner to add credit or to activate the billing.",
    ),
    "spend_limit_reached": Message(
        "quota_exhausted",
        "The organisation has reached its spend limit.",
        "Ask the organisation's owner to raise the spend limit, or wait for the next billing period.",
    ),
    "project_spend_limit_reached": Message(
        "quota_exhausted",
        "The project has reached its spend limit.",
        "Ask the project's owner to raise its spend limit, or use a key of another project.",
    ),
    "usage_limit_reached": Message(
        "quota_exhausted",
        "The organisation has reached the usage limit that the provider gave it.",
        "Ask the provider for a higher usage limit, or wait until the limit renews.",
    ),
    # capacity
    "rate_limited": Message(
        "rate_limited",
        "The organisation exceeded its rate limit.",
        "Submit less at once or ask for a higher rate limit, and try this job again in a few minutes.",
    ),
    "slow_down": Message(
        "rate_limited",
        "The rate of requests rose faster than the provider allows.",
        "Raise the load slowly, over 15 minutes or more, and try this job again in a few minutes.",
    ),
    "overloaded": Message(
        "overloaded",
        "The provider's model servers are overloaded.",
        "Submit the job again later; the provider's status page says whether the overload goes on.",
    ),
    "flex_unavailable": Message(
        "overloaded",
        "The provider has no capacity for flex processing now.",
        "Submit the job again later, or without the flex service tier.",
    ),
    "server_error": Message("server_error", "The provider had an internal error.", _RETRIED),
    "failed_after_check": Message(
        "server_error",
        "The provider failed without saying why, after it had announced a safety check.",
        "Look at the prompt before you submit the job again, because the content may have been withheld: Vigil does "
        "not send it again automatically.",
    ),
    "may_be_withheld": Message(
        "server_error",
        "The provider failed without a code, in the words that it uses for withheld content.",
        "Look at the provider's message and at the prompt before you submit the job again, because the content may "
        "have been withheld: Vigil does not send it again automatically.",
    ),
    "upstream_timeout": Message("server_error", "The provider timed out.", _RETRIED),
    # the request
    "bad_request": Message(
        "bad_request",
        "The provider calls the request invalid.",
        "Correct the input or the params of the job, guided by the provider's code, before you submit it again.",
    ),
    "request_too_large": Message(
        "bad_request",
        "The request is larger than the server, or a proxy before it, accepts.",
        "Raise the limit for request bodies of the proxy or gateway in front of the model (nginx: "
        "client_max_body_size), or send less in one job.",
    ),
    "bad_image": Message(
        "bad_request",
        "The provider could not use an image of the input.",
        "Check the format, the size and the address of each image before you submit the job again.",
    ),
    "service_tier_not_allowed": Message(
        "bad_request",
        "The service tier in the params is not allowed for this model or project.",
        "Leave service_tier out of the params, or ask the organisation's owner to enable it.",
    ),
    "not_found": Message(
        "bad_request",
        "The address that was called does not exist at the provider.",
        "Check OPENAI_BASE_URL, and set VIGIL_UPSTREAM=chat for a server that has no Responses API, only Chat "
        "Completions; `vigil doctor` shows which one it has.",
    ),
    "background_refused": Message(
        "bad_request",
        "The provider does not accept background requests.",
        "Set VIGIL_UPSTREAM=stream for the workers, or chat for a server that has only Chat Completions; `vigil "
        "doctor` shows which one it has.",
    ),
    "context_too_long": Message(
        "context_too_long",
        "The input and the answer together do not fit into the model's context.",
        "Shorten the input or lower max_output_tokens before you submit the job again.",
    ),
    # the connection
    "connect_failed": Message(
        "connect_failed",
        "The provider could not be reached.",
        "Run `vigil doctor` on the worker's machine and check its network, name resolution and proxy.",
    ),
    "certificate_untrusted": Message(
        "connect_failed",
        "The provider's certificate is not trusted here: its issuer is not known.",
        "Set SSL_CERT_FILE to a file with the certificates of the authorities that you trust, your own one among them, "
        "and restart the worker; a proxy that opens TLS signs with an authority of its own.",
    ),
    "certificate_invalid": Message(
        "connect_failed",
        "The provider's certificate is not valid: it has expired, is not valid yet, or is for another name.",
        "Check the host name in OPENAI_BASE_URL and this machine's clock, then ask the server's operators to renew "
        "its certificate.",
    ),
    "tls_failed": Message(
        "connect_failed",
        "The TLS handshake with the provider's address failed.",
        "Check whether OPENAI_BASE_URL should begin with http:// or name another port.",
    ),
    "name_not_resolved": Message(
        "connect_failed",
        "The provider's host name could not be resolved.",
        "Check the host name in OPENAI_BASE_URL and the name resolution of the worker's machine.",
    ),
    "connection_refused": Message(
        "connect_failed",
        "Nothing listens at the provider's address.",
        "Check host and port in OPENAI_BASE_URL and whether that server is running.",
    ),
    "host_unreachable": Message(
        "connect_failed",
        "There is no route to the provider's address.",
        "Check the network, the routes and the firewall of the worker's machine.",
    ),
    "connect_timeout": Message(
        "connect_failed",
        "The provider's address did not answer in time.",
        "Check the firewall and the proxy between this worker and the provider; VIGIL_CONNECT_SECONDS sets the "
        "timeout.",
    ),
    "proxy_refused": Message(
        "connect_failed",
        "The proxy to the provider asks for a user and a password (HTTP 407); the request did not reach the provider.",
        "Put the proxy's user and password into HTTPS_PROXY or HTTP_PROXY, or exempt the provider's host in NO_PROXY.",
    ),
    "proxy_failed": Message(
        "connect_failed",
        "The proxy to the provider could not be used.",
        "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY, and whether that proxy is running.",
    ),
    "stream_cut": Message("stream_cut", "The connection broke before the answer was complete.", _RETRIED),
    "no_terminal": Message("stream_cut", "The stream ended without a terminal event.", _RETRIED),
    "empty_stream": Message(
        "stream_cut",
        "The server began an answer and ended it without content.",
        "Look into that server's log, because a server that fails after its headers cannot send an error: "
        "llama-cpp-python, for example, does so for a prompt that is longer than its context.",
    ),
    "half_frame": Message("stream_cut", "The stream ended in the middle of an event.", _RETRIED),
    "reconnect_failed": Message("stream_cut", "The connection broke and could not be restored.", _RETRIED),
    "resume_refused": Message("stream_cut", "The provider no longer lets this response be resumed.", _RETRIED),
    "response_lost": Message("lost", "The provider no longer has the response that it started.", _RETRIED),
    "idle_timeout": Message(
        "idle_timeout",
        "Nothing came from the provider for longer than the limit.",
        "Submit the job again later, or use VIGIL_UPSTREAM=background, where a silent response can be resumed.",
    ),
    "no_first_event": Message(
        "idle_timeout",
        "The provider did not answer at all within the limit.",
        "Run `vigil doctor` to see whether the provider is reachable, then submit the job again.",
    ),
    "protocol_error": Message("protocol_error", "The provider's answer could not be parsed.", _RETRIED),
    "token_limit_name": Message(
        "bad_request",
        "The server refused the name under which the limit of tokens was sent.",
        "Do nothing at first, as Vigil tries the other name; else set max_tokens or max_completion_tokens in params.",
    ),
    "gateway_page": Message(
        "protocol_error", "A gateway answered with a web page where the provider's answer should be.", _RETRIED
    ),
    "not_an_answer": Message(
        "protocol_error",
        "The provider answered with JSON that has neither an answer nor an error.",
        "Check OPENAI_BASE_URL and VIGIL_UPSTREAM, because something other than the API may have answered; the "
        "request is not sent again automatically, because it may have been billed.",
    ),
    "bad_json": Message("protocol_error", "The provider sent an event that is not valid JSON.", _RETRIED),
    "unexpected_status": Message(
        "protocol_error",
        "The API answered with an HTTP status that it should not use.",
        "Check OPENAI_BASE_URL and the proxies before it, because something other than the API may have answered.",
    ),
    "proxy_timeout": Message(
        "stream_cut",
        "The request was cut by a proxy.",
        "Turn response buffering off in each proxy between Vigil and the provider and raise its read timeout above the "
        "longest silence of a model (see ops/production.md), because a response that was cut may run on and be billed.",
    ),
    "response_unreachable": Message(
        "lost",
        "The connection broke, and the server does not support reading a response again.",
        "Set VIGIL_UPSTREAM=stream if the server behind OPENAI_BASE_URL does not know background mode, and submit the "
        "job again if its answer is still wanted.",
    ),
    "response_id_too_long": Message(
        "protocol_error",
        "The provider gave the response an id of more than 4,096 characters, which can't be looked up.",
        "Check OPENAI_BASE_URL and the gateways before it, because no API uses such ids.",
    ),
    # ends of a job
    "queue_deadline": Message(
        "expired",
        "The job was not started before its queue deadline.",
        "Check `GET /v1/status` for holds and queue depth, then submit the job again with a later deadline.",
    ),
    "run_deadline": Message(
        "expired",
        "The job was not finished before its run deadline.",
        "Submit the job again with a larger run_deadline_seconds, or with a smaller task.",
    ),
    "paused": Message(
        "expired",
        "The operators had paused the jobs that it belongs to.",
        "Ask the operators of this Vigil when the pause ends, then submit the job again.",
    ),
    "deadline_exceeded": Message(
        "expired",
        "A deadline passed before the job was finished.",
        "Submit the job again with a larger deadline.",
    ),
    "cancelled": Message(
        "cancelled", "The job was cancelled on request.", "Submit the job again if its answer is still wanted."
    ),
    "cancelled_upstream": Message(
        "cancelled",
        "The provider cancelled the response though Vigil had not requested it.",
        "Check whether another client cancelled it with the same project's key, then submit the job again.",
    ),
    "attempts_exhausted": Message(
        "failed",
        "All attempts that the policy allows have failed.",
        "Look at the outcome of each attempt, then submit the job again later or with a larger max_attempts.",
    ),
    "model_mismatch": Message(
        "failed",
        "Another model than the requested one served the answer, and require_model forbids that.",
        "Submit the job without require_model if another model will do, or ask the provider's support with the packet "
        "of this job why it was rerouted.",
    ),
    "cost_limit": Message(
        "failed",
        "The job would cost more than max_cost_usd.",
        "Raise max_cost_usd, or submit a smaller task or a cheaper model.",
    ),
    "answer_too_large": Message(
        "failed",
        "The answer is larger than the store accepts, so it could not be kept.",
        "Ask for a shorter answer, for example with a lower max_output_tokens, or let the operators raise "
        "proto-max-bulk-len or maxmemory of Redis, and submit the job again.",
    ),
    "timed_out": Message(
        "timed_out",
        "The attempt was stopped because a deadline passed.",
        "Submit the job again with a larger deadline.",
    ),
    "interrupted": Message(
        "interrupted",
        "The worker was shut down while the job ran.",
        "Wait: another worker takes the job over automatically.",
    ),
    "substituted": Message(
        "substituted",
        "Another model took over from this attempt.",
        "Read the job's disclosure to see which model answered and why.",
    ),
    "lost": Message("lost", "The result of this attempt is not known.", _RETRIED),
    "end_user_quarantined": Message(
        "refused",
        "Jobs of this end user are not sent, because of recent blocks or a notice of the provider.",
        "Ask the operators to review the quarantine of this end user and to lift it if it is a mistake.",
    ),
    "rerun_blocked": Message(
        "refused",
        "The provider withheld the content of another rerun of the same job; so it was not sent again.",
        "Do not send the same prompt again as it is; the blocked rerun says what the provider said.",
    ),
    "encryption_key_missing": Message(
        "expired",
        "No worker had the encryption key that the job's content was stored with.",
        "Ask the operators to give all workers the same VIGIL_ENCRYPTION_KEYS, then submit the job again.",
    ),
    "account_missing": Message(
        "expired",
        "The job's response runs with an account at the provider that no worker has any more, so it can't be read.",
        "Ask the operators to put the account that the job's attempt names back into VIGIL_ACCOUNTS_FILE, with its "
        "key; the job then goes on by itself, and nothing is paid twice.",
    ),
    "content_unreadable": Message(
        "failed",
        "The job's stored content could not be read.",
        "Check that VIGIL_ENCRYPTION_KEYS still has the key the job was stored with, then submit the job again.",
    ),
    "record_unreadable": Message(
        "failed",
        "The job's stored record can't be read by this release of Vigil: it was damaged, or a newer release wrote it.",
        "Report the job's id to the operators (its bytes are kept for them), and submit the job again.",
    ),
    "internal_error": Message(
        "failed",
        "An internal error of Vigil ended the job.",
        "Report the job's id to the operators, and submit the job again.",
    ),
    # notices of the provider's safety team, by webhook
    "notice_identifier_blocked": Message(
        "notice",
        "The provider has blocked this end user: it accepts no more requests with this safety identifier.",
        "Send nothing more for this end user, look at the requests, and write to the provider's support with the "
        "packet of this job if you think that it is a mistake.",
    ),
    "notice_warning": Message(
        "notice",
        "The provider has issued a warning about this end user's requests; it may remove the access, usually after "
        "some days.",
        "Review this end user's requests and stop those that break the provider's usage policies; give the case's id "
        "in your answer to the provider.",
    ),
    "notice_deactivation": Message(
        "notice",
        "The provider has removed the access of this end user.",
        "Send nothing more for this end user, and answer the provider's notice with the case's id if you think that "
        "it is a mistake.",
    ),
    "notice_alert": Message(
        "notice",
        "The provider's monitoring has raised an alert about this request.",
        "Review what the model was doing in this request before you go on with its conversation.",
    ),
    "notice_org_alert": Message(
        "notice",
        "The provider has raised a safety alert about the organisation.",
        "Ask the organisation's owner to look at the alert in the provider's dashboard.",
    ),
    # never shown for a blocked job (its block has its own message), but a support packet may name it
    "end_user_limited": Message(
        "blocked",
        "The provider limits this end user's access to the model for a time; this says nothing about the request.",
        "Send nothing more for this end user until the limit has ended, look at what they have sent lately, and ask "
        "the provider's support with this job's packet if you think that it is a mistake.",
    ),
    "blocked": Message(
        "blocked",
        "The provider withheld the content.",
        "Do not send the same prompt again as it is, and use the support packet if you think that it is a mistake.",
    ),
    "unknown_error": Message("failed", "The job failed for an unknown reason.", _RETRIED),
}

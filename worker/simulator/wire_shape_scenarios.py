"""Defines scenarios of other servers and of gateways: unusual on the wire, but still an answer or a block.

Pure data, like scenarios.py.
"""

from __future__ import annotations

from typing import Final

from .scenario import Expected, Scenario

WIRE_SHAPE_SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario(
        "finish_reason",
        "The answer stops for code=WORD (default SAFETY) after some output: the words of other providers.",
        {"carrier": "incomplete", "code": "SAFETY", "partial": 2},
        ("code", "partial", "tokens", "times"),
        Expected(
            "blocked",
            "blocked",
            "content_filter",
            "incomplete",
            note="other words: an end, a cut, a fault, or named as unknown",
        ),
    ),
    Scenario("json_body", "The whole answer as one JSON body under text/event-stream.", {"odd": "json_body"}, ()),
    Scenario(
        "gateway_page",
        "HTTP 200 with a page of HTML instead of the stream.",
        {"odd": "page", "times": 1},
        ("times",),
        Expected("completed", "protocol_error", note="the next attempt completes"),
    ),
    Scenario("pings", "event: ping with data: ping between the events.", {"odd": "pings"}, ("tokens",)),
    Scenario("text_in_done", "No deltas: the text comes only in output_text.done.", {"odd": "only_whole"}, ("tokens",)),
    Scenario("content_parts", "Content as a list of parts (chat), as a string (Responses).", {"odd": "parts"}, ()),
    Scenario("choice_one", "The only choice of a chat has index 1.", {"odd": "index_one"}, ()),
    Scenario("nameless", "Chunks of a chat whose id is empty.", {"odd": "no_id"}, ()),
    Scenario(
        "no_finish_reason",
        "A chat that ends with [DONE] and without a finish_reason.",
        {"odd": "no_reason"},
        (),
        Expected(note="chat: incomplete, reason no_finish_reason"),
    ),
    # odd but legal
    Scenario("account_flagged", "The account is recommended for verification.", {"flagged": True}, ()),
    Scenario("double_terminal", "A second terminal event after completed.", {"twice": True}, ()),
    Scenario("trailing_events", "Several events after completed.", {"trailing": 2}, ()),
    Scenario("sequence_gap", "Sequence numbers are skipped.", {"gap": True}, ()),
    Scenario("noise", "Comments, unknown event types and one without a type.", {"noise": True}, ()),
)

"""Maps the finish reasons of chat servers and gateways to their meaning, in one table.

A reason that is not in the table is unknown: it is named in the record and never taken for a completion. Pure.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from worker.safety.codes import CodeKind, lookup, normalize_code

MAX_TOKENS: Final = "max_output_tokens"
"""The Responses API's own word for an answer that its token limit cut short."""
NO_REASON: Final = "no_finish_reason"
UNKNOWN: Final = "unknown_finish_reason"
"""Also the flag of the attempt."""


class Finish(StrEnum):
    """Why a model stopped."""

    END = "end"  # the answer was complete
    LENGTH = "length"  # a limit of tokens cut it short
    BLOCK = "block"  # its content was withheld
    REFUSAL = "refusal"  # its own refusal
    SERVER = "server"  # the server broke it off
    OVERLOAD = "overload"  # for want of capacity
    CONTEXT = "context"  # the request left no room for an answer
    UNKNOWN = "unknown"


_ROWS: Final = (
    (Finish.END, "OpenAI, vLLM, llama.cpp", "stop tool_calls function_call"),
    (Finish.END, "Anthropic, Bedrock", "end_turn stop_sequence tool_use"),
    (Finish.END, "TGI, Together, watsonx", "eos eos_token"),
    (Finish.END, "Cohere, AI21, Baidu, Gemini", "complete tool_call endoftext normal finish_reason_stop completed"),
    (Finish.LENGTH, "OpenAI", "length max_output_tokens"),
    (Finish.LENGTH, "Anthropic, Gemini, Bedrock, Cohere", "max_tokens finish_reason_max_tokens"),
    (Finish.LENGTH, "Mistral, watsonx, MiniMax", "model_length token_limit max_length max_output"),
    (Finish.BLOCK, "OpenAI", "content_filter"),
    (Finish.BLOCK, "Gemini", "safety prohibited_content blocklist recitation spii model_armor"),
    (Finish.BLOCK, "Gemini", "image_safety image_prohibited_content image_recitation"),
    (Finish.BLOCK, "Gemini", "finish_reason_safety finish_reason_prohibited_content finish_reason_blocklist"),
    (Finish.BLOCK, "Gemini", "finish_reason_recitation finish_reason_spii"),
    (Finish.BLOCK, "Zhipu, Bedrock, Cohere", "sensitive guardrail_intervened content_filtered error_toxic"),
    (Finish.BLOCK, "by its meaning", "blocked block content_blocked filtered safety_blocked moderation"),
    (Finish.REFUSAL, "Anthropic", "refusal refused"),
    (Finish.SERVER, "Mistral, OpenRouter, Cohere, Zhipu", "error network_error user_cancel"),
    (Finish.SERVER, "vLLM, SGLang, watsonx", "abort aborted cancelled canceled time_limit timeout"),
    (Finish.SERVER, "Gemini", "malformed_function_call"),
    (Finish.SERVER, "by its meaning", "failed server_error internal_error"),
    (Finish.OVERLOAD, "DeepSeek", "insufficient_system_resource"),
    (Finish.OVERLOAD, "by its meaning", "overloaded"),
    (Finish.CONTEXT, "Anthropic, Zhipu", "model_context_window_exceeded"),
)
"""(meaning, servers, words), words as `finish_word` spells them."""

FINISHES: Final[dict[str, Finish]] = {word: finish for finish, _, words in _ROWS for word in words.split()}
_SPELLINGS: Final = {word.replace("_", ""): word for word in FINISHES}
"""The words by their letters alone: `contentFilter`, `content.filter` and `content_filter` are one word."""

CODES: Final = {
    Finish.SERVER: "server_error",
    Finish.OVERLOAD: "server_is_overloaded",
    Finish.CONTEXT: "context_length_exceeded",
}
"""The error code for a finish that gives no answer."""

_NO_WORDS: Final = frozenset({"", "null", "none"})


def finish_word(value: object) -> str | None:
    """Return a finish reason in one spelling, or None if there is none yet.

    A value that does not look like a word of a protocol may be prose: it becomes "unknown".
    """
    if value is None or value is False:
        return None
    word = value.strip().lower().replace("-", "_").replace(" ", "_")[:64] if isinstance(value, str) else "unknown"
    if word in _NO_WORDS:
        return None
    word = _SPELLINGS.get("".join(filter(str.isalnum, word)), word)
    return word if normalize_code(word) else "unknown"


def meaning(word: str) -> Finish:
    """Return the meaning of a finish reason as `finish_word` gives it; the code of a block means a block."""
    if word in FINISHES:
        return FINISHES[word]
    return Finish.BLOCK if lookup(word).kind is CodeKind.BLOCK else Finish.UNKNOWN

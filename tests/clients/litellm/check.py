"""LiteLLM as a library: its Responses and its chat calls."""

import litellm
from checks import KEY, MODEL, URL, feature, run

OPTIONS = {"model": f"openai/{MODEL}", "api_base": URL, "api_key": KEY, "timeout": 60, "num_retries": 0}
TOOL = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CHAT_TOOL = {"type": "function", "function": {name: TOOL[name] for name in ("name", "parameters")}}


@feature("plain")
def plain() -> None:
    assert litellm.responses(input="hello", **OPTIONS).output[0].content[0].text


@feature("streamed")
def streamed() -> None:
    events = litellm.responses(input="x", stream=True, **OPTIONS)
    kinds = [str(getattr(event.type, "value", event.type)) for event in events]
    assert kinds[-1] == "response.completed", kinds


@feature("tool")
def tool() -> None:
    answer = litellm.responses(input="[[sim: tool_call]] x", tools=[TOOL], **OPTIONS)
    assert answer.output[0].name == "weather"


@feature("plain by chat", needs="chat")
def by_chat() -> None:
    messages = [{"role": "user", "content": "hello"}]
    assert litellm.completion(messages=messages, **OPTIONS).choices[0].message.content


@feature("tool by chat, streamed", needs="chat")
def tool_by_chat() -> None:
    messages = [{"role": "user", "content": "[[sim: tool_call]] x"}]
    chunks = list(litellm.completion(messages=messages, tools=[CHAT_TOOL], stream=True, **OPTIONS))
    message = litellm.stream_chunk_builder(chunks).choices[0].message
    assert message.tool_calls[0].function.arguments == '{"city":"ok"}'


run()

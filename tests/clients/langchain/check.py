"""LangChain: an agent with a tool, streamed text, structured output."""

from typing import Any

from checks import KEY, MODEL, URL, feature, run
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

CALLED: list[str] = []


class Answer(BaseModel):
    """What is asked for."""

    title: str


@tool
def weather(city: str) -> str:
    """Return the weather of a city."""
    CALLED.append(city)
    return "sunny"


def model(**more: Any) -> ChatOpenAI:
    """Return the model by its Responses API, unless told otherwise."""
    options = {"use_responses_api": True, **more}
    return ChatOpenAI(model=MODEL, base_url=URL, api_key=KEY, max_retries=0, timeout=60, **options)


def loop(chat: ChatOpenAI, prompt: str) -> None:
    """Run an agent to its end."""
    CALLED.clear()
    state = create_agent(chat, [weather]).invoke({"messages": [("user", prompt)]})
    assert CALLED, "the tool was not called"
    assert state["messages"][-1].text


@feature("agent")
def agent() -> None:
    loop(model(), "[[sim: parallel_tool_calls]] x")
    assert CALLED == ["ok", "ok"]


@feature("agent, streamed, with reasoning")
def agent_streamed() -> None:
    loop(model(streaming=True), "[[sim: agent_loop rounds=2]] x")
    assert CALLED == ["ok", "ok"]


@feature("streamed")
def streamed() -> None:
    assert "".join(chunk.text for chunk in model().stream("hello"))


@feature("structured")
def structured() -> None:
    assert isinstance(model().with_structured_output(Answer).invoke("x"), Answer)


@feature("agent by chat", needs="chat")
def by_chat() -> None:
    loop(model(use_responses_api=False), "[[sim: parallel_tool_calls]] x")


@feature("agent by chat, streamed", needs="chat")
def by_chat_streamed() -> None:
    loop(model(use_responses_api=False, streaming=True), "[[sim: tool_call]] x")


@feature("structured by chat", needs="chat")
def structured_by_chat() -> None:
    assert isinstance(model(use_responses_api=False).with_structured_output(Answer).invoke("x"), Answer)


run()

"""LlamaIndex: completion, stream, a function agent, structured output."""

from checks import KEY, MODEL, URL, feature, run
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.llms.openai import OpenAI, OpenAIResponses
from pydantic import BaseModel

CALLED: list[str] = []
OPTIONS = {"model": MODEL, "api_base": URL, "api_key": KEY, "max_retries": 0, "timeout": 60, "context_window": 100_000}


class Answer(BaseModel):
    """What is asked for."""

    title: str


def weather(city: str) -> str:
    """Return the weather of a city."""
    CALLED.append(city)
    return "sunny"


@feature("plain")
def plain() -> None:
    assert str(OpenAIResponses(**OPTIONS).chat([ChatMessage("hello")]).message.content)


@feature("streamed")
def streamed() -> None:
    assert "".join(part.delta or "" for part in OpenAIResponses(**OPTIONS).stream_chat([ChatMessage("hello")]))


@feature("function agent")
async def agent() -> None:
    CALLED.clear()
    result = await FunctionAgent(tools=[weather], llm=OpenAIResponses(**OPTIONS)).run("[[sim: tool_call]] x")
    assert CALLED == ["ok"]
    assert str(result)


@feature("structured")
def structured() -> None:
    answer = OpenAIResponses(**OPTIONS).as_structured_llm(Answer).chat([ChatMessage("x")])
    assert isinstance(answer.raw, Answer)


@feature("plain by chat", needs="chat")
def by_chat() -> None:
    assert str(OpenAI(**OPTIONS).chat([ChatMessage("hello")]).message.content)


run()

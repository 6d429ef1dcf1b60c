"""pydantic-ai: tools, and `output_type` by a tool and by the provider's own format."""

from typing import Any

from checks import KEY, MODEL, URL, feature, run
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


class Answer(BaseModel):
    """What is asked for."""

    title: str
    points: list[int]


def agent(kind: type[Any] = OpenAIResponsesModel, **more: Any) -> Agent[None, Any]:
    """Return an agent with one tool."""
    made: Agent[None, Any] = Agent(kind(MODEL, provider=OpenAIProvider(base_url=URL, api_key=KEY)), **more)

    @made.tool_plain
    def weather(city: str) -> str:
        """Return the weather of a city."""
        return f"sunny in {city}"

    return made


def called(result: Any) -> list[str]:
    """Return the names of the tools that were called."""
    parts = [part for message in result.all_messages() for part in message.parts]
    return [part.tool_name for part in parts if part.part_kind == "tool-call"]


@feature("tool")
async def tool() -> None:
    result = await agent().run("[[sim: tool_call]] x")
    assert called(result) == ["weather"]
    assert result.output


@feature("tool, streamed")
async def streamed() -> None:
    async with agent().run_stream("[[sim: tool_call reasoning=1]] x") as result:
        pieces = [piece async for piece in result.stream_text(delta=True)]
    assert "".join(pieces)


@feature("output_type by a tool")
async def output_type() -> None:
    result = await agent(output_type=Answer).run("[[sim: tool_call name=weather,final_result]] x")
    assert called(result) == ["weather", "final_result"]
    assert isinstance(result.output, Answer)


@feature("output_type by json_schema")
async def native_output() -> None:
    result = await agent(output_type=NativeOutput(Answer)).run("[[sim: tool_call]] x")
    assert called(result) == ["weather"]
    assert isinstance(result.output, Answer)


@feature("tool and output_type by chat", needs="chat")
async def by_chat() -> None:
    result = await agent(OpenAIChatModel, output_type=Answer).run("[[sim: tool_call name=weather,final_result]] x")
    assert called(result) == ["weather", "final_result"]
    assert isinstance(result.output, Answer)


run()

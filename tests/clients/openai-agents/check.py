"""The Agents SDK for Python: a tool and a handoff, streamed; an output type."""

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_default_openai_client,
    set_tracing_disabled,
)
from checks import KEY, MODEL, URL, feature, run
from openai import AsyncOpenAI
from pydantic import BaseModel

set_tracing_disabled(disabled=True)
CALLED: list[str] = []


class Answer(BaseModel):
    """What is asked for."""

    title: str


@function_tool
def weather(city: str) -> str:
    """Return the weather of a city."""
    CALLED.append(city)
    return "sunny"


def fresh_client() -> AsyncOpenAI:
    """Return a client for the loop of one feature."""
    client = AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=60)
    set_default_openai_client(client, use_for_tracing=False)
    return client


@feature("tool")
async def tool() -> None:
    fresh_client()
    CALLED.clear()
    result = await Runner.run(Agent("one", model=MODEL, tools=[weather]), "[[sim: tool_call]] x")
    assert CALLED == ["ok"]
    assert result.final_output


@feature("tool and handoff, streamed")
async def handoff() -> None:
    fresh_client()
    CALLED.clear()
    second = Agent("Billing", model=MODEL, tools=[weather])
    first = Agent("Desk", model=MODEL, tools=[weather], handoffs=[second])
    result = Runner.run_streamed(first, "[[sim: tool_call name=weather,transfer_to_billing]] x")
    kinds = [event.type async for event in result.stream_events()]
    assert CALLED == ["ok"]
    assert result.last_agent.name == "Billing"
    assert result.final_output
    assert "agent_updated_stream_event" in kinds


@feature("parallel tools with reasoning")
async def parallel() -> None:
    fresh_client()
    CALLED.clear()
    settings = ModelSettings(parallel_tool_calls=True)
    agent = Agent("one", model=MODEL, tools=[weather], model_settings=settings)
    result = await Runner.run(agent, "[[sim: agent_loop rounds=2 calls=3]] x")
    assert CALLED == ["ok"] * 6
    assert result.final_output


@feature("output type")
async def output_type() -> None:
    fresh_client()
    result = await Runner.run(Agent("one", model=MODEL, output_type=Answer), "x")
    assert isinstance(result.final_output, Answer)


@feature("tool by chat, streamed", needs="chat")
async def by_chat() -> None:
    CALLED.clear()
    model = OpenAIChatCompletionsModel(MODEL, openai_client=fresh_client())
    result = Runner.run_streamed(Agent("one", model=model, tools=[weather]), "[[sim: tool_call]] x")
    async for _ in result.stream_events():
        pass
    assert CALLED == ["ok"]
    assert result.final_output


run()

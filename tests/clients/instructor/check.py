"""instructor: a model instance by a forced tool, through either API."""

import instructor
from checks import KEY, MODEL, URL, feature, run
from openai import OpenAI
from pydantic import BaseModel


class Answer(BaseModel):
    """What is asked for."""

    title: str
    points: list[int]


def ask(mode: instructor.Mode) -> None:
    """Ask for an instance in that mode."""
    client = instructor.from_openai(OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=60), mode=mode)
    messages = [{"role": "user", "content": "x"}]
    assert isinstance(client.chat.completions.create(model=MODEL, messages=messages, response_model=Answer), Answer)


@feature("response_model by Responses tools")
def by_responses() -> None:
    ask(instructor.Mode.RESPONSES_TOOLS)


@feature("response_model by chat tools", needs="chat")
def by_chat_tools() -> None:
    ask(instructor.Mode.TOOLS)


@feature("response_model by chat json_schema", needs="chat")
def by_chat_schema() -> None:
    ask(instructor.Mode.JSON_SCHEMA)


run()

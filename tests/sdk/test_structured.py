"""Structured output and tool calls: what comes back always fits, whatever the model would have liked to say."""

import json
import re

import openai
import pytest
from pydantic import BaseModel

ASK = [{"role": "user", "content": "Give me one city with its population."}]


class City(BaseModel):
    name: str
    population: int
    coastal: bool


class Weather(BaseModel):
    """Current weather of a city."""

    city: str
    celsius: bool


TOOLS = [openai.pydantic_function_tool(Weather, name="weather")]
RAIN = [{"role": "user", "content": "Is it raining in Oslo? Use the tool."}]


def test_parse(client, chat_model):
    answer = client.chat.completions.parse(
        model=chat_model, messages=ASK, response_format=City, max_completion_tokens=200, temperature=0
    )
    choice = answer.choices[0]
    assert choice.finish_reason == "stop"
    assert isinstance(choice.message.parsed, City)


def test_parse_streamed(client, chat_model):
    settings = {"model": chat_model, "messages": ASK, "max_completion_tokens": 200, "temperature": 0}
    with client.chat.completions.stream(response_format=City, **settings) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_completion().choices[0].message.parsed
    assert streamed == client.chat.completions.parse(response_format=City, **settings).choices[0].message.parsed


def test_schema_with_choices_drawn_hot(client, chat_model):
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green", "blue"]}, "n": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["colour", "n"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=chat_model,
        messages=ASK,
        response_format={"type": "json_schema", "json_schema": {"name": "pick", "schema": schema}},
        n=4,
        temperature=1.8,
        seed=3,
        max_completion_tokens=100,
    )
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        value = json.loads(choice.message.content)
        assert value["colour"] in ("red", "green", "blue") and 1 <= value["n"] <= 9 and len(value) == 2


def test_json_object(client, chat_model):
    answer = client.chat.completions.create(
        model=chat_model, messages=ASK, response_format={"type": "json_object"}, max_completion_tokens=300, temperature=0
    )
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)
    else:
        assert answer.choices[0].finish_reason == "length"


def test_regex_and_grammar(client, chat_model):
    def ask(form):
        answer = client.chat.completions.create(
            model=chat_model, messages=ASK, extra_body={"response_format": form}, max_completion_tokens=40, temperature=1
        )
        return answer.choices[0].message.content

    assert re.fullmatch(r"[A-Z][a-z]{2,8}: \d{3}", ask({"type": "regex", "regex": r"[A-Z][a-z]{2,8}: \d{3}"}))
    assert ask({"type": "lark", "grammar": 'start: "yes" | "no"'}) in ("yes", "no")


def test_a_cut_answer_says_so(client, chat_model):
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model=chat_model, messages=ASK, response_format=City, max_completion_tokens=3, temperature=0
        )


def test_bad_schema_is_named(client, chat_model):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(
            model=chat_model,
            messages=ASK,
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "strnig"}}},
        )
    assert error.value.param and error.value.param.startswith("response_format")


def call(client, model, **more):
    settings = {"model": model, "messages": RAIN, "tools": TOOLS, "max_completion_tokens": 200, "temperature": 0} | more
    return client.chat.completions.create(**settings)


def test_required_tool(client, chat_model):
    choice = call(client, chat_model, tool_choice="required").choices[0]
    assert choice.finish_reason == "tool_calls"
    for made in choice.message.tool_calls:
        assert made.type == "function" and made.function.name == "weather" and made.id
        Weather.model_validate_json(made.function.arguments)


def test_named_tool_hot(client, chat_model):
    named = {"type": "function", "function": {"name": "weather"}}
    # Left alone, a model this hot may write one city until the limit cuts it.
    schema = TOOLS[0]["function"]["parameters"] | {
        "properties": {"city": {"type": "string", "maxLength": 20}, "celsius": {"type": "boolean"}}
    }
    tools = [{"type": "function", "function": {"name": "weather", "parameters": schema}}]
    more = {"tool_choice": named, "tools": tools, "parallel_tool_calls": False}
    for choice in call(client, chat_model, n=3, temperature=1.5, seed=1, **more).choices:
        assert choice.finish_reason == "tool_calls"
        made = choice.message.tool_calls[0]
        assert made.function.name == "weather"
        Weather.model_validate_json(made.function.arguments)


def test_tool_calls_streamed(client, chat_model):
    whole = call(client, chat_model, tool_choice="required").choices[0].message.tool_calls
    pieces = {}
    for chunk in call(client, chat_model, tool_choice="required", stream=True):
        for delta in chunk.choices[0].delta.tool_calls or []:
            first = delta.index not in pieces
            assert (delta.id is not None, delta.type, delta.function.name) == ((True, "function", "weather") if first else (False, None, None))
            assert bool(delta.function.arguments) != first
            pieces.setdefault(delta.index, []).append(delta.function.arguments)
    assert ["".join(piece) for piece in pieces.values()] == [made.function.arguments for made in whole]
    assert all(len(piece) > 3 for piece in pieces.values())


def test_tool_calls_accumulated(client, chat_model):
    whole = call(client, chat_model, tool_choice="required").choices[0].message.tool_calls
    settings = {"model": chat_model, "messages": RAIN, "tools": TOOLS, "tool_choice": "required", "max_completion_tokens": 200, "temperature": 0}
    with client.chat.completions.stream(**settings) as stream:
        events = [event for event in stream if event.type.startswith("tool_calls.function.arguments")]
        message = stream.get_final_completion().choices[0].message
    assert [event.type for event in events].count("tool_calls.function.arguments.done") == len(whole)
    assert [made.function.arguments for made in message.tool_calls] == [made.function.arguments for made in whole]
    assert all(isinstance(made.function.parsed_arguments, Weather) for made in message.tool_calls)


def test_a_call_or_json(client, chat_model):
    for seed in range(5):
        answer = client.chat.completions.parse(
            model=chat_model, messages=RAIN, tools=TOOLS, response_format=City, max_completion_tokens=200, seed=seed
        )
        message = answer.choices[0].message
        if message.tool_calls:
            assert all(isinstance(made.function.parsed_arguments, Weather) for made in message.tool_calls)
        else:
            assert isinstance(message.parsed, City)


def test_parsed_tools_and_their_answer(client, chat_model):
    first = client.chat.completions.parse(
        model=chat_model, messages=RAIN, tools=TOOLS, tool_choice="required", max_completion_tokens=200, temperature=0
    )
    message = first.choices[0].message
    assert isinstance(message.tool_calls[0].function.parsed_arguments, Weather)
    results = [{"role": "tool", "tool_call_id": made.id, "content": "rain"} for made in message.tool_calls]
    second = call(client, chat_model, messages=[*RAIN, message, *results], tool_choice="none")
    assert second.choices[0].message.content.strip() and not second.choices[0].message.tool_calls

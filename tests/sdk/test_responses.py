"""Responses: whole, as events, tools, structured output, and what a server that keeps nothing refuses."""

import openai
import pytest
from pydantic import BaseModel

ASK = "What is the capital of France?"
BRIEF = "You answer in one short sentence."
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


class City(BaseModel):
    name: str
    capital: bool


class Weather(BaseModel):
    city: str


def ask(client, model, **more):
    settings = {"model": model, "input": ASK, "instructions": BRIEF, "max_output_tokens": 24, "temperature": 0} | more
    return client.responses.create(**settings)


def test_whole(client, chat_model):
    answer = ask(client, chat_model, metadata={"run": "1"})
    assert answer.object == "response" and answer.id.startswith("resp_") and answer.model == chat_model
    assert answer.status in ("completed", "incomplete") and answer.output_text.strip()
    assert answer.output[0].type == "message" and answer.output[0].id.startswith("msg_")
    assert answer.instructions == BRIEF and answer.metadata == {"run": "1"} and answer.store is False
    usage = answer.usage
    assert 0 < usage.output_tokens <= 24 and usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.input_tokens_details.cached_tokens <= usage.input_tokens


def test_same_words_as_chat(client, chat_model):
    messages = [{"role": "system", "content": BRIEF}, {"role": "user", "content": ASK}]
    chat = client.chat.completions.create(model=chat_model, messages=messages, max_completion_tokens=24, temperature=0)
    assert ask(client, chat_model).output_text == chat.choices[0].message.content
    items = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": ASK}]}]
    assert ask(client, chat_model, input=items).output_text == chat.choices[0].message.content


def test_streamed_equals_whole(client, chat_model):
    whole = ask(client, chat_model)
    events = list(ask(client, chat_model, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:-1] == ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
    assert kinds[-1] == f"response.{whole.status}"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    assert events[-1].response.output_text == whole.output_text and events[-1].response.usage == whole.usage


def test_stream_helper(client, chat_model):
    settings = {"model": chat_model, "input": "Say hello.", "max_output_tokens": 200, "temperature": 0}
    with client.responses.stream(**settings) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == client.responses.create(**settings).output_text


def test_cut(client, chat_model):
    answer = ask(client, chat_model, max_output_tokens=3)
    assert answer.status == "incomplete" and answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage.output_tokens == 3


def test_parse(client, chat_model):
    settings = {"model": chat_model, "input": "Describe Paris.", "text_format": City, "max_output_tokens": 200}
    answer = client.responses.parse(**settings, temperature=0)
    assert isinstance(answer.output_parsed, City)
    # What parse adds to an answer may be sent back with it.
    again = client.responses.create(
        model=chat_model, input=[{"role": "user", "content": "Describe Paris."}, *answer.output, {"role": "user", "content": "More."}], max_output_tokens=5
    )
    assert again.output_text


def test_tools(client, chat_model):
    first = ask(client, chat_model, input="The weather in Oslo?", tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, max_output_tokens=200)
    calls = [item for item in first.output if item.type == "function_call"]
    assert calls and all(call.name == "weather" and call.call_id and call.status == "completed" for call in calls)
    for call in calls:
        Weather.model_validate_json(call.arguments)
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"} for call in calls]
    second = ask(
        client,
        chat_model,
        input=[{"role": "user", "content": "The weather in Oslo?"}, *first.output, *results],
        tools=[WEATHER],
        tool_choice="none",
    )
    assert second.output_text.strip()


def test_tools_streamed(client, chat_model):
    settings = {"input": "The weather in Oslo?", "tools": [WEATHER], "parallel_tool_calls": False, "max_output_tokens": 200}
    named = {"type": "function", "name": "weather"}
    whole = ask(client, chat_model, **settings, tool_choice=named)
    events = list(ask(client, chat_model, **settings, tool_choice=named, stream=True))
    pieces = {}
    for event in events:
        if event.type == "response.function_call_arguments.delta":
            pieces[event.output_index] = pieces.get(event.output_index, "") + event.delta
    assert list(pieces.values()) == [item.arguments for item in whole.output]


def test_logprobs(client, chat_model):
    answer = ask(client, chat_model, include=["message.output_text.logprobs"], top_logprobs=2, max_output_tokens=8)
    part = answer.output[0].content[0]
    assert 0 < len(part.logprobs) <= 8 and all(len(token.top_logprobs) == 2 for token in part.logprobs)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("store", True),
        ("previous_response_id", "resp_1"),
        ("background", True),
        ("conversation", "conv_1"),
        ("tools", [{"type": "web_search"}]),
        ("input", [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,", "detail": "auto"}]}]),
    ],
)
def test_refused_by_name(client, chat_model, field, value):
    with pytest.raises(openai.BadRequestError) as error:
        ask(client, chat_model, **{field: value})
    assert error.value.param.startswith(field)

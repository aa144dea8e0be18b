"""Messages through Anthropic's own SDK: whole, streamed, tools, stops, counting, failures."""

import anthropic
import pytest
from pydantic import BaseModel

ASK = [{"role": "user", "content": "What is the capital of France?"}]
BRIEF = "You answer in one short sentence."
# The SDK has no argument for it any more; the wire has.
GREEDY = {"temperature": 0}
WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
RAIN = [{"role": "user", "content": "Is it raining in Oslo? Use the tool."}]


class City(BaseModel):
    name: str
    coastal: bool


def ask(claude, model, **more):
    settings = {"model": model, "messages": ASK, "system": BRIEF, "max_tokens": 24, "extra_body": GREEDY} | more
    return claude.messages.create(**settings)


def test_whole(claude, client, chat_model):
    answer = ask(claude, chat_model)
    assert answer.type == "message" and answer.role == "assistant" and answer.id.startswith("msg_")
    assert answer.stop_reason in ("end_turn", "max_tokens") and answer.stop_sequence is None
    assert 0 < answer.usage.output_tokens <= 24 and answer._request_id
    messages = [{"role": "system", "content": BRIEF}, *ASK]
    chat = client.chat.completions.create(model=chat_model, messages=messages, max_completion_tokens=24, temperature=0)
    assert answer.content[0].text == chat.choices[0].message.content
    usage = answer.usage
    assert usage.input_tokens + usage.cache_read_input_tokens == chat.usage.prompt_tokens


def test_streamed_equals_whole(claude, chat_model):
    whole = ask(claude, chat_model)
    events = list(ask(claude, chat_model, stream=True))
    assert [event.type for event in events][:2] == ["message_start", "content_block_start"]
    assert events[-1].type == "message_stop" and events[-2].delta.stop_reason == whole.stop_reason
    pieces = [event.delta.text for event in events if event.type == "content_block_delta"]
    assert "".join(pieces) == whole.content[0].text
    settings = {"model": chat_model, "messages": ASK, "system": BRIEF, "max_tokens": 24, "extra_body": GREEDY}
    with claude.messages.stream(**settings) as stream:
        assert "".join(stream.text_stream) == whole.content[0].text
        assert stream.get_final_message().usage.output_tokens == whole.usage.output_tokens


def test_stop_sequence(claude, chat_model):
    text = ask(claude, chat_model).content[0].text
    word = text.split()[2]
    stopped = ask(claude, chat_model, stop_sequences=["never seen", word])
    assert stopped.stop_reason == "stop_sequence" and stopped.stop_sequence == word
    assert stopped.content[0].text == text[: text.index(word)]


def test_tools(claude, chat_model):
    more = {"messages": RAIN, "tools": [WEATHER], "max_tokens": 200}
    first = ask(claude, chat_model, **more, tool_choice={"type": "any", "disable_parallel_tool_use": True})
    calls = [block for block in first.content if block.type == "tool_use"]
    assert first.stop_reason == "tool_use" and calls
    assert all(call.name == "weather" and isinstance(call.input["city"], str) for call in calls)
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"} for call in calls]
    turns = [*RAIN, {"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
    second = ask(claude, chat_model, messages=turns, tools=[WEATHER], tool_choice={"type": "none"})
    assert second.content[0].text.strip()


def test_tools_streamed(claude, chat_model):
    named = {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}
    more = {"messages": RAIN, "tools": [WEATHER], "max_tokens": 200, "tool_choice": named}
    whole = ask(claude, chat_model, **more)
    with claude.messages.stream(model=chat_model, system=BRIEF, extra_body=GREEDY, **more) as stream:
        final = stream.get_final_message()
    assert [block.input for block in final.content] == [block.input for block in whole.content]
    assert final.stop_reason == "tool_use"


def test_structured(claude, chat_model):
    schema = anthropic.transform_schema(City)
    config = {"format": {"type": "json_schema", "schema": schema}}
    answer = ask(claude, chat_model, output_config=config, max_tokens=200)
    City.model_validate_json(answer.content[0].text)


def test_counts(claude, chat_model):
    settings = {"model": chat_model, "messages": ASK, "system": BRIEF}
    counted = claude.messages.count_tokens(**settings).input_tokens
    usage = ask(claude, chat_model).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens
    assert claude.messages.count_tokens(**settings, tools=[WEATHER]).input_tokens > counted


def test_failures(claude, chat_model):
    with pytest.raises(anthropic.NotFoundError) as missing:
        ask(claude, "gpt-9")
    assert missing.value.body["error"]["type"] == "not_found_error" and missing.value.body["request_id"]
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    with pytest.raises(anthropic.BadRequestError) as refused:
        ask(claude, chat_model, messages=[{"role": "user", "content": [image]}])
    assert "messages[0].content[0].type" in refused.value.body["error"]["message"]

"""Models and errors: what the SDK raises, with the field at fault."""

import openai
import pytest

HI = [{"role": "user", "content": "Hi"}]


def test_models(client, chat_model):
    listed = client.models.list().data
    assert len({m.id for m in listed}) == len(listed)
    one = client.models.retrieve(chat_model)
    assert one.id == chat_model and one.object == "model" and one.context_length > 0


def test_unknown_model(client, chat_model):
    for ask in (
        lambda: client.chat.completions.create(model="gpt-0", messages=HI),
        lambda: client.completions.create(model="gpt-0", prompt="x"),
        lambda: client.embeddings.create(model="gpt-0", input="x"),
        lambda: client.models.retrieve("gpt-0"),
    ):
        with pytest.raises(openai.NotFoundError) as error:
            ask()
        assert error.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match=chat_model):
        client.chat.completions.create(model="gpt-0", messages=HI)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"n": 0}, "n"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logit_bias": {"1": 500}}, "logit_bias.1"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities[1]"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"extra_body": {"no_such_field": 1}}, "no_such_field"),
        ({"messages": []}, "messages"),
        ({"messages": [*HI, {"role": "user", "content": 5}]}, "messages[1].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
            "messages[0].content[0].type",
        ),
    ],
)
def test_the_field_is_named(client, chat_model, more, param):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(**({"model": chat_model, "messages": HI} | more))
    assert error.value.param == param and param.split(".")[0].split("[")[0] in error.value.message


def test_too_long(client, chat_model):
    length = client.models.retrieve(chat_model).context_length
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model=chat_model, prompt=[100] * (length + 1), max_tokens=1)
    assert str(length) in error.value.message and str(length + 1) in error.value.message
    assert error.value.code == "context_length_exceeded"


def test_wrong_addresses(client, base_url):
    lost = openai.OpenAI(base_url=base_url.removesuffix("/v1"), api_key="any", max_retries=0)
    with pytest.raises(openai.NotFoundError, match="/v1"):
        lost.chat.completions.create(model="x", messages=HI)

"""Chat completions: whole and streamed, choices, scores, stops, seeds."""

import math

import pytest

MESSAGES = [
    {"role": "system", "content": "You answer in one short sentence."},
    {"role": "user", "content": "What is the capital of France?"},
]


def ask(client, model, **more):
    settings = {"model": model, "messages": MESSAGES, "max_completion_tokens": 24, "temperature": 0} | more
    return client.chat.completions.create(**settings)


def joined(chunks, index=0):
    pieces = [c.delta.content or "" for chunk in chunks for c in chunk.choices if c.index == index]
    return "".join(pieces)


def test_whole(client, chat_model):
    answer = ask(client, chat_model)
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and answer.model == chat_model and answer.id.startswith("chatcmpl-")
    assert choice.message.role == "assistant" and choice.message.content.strip()
    assert choice.finish_reason in ("stop", "length")
    assert answer.system_fingerprint
    usage = answer.usage
    assert 0 < usage.completion_tokens <= 24 and usage.prompt_tokens > 10
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert answer._request_id


def test_streamed_equals_whole(client, chat_model):
    whole = ask(client, chat_model)
    chunks = list(ask(client, chat_model, stream=True, stream_options={"include_usage": True}))
    assert joined(chunks) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    ends = [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]
    assert ends == [whole.choices[0].finish_reason]
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_stream_helper(client, chat_model):
    settings = {"model": chat_model, "messages": MESSAGES, "max_completion_tokens": 24, "temperature": 0}
    with client.chat.completions.stream(**settings) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert text == final.choices[0].message.content == ask(client, chat_model).choices[0].message.content


def test_content_parts_are_text(client, chat_model):
    parts = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in MESSAGES]
    assert ask(client, chat_model, messages=parts).choices[0].message.content == ask(client, chat_model).choices[0].message.content


def test_choices(client, chat_model):
    whole = ask(client, chat_model, n=3, temperature=1.5, seed=5, max_completion_tokens=16)
    assert [c.index for c in whole.choices] == [0, 1, 2]
    texts = [c.message.content for c in whole.choices]
    assert len(set(texts)) > 1, "choices are drawn apart"
    chunks = list(ask(client, chat_model, n=3, temperature=1.5, seed=5, max_completion_tokens=16, stream=True))
    assert [joined(chunks, i) for i in range(3)] == texts


def test_seeds(client, chat_model):
    drawn = [ask(client, chat_model, temperature=1.5, seed=s).choices[0].message.content for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_stop_string(client, chat_model):
    text = ask(client, chat_model).choices[0].message.content
    word = text.split()[2]
    stopped = ask(client, chat_model, stop=[word]).choices[0]
    assert stopped.finish_reason == "stop" and stopped.message.content == text[: text.index(word)]


def test_length(client, chat_model):
    answer = ask(client, chat_model, max_completion_tokens=3)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 3
    older = client.chat.completions.create(model=chat_model, messages=MESSAGES, max_tokens=3, temperature=0)
    assert older.choices[0].message.content == answer.choices[0].message.content


@pytest.mark.parametrize("top", [0, 1, 5, 20])
def test_logprobs(client, chat_model, top):
    choice = ask(client, chat_model, logprobs=True, top_logprobs=top, max_completion_tokens=8).choices[0]
    tokens = choice.logprobs.content
    assert 0 < len(tokens) <= 8
    assert b"".join(bytes(t.bytes) for t in tokens).decode().startswith(choice.message.content)
    for token in tokens:
        assert token.logprob <= 0 and len(token.top_logprobs) == top
        scores = [t.logprob for t in token.top_logprobs]
        assert scores == sorted(scores, reverse=True)
        # Greedy: the token is the best one.
        assert not scores or math.isclose(scores[0], token.logprob, abs_tol=1e-6)
        assert sum(math.exp(s) for s in scores) <= 1.001


def test_streamed_logprobs(client, chat_model):
    whole = ask(client, chat_model, logprobs=True, top_logprobs=2, max_completion_tokens=8).choices[0].logprobs.content
    chunks = ask(client, chat_model, logprobs=True, top_logprobs=2, max_completion_tokens=8, stream=True)
    pieces = [t for chunk in chunks for c in chunk.choices if c.logprobs for t in c.logprobs.content]
    assert pieces == whole


def test_logit_bias_bans(client, chat_model):
    plain = client.completions.create(model=chat_model, prompt="One, two,", max_tokens=1, temperature=0, logprobs=1)
    token = plain.choices[0].logprobs.tokens[0]
    banned = {str(i): -100 for i in range(20000)}
    other = client.completions.create(
        model=chat_model, prompt="One, two,", max_tokens=1, temperature=0, logprobs=1, logit_bias=banned
    )
    assert other.choices[0].logprobs.tokens[0] != token


def test_advice_is_accepted(client, chat_model):
    answer = ask(
        client, chat_model, user="ann", metadata={"run": "1"}, store=False, service_tier="auto", safety_identifier="x"
    )
    assert answer.service_tier == "default"


def test_history(client, chat_model):
    first = ask(client, chat_model).choices[0].message
    again = [*MESSAGES, first, {"role": "user", "content": "And of Spain?"}]
    assert ask(client, chat_model, messages=again).choices[0].message.content.strip()

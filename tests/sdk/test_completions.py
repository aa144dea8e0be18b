"""Text completions: prompts of every form, and the scoring that evaluation harnesses do."""

import math

import pytest

PROMPT = "The quick brown fox jumps over the lazy"


def complete(client, model, **more):
    return client.completions.create(**({"model": model, "prompt": PROMPT, "max_tokens": 8, "temperature": 0} | more))


def test_whole_and_streamed(client, chat_model):
    whole = complete(client, chat_model)
    assert whole.object == "text_completion" and whole.usage.completion_tokens <= 8
    assert "".join(c.choices[0].text for c in complete(client, chat_model, stream=True)) == whole.choices[0].text


def test_default_length_is_16(client, chat_model):
    answer = client.completions.create(model=chat_model, prompt="1 2 3 4 5 6 7", temperature=0, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 16 and answer.choices[0].finish_reason == "length"


def test_several_prompts_are_ordered(client, chat_model):
    prompts = ["One, two,", "Red, green,", "Monday, Tuesday,"]
    alone = [complete(client, chat_model, prompt=p).choices[0].text for p in prompts]
    together = complete(client, chat_model, prompt=prompts, n=2)
    assert [c.index for c in together.choices] == list(range(6))
    assert [c.text for c in together.choices] == [text for text in alone for _ in range(2)]
    pieces = [""] * 3
    for chunk in complete(client, chat_model, prompt=prompts, stream=True):
        for choice in chunk.choices:
            pieces[choice.index] += choice.text
    assert pieces == alone


def test_scoring(client, chat_model):
    """What lm-eval's local-completions sends and reads."""
    choice = complete(client, chat_model, echo=True, logprobs=1, max_tokens=1, seed=1234).choices[0]
    scores = choice.logprobs
    n = len(scores.tokens)
    assert n == len(scores.token_logprobs) == len(scores.top_logprobs) == len(scores.text_offset)
    assert scores.token_logprobs[0] is None and scores.top_logprobs[0] is None
    assert all(score <= 0 for score in scores.token_logprobs[1:])
    assert choice.text.startswith(PROMPT)
    for score, top in zip(scores.token_logprobs[1:], scores.top_logprobs[1:]):
        best = max(top.values())
        # The token is the best one exactly when the scores are the same number.
        assert score in top.values() and score <= best
    assert scores.token_logprobs[-1] == max(scores.top_logprobs[-1].values()), "the generated token is greedy"
    offset = scores.text_offset[-1]
    assert choice.text[offset:] == scores.tokens[-1]


def test_scoring_without_generating(client, chat_model):
    longer = complete(client, chat_model, echo=True, logprobs=1, max_tokens=1).choices[0].logprobs
    only = complete(client, chat_model, echo=True, logprobs=1, max_tokens=0)
    assert only.usage.completion_tokens == 0 and only.choices[0].text == PROMPT
    assert only.choices[0].logprobs.token_logprobs == longer.token_logprobs[:-1]


def test_scores_are_the_same_in_a_batch(client, chat_model):
    prompts = ["The sky is blue.", "Grass is green and", PROMPT]
    batch = complete(client, chat_model, prompt=prompts, echo=True, logprobs=1, max_tokens=0).choices
    for prompt, choice in zip(prompts, batch):
        alone = complete(client, chat_model, prompt=prompt, echo=True, logprobs=1, max_tokens=0).choices[0]
        assert choice.logprobs.token_logprobs == alone.logprobs.token_logprobs


@pytest.mark.parametrize("k", [0, 5])
def test_alternatives(client, chat_model, k):
    scores = complete(client, chat_model, logprobs=k).choices[0].logprobs
    for token, score, top in zip(scores.tokens, scores.token_logprobs, scores.top_logprobs):
        assert max(k, 1) <= len(top) <= k + 1 and math.isclose(top[token], score, abs_tol=1e-6)


def test_token_ids(client, chat_model):
    one = complete(client, chat_model, prompt=[100, 200, 300], echo=True, max_tokens=2)
    many = complete(client, chat_model, prompt=[[100, 200, 300], [400]], echo=True, max_tokens=2)
    assert many.choices[0].text == one.choices[0].text
    assert one.usage.prompt_tokens == 3 and many.usage.prompt_tokens == 4

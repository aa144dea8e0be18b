"""Many clients at once, and clients that leave."""

import asyncio
import time

import openai

CLIENTS = 64


def request(i):
    """A question of its own, with a seed of its own; greedy, so that the answer is a function of the question."""
    return {
        "messages": [{"role": "user", "content": f"Write a sentence about the number {i * 37 + 11} and the word w{i}."}],
        "max_completion_tokens": 24,
        "temperature": 0,
        "seed": i,
    }


async def streamed(client, model, i):
    text, ids = "", set()
    stream = await client.chat.completions.create(model=model, stream=True, **request(i))
    async for chunk in stream:
        ids.add(chunk.id)
        text += "".join(c.delta.content or "" for c in chunk.choices)
        ended = [c.finish_reason for c in chunk.choices if c.finish_reason]
    assert len(ids) == 1 and ended, "the stream is whole and its own"
    return ids.pop(), text


def test_64_streams_none_lost_or_mixed_up(client, base_url, chat_model):
    async def together():
        async with openai.AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0, timeout=600) as many:
            return await asyncio.gather(*(streamed(many, chat_model, i) for i in range(CLIENTS)))

    answers = asyncio.run(together())
    assert len({reply for reply, _ in answers}) == CLIENTS
    for i, (_, text) in enumerate(answers):
        alone = client.chat.completions.create(model=chat_model, **request(i))
        assert text == alone.choices[0].message.content, f"stream {i}"


def wait_for(what, condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def test_hanging_up_frees(client, chat_model, metric):
    def long(i):
        return client.completions.create(
            model=chat_model, prompt=f"Story {i}:", max_tokens=1500, stream=True, extra_body={"ignore_eos": True}
        )

    streams = [long(i) for i in range(4)]
    for stream in streams:
        next(iter(stream))
    assert metric("tessera_running") >= 1
    for stream in streams:
        stream.close()
    wait_for("nothing runs any more", lambda: metric("tessera_running") == 0)
    wait_for("no cache page is held", lambda: metric("tessera_kv_used_bytes") == 0)
    # This one is the request for the metrics itself.
    wait_for("no request is open", lambda: metric("tessera_http_requests_in_flight") == 1)

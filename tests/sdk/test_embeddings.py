"""Embeddings in every form of input and output."""

import base64
import math
import struct

TEXTS = ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose again."]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def test_meaning(client, embedding_model):
    answer = client.embeddings.create(model=embedding_model, input=TEXTS)
    assert [d.index for d in answer.data] == [0, 1, 2] and answer.usage.prompt_tokens > 10
    cat, kitten, rates = (d.embedding for d in answer.data)
    assert all(math.isclose(dot(v, v), 1, abs_tol=1e-3) for v in (cat, kitten, rates))
    assert dot(cat, kitten) > dot(cat, rates)


def test_one_equals_many(client, embedding_model):
    many = client.embeddings.create(model=embedding_model, input=TEXTS).data
    for text, together in zip(TEXTS, many):
        alone = client.embeddings.create(model=embedding_model, input=text).data[0].embedding
        assert dot(alone, together.embedding) > 0.9999


def test_encodings_agree(client, embedding_model):
    floats = client.embeddings.create(model=embedding_model, input=TEXTS[0], encoding_format="float").data[0].embedding
    packed = client.embeddings.create(model=embedding_model, input=TEXTS[0], encoding_format="base64").data[0].embedding
    numbers = struct.unpack(f"<{len(floats)}f", base64.b64decode(packed))
    assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(floats, numbers))


def test_dimensions(client, embedding_model):
    whole = client.embeddings.create(model=embedding_model, input=TEXTS[0]).data[0].embedding
    short = client.embeddings.create(model=embedding_model, input=TEXTS[0], dimensions=64).data[0].embedding
    assert len(short) == 64 < len(whole)
    norm = math.sqrt(dot(whole[:64], whole[:64]))
    assert all(math.isclose(a, b / norm, abs_tol=1e-4) for a, b in zip(short, whole))

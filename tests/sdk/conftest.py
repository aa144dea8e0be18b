"""The official OpenAI and Anthropic SDKs, unmodified, against a running server.

The server's address comes from TESSERA_BASE_URL; `cargo xtask test` starts one and sets it. Models are chosen by what
/v1/models says they can do, so the tests run against any server with a chat model and an embedding model.
"""

import os
import urllib.request

import anthropic
import openai
import pytest


def address():
    url = os.environ.get("TESSERA_BASE_URL")
    if not url:
        pytest.exit("TESSERA_BASE_URL is not set: run `cargo xtask test`, or start `tessera serve` and set it", returncode=2)
    url = url.rstrip("/")
    return url if url.endswith("/v1") else url + "/v1"


@pytest.fixture(scope="session")
def base_url():
    return address()


@pytest.fixture(scope="session")
def client(base_url):
    # A retry would hide a lost request.
    return openai.OpenAI(base_url=base_url, api_key="any", max_retries=0, timeout=300)


@pytest.fixture(scope="session")
def claude(base_url):
    return anthropic.Anthropic(base_url=base_url.removesuffix("/v1"), api_key="any", max_retries=0, timeout=300)


def able(client, word):
    names = [m.id for m in client.models.list().data if word in m.capabilities]
    assert names, f"the server offers no model for {word}: these tests need one"
    return names


@pytest.fixture(scope="session")
def chat_model(client):
    return able(client, "chat")[0]


@pytest.fixture(scope="session")
def embedding_model(client):
    names = able(client, "embeddings")
    chat = able(client, "chat")
    # A real embedding model if there is one; chat models embed too.
    return next((name for name in names if name not in chat), names[0])


@pytest.fixture(scope="session")
def metric(base_url):
    """The value of a metric without labels, or the sum over them."""

    def read(name):
        with urllib.request.urlopen(base_url.removesuffix("/v1") + "/metrics", timeout=30) as page:
            lines = page.read().decode().splitlines()
        values = [line.rsplit(" ", 1)[1] for line in lines if line.split("{")[0].split(" ")[0] == name]
        assert values, f"/metrics has no {name}"
        return sum(float(value) for value in values)

    return read

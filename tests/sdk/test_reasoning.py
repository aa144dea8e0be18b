"""Decisions over HTTP, with the model that the server has: from a sentence to an answer with quotes, watched, replayed, asked back."""

import json
import urllib.error
import urllib.request

import pytest

TEXT = "I earn 20,000 a month, owe 5,000 on my card, and ask for a loan of 100,000"
CHINESE = "我每个月赚2万元，信用卡欠5000元，想申请10万元贷款。"


@pytest.fixture
def call(base_url):
    def send(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(base_url + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as response:
            return response.read().decode()

    return send


def decide(call, **body):
    return json.loads(call("/reasoning/decisions", {"decision": "credit-approval", **body}))


def quoted(answer, text):
    """Every fact that was read stands in the text where its quote says."""
    raw = text.encode()
    for name, fact in answer["facts"].items():
        quote = fact["quote"]
        assert quote, f"{name} has no quote"
        assert raw[quote["start"] : quote["end"]].decode() == quote["text"]


def events(stream):
    for block in stream.strip().split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith(":")]
        if lines:
            yield lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))


@pytest.mark.parametrize("text", [TEXT, CHINESE])
def test_a_sentence_decides(call, text):
    answer = decide(call, text=text)
    assert answer["status"] == "decided"
    assert answer["output"]["decision"] == "approved"
    values = {name: fact["value"] for name, fact in answer["facts"].items()}
    assert (values["income"], values["debt"], values["loan"]) == (20000, 5000, 100000)
    quoted(answer, text)
    actions = [step["action"] for step in answer["steps"]]
    wanted = ["收入验证", "负债计算", "风险评分", "决策"] if text == CHINESE else ["Income verification", "Debt calculation", "Risk score", "Decision"]
    places = [actions.index(action) for action in wanted]
    assert places == sorted(places)
    assert [step["step"] for step in answer["steps"]] == list(range(1, len(actions) + 1))
    assert answer["explanation"]


def test_steps_come_one_by_one_and_again(call):
    seen = list(events(call("/reasoning/decisions", {"decision": "credit-approval", "text": TEXT, "stream": True})))
    names = [name for name, _ in seen]
    assert names[0] == "started" and names[-1] == "decision" and set(names[1:-1]) == {"step"}
    id = seen[-1][1]["request_id"]
    assert json.loads(call(f"/reasoning/{id}")) == seen[-1][1]
    assert list(events(call(f"/reasoning/{id}/events"))) == seen


def test_what_is_missing_is_asked_for(call):
    answer = decide(call, text="I earn 20,000 a month and would like a loan.")
    assert answer["status"] == "incomplete" and answer["output"] is None
    assert [question["fact"] for question in answer["missing"]] == ["debt", "loan"]
    decided = decide(call, text="I earn 20,000 a month and would like a loan.", facts={"debt": 0, "loan": 1000})
    assert decided["output"]["decision"] == "approved"


def test_mistakes_name_the_field(call):
    def refused(body):
        with pytest.raises(urllib.error.HTTPError) as raised:
            call("/reasoning/decisions", body)
        return json.loads(raised.value.read())["error"]["param"]

    assert refused({"decision": "nothing", "text": TEXT}) == "decision"
    assert refused({"decision": "credit-approval", "facts": {"incom": 1}}) == "facts.incom"
    assert refused({"decision": "credit-approval", "facts": {"income": "much"}}) == "facts.income"
    assert refused({"decision": "credit-approval", "text": TEXT, "model": "nobody"}) == "model"


def test_decisions_show_their_schema_and_graph(call):
    cards = {card["id"]: card for card in json.loads(call("/reasoning/decisions"))["data"]}
    assert {"credit-approval", "insurance-triage", "refund-policy"} <= cards.keys()
    credit = cards["credit-approval"]
    assert credit["schema"]["required"] == ["income", "debt", "loan"]
    ids = {node["id"] for node in credit["graph"]["nodes"]}
    assert all(edge["from"] in ids and edge["to"] in ids for edge in credit["graph"]["edges"])

"""Records what the reference engine makes of decision graphs.

    pip install zen-engine==2.1.3
    python3 record_zen.py

The graphs stand here, each with inputs; `zen.json` beside this file gets them with the result or the failing node of every
input. `src/graph/tests.rs` holds ours against it. Every node kind, hit policy, attribute and edge case that the format has and
this project runs has a graph; scripts are refused and so are not here.
"""

import functools
import importlib.metadata
import json
import pathlib

import zen

HERE = pathlib.Path(__file__).parent


def node(id, kind, content=None, name=None):
    made = {"id": id, "name": name or id, "type": kind, "position": {"x": 0, "y": 0}}
    return made if content is None else {**made, "content": content}


def start(schema=None):
    return node("in", "inputNode", {"schema": json.dumps(schema) if schema else ""})


def end(schema=None, id="out"):
    return node(id, "outputNode", {"schema": json.dumps(schema) if schema else ""})


def expressions(id, pairs, **attributes):
    rows = [{"id": f"{id}{n}", "key": key, "value": value} for n, (key, value) in enumerate(pairs)]
    return node(id, "expressionNode", {"expressions": rows, **attributes})


def table(id, inputs, outputs, rows, policy="first", **attributes):
    """`inputs` are fields ("" for a column of expressions); `rows` are lists of cells, inputs first."""
    columns = [{"id": f"i{n}", "name": field or f"test {n}", "field": field} for n, field in enumerate(inputs)]
    values = [{"id": f"o{n}", "name": field, "field": field} for n, field in enumerate(outputs)]
    ids = [column["id"] for column in columns + values]
    rules = [{"_id": f"r{n}", **dict(zip(ids, row))} for n, row in enumerate(rows)]
    content = {"hitPolicy": policy, "inputs": columns, "outputs": values, "rules": rules}
    return node(id, "decisionTableNode", {**content, **attributes})


def switch(id, statements, policy="first"):
    rows = [{"id": f"{id}.{n}", "condition": condition} for n, condition in enumerate(statements)]
    return node(id, "switchNode", {"hitPolicy": policy, "statements": rows})


def sub(id, key, **attributes):
    return node(id, "decisionNode", {"key": key, **attributes})


def edges(*pairs):
    """`"a>b"`, or `"s.0>b"` from a statement of a switch."""
    made = []
    for n, pair in enumerate(pairs):
        source, target = pair.split(">")
        edge = {"id": f"e{n}", "type": "edge", "sourceId": source.split(".")[0], "targetId": target}
        if "." in source:
            edge["sourceHandle"] = source
        made.append(edge)
    return made


def chain(*middle):
    """In, the nodes one behind the other, out."""
    nodes = [start(), *middle, end()]
    ids = [each["id"] for each in nodes]
    return {"nodes": nodes, "edges": edges(*(f"{a}>{b}" for a, b in zip(ids, ids[1:])))}


def graph(nodes, *pairs):
    return {"nodes": nodes, "edges": edges(*pairs)}


def one(*pairs, **attributes):
    return chain(expressions("x", pairs, **attributes))


GRADES = table(
    "t",
    ["score", "age"],
    ["grade", "note"],
    [[">= 90", "", '"A"', '"top"'], ["[70..90)", ">= 18", '"B"', ""], ["< 50", "", '"F"', "$"], ["", "", '"C"', "score + age"]],
)
DOUBLE = one(("twice", "n * 2"), ("name", "upper(label ?? 'none')"))
SUBS = {
    "double": DOUBLE,
    "deep": chain(sub("d", "double", passThrough=True)),
    "fails": one(("x", "1 + 'a' * 2")),
    "branches": graph(
        [start(), switch("s", ["n > 10", "n > 5"]), expressions("a", [("size", '"big"')]), expressions("b", [("size", '"middle"')])],
        "in>s", "s.0>a", "s.1>b",
    ),
    "outer": one(("seen", "$nodes.in"), ("keys", "keys($nodes)")),
}
BRANCHES = [
    start(),
    switch("s", ["x > 10", "x > 5", ""]),
    expressions("a", [("path", '"a"'), ("va", "x + 1")]),
    expressions("b", [("path", '"b"'), ("vb", "x + 2")]),
    expressions("c", [("path", '"c"'), ("vc", "x + 3")]),
    end(),
]
BRANCH_EDGES = ["in>s", "s.0>a", "s.1>b", "s.2>c", "a>out", "b>out", "c>out"]
COLLECT = [{**each, "content": {**each["content"], "hitPolicy": "collect"}} if each["id"] == "s" else each for each in BRANCHES]
DIAMOND = [
    start(),
    expressions("a", [("v", "1"), ("n.a", "1"), ("only_a", "true")]),
    expressions("b", [("v", "2"), ("n.b", "2"), ("gone", "null")]),
    end(),
]
X = [{"x": n} for n in (3, 7, 20)]
SCHEMA = {"type": "object", "properties": {"n": {"type": "number", "minimum": 0}}, "required": ["n"]}

GRAPHS = {
    # input and output
    "input straight to output": (graph([start(), end()], "in>out"), [{}, {"a": 1, "b": {"c": [1, None, "x"]}}, {"n": None}]),
    "no output node": (graph([start(), expressions("x", [("y", "a + 1")])], "in>x"), [{"a": 1}]),
    "only an input": (graph([start()]), [{"a": 1}]),
    "input node without content": (graph([node("in", "inputNode"), node("out", "outputNode")], "in>out"), [{"a": 1}]),
    "input schema": ({"nodes": [start(SCHEMA), end()], "edges": edges("in>out")}, [{"n": 1}, {"n": -1}, {}, {"n": "1"}]),
    "output schema": (
        {"nodes": [start(), expressions("x", [("n", "a - 5")]), end(SCHEMA)], "edges": edges("in>x", "x>out")},
        [{"a": 7}, {"a": 3}],
    ),
    "several ends are merged": (
        graph([start(), expressions("a", [("v", "1"), ("n.a", "1")]), expressions("b", [("v", "2"), ("n.b", "2")])], "in>a", "in>b"),
        [{}],
    ),
    "an output ends the walk": (
        graph([start(), expressions("a", [("late", "1")]), end(), expressions("b", [("later", "2")])], "in>out", "in>a", "a>b"),
        [{"x": 1}],
    ),
    # expressions
    "arithmetic": (one(("sum", "a + b"), ("power", "a ^ 2"), ("rest", "a % b"), ("part", "a / b")), [{"a": 7, "b": 2}, {"a": 0.1, "b": 0.2}, {"a": 1, "b": 3}]),
    "division by zero": (one(("x", "1 / n")), [{"n": 0}, {"n": 4}]),
    "decimal and not binary": (one(("x", "0.1 + 0.2"), ("y", "0.1 + 0.2 == 0.3"), ("z", "1.10 * 3")), [{}]),
    "nested keys": (one(("a.b.c", "1"), ("a.b.d", "$.a.b.c + 1"), ("a.e", "$.a")), [{}]),
    "dollar sees the keys above": (one(("x", "n * 2"), ("y", "$.x + 1"), ("z", "$.y + $.x")), [{"n": 5}]),
    "missing fields are null": (one(("x", "nothing"), ("y", "a.b.c"), ("z", "a.b.c ?? 'default'")), [{}, {"a": {}}, {"a": {"b": {"c": 3}}}]),
    "null in arithmetic fails": (one(("x", "n + 1")), [{"n": None}, {}, {"n": 1}]),
    "conditions": (one(("x", "n > 5 ? 'big' : n > 2 ? 'middle' : 'small'"), ("y", "n in [1..5]"), ("z", "n not in [1, 2]")), [{"n": 1}, {"n": 3}, {"n": 9}]),
    "strings": (one(("x", "upper(s) + '!'"), ("y", "len(s)"), ("z", "contains(s, 'b')"), ("t", "`<${s}>`"), ("m", "matches(s, '^a.c$')")), [{"s": "abc"}, {"s": ""}, {"s": "数字"}]),
    "arrays": (
        one(("x", "sum(a)"), ("y", "map(a, # * 2)"), ("z", "filter(a, # > 1)"), ("m", "max(a)"), ("c", "count(a, # > 1)"), ("s", "some(a, # == 2)"), ("i", "a[0]"), ("w", "a[1:2]")),
        [{"a": [1, 2, 3]}, {"a": [5]}],
    ),
    "an empty array": (one(("x", "sum(a)"), ("y", "map(a, # * 2)"), ("z", "len(a)")), [{"a": []}]),
    "rounding": (one(("x", "round(n)"), ("y", "floor(n)"), ("z", "ceil(n)"), ("w", "round(n * 100) / 100")), [{"n": 2.5}, {"n": -2.5}, {"n": 1.005}]),
    "dates": (one(("x", "date(d) > date('2024-01-01')"), ("y", "year(d)"), ("z", "dateString(date(d) + duration('1d'))")), [{"d": "2024-06-01"}, {"d": "2023-12-31"}]),
    "objects": (one(("x", "{a: n, b: {c: n * 2}}"), ("y", "keys({p: 1, q: 2})"), ("z", "values({p: 1, q: 2})")), [{"n": 1}]),
    "expressions without key or value": (one(("", "1"), ("x", ""), ("y", "2")), [{}]),
    "a later key wins": (one(("x", "1"), ("x", "$.x + 1")), [{}]),
    "a key under a plain value": (one(("x", "1"), ("x.y", "2")), [{}]),
    "type errors name the node": (one(("x", "1"), ("y", "'a' - 1")), [{}]),
    # attributes
    "pass through": (one(("y", "x + 1"), ("n.b", "2"), passThrough=True), [{"x": 1, "n": {"a": 1}}, {"x": 1, "n": 5}]),
    "pass through removes nulls": (one(("x", "null"), ("y", "1"), passThrough=True), [{"x": 1, "z": None}]),
    "input field": (one(("y", "x + 1"), inputField="a.b"), [{"a": {"b": {"x": 1}}}]),
    "input field that is missing": (one(("y", "x ?? 0"), inputField="a.b"), [{}, {"a": 1}]),
    "output path": (one(("y", "x + 1"), outputPath="p.q"), [{"x": 1}]),
    "output path and pass through": (one(("y", "x + 1"), outputPath="p.q", passThrough=True), [{"x": 1, "p": {"r": 1}}]),
    "a loop": (one(("y", "x + 1"), inputField="items", outputPath="items", executionMode="loop"), [{"items": [{"x": 1}, {"x": 2}]}, {"items": []}, {"items": 1}, {}]),
    "a loop that passes through": (
        one(("y", "x + 1"), inputField="items", outputPath="items", executionMode="loop", passThrough=True),
        [{"items": [{"x": 1, "k": "a"}, {"x": 2}], "n": 1}],
    ),
    "a loop without a path": (one(("y", "x + 1"), inputField="items", executionMode="loop"), [{"items": [{"x": 1}, {"x": 2}]}]),
    "a loop with dollar": (one(("y", "x + 1"), ("z", "$.y * 2"), inputField="items", outputPath="r", executionMode="loop"), [{"items": [{"x": 1}, {"x": 2}]}]),
    "a loop that fails in the middle": (one(("y", "x + 1"), inputField="items", outputPath="r", executionMode="loop"), [{"items": [{"x": 1}, {"x": "a"}]}]),
    # tables
    "first row that fits": (chain(GRADES), [{"score": s, "age": a} for s, a in ((95, 10), (75, 20), (75, 10), (40, 30), (60, 5))]),
    "no row fits": (chain(table("t", ["x"], ["y"], [["> 10", "1"]])), [{"x": 1}, {"x": 11}, {}]),
    "no row fits and passes through": (chain(table("t", ["x"], ["y"], [["> 10", "1"]], passThrough=True)), [{"x": 1, "k": 1}]),
    "no row fits with an output path": (chain(table("t", ["x"], ["y"], [["> 10", "1"]], outputPath="p")), [{"x": 1}]),
    "no rows": (chain(table("t", ["x"], ["y"], [])), [{"x": 1}]),
    "all rows that fit": (chain(table("t", ["x"], ["y", "z.a"], [["> 1", "'one'", "x"], ["> 5", "'five'", ""], ["", "'any'", "x * 2"]], "collect")), X + [{"x": 0}, {}]),
    "collected under a path": (chain(table("t", ["x"], ["y"], [["> 1", "1"], ["> 5", "2"]], "collect", outputPath="found", passThrough=True)), X + [{"x": 0}]),
    "unary tests": (
        chain(
            table(
                "t", ["v"], ["fits"],
                [["> 100", "'above 100'"], ["[10..20]", "'10 to 20'"], ["(20..30)", "'between 20 and 30'"], ["1, 2, 3", "'few'"],
                 ["'a', 'b'", "'letter'"], ["startsWith($, 'x')", "'x..'"], ["true", "'yes'"], ["null", "'nothing'"], ["len($) > 4", "'long'"],
                 ["!= 5", "'not 5'"], ["", "'else'"]],
            )
        ),
        [{"v": v} for v in (101, 10, 20, 20.5, 30, 2, "a", "xyz", "abcdef", True, False, None, 5)] + [{}],
    ),
    "unary tests with other fields": (chain(table("t", ["x"], ["y"], [["> limit", "1"], ["limit - 1", "2"], ["< limit and > 0", "3"], ["", "4"]])), [{"x": 5, "limit": 3}, {"x": 2, "limit": 3}, {"x": 1, "limit": 3}, {"x": 0, "limit": 3}, {"x": 5}]),
    "columns of expressions": (chain(table("t", ["", "b"], ["y"], [["a > b", "", "'a'"], ["a == b", "> 1", "'same'"], ["", "", "'b'"]])), [{"a": 2, "b": 1}, {"a": 2, "b": 2}, {"a": 1, "b": 1}, {"b": 1}]),
    "a field that is an expression": (chain(table("t", ["a + b", "len(s)"], ["y"], [["> 10", "", "'sum'"], ["", "> 2", "'long'"], ["", "", "'none'"]])), [{"a": 6, "b": 5, "s": ""}, {"a": 1, "b": 1, "s": "abc"}, {"a": 1, "b": 1, "s": "a"}, {"a": 1}]),
    "nested fields": (chain(table("t", ["p.q"], ["r.s.t"], [["> 1", "p.q"], ["", "0"]])), [{"p": {"q": 2}}, {"p": {}}, {}]),
    "dollar in output cells": (chain(table("t", ["a", "b"], ["y"], [["> 0", "> 0", "$ * 10"], ["", "> 0", "$"], ["> 0", "", "$"]])), [{"a": 1, "b": 2}, {"a": 0, "b": 3}, {"a": 4, "b": 0}]),
    "a cell that fails does not fit": (chain(table("t", ["x"], ["y"], [["$ - 1 > 0", "1"], ["", "2"]])), [{"x": 2}, {"x": "a"}, {}]),
    "an output that fails does not fit": (chain(table("t", ["x"], ["y"], [["", "x - 1"], ["", "'second'"]])), [{"x": 2}, {"x": "a"}]),
    "empty output cells": (chain(table("t", ["x"], ["y", "z"], [["> 1", "", "1"], ["", "", ""]])), [{"x": 2}, {"x": 0}]),
    "columns that collect": (chain(table("t", ["x"], ["v", "tags[]", "n.notes[]"], [["> 1", "1", "'a'", "x"], ["> 5", "2", "'b'", ""], ["", "3", "'c'", "0"]])), X + [{}]),
    "columns that collect, all rows": (chain(table("t", ["x"], ["tags[]", "v"], [["> 1", "'a'", "1"], ["> 5", "'b'", "2"]], "collect")), X),
    "a table that loops": (
        chain(table("t", ["x"], ["y"], [["> 5", "'big'"], ["", "'small'"]], inputField="items", outputPath="r", executionMode="loop", passThrough=True)),
        [{"items": [{"x": 1}, {"x": 9}]}, {"items": []}],
    ),
    "a loop where some rows do not fit": (chain(table("t", ["x"], ["y"], [["> 5", "'big'"]], inputField="items", outputPath="r", executionMode="loop")), [{"items": [{"x": 1}, {"x": 9}]}]),
    "rows without some cells": (
        chain({**GRADES, "content": {**GRADES["content"], "rules": [{"_id": "r0", "i0": "> 90", "o0": "'A'"}, {"_id": "r1", "o1": "'none'"}]}}),
        [{"score": 95}, {"score": 1}],
    ),
    "cells with blanks around": (chain(table("t", ["x"], ["y"], [["  > 1  ", "  'a' "], ["   ", "'b'"]])), [{"x": 2}, {"x": 0}]),
    "dates in tables": (chain(table("t", ["date(d)"], ["y"], [["< date('2024-01-01')", "'old'"], ["", "'new'"]])), [{"d": "2023-05-05"}, {"d": "2024-05-05"}]),
    # switches
    "the first branch that holds": (graph(BRANCHES, *BRANCH_EDGES), X + [{}]),
    "all branches that hold": (graph(COLLECT, *BRANCH_EDGES), X + [{}]),
    "no branch holds": (graph([start(), switch("s", ["x > 10"]), expressions("a", [("v", "1")]), end()], "in>s", "s.0>a", "a>out"), [{"x": 1}, {"x": 11}]),
    "no branch holds beside another path": (
        graph([start(), switch("s", ["x > 10"]), expressions("a", [("v", "1")]), expressions("b", [("w", "2")]), end()], "in>s", "s.0>a", "a>out", "in>b", "b>out"),
        [{"x": 1}, {"x": 11}],
    ),
    "a condition that fails does not hold": (graph([start(), switch("s", ["x - 1 > 0", ""]), expressions("a", [("v", "1")]), expressions("b", [("v", "2")])], "in>s", "s.0>a", "s.1>b"), [{"x": "a"}, {"x": 2}]),
    "a condition that is not a boolean": (graph([start(), switch("s", ["x", ""]), expressions("a", [("v", "1")]), expressions("b", [("v", "2")])], "in>s", "s.0>a", "s.1>b"), [{"x": 1}, {"x": True}]),
    "one switch behind another": (
        graph(
            [start(), switch("s", ["x > 10", ""]), switch("t", ["y > 1", ""]), expressions("a", [("p", "'a'")]), expressions("b", [("p", "'b'")]), expressions("c", [("p", "'c'")]), end()],
            "in>s", "s.0>t", "s.1>c", "t.0>a", "t.1>b", "a>out", "b>out", "c>out",
        ),
        [{"x": 11, "y": 2}, {"x": 11, "y": 0}, {"x": 1}],
    ),
    "two switches side by side": (
        graph(
            [start(), switch("s", ["x > 1", ""]), switch("t", ["y > 1", ""]), expressions("a", [("p", "'a'")]), expressions("b", [("p", "'b'")]), expressions("c", [("q", "'c'")]), expressions("d", [("q", "'d'")]), end()],
            "in>s", "in>t", "s.0>a", "s.1>b", "t.0>c", "t.1>d", "a>out", "b>out", "c>out", "d>out",
        ),
        [{"x": 2, "y": 2}, {"x": 2, "y": 0}, {"x": 0, "y": 2}, {"x": 0, "y": 0}],
    ),
    "branches that meet again": (
        graph(
            [start(), switch("s", ["x > 5", ""]), expressions("a", [("v", "1")], passThrough=True), expressions("b", [("v", "2")], passThrough=True), expressions("m", [("sum", "v + x")], passThrough=True), end()],
            "in>s", "s.0>a", "s.1>b", "a>m", "b>m", "m>out",
        ),
        X,
    ),
    "a switch hands its input on": (graph([start(), switch("s", ["x > 5", ""]), end()], "in>s", "s.0>out", "s.1>out"), X),
    "an edge without a statement": (graph([start(), switch("s", ["x > 5"]), expressions("a", [("v", "1")]), end()], "in>s", "s>a", "s.0>out", "a>out"), X),
    # merging
    "edges that meet are merged": (graph(DIAMOND, "in>a", "in>b", "a>out", "b>out"), [{}]),
    "the order of edges": (graph(DIAMOND, "in>b", "in>a", "b>out", "a>out"), [{}]),
    "a long and a short way": (
        graph([start(), expressions("a", [("v", "x + 1")]), expressions("b", [("w", "v + x")]), end()], "in>a", "a>b", "in>b", "b>out", "in>out"),
        [{"x": 1}],
    ),
    "arrays are replaced and not merged": (graph([start(), expressions("a", [("l", "[1, 2]")]), expressions("b", [("l", "[3]")]), end()], "in>a", "in>b", "a>out", "b>out"), [{}]),
    "other nodes by name": (
        chain(expressions("a", [("v", "x + 1")]), expressions("b", [("w", "$nodes.a.v + $nodes['in'].x"), ("k", "len(keys($nodes))")])),
        [{"x": 1}],
    ),
    "other nodes in a table": (chain(expressions("a", [("v", "x + 1")]), table("t", ["$nodes.in.x"], ["y"], [["> 1", "$nodes.a.v"], ["", "'small'"]])), [{"x": 1}, {"x": 5}]),
    "a node that nothing leads to": (graph([start(), expressions("lost", [("v", "1")]), end()], "in>out", "lost>out"), [{"x": 1}]),
    # sub-decisions
    "a sub-decision": (chain(sub("d", "double")), [{"n": 2}, {"n": 2, "label": "a"}]),
    "a sub-decision that passes through": (chain(sub("d", "double", passThrough=True)), [{"n": 2, "k": 1}]),
    "a sub-decision with field and path": (chain(sub("d", "double", inputField="a", outputPath="r.s", passThrough=True)), [{"a": {"n": 4}}]),
    "a sub-decision per element": (
        chain(sub("d", "double", inputField="items", outputPath="items", executionMode="loop", passThrough=True)),
        [{"items": [{"n": 1}, {"n": 2, "label": "b"}]}, {"items": []}],
    ),
    "a switch in a sub-decision per element": (chain(sub("d", "branches", inputField="items", outputPath="items", executionMode="loop")), [{"items": [{"n": 1}, {"n": 7}, {"n": 70}, {"n": 6}]}]),
    "sub-decisions inside sub-decisions": (chain(sub("d", "deep")), [{"n": 3}]),
    "a sub-decision that fails": (chain(sub("d", "fails")), [{}]),
    "a sub-decision sees the nodes around it": (chain(expressions("a", [("v", "x + 1")]), sub("d", "outer")), [{"x": 1}]),
    # all together
    "a small credit check": (
        graph(
            [
                start(),
                expressions("ratio", [("dti", "round(debt / income * 100) / 100"), ("loan_ratio", "loan / (income * 12)")], passThrough=True),
                table("score", ["dti", "loan_ratio"], ["points", "reasons[]"], [["> 0.6", "", "-50", "'too much debt'"], ["", "> 0.5", "-20", "'a large loan'"], ["", "", "10", ""]], passThrough=True),
                switch("route", ["points < -30", "points < 0", ""]),
                expressions("refuse", [("decision", "'refused'")], passThrough=True),
                expressions("ask", [("decision", "'review'")], passThrough=True),
                expressions("grant", [("decision", "'approved'"), ("rate", "0.05 + dti / 10")], passThrough=True),
                end(),
            ],
            "in>ratio", "ratio>score", "score>route", "route.0>refuse", "route.1>ask", "route.2>grant", "refuse>out", "ask>out", "grant>out",
        ),
        [{"income": 20000, "debt": 5000, "loan": 100000}, {"income": 1000, "debt": 900, "loan": 100}, {"income": 1000, "debt": 100, "loan": 11000}],
    ),
}


def record(engine, graph, input):
    try:
        return {"input": input, "result": engine.create_decision(json.dumps(graph)).evaluate(input)["result"]}
    except Exception as error:
        said = json.JSONDecoder().raw_decode(str(error))[0]
        return {"input": input, "fails_at": said["nodeId"]}


def main():
    engine = zen.ZenEngine({"loader": lambda key: json.dumps(SUBS[key])})
    graphs = [
        {"name": name, "graph": graph, "cases": [record(engine, graph, input) for input in inputs]}
        for name, (graph, inputs) in GRAPHS.items()
    ]
    line = functools.partial(json.dumps, ensure_ascii=False)
    engine = line(f"zen-engine {importlib.metadata.version('zen-engine')}")
    lines = ",\n".join(line(graph) for graph in graphs)
    text = f'{{"engine": {engine},\n"subs": {line(SUBS)},\n"graphs": [\n{lines}\n]}}\n'
    (HERE / "zen.json").write_text(text)
    print(len(graphs), "graphs,", sum(len(graph["cases"]) for graph in graphs), "cases")


if __name__ == "__main__":
    main()

"""What schemathesis cannot know from a schema: the names of models and decisions that the fakes serve, and which requests were made.

A wrong type in the place of a name stays wrong.
"""

import schemathesis

MODELS = {"/v1/images/generations": "painter", "/v1/embeddings": "vectors"}
# The last request that left a record, and the last one that left a path.
made = {}
TILES = ["0/000.p/1", "0/000.p/2", "entries/000.p/1"]


@schemathesis.hook
def map_body(context, body):
    if not isinstance(body, dict):
        return body
    known = {"model": MODELS.get(context.operation.path, "talker")}
    if context.operation.path == "/v1/reasoning/decisions":
        known["decision"] = ["small", "asks"][len(str(body)) % 2]
    if context.operation.path == "/v1/reasoning/solve" and isinstance(body.get("problem"), str):
        # The fake solves with one chain only.
        body = {"chains": 1, **body}
        if isinstance(body["chains"], int) and not isinstance(body["chains"], bool) and body["chains"] > 0:
            body["chains"] = 1
    return {**body, **{name: value for name, value in known.items() if isinstance(body.get(name), str)}}


@schemathesis.hook
def before_call(context, case, **kwargs):
    """Half the requests for something by its name ask for something that is there."""
    path = case.operation.path
    there = made.get("path" if path.startswith("/v1/reasoning/") else "record")
    for name, value in (case.path_parameters or {}).items():
        even = len(str(value)) % 2 == 0
        if name == "path" and even:
            case.path_parameters[name] = TILES[len(str(value)) % len(TILES)]
        if name == "id" and even and there and not path.startswith("/v1/models/"):
            case.path_parameters[name] = there


@schemathesis.hook
def after_call(context, case, response):
    if case.method == "POST" and response.status_code == 200 and "x-request-id" in response.headers:
        name = response.headers["x-request-id"][0]
        made["record"] = name
        if case.operation.path.startswith("/v1/reasoning/"):
            made["path"] = name

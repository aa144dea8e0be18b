"""What schemathesis cannot know from a schema: the names of the models that the fakes serve.

A wrong type in the place of the name stays wrong.
"""

import schemathesis

MODELS = {"/v1/images/generations": "painter", "/v1/embeddings": "vectors"}


@schemathesis.hook
def map_body(context, body):
    if isinstance(body, dict) and isinstance(body.get("model"), str):
        return {**body, "model": MODELS.get(context.operation.path, "talker")}
    return body

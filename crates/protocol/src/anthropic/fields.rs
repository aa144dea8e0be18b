//! What happens to every field of a request to Anthropic's API: honoured, recorded or refused.

use crate::openai::fields::{Object, honoured, recorded, refused};

/// Every object with a table, in the order the documentation prints them.
pub const OBJECTS: &[&Object] = &[&MESSAGES, &COUNT, &METADATA, &TURN, &TEXT, &TOOL_USE, &TOOL_RESULT, &TOOL];

/// The body of `POST /v1/messages`.
pub const MESSAGES: Object = Object {
    name: "a messages request",
    schema: "CreateMessageParams",
    fields: &[
        honoured("model", "required; a name from GET /v1/models"),
        honoured("messages", "required; at least one; an assistant's last one is the beginning of the answer"),
        honoured("max_tokens", "required, 1 or more"),
        honoured("system", "a string or text blocks (joined by line breaks)"),
        honoured("temperature", "0 to 1, default 1; 0 is greedy"),
        honoured("top_k", "keep the k most likely tokens; 0 keeps all"),
        honoured("top_p", "0 to 1, default 1"),
        honoured("stop_sequences", "up to 16; the answer ends before one"),
        honoured("stream", "default false"),
        honoured("tools", "tools of the caller; those that Anthropic's servers run are refused"),
        honoured("tool_choice", "auto, any, tool or none; disable_parallel_tool_use allows one call only"),
        honoured("thinking", "given to the chat template as enable_thinking; the budget is advice"),
        honoured(
            "output_config",
            "format of type json_schema is enforced; effort is given to the chat template as reasoning_effort",
        ),
        honoured("metadata", "user_id is the tenant for fair queueing until API keys exist"),
        recorded("service_tier", "there is one tier"),
        recorded("cache_control", "the prefix cache needs no marks"),
        recorded("inference_geo", "requests stay with the services this gateway has"),
        refused("container", "no code runs here; leave it out"),
        refused("context_management", "turns are taken as they are sent; shorten the conversation yourself"),
        refused("mcp_servers", "servers of tools are not called from here; give their tools as tools"),
        refused("output_format", "it was replaced by output_config.format; send that instead"),
    ],
};

/// The body of `POST /v1/messages/count_tokens`.
pub const COUNT: Object = Object {
    name: "a request to count tokens",
    schema: "CountMessageTokensParams",
    fields: &[
        honoured("model", "required; a name from GET /v1/models"),
        honoured("messages", "required; at least one"),
        honoured("system", "a string or text blocks"),
        honoured("tools", "they are laid out and counted too"),
        honoured("tool_choice", "with none, tools are not laid out"),
        honoured("thinking", "given to the chat template"),
        honoured("output_config", "its effort is given to the chat template"),
        recorded("cache_control", "the prefix cache needs no marks"),
    ],
};

/// The `metadata` of a request.
pub const METADATA: Object =
    Object { name: "metadata", schema: "Metadata", fields: &[honoured("user_id", "who the answer is for")] };

/// One of the `messages`.
pub const TURN: Object = Object {
    name: "a message",
    schema: "InputMessage",
    fields: &[
        honoured("role", "user or assistant; system where clients put it among the turns"),
        honoured("content", "a string, or blocks"),
    ],
};

/// A block of text.
pub const TEXT: Object = Object {
    name: "a text block",
    schema: "RequestTextBlock",
    fields: &[
        honoured("type", "text"),
        honoured("text", "required"),
        recorded("cache_control", "the prefix cache needs no marks"),
        recorded("citations", "SDKs send back what an answer had; accepted and not read"),
    ],
};

/// A block in which the assistant calls a tool.
pub const TOOL_USE: Object = Object {
    name: "a tool_use block",
    schema: "RequestToolUseBlock",
    fields: &[
        honoured("type", "tool_use"),
        honoured("id", "required"),
        honoured("name", "required"),
        honoured("input", "an object: the arguments"),
        recorded("cache_control", "the prefix cache needs no marks"),
        recorded("caller", "SDKs send back what an answer had; accepted and not read"),
    ],
};

/// A block that answers a call.
pub const TOOL_RESULT: Object = Object {
    name: "a tool_result block",
    schema: "RequestToolResultBlock",
    fields: &[
        honoured("type", "tool_result"),
        honoured("tool_use_id", "required: the id of the call this answers"),
        honoured("content", "a string or text blocks"),
        honoured("is_error", "true puts \"Error: \" in front of the content"),
        recorded("cache_control", "the prefix cache needs no marks"),
    ],
};

/// A tool.
pub const TOOL: Object = Object {
    name: "a tool",
    schema: "Tool",
    fields: &[
        honoured("type", "custom, or absent"),
        honoured("name", "letters, digits, `_` and `-`, at most 64"),
        honoured("description", "for the model to read"),
        honoured("input_schema", "JSON schema of the arguments"),
        honoured("strict", "default false: arguments must follow the schema even when the call was the model's choice"),
        recorded("cache_control", "the prefix cache needs no marks"),
        recorded("eager_input_streaming", "arguments are always sent as they come"),
        recorded("input_examples", "kept with the record"),
        refused("allowed_callers", "no code runs here that could call a tool; leave it out"),
        refused("defer_loading", "there is no search for tools here; send the tools that may be called"),
    ],
};

//! The tables of `POST /v1/responses`.

use super::{
    MODEL, Object, SEED, STREAM, STREAM_OPTION, TEMPERATURE, TOP_P, USER, honoured, recorded, refused, sent_back,
};

const ID: super::Field = recorded("id", "of an item that came back from an answer; not read");
const STATUS: super::Field = recorded("status", "of an item that came back from an answer; not read");

/// The body of `POST /v1/responses`.
pub const RESPONSE: Object = Object {
    name: "a response request",
    schema: "CreateResponse",
    fields: &[
        MODEL,
        honoured("input", "required; a string, or an array of messages, function_call and function_call_output items"),
        honoured("instructions", "a system turn in front of the input"),
        honoured("max_output_tokens", "1 or more; default: as many as the context holds"),
        TEMPERATURE,
        TOP_P,
        honoured("tools", "functions; hosted tools are refused by their type"),
        honoured("tool_choice", "none, auto, required, a named function, or allowed_tools"),
        honoured("parallel_tool_calls", "default true"),
        honoured("text", "the format of the answer"),
        honoured("reasoning", "its effort is given to the chat template"),
        honoured("include", "message.output_text.logprobs; reasoning.encrypted_content includes nothing"),
        honoured("top_logprobs", "0 to 20, with message.output_text.logprobs included"),
        honoured("truncation", "only disabled"),
        honoured("store", "only false, which is also the default: responses are not kept here"),
        honoured("background", "only false"),
        STREAM,
        STREAM_OPTION,
        super::Field { extension: true, ..SEED },
        recorded("metadata", "kept with the record; the response repeats it"),
        recorded("service_tier", "there is one tier; the response says default"),
        recorded("safety_identifier", "as user"),
        recorded("prompt_cache_key", "the prefix cache needs no key"),
        recorded("prompt_cache_retention", "the prefix cache keeps what fits"),
        recorded("max_tool_calls", "it counts calls of hosted tools, and there are none"),
        USER,
        refused("previous_response_id", "responses are not kept here; send the items of the conversation as input"),
        refused("conversation", "conversations are not kept here; send their items as input"),
        refused("context_management", "nothing of a conversation is dropped here; shorten the input yourself"),
        refused("prompt", "prompts are not kept here; send its text as instructions"),
    ],
};

/// An item of type `message`.
pub const RESPONSE_MESSAGE: Object = Object {
    name: "a message",
    schema: "OutputMessage",
    fields: &[
        honoured("type", "message; may be left out"),
        honoured("role", "system, developer, user or assistant"),
        honoured("content", "a string, or an array of text parts (joined by line breaks)"),
        recorded("phase", "accepted and not read"),
        ID,
        STATUS,
    ],
};

/// A part of a message.
pub const RESPONSE_PART: Object = Object {
    name: "a part of a message",
    schema: "OutputMessageContent",
    fields: &[
        honoured("type", "input_text; in an assistant's turn output_text or refusal"),
        honoured("text", "required of a text"),
        honoured("refusal", "required of a refusal"),
        recorded("annotations", "accepted and not read"),
        recorded("logprobs", "accepted and not read"),
        sent_back("parsed"),
    ],
};

/// An item of type `function_call`.
pub const RESPONSE_CALL: Object = Object {
    name: "a function call",
    schema: "FunctionToolCall",
    fields: &[
        honoured("type", "function_call"),
        honoured("call_id", "required"),
        honoured("name", "required"),
        honoured("arguments", "JSON text"),
        ID,
        STATUS,
        sent_back("parsed_arguments"),
        refused("namespace", "functions have no namespaces here; make it part of the name"),
    ],
};

/// An item of type `function_call_output`.
pub const RESPONSE_CALL_OUTPUT: Object = Object {
    name: "the output of a function call",
    schema: "FunctionCallOutputItemParam",
    fields: &[
        honoured("type", "function_call_output"),
        honoured("call_id", "required; the call this answers"),
        honoured("output", "required; a string, or an array of input_text parts"),
        ID,
        STATUS,
    ],
};

/// One of the `tools`.
pub const RESPONSE_TOOL: Object = Object {
    name: "a function tool",
    schema: "FunctionTool",
    fields: &[
        honoured("type", "function"),
        honoured("name", "required; 1 to 64 letters, digits, _ or -"),
        honoured("description", "for the model to read"),
        honoured("parameters", "a JSON schema of the arguments"),
        honoured("strict", "arguments follow the schema even when the call was the model's choice"),
        refused("defer_loading", "all tools are shown to the model; leave it out"),
    ],
};

/// `tool_choice` as an object.
pub const RESPONSE_TOOL_CHOICE: Object = Object {
    name: "tool_choice",
    schema: "ToolChoiceParam",
    fields: &[
        honoured("type", "function or allowed_tools"),
        honoured("name", "of the function that must be called"),
        honoured("mode", "of allowed_tools: auto or required"),
        honoured("tools", "of allowed_tools: the functions, by name"),
        refused("server_label", "no tools are hosted here; leave it out"),
    ],
};

/// A tool in `tool_choice.tools`.
pub const RESPONSE_ALLOWED_TOOL: Object = Object {
    name: "an allowed tool",
    schema: "ToolChoiceFunction",
    fields: &[honoured("type", "function"), honoured("name", "required; one of the tools")],
};

/// `text`.
pub const RESPONSE_TEXT: Object = Object {
    name: "text",
    schema: "ResponseTextParam",
    fields: &[
        honoured("format", "text, json_object or json_schema; always enforced, strict or not"),
        recorded("verbosity", "kept with the record"),
    ],
};

/// `text.format`.
pub const RESPONSE_FORMAT: Object = Object {
    name: "text.format",
    schema: "TextResponseFormatJsonSchema",
    fields: &[
        honoured("type", "text, json_object or json_schema"),
        honoured("name", "required by json_schema; not shown to the model"),
        honoured("description", "not shown to the model"),
        honoured("schema", "required by json_schema"),
        honoured("strict", "schemas are always enforced"),
    ],
};

/// `reasoning`.
pub const REASONING: Object = Object {
    name: "reasoning",
    schema: "Reasoning",
    fields: &[
        honoured("effort", "none, minimal, low, medium, high or xhigh; none also sets enable_thinking to false"),
        recorded("summary", "there are no reasoning items to sum up"),
        recorded("generate_summary", "there are no reasoning items to sum up"),
    ],
};

/// The `stream_options` of a response.
pub const RESPONSE_STREAM_OPTIONS: Object = Object {
    name: "stream_options",
    schema: "ResponseStreamOptions",
    fields: &[honoured("include_obfuscation", "only false: no padding is sent")],
};

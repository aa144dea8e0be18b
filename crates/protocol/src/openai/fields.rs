//! What happens to every field of every request: honoured, recorded or refused.
//!
//! The tables are data, so the documentation prints them and a test compares them with the list of fields in OpenAI's
//! published description: a field that appears there and not here fails the test.

mod image;
mod responses;

pub use image::*;
pub use responses::*;

/// What happens to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It has its documented effect.
    Honoured,
    /// Advice or bookkeeping: accepted and kept with the request's record, without an effect on the answer.
    Recorded,
    /// A value other than `null` is a 400 that names the field.
    Refused,
}

impl Fate {
    /// The word the documentation uses.
    pub fn word(self) -> &'static str {
        match self {
            Self::Honoured => "honoured",
            Self::Recorded => "recorded",
            Self::Refused => "refused",
        }
    }
}

/// One field of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name on the wire.
    pub name: &'static str,
    /// What happens to it.
    pub fate: Fate,
    /// Ours, not OpenAI's.
    pub extension: bool,
    /// Range, default, limits; for refused fields the reason with what to do instead.
    pub note: &'static str,
}

impl Field {
    /// A request without it is refused: its note begins with that word, alone or in front of a comma, colon or semicolon.
    pub fn is_required(&self) -> bool {
        let rest = self.note.strip_prefix("required");
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([';', ':', ',']))
    }
}

/// An object of a request and its fields.
#[derive(Debug, Clone, Copy)]
pub struct Object {
    /// What a person calls it.
    pub name: &'static str,
    /// The schema it has in OpenAI's description.
    pub schema: &'static str,
    /// Its fields.
    pub fields: &'static [Field],
}

impl Object {
    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// Every object with a table, in the order the documentation prints them.
pub const OBJECTS: &[&Object] = &[
    &CHAT,
    &MESSAGE,
    &FUNCTION_CALL,
    &COMPLETION,
    &EMBEDDING,
    &MODERATION,
    &MODERATION_PART,
    &STREAM_OPTIONS,
    &RESPONSE,
    &RESPONSE_MESSAGE,
    &RESPONSE_PART,
    &RESPONSE_CALL,
    &RESPONSE_CALL_OUTPUT,
    &RESPONSE_TOOL,
    &RESPONSE_TOOL_CHOICE,
    &RESPONSE_ALLOWED_TOOL,
    &RESPONSE_TEXT,
    &RESPONSE_FORMAT,
    &REASONING,
    &RESPONSE_STREAM_OPTIONS,
    &IMAGE,
];

pub(crate) const fn honoured(name: &'static str, note: &'static str) -> Field {
    Field { name, fate: Fate::Honoured, extension: false, note }
}

pub(crate) const fn extension(name: &'static str, note: &'static str) -> Field {
    Field { name, fate: Fate::Honoured, extension: true, note }
}

pub(crate) const fn recorded(name: &'static str, note: &'static str) -> Field {
    Field { name, fate: Fate::Recorded, extension: false, note }
}

pub(crate) const fn refused(name: &'static str, note: &'static str) -> Field {
    Field { name, fate: Fate::Refused, extension: false, note }
}

/// What clients add to an answer and send back with it.
const fn sent_back(name: &'static str) -> Field {
    Field { extension: true, ..recorded(name, "SDKs put it beside an answer and send it back; accepted and not read") }
}

const MODEL: Field = honoured("model", "required; a name from GET /v1/models");
const N: Field = honoured("n", "1 to 128, default 1; the answers share the prompt's work");
const STREAM: Field = honoured("stream", "default false");
const STREAM_OPTION: Field = honoured("stream_options", "only with stream");
const SEED: Field = honoured("seed", "the same seed gives the same answer, whatever else runs");
const STOP: Field = honoured("stop", "a string or up to 16; the answer ends before it");
const TEMPERATURE: Field = honoured("temperature", "0 to 2, default 1; 0 is greedy");
const TOP_P: Field = honoured("top_p", "0 to 1, default 1");
const PRESENCE: Field = honoured("presence_penalty", "-2 to 2, default 0");
const FREQUENCY: Field = honoured("frequency_penalty", "-2 to 2, default 0");
const LOGIT_BIAS: Field = honoured("logit_bias", "token id to a number from -100 (bans) to 100 (forces)");
const TOP_K: Field = extension("top_k", "keep the k most likely tokens; 0 or -1 keeps all (default)");
const MIN_P: Field = extension("min_p", "0 to 1, default 0; drop tokens below this share of the best one");
const REPETITION: Field = extension("repetition_penalty", "above 0 up to 10, default 1 (off)");
const IGNORE_EOS: Field = extension("ignore_eos", "default false; generate past the end of text, for measuring");
const USER: Field = recorded("user", "also the tenant for fair queueing until API keys exist");

/// The body of `POST /v1/chat/completions`.
pub const CHAT: Object = Object {
    name: "a chat completion request",
    schema: "CreateChatCompletionRequest",
    fields: &[
        MODEL,
        honoured("messages", "required; at least one"),
        honoured("max_completion_tokens", "1 or more; default: as many as the context holds"),
        honoured("max_tokens", "the older name of max_completion_tokens"),
        TEMPERATURE,
        TOP_P,
        N,
        STREAM,
        STREAM_OPTION,
        STOP,
        SEED,
        PRESENCE,
        FREQUENCY,
        LOGIT_BIAS,
        honoured("logprobs", "default false"),
        honoured("top_logprobs", "0 to 20, with logprobs"),
        honoured("tools", "functions; the model calls them in the shape of its own template"),
        honoured("tool_choice", "none, auto, required, a named function, or allowed_tools"),
        honoured("parallel_tool_calls", "default true"),
        honoured(
            "response_format",
            "text, json_object, json_schema; ours: regex, lark, grammar; always enforced, strict or not",
        ),
        honoured(
            "reasoning_effort",
            "given to the chat template as reasoning_effort; none also sets enable_thinking to false",
        ),
        honoured("modalities", "only [\"text\"]"),
        TOP_K,
        MIN_P,
        REPETITION,
        IGNORE_EOS,
        extension(
            "chat_template_kwargs",
            "an object of further variables for the chat template, such as enable_thinking",
        ),
        extension(
            "continue_final_message",
            "default false; the last message, an assistant's, is the beginning of the answer; not with tools",
        ),
        extension("add_generation_prompt", "only the opposite of continue_final_message, as vLLM's clients send it"),
        recorded("metadata", "kept with the record"),
        recorded("store", "kept with the record"),
        recorded("service_tier", "there is one tier; the answer says default"),
        recorded("safety_identifier", "as user"),
        recorded("prompt_cache_key", "the prefix cache needs no key"),
        recorded("prompt_cache_retention", "the prefix cache keeps what fits"),
        recorded("verbosity", "kept with the record"),
        recorded("prediction", "a hint about speed, never about content"),
        USER,
        refused("audio", "this server answers in text; leave it out"),
        refused("web_search_options", "there is no web search here; give the model a tool instead"),
        refused("functions", "it was replaced by `tools`; send tools instead"),
        refused("function_call", "it was replaced by `tool_choice`; send tool_choice instead"),
    ],
};

/// One of the `messages`, whatever its role.
pub const MESSAGE: Object = Object {
    name: "a message",
    schema: "ChatCompletionRequestMessage",
    fields: &[
        honoured("role", "system, developer, user, assistant or tool"),
        honoured(
            "content",
            "a string, or an array of text parts (joined by line breaks); null for a turn of tool calls only",
        ),
        honoured("name", "given to the chat template"),
        honoured("tool_calls", "of an assistant turn"),
        honoured("tool_call_id", "required of a tool's turn"),
        honoured("refusal", "an assistant turn's content when it has no other"),
        sent_back("annotations"),
        sent_back("parsed"),
        refused("audio", "this server reads text; send the transcript as content"),
        refused("function_call", "it was replaced by `tool_calls`; send tool_calls instead"),
    ],
};

/// The `function` of a message's tool call.
pub const FUNCTION_CALL: Object = Object {
    name: "the function of a tool call",
    schema: "ChatCompletionMessageToolCall.function",
    fields: &[honoured("name", "required"), honoured("arguments", "JSON text"), sent_back("parsed_arguments")],
};

/// The body of `POST /v1/completions`.
pub const COMPLETION: Object = Object {
    name: "a completion request",
    schema: "CreateCompletionRequest",
    fields: &[
        MODEL,
        honoured(
            "prompt",
            "required; a string, an array of strings, an array of token ids, or an array of such arrays; up to 2048",
        ),
        honoured("max_tokens", "0 or more, default 16"),
        honoured("echo", "default false; with logprobs the prompt is scored too"),
        honoured("logprobs", "0 to 100: that many alternatives for every token"),
        TEMPERATURE,
        TOP_P,
        N,
        STREAM,
        STREAM_OPTION,
        STOP,
        SEED,
        PRESENCE,
        FREQUENCY,
        LOGIT_BIAS,
        honoured("best_of", "only equal to n: nothing is drawn and thrown away"),
        TOP_K,
        MIN_P,
        REPETITION,
        IGNORE_EOS,
        extension("response_format", "as in chat completions"),
        extension("score_from", "with echo and logprobs: prompt tokens before this index may come without a score"),
        USER,
        refused("suffix", "text cannot be inserted before a suffix here; put both sides into the prompt"),
    ],
};

/// The body of `POST /v1/embeddings`.
pub const EMBEDDING: Object = Object {
    name: "an embedding request",
    schema: "CreateEmbeddingRequest",
    fields: &[
        MODEL,
        honoured(
            "input",
            "required; a string, an array of strings, an array of token ids, or an array of such arrays; up to 2048",
        ),
        honoured("dimensions", "1 or more: keep so many and normalise again"),
        honoured("encoding_format", "float (default) or base64 (little-endian f32)"),
        recorded("user", "kept with the record"),
    ],
};

/// The body of `POST /v1/moderations`.
pub const MODERATION: Object = Object {
    name: "a moderation request",
    schema: "CreateModerationRequest",
    fields: &[
        honoured(
            "input",
            "required; a string, an array of up to 2048 strings with a result each, or the text parts of one input",
        ),
        honoured("model", "any name is taken: the answer says what judged"),
    ],
};

/// A part of a moderation's input.
pub const MODERATION_PART: Object = Object {
    name: "a part of a moderation's input",
    schema: "ModerationInputPart",
    fields: &[
        honoured("type", "text"),
        honoured("text", "required"),
        refused("image_url", "this server judges text only; leave images out"),
    ],
};

/// The `stream_options` of chat and text completions.
pub const STREAM_OPTIONS: Object = Object {
    name: "stream_options",
    schema: "ChatCompletionStreamOptions",
    fields: &[
        honoured("include_usage", "default false; one more chunk with the usage before [DONE]"),
        honoured("include_obfuscation", "only false: no padding is sent"),
    ],
};

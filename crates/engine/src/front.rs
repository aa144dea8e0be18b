//! Requests become jobs: texts become tokens, wishes are checked, grammars are compiled.
//!
//! Everything that can be wrong with a request is found here, before it waits in any queue, and is told with the field at
//! fault. None of it touches the core, so it runs on the caller's side.

use std::sync::Arc;

use protocol::{EmbedRequest, Error, ErrorKind, Format, GenerateRequest, Prompt, Sampling, TextOrTokens};
use text::{ChatTemplate, Constraint, Grammars, Matcher, Tokenizer, ToolParser};

use crate::{
    adapters::{Adaptation, Adapters},
    calls::Calls,
    chat::{ChatLayout, ToolGrammar},
    job::{Answers, Choice, Job, Work},
    route::AUTO,
};

/// Most choices of a request.
const MAX_CHOICES: usize = 128;

/// What makes requests ready.
#[derive(Debug)]
pub(crate) struct Front {
    name: String,
    tokenizer: Arc<Tokenizer>,
    chat: Option<ChatLayout>,
    grammars: Grammars,
    vocab: usize,
    context: usize,
    encoder: bool,
    pub(crate) adapters: Adapters,
}

impl Front {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { name, tokenizer, template, vocab, context, encoder } = parts;
        let grammars = Grammars::new(Arc::clone(&tokenizer));
        Self {
            name,
            tokenizer,
            chat: template.map(ChatLayout::new),
            grammars,
            vocab,
            context,
            encoder,
            adapters: Adapters::default(),
        }
    }

    pub(crate) fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Tokens of the request's prompt.
    pub(crate) fn count(&self, request: &GenerateRequest) -> Result<usize, Error> {
        // Adapters change nothing of how a prompt is laid out.
        let model = if self.routes(&request.model) { &self.name } else { &request.model };
        self.generates(model)?;
        Ok(self.lay_out(request)?.tokens.len())
    }

    /// The job of a generation.
    pub(crate) fn answer_job(&self, request: GenerateRequest, draw: impl FnOnce() -> u64) -> Result<Job, Error> {
        let adaptation = self.generates(&request.model)?;
        check_sampling(&request.sampling, self.vocab)?;
        check_shape(&request)?;
        let laid_out = self.lay_out(&request)?;
        let max_tokens = self.room(laid_out.tokens.len(), request.stop.max_tokens)?;
        let mut resume = request.resume.into_iter();
        let mut choice = |_| self.choice(&laid_out, resume.next().unwrap_or_default());
        let choices = (0..request.n).map(&mut choice).collect::<Result<_, _>>()?;
        let answers = Answers {
            choices,
            seed: request.sampling.seed.unwrap_or_else(draw),
            sampling: request.sampling,
            max_tokens,
            stops: request.stop.strings.into(),
            ignore_eos: request.stop.ignore_eos,
            logprobs: request.logprobs,
            score_from: (request.echo && request.logprobs.is_some()).then_some(request.score_from),
            echo: request.echo.then_some(laid_out.echo),
            report_tokens: request.report_tokens,
            report_work: request.report_work,
        };
        let work = Work::Answers(Box::new(answers));
        Ok(Job { prompt: laid_out.tokens, adaptation, tenant: request.tenant, deadline: request.deadline, work })
    }

    /// The jobs of an embedding, one per input.
    pub(crate) fn vector_jobs(&self, request: EmbedRequest) -> Result<Vec<Job>, Error> {
        let adaptation = self.adaptation(&request.model)?;
        let job = |(index, input)| {
            let param = format!("input[{index}]");
            let prompt = match input {
                TextOrTokens::Text(text) if self.encoder => self.tokenizer.encode_document(&text),
                TextOrTokens::Text(text) => self.with_bos(&text),
                TextOrTokens::Tokens(tokens) => tokens,
            };
            self.check_tokens(&prompt, &param)?;
            if prompt.len() > self.context {
                return Err(too_long(&param, "this input", prompt.len(), self.context));
            }
            let adaptation = adaptation.clone();
            Ok(Job { prompt, adaptation, tenant: String::new(), deadline: None, work: Work::Vector })
        };
        request.inputs.into_iter().enumerate().map(job).collect()
    }

    /// The job that returns the logits behind all of `tokens`.
    pub(crate) fn logits_job(&self, model: &str, tokens: Vec<u32>) -> Result<Job, Error> {
        let adaptation = self.adaptation(model)?;
        if self.encoder {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{} is an embedding model: it has no logits", self.name),
            ));
        }
        self.check_tokens(&tokens, "tokens")?;
        if tokens.len() > self.context {
            return Err(too_long("tokens", "the sequence", tokens.len(), self.context));
        }
        Ok(Job { prompt: tokens, adaptation, tenant: String::new(), deadline: None, work: Work::Logits })
    }

    /// What stands beside the model for requests that call it so.
    pub(crate) fn adaptation(&self, model: &str) -> Result<Option<Arc<Adaptation>>, Error> {
        if model.is_empty() || model == self.name {
            return Ok(None);
        }
        let adapter = model.strip_prefix(&*self.name).and_then(|rest| rest.strip_prefix(':'));
        match adapter.and_then(|name| self.adapters.find(name)) {
            Some(adaptation) => Ok(Some(adaptation)),
            None => {
                let message = format!("no model {model:?} here; this engine serves {:?} and its adapters", self.name);
                Err(about_model(ErrorKind::NotFound, message).with_code("model_not_found"))
            }
        }
    }

    /// Whether the prompt is to choose what stands beside the model.
    pub(crate) fn routes(&self, model: &str) -> bool {
        let behind = model.strip_prefix(&*self.name).and_then(|rest| rest.strip_prefix(':'));
        behind == Some(AUTO) && self.adapters.any_domain()
    }

    fn generates(&self, model: &str) -> Result<Option<Arc<Adaptation>>, Error> {
        let adaptation = self.adaptation(model)?;
        if self.encoder {
            let message = format!("{} is an embedding model: it generates no text; use /v1/embeddings", self.name);
            return Err(about_model(ErrorKind::Unsupported, message));
        }
        Ok(adaptation)
    }

    fn check_tokens(&self, tokens: &[u32], param: &str) -> Result<(), Error> {
        if tokens.is_empty() {
            return Err(Error::invalid(param, "it is empty; give at least one token"));
        }
        match tokens.iter().find(|&&id| id as usize >= self.vocab) {
            Some(id) => {
                let message = format!("token {id} does not exist: this model's ids end at {}", self.vocab - 1);
                Err(Error::invalid(param, message))
            }
            None => Ok(()),
        }
    }

    /// Tokens of a raw text, begun as the model expects it; an empty text is at least one token.
    fn with_bos(&self, text: &str) -> Vec<u32> {
        let ids = self.tokenizer.encode(text);
        let wanted = self.tokenizer.adds_bos() || ids.is_empty();
        let bos = self.tokenizer.bos().or(self.tokenizer.eos()).filter(|_| wanted);
        bos.into_iter().chain(ids).collect()
    }

    fn lay_out(&self, request: &GenerateRequest) -> Result<Layout, Error> {
        let format = constraint(&request.format);
        match &request.prompt {
            Prompt::Raw(TextOrTokens::Text(text)) => {
                let tokens = self.with_bos(text);
                self.check_tokens(&tokens, "prompt")?;
                Ok(Layout { tokens, echo: text.clone(), format, tools: None, parser: None })
            }
            Prompt::Raw(TextOrTokens::Tokens(tokens)) => {
                self.check_tokens(tokens, "prompt")?;
                let echo = self.tokenizer.decode(tokens);
                Ok(Layout { tokens: tokens.clone(), echo, format, tools: None, parser: None })
            }
            Prompt::Chat(conversation) => {
                let Some(chat) = &self.chat else { return Err(no_template(&self.name)) };
                let laid_out = chat.lay_out(conversation, &request.format)?;
                let tokens = self.tokenizer.encode_rendered(&laid_out.rendered);
                self.check_tokens(&tokens, "messages")?;
                let echo = laid_out.rendered.text();
                Ok(Layout { tokens, echo, format, tools: laid_out.grammar, parser: laid_out.parser })
            }
        }
    }

    /// How many tokens an answer may have behind a prompt of this length.
    fn room(&self, prompt: usize, wanted: Option<usize>) -> Result<usize, Error> {
        let least = wanted.unwrap_or(1).min(1);
        if prompt + least > self.context {
            return Err(too_long("prompt", "the prompt", prompt, self.context));
        }
        Ok(wanted.unwrap_or(usize::MAX).min(self.context - prompt))
    }

    fn choice(&self, layout: &Layout, resume: Vec<u32>) -> Result<Choice, Error> {
        if !resume.is_empty() {
            self.check_tokens(&resume, "resume")?;
        }
        let matcher = self.matcher(layout)?;
        let held_by = if layout.tools.is_some() { "tools" } else { "response_format" };
        let held_to_form = layout.tools.is_some() && matcher.is_some();
        let parser = layout.parser.clone();
        let parser = parser.map(|parser| if held_to_form { parser.under_grammar() } else { parser });
        Ok(Choice { matcher, held_by, calls: parser.map(Calls::new), resume })
    }

    /// The field that an essential grammar of calls failed for; a format may be part of it.
    fn at_fault(&self, layout: &Layout) -> &'static str {
        let format = layout.format.as_ref().is_some_and(|format| self.grammars.compile(format).is_err());
        if format { "response_format" } else { "tools" }
    }

    /// The grammar of an answer: that of its calls if any must or may come, else that of its format.
    fn matcher(&self, layout: &Layout) -> Result<Option<Matcher>, Error> {
        match (&layout.tools, &layout.format) {
            (Some(tools), _) => match self.grammars.compile(&tools.constraint) {
                Ok(matcher) => Ok(Some(matcher)),
                Err(_) if !tools.essential => Ok(None),
                Err(error) => Err(Error::invalid(self.at_fault(layout), error)),
            },
            (None, Some(format)) => {
                self.grammars.compile(format).map(Some).map_err(|error| Error::invalid("response_format", error))
            }
            (None, None) => Ok(None),
        }
    }
}

/// A prompt ready to be continued.
#[derive(Debug)]
struct Layout {
    tokens: Vec<u32>,
    /// The prompt's text, for callers who want it back.
    echo: String,
    format: Option<Constraint>,
    tools: Option<ToolGrammar>,
    parser: Option<ToolParser>,
}

/// What a front is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) template: Option<ChatTemplate>,
    pub(crate) vocab: usize,
    pub(crate) context: usize,
    pub(crate) encoder: bool,
}

fn constraint(format: &Format) -> Option<Constraint> {
    match format {
        Format::Text => None,
        Format::JsonObject => Some(Constraint::JsonObject),
        Format::JsonSchema(schema) => Some(Constraint::JsonSchema(schema.clone())),
        Format::Regex(regex) => Some(Constraint::Regex(regex.clone())),
        Format::Lark(grammar) => Some(Constraint::Lark(grammar.clone())),
    }
}

fn check_shape(request: &GenerateRequest) -> Result<(), Error> {
    if request.n == 0 || request.n > MAX_CHOICES {
        return Err(Error::invalid("n", format!("it must lie between 1 and {MAX_CHOICES}, not at {}", request.n)));
    }
    if !request.resume.is_empty() && (request.resume.len() != request.n || request.logprobs.is_some()) {
        let message = "resuming takes the tokens of every choice, and their scores are gone: leave logprobs out";
        return Err(Error::invalid("resume", message));
    }
    if request.stop.strings.iter().any(String::is_empty) {
        return Err(Error::invalid("stop", "a stop string is empty; leave it out"));
    }
    Ok(())
}

fn check_sampling(sampling: &Sampling, vocab: usize) -> Result<(), Error> {
    let ranges = [
        ("temperature", sampling.temperature, 0.0..=f32::MAX, "at least 0"),
        ("top_p", sampling.top_p, f32::MIN_POSITIVE..=1.0, "above 0 and at most 1"),
        ("min_p", sampling.min_p, 0.0..=1.0, "between 0 and 1"),
        ("presence_penalty", sampling.presence_penalty, -100.0..=100.0, "between -100 and 100"),
        ("frequency_penalty", sampling.frequency_penalty, -100.0..=100.0, "between -100 and 100"),
        ("repetition_penalty", sampling.repetition_penalty, f32::MIN_POSITIVE..=100.0, "above 0 and at most 100"),
    ];
    for (param, value, range, words) in ranges {
        if !range.contains(&value) {
            return Err(Error::invalid(param, format!("it must be {words}, not {value}")));
        }
    }
    match sampling.logit_bias.iter().find(|(id, bias)| **id as usize >= vocab || bias.is_nan()) {
        Some((id, _)) => {
            Err(Error::invalid("logit_bias", format!("token {id} does not exist or its bias is no number")))
        }
        None => Ok(()),
    }
}

fn about_model(kind: ErrorKind, message: String) -> Error {
    let mut error = Error::new(kind, message);
    error.param = Some("model".into());
    error
}

fn too_long(param: &str, what: &str, tokens: usize, limit: usize) -> Error {
    let message =
        format!("{what} has {tokens} tokens, but this model's context holds {limit} with the answer; shorten it");
    Error::invalid(param, message).with_code("context_length_exceeded")
}

fn no_template(name: &str) -> Error {
    let message = format!("{name} has no chat template: send its prompt as text to /v1/completions");
    Error::invalid("messages", message).with_code("no_chat_template")
}

//! Options for how an answer is made, shared by `chat` and `generate`.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::Args;
use protocol::{Format, GenerateRequest, Prompt, Sampling, Stop};

/// How an answer is made.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Answer")]
pub(crate) struct SamplingArgs {
    /// Longest answer, in tokens
    #[arg(short = 'n', long, value_name = "N", default_value_t = 512)]
    pub(crate) max_tokens: usize,
    /// How freely tokens are chosen; 0 always takes the most likely one
    #[arg(short, long, value_name = "T", default_value_t = 0.7)]
    pub(crate) temperature: f32,
    /// Choose among the most likely tokens with this much probability together; 1 among all
    #[arg(long, value_name = "P", default_value_t = 0.95)]
    pub(crate) top_p: f32,
    /// Choose among the K most likely tokens; 0 among all
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub(crate) top_k: usize,
    /// The same seed gives the same answer; without one, every run differs
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// End the answer where this text would begin; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// The answer must be JSON valid under the schema in this file
    #[arg(long, value_name = "FILE", conflicts_with = "regex")]
    pub(crate) schema: Option<PathBuf>,
    /// The answer must match this regular expression as a whole
    #[arg(long, value_name = "REGEX")]
    pub(crate) regex: Option<String>,
}

impl SamplingArgs {
    /// A request made this way.
    pub(crate) fn request(&self, prompt: Prompt) -> anyhow::Result<GenerateRequest> {
        let mut request = GenerateRequest::new(prompt, self.max_tokens);
        request.sampling = Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            seed: self.seed,
            ..Sampling::default()
        };
        request.stop = Stop { max_tokens: Some(self.max_tokens), strings: self.stop.clone(), ignore_eos: false };
        request.format = self.format()?;
        Ok(request)
    }

    fn format(&self) -> anyhow::Result<Format> {
        if let Some(path) = &self.schema {
            let text = fs::read(path).with_context(|| format!("cannot read the schema {}", path.display()))?;
            let schema = serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))?;
            return Ok(Format::JsonSchema(schema));
        }
        Ok(self.regex.clone().map_or(Format::Text, Format::Regex))
    }
}

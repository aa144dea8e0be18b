//! Text that a model shall go on to say as before: a file of the user's, or what the model itself says to prompts that have nothing to do with
//! any domain, so that nothing need be fetched.
//!
//! A model's own text is the best there is to hold it to: the divergence on it is the divergence itself, and not that on somebody's choice of texts.
//! To measure by it is not enough: whatever changes makes it less likely, while text of people may become more so. What was forgotten is the mean of both.

use std::{path::Path, sync::Arc};

use data::{Document, Encoder, Form};
use engine::Engine;
use protocol::{Generate, GenerateRequest, Prompt, Sampling, TextOrTokens};
use serde_json::json;
use train::Sample;

use super::documents::{self, Source};
use crate::answers;

/// What the model is asked: some of everything that people ask models.
const PROMPTS: [&str; 40] = [
    "Explain why the sky is blue.",
    "Write a short story about a lighthouse keeper.",
    "List five things to pack for a winter hike.",
    "What is the difference between a virus and a bacterium?",
    "Give me a simple recipe for pancakes.",
    "Write a Python function that reverses a string.",
    "Summarise the plot of Romeo and Juliet in three sentences.",
    "How do I ask my manager for a day off? Write the e-mail.",
    "What happened in Europe in 1848?",
    "Translate into French: The train leaves at nine in the morning.",
    "How many minutes are there in three and a half hours?",
    "Describe the city of Kyoto to somebody who has never been there.",
    "Name three uses of copper.",
    "Write a poem about rain in four lines.",
    "What is inflation, and who is hurt by it?",
    "Explain recursion to a child.",
    "What should I do when a plant has yellow leaves?",
    "Compare cats and dogs as pets.",
    "How does a bicycle stay upright?",
    "Correct this sentence: She go to school every days.",
    "What are the planets of the solar system, in order?",
    "Give arguments for and against working from home.",
    "Write a dialogue between a customer and a baker.",
    "What is the capital of Australia, and why is it not Sydney?",
    "Explain what a database index is.",
    "How can I fall asleep more easily?",
    "Tell me a joke and explain why it is funny.",
    "A train goes 60 km in 45 minutes. How fast is it?",
    "Write a product description for a wooden chair.",
    "Who was Marie Curie?",
    "What does a heart do?",
    "Suggest a name for a small bookshop, with a reason.",
    "How do I undo the last commit in git?",
    "What is the moral of the story of the tortoise and the hare?",
    "Describe how bread is made, from grain to loaf.",
    "What is the best way to learn a new language?",
    "Give me three questions to ask in a job interview.",
    "Why do leaves fall in autumn?",
    "Write a short letter to a friend about moving to another town.",
    "Explain the rules of chess briefly.",
];
/// Answers to each of them.
const ANSWERS: u64 = 2;
/// Longest answer, in tokens.
const LONGEST: usize = 96;
/// What people wrote, each on its line.
const PASSAGES: &str = include_str!("../../data/passages/passages.jsonl");
/// One text in so many is measured by and not replayed.
const MEASURED: usize = 4;

/// General texts of a run.
#[derive(Debug)]
pub(super) struct General {
    /// What the run is held to.
    pub(super) replayed: Vec<Sample>,
    /// What tells how much was forgotten.
    pub(super) measured: Vec<Sample>,
}

impl General {
    pub(super) fn new(source: Source, encoder: &Encoder<'_>, longest: usize) -> anyhow::Result<Self> {
        let file = source.file.clone();
        let (samples, _) = documents::samples(source, encoder, longest);
        let (measured, replayed): (Vec<_>, Vec<_>) =
            samples.into_iter().enumerate().partition(|(place, _)| place % MEASURED == 0);
        let only = |texts: Vec<(usize, (Sample, Document))>| texts.into_iter().map(|(_, (sample, _))| sample).collect();
        anyhow::ensure!(!replayed.is_empty(), "{} has too few texts to hold the model to", file.display());
        Ok(Self { replayed: only(replayed), measured: only(measured) })
    }
}

/// What a model says to general prompts, chosen as it would choose itself; kept in the run's folder.
pub(super) async fn own_words(model: &Arc<Engine>, seed: u64, folder: &Path) -> anyhow::Result<Source> {
    let chat = is_chat(model);
    let asked: Vec<(&str, u64)> =
        (0..ANSWERS).flat_map(|turn| PROMPTS.map(|prompt| (prompt, seed.wrapping_add(turn)))).collect();
    let requests = asked.iter().map(|(prompt, seed)| request(&form(chat, prompt), *seed)).collect();
    let file = folder.join("general.jsonl");
    let texts = answers::ask(model, "the model talks", requests, &file).await?;
    let answered = asked.iter().zip(texts).filter(|(_, text)| !text.trim().is_empty());
    let documents = answered.enumerate().map(|(at, ((prompt, _), text))| {
        let mut form = form(chat, prompt);
        form.answer(text);
        Document { line: at + 1, form }
    });
    Ok(Source { documents: documents.collect(), file })
}

/// Text of people to measure by, beside a model's own words.
pub(super) fn passages(encoder: &Encoder<'_>, longest: usize) -> anyhow::Result<Vec<Sample>> {
    let document = |(line, text)| anyhow::Ok(Document { line, form: data::parse(text).map_err(anyhow::Error::msg)? });
    let documents = (1..).zip(PASSAGES.lines()).map(document).collect::<anyhow::Result<_>>()?;
    let (samples, _) =
        documents::samples(Source { documents, file: "the program's passages".into() }, encoder, longest);
    Ok(samples.into_iter().map(|(sample, _)| sample).collect())
}

/// What is asked of this model in general.
pub(super) fn prompts(model: &Arc<Engine>) -> Vec<Prompt> {
    let chat = is_chat(model);
    PROMPTS.iter().filter_map(|prompt| answers::prompt(&form(chat, prompt))).collect()
}

fn is_chat(model: &Arc<Engine>) -> bool {
    Generate::models(&**model).first().is_some_and(|card| card.chat)
}

/// A prompt that waits for its answer.
fn form(chat: bool, prompt: &str) -> Form {
    if chat {
        return Form::Chat { messages: vec![json!({"role": "user", "content": prompt})], tools: Vec::new() };
    }
    Form::Completion { prompt: format!("{prompt}\n"), completion: String::new() }
}

fn request(form: &Form, seed: u64) -> GenerateRequest {
    let prompt = answers::prompt(form).unwrap_or(Prompt::Raw(TextOrTokens::Text(String::new())));
    let sampling = Sampling { seed: Some(seed), ..Sampling::default() };
    GenerateRequest { sampling, ..GenerateRequest::new(prompt, LONGEST) }
}

//! The question sets that `cargo xtask test` provides, laid out as lm-eval's tasks of the same names lay them out.
//!
//! The files are JSON lines with `question`, `answer` and either `options` (`A. ..\nB. ..`) or `passage`.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::{Error, Question};

/// A question set whose layout is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Task {
    /// Physical common sense, two solutions to a goal.
    Piqa,
    /// Yes or no behind a passage.
    Boolq,
    /// Elementary science, four ends of a sentence.
    Openbookqa,
}

/// A line of the files; which fields there are depends on the set.
#[derive(Debug, Deserialize)]
struct Line {
    question: String,
    #[serde(default)]
    options: String,
    #[serde(default)]
    passage: String,
    answer: String,
}

impl Task {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Piqa, Self::Boolq, Self::Openbookqa];

    /// Where the set lies inside the data sets' directory.
    #[must_use]
    pub fn file(self, datasets: &Path) -> PathBuf {
        datasets.join(match self {
            Self::Piqa => "PIQA/validation.jsonl",
            Self::Boolq => "BoolQ/dev.jsonl",
            Self::Openbookqa => "OpenBookQA/test.jsonl",
        })
    }

    /// The questions of a file.
    ///
    /// # Errors
    /// A file that cannot be read, or its first line that is not of the set's form.
    pub fn load(self, path: &Path) -> Result<Vec<Question>, Error> {
        let text = fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        self.parse(&text).map_err(|(line, message)| Error::Data { path: path.to_owned(), line, message })
    }

    /// Questions with the passages that answer them, for [`crate::search`]; each passage once. Only BoolQ has passages.
    ///
    /// # Errors
    /// As [`Task::load`].
    pub fn passages(path: &Path) -> Result<Vec<(String, String)>, Error> {
        let text = fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let mut seen = std::collections::HashSet::new();
        let mut pairs = Vec::new();
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let broken =
                |e: serde_json::Error| Error::Data { path: path.to_owned(), line: i + 1, message: e.to_string() };
            let line: Line = serde_json::from_str(line).map_err(broken)?;
            if !line.passage.is_empty() && seen.insert(line.passage.clone()) {
                pairs.push((line.question, line.passage));
            }
        }
        Ok(pairs)
    }

    fn parse(self, text: &str) -> Result<Vec<Question>, (usize, String)> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        lines.map(|(i, line)| self.question(line).map_err(|message| (i + 1, message))).collect()
    }

    fn question(self, line: &str) -> Result<Question, String> {
        let line: Line = serde_json::from_str(line).map_err(|e| e.to_string())?;
        match self {
            Self::Piqa => lettered(&line, format!("Question: {}\nAnswer:", line.question)),
            Self::Openbookqa => lettered(&line, line.question.trim_end().to_owned()),
            Self::Boolq => yes_or_no(&line),
        }
    }
}

fn lettered(line: &Line, context: String) -> Result<Question, String> {
    let choices: Vec<&str> = split_options(&line.options);
    let letter = line.answer.chars().next().filter(char::is_ascii_uppercase).ok_or("the answer names no letter")?;
    let answer = letter as usize - 'A' as usize;
    if choices.len() < 2 || answer >= choices.len() {
        return Err(format!("answer {letter} of {} options", choices.len()));
    }
    Ok(Question { context, choices: choices.into_iter().map(str::to_owned).collect(), answer })
}

/// The texts behind `A. `, `B. ` and so on at line starts, in order; a line without the next letter belongs to the one before.
fn split_options(options: &str) -> Vec<&str> {
    let mut starts = Vec::new();
    for letter in 'A'..='Z' {
        let mark = format!("{letter}. ");
        let from = starts.last().map_or(0, |&(_, end)| end);
        let found = if letter == 'A' {
            options.starts_with(&mark).then_some(0)
        } else {
            options[from..].find(&format!("\n{mark}")).map(|i| from + i)
        };
        let Some(at) = found else { break };
        let end = at + mark.len() + usize::from(letter != 'A');
        starts.push((at, end));
    }
    let ends = starts.iter().skip(1).map(|s| s.0).chain([options.len()]);
    starts.iter().zip(ends).map(|(&(_, from), to)| options[from..to].trim_end()).collect()
}

fn yes_or_no(line: &Line) -> Result<Question, String> {
    let answer = match line.answer.as_str() {
        "False" | "false" => 0,
        "True" | "true" => 1,
        other => return Err(format!("answer {other:?} is neither True nor False")),
    };
    let context = format!("{}\nQuestion: {}?\nAnswer:", line.passage, line.question);
    Ok(Question { context, choices: vec!["no".into(), "yes".into()], answer })
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Piqa => "piqa",
            Self::Boolq => "boolq",
            Self::Openbookqa => "openbookqa",
        })
    }
}

impl FromStr for Task {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|task| task.to_string() == name)
            .ok_or_else(|| Error::Invalid(format!("no task {name:?}: there are piqa, boolq and openbookqa")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(task: Task, line: &str, context: &str, choices: &[&str], answer: usize) {
        let question = task.question(line).unwrap();
        assert_eq!(
            (question.context.as_str(), question.choices, question.answer),
            (context, choices.iter().map(|&c| c.to_owned()).collect(), answer)
        );
    }

    #[test]
    fn laid_out_as_lm_eval_does() {
        check(
            Task::Piqa,
            r#"{"question": "ice box", "options": "A. water \nB. soda", "answer": "B. soda"}"#,
            "Question: ice box\nAnswer:",
            &["water", "soda"],
            1,
        );
        check(
            Task::Openbookqa,
            r#"{"question": "Predators eat ", "options": "A. lions\nB. A. humans\nC. bunnies\nD. grass", "answer": "C. bunnies"}"#,
            "Predators eat",
            &["lions", "A. humans", "bunnies", "grass"],
            2,
        );
        check(
            Task::Boolq,
            r#"{"question": "is it", "title": "t", "answer": "True", "passage": "It is."}"#,
            "It is.\nQuestion: is it?\nAnswer:",
            &["no", "yes"],
            1,
        );
    }

    #[test]
    fn broken_lines_are_named() {
        let text = "{\"question\": \"q\", \"options\": \"A. x\\nB. y\", \"answer\": \"A. x\"}\n\n{\"question\": \"q\", \"options\": \"A. x\\nB. y\", \"answer\": \"C. z\"}\n";
        assert_eq!(Task::Piqa.parse(text).unwrap_err(), (3, "answer C of 2 options".to_owned()));
        assert_eq!(Task::Boolq.parse(text).unwrap_err().0, 1);
        assert!("hellaswag".parse::<Task>().is_err());
        assert_eq!("boolq".parse::<Task>().unwrap(), Task::Boolq);
    }
}

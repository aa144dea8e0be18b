//! What a model is shown before it writes a chain, and how a chain goes on behind what is written.
//!
//! The worked examples are ours and say by example what the grammar enforces; a model without a grammar has nothing else to
//! go by. Chat models see them as turns, others as a text to continue. The chain so far is the beginning of the answer, so every
//! line is a continuation and the work for what stands before it comes from the prefix cache.

use protocol::{Chat, Message, Prompt, TextOrTokens};

const TASK: &str = "Solve the problem step by step. First write what is unknown. Then write one line per step: a sentence that says \
                    what is computed and why, the sign |, and an expression of numbers with its value. Write numbers without \
                    units. End with a line that gives the answer.";

/// Problems and their chains. Whole sentences help a small model to the right expression: with a few words in their place it
/// solved half as many problems in words, and long sums were copied with gaps until an example showed one.
const EXAMPLES: [(&str, &str); 5] = [
    (
        "A baker sells rolls in bags of 6 for $2.50 a bag. Ana buys 24 rolls and pays with a $20 bill. How much change does \
         she get?",
        "unknown: the change that Ana gets, in dollars\n\
         step: Ana buys 24 rolls and each bag holds 6 rolls, so she buys this many bags | 24 / 6 = 4\n\
         step: Each bag costs 2.50 dollars, so the 4 bags cost together | 4 * 2.50 = 10\n\
         step: She pays with 20 dollars, so the change is what is left of it | 20 - 10 = 10\n\
         answer: 10\n",
    ),
    (
        "What is 31 - 8 + 140 - 12?",
        "unknown: the value of the expression\n\
         step: Compute the whole expression as it stands | 31 - 8 + 140 - 12 = 151\n\
         answer: 151\n",
    ),
    (
        "A tank holds 80 litres. 25% of it is used in the morning and a third of the rest in the afternoon. How many litres are \
         left?",
        "unknown: the litres left in the tank in the end\n\
         step: The tank holds 80 litres and 25% of it is used in the morning, which is | 80 * 25% = 20\n\
         step: So after the morning there are still | 80 - 20 = 60\n\
         step: A third of these 60 litres is used in the afternoon, which is | 60 / 3 = 20\n\
         step: So in the end there are left | 60 - 20 = 40\n\
         answer: 40\n",
    ),
    (
        "Calculate 7 - (3 + 5) * 2 / 4.",
        "unknown: the value of the expression\n\
         step: Compute the whole expression as it stands | 7 - (3 + 5) * 2 / 4 = 3\n\
         answer: 3\n",
    ),
    (
        "Mia is twice as old as Ben. Ben is 3 years younger than Zoe, who is 12. How old are Mia and Ben together?",
        "unknown: the age of Mia and Ben together\n\
         step: Zoe is 12 and Ben is 3 years younger, so Ben is | 12 - 3 = 9\n\
         step: Mia is twice as old as Ben, who is 9, so Mia is | 2 * 9 = 18\n\
         step: Mia is 18 and Ben is 9, so together they are | 18 + 9 = 27\n\
         answer: 27\n",
    ),
];

/// The prompt for the rest of the chain that begins with `begun`.
pub(crate) fn prompt(problem: &str, begun: &str, chat: bool) -> Prompt {
    if chat {
        Prompt::Chat(conversation(problem, begun))
    } else {
        Prompt::Raw(TextOrTokens::Text(text(problem, begun)))
    }
}

fn conversation(problem: &str, begun: &str) -> Chat {
    let turn = |role: &str, text: &str| Message { role: role.into(), content: Some(text.into()), ..Message::default() };
    let mut messages = vec![turn("system", TASK)];
    for (problem, chain) in EXAMPLES {
        messages.extend([turn("user", problem), turn("assistant", chain)]);
    }
    messages.push(turn("user", problem));
    let continue_last = !begun.is_empty();
    messages.extend(continue_last.then(|| turn("assistant", begun)));
    Chat { messages, continue_last, ..Chat::default() }
}

fn text(problem: &str, begun: &str) -> String {
    let example = |(problem, chain): &(&str, &str)| format!("problem: {problem}\n{chain}\n");
    format!("{TASK}\n\n{}problem: {problem}\n{begun}", EXAMPLES.iter().map(example).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::{expression::Number, lines::read};

    /// What the examples teach must be true.
    #[test]
    fn the_examples_hold() {
        for (problem, chain) in EXAMPLES {
            let found = read(chain);
            assert!(!found.steps.is_empty(), "{problem}");
            for step in &found.steps {
                assert_eq!(Number::parse(&step.expression), Number::parse(&step.claimed), "{step:?}");
            }
            assert_eq!(found.answer.as_deref(), found.steps.last().map(|step| step.claimed.as_str()));
        }
    }

    #[test]
    fn golden_prompts() {
        let Prompt::Chat(chat) = prompt("How many?", "unknown:", true) else { unreachable!() };
        let roles: Vec<_> = chat.messages.iter().map(|message| message.role.as_str()).collect();
        let examples = ["user", "assistant"].repeat(EXAMPLES.len());
        assert_eq!(roles, [&["system"], &examples[..], &["user", "assistant"]].concat());
        let last = |chat: &Chat| chat.messages.last().and_then(|message| message.content.clone());
        assert!(chat.continue_last && last(&chat).as_deref() == Some("unknown:"));
        let Prompt::Chat(chat) = prompt("How many?", "", true) else { unreachable!() };
        assert!(!chat.continue_last && last(&chat).as_deref() == Some("How many?"));
        let Prompt::Raw(TextOrTokens::Text(text)) = prompt("How many?", "unknown: x\n", false) else { unreachable!() };
        expect_test::expect_file!["../../tests/data/raw_prompt.txt"].assert_eq(&text);
    }
}

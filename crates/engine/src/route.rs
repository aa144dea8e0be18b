//! `model: "smollm2:auto"`: the adapter whose domain a prompt is of, or none.
//!
//! A prompt's vector, which the base gives, is held against the domains that adapters bring ([`model::Domain`]). Of those that it passes the threshold of, the
//! nearest is taken: by how much it passes says how wide a threshold is, not how near. What was compared goes into the answer's stream, and so into its record.

use std::sync::Arc;

use protocol::{Candidate, Hop, ModelCard, Prompt, Reason, TextOrTokens};

use crate::adapters::Adaptation;

/// Behind a model's name, it lets the prompt choose the adapter.
pub const AUTO: &str = "auto";
/// Characters, or tokens, of a prompt that are looked at: its beginning says what it is about.
const LOOKED_AT: usize = 2000;

/// What of a prompt says which domain it is of: what users said.
pub(crate) fn subject(prompt: &Prompt) -> TextOrTokens {
    let text = match prompt {
        Prompt::Raw(TextOrTokens::Tokens(tokens)) => {
            return TextOrTokens::Tokens(tokens.iter().take(LOOKED_AT).copied().collect());
        }
        Prompt::Raw(TextOrTokens::Text(text)) => text.clone(),
        Prompt::Chat(chat) => {
            let users = chat.messages.iter().filter(|message| message.role == "user");
            users.filter_map(|message| message.content.as_deref()).collect::<Vec<_>>().join("\n")
        }
    };
    TextOrTokens::Text(text.chars().take(LOOKED_AT).collect())
}

/// The adapter whose domain this vector is of, and how near all domains were.
pub(crate) fn nearest(
    adaptations: &[Arc<Adaptation>],
    vector: &[f32],
) -> (Option<Arc<Adaptation>>, Vec<(String, f32)>) {
    let with_domain = adaptations.iter().filter_map(|one| Some((one, one.domain.as_ref()?)));
    let scored: Vec<_> = with_domain.map(|(one, domain)| (one, domain.score(vector), domain.threshold)).collect();
    let passed = scored.iter().filter(|(_, score, threshold)| score >= threshold);
    let best = passed.max_by(|a, b| a.1.total_cmp(&b.1));
    let scores = scored.iter().map(|(one, score, _)| (one.name.clone(), *score)).collect();
    (best.map(|(one, ..)| Arc::clone(one)), scores)
}

/// What is recorded of a choice.
pub(crate) fn hop(base: &str, card: ModelCard, scores: Vec<(String, f32)>) -> Hop {
    let candidate = |(name, score): (String, f32)| Candidate {
        service: format!("{base}:{name}"),
        busy: 0,
        nearness: Some((1000.0 * score).round() as i32),
    };
    Hop {
        asked: format!("{base}:{AUTO}"),
        reason: Reason::Domain,
        model: card.id,
        service: card.owned_by,
        digest: card.digest,
        adapter: card.adapter,
        among: scores.into_iter().map(candidate).collect(),
        ..Hop::default()
    }
}

#[cfg(test)]
mod tests {
    use model::{Adapter, Domain};
    use protocol::{Chat, Message};

    use super::*;

    fn adaptation(name: &str, direction: [f32; 2], threshold: f32) -> Arc<Adaptation> {
        let domain = Domain { general: vec![1.0, 1.0], direction: direction.to_vec(), threshold };
        let (name, digest) = (name.to_owned(), String::new());
        Arc::new(Adaptation { name, digest, adapter: Adapter::default(), domain: Some(domain), root: 1 })
    }

    #[test]
    fn the_nearest_of_the_domains_that_are_passed_is_taken() {
        let plain =
            Adaptation { name: "d".into(), domain: None, ..Arc::into_inner(adaptation("d", [0.0; 2], 0.0)).unwrap() };
        let all = [adaptation("a", [1.0, 0.0], 0.5), adaptation("b", [0.0, 1.0], 0.9), Arc::new(plain)];
        let check = |vector: [f32; 2], name: Option<&str>| {
            let (found, scores) = nearest(&all, &vector);
            assert_eq!(found.as_ref().map(|one| &*one.name), name, "{vector:?}");
            assert_eq!(scores.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["a", "b"]);
        };
        check([2.0, 1.0], Some("a"));
        check([1.0, 2.0], Some("b"));
        check([1.7, 1.7], Some("a"));
        check([1.1, 1.4], Some("b"));
        check([0.0, 1.0], None);
        check([1.0, 1.0], None);
        // A wide threshold is passed by more, and draws nobody away.
        let wide = [adaptation("a", [1.0, 0.0], 0.2), adaptation("b", [0.0, 1.0], 0.7)];
        let (found, _) = nearest(&wide, &[1.6, 1.8]);
        assert_eq!(found.as_ref().map(|one| &*one.name), Some("b"));
    }

    #[test]
    fn what_users_said_is_looked_at() {
        let message =
            |role: &str, text: &str| Message { role: role.into(), content: Some(text.into()), ..Message::default() };
        let messages =
            vec![message("system", "s"), message("user", "a"), message("assistant", "x"), message("user", "b")];
        let chat = Prompt::Chat(Chat { messages, ..Chat::default() });
        assert_eq!(subject(&chat), TextOrTokens::Text("a\nb".into()));
        let long = |n: usize| Prompt::Raw(TextOrTokens::Text("é".repeat(n)));
        assert_eq!(subject(&long(5000)), subject(&long(LOOKED_AT)));
        assert_eq!(subject(&Prompt::Raw(TextOrTokens::Tokens(vec![7; 9]))), TextOrTokens::Tokens(vec![7; 9]));
    }
}

//! Personal data and secrets: expressions for the shapes, sums for the proof.
//!
//! A number is taken for a card or an id only if its check digits hold, and it must stand alone: the fraction of a decimal or the
//! tail of a UUID is not a card. Bare numbers whose sum every tenth or eleventh number satisfies count only behind a word that
//! announces them. Phone numbers have no sum; they need a `+`, a mobile prefix or the punctuation of a phone number.

use std::{ops::Range, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    fold::View,
    patterns::{Judge, Patterns},
};

mod sums;

/// A kind of personal data or secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A private key in PEM armour.
    PrivateKey,
    /// An API key of a known form: OpenAI, Anthropic, AWS, GitHub, GitLab, Google, Slack, Stripe, Tessera and others.
    ApiKey,
    /// A JSON web token.
    Jwt,
    /// A mail address.
    Email,
    /// A bank account (IBAN, mod 97).
    Iban,
    /// The id of a Chinese resident (18 characters, ISO 7064 mod 11-2).
    CnId,
    /// A French social security number (mod 97).
    FrNir,
    /// A payment card (issuer range and Luhn).
    Card,
    /// A US social security number (allocated ranges; bare digits behind a word that says so).
    UsSsn,
    /// A Brazilian taxpayer number (CPF, two check digits).
    BrCpf,
    /// An Indian Aadhaar number (Verhoeff).
    InAadhaar,
    /// A Polish PESEL number (check digit, behind its name).
    PlPesel,
    /// A Korean resident number (check digit).
    KrRrn,
    /// A Spanish DNI or NIE (letter mod 23).
    EsDni,
    /// An Italian fiscal code (check letter).
    ItCf,
    /// A Singapore NRIC or FIN (check letter).
    SgNric,
    /// A Hong Kong identity card (check digit).
    HkId,
    /// A Taiwan identity card (check digit).
    TwId,
    /// A UK national insurance number (allocated prefixes).
    UkNino,
    /// A phone number: international, Chinese mobile and landline, North American.
    Phone,
}

/// Every kind with its shape, the preferred ones first: where two begin at the same place, the first that passes wins. A run that ends a shape has
/// no end of its own but ends at [`patterns::LONGEST`]: a counted repetition is a copy for every count in every automaton, megabytes of them. One
/// that something must follow is counted, or each place it may begin at would be tried anew; a private key's is not, for it needs no end to be one.
const SHAPES: [(Kind, &str); 21] = [
    (
        Kind::PrivateKey,
        r"(?-u)-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----(?:[A-Za-z0-9+/=\\\s:,.-]*?-----END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----|[A-Za-z0-9+/=\\\s]*)",
    ),
    (Kind::ApiKey, API_KEY),
    (Kind::Jwt, r"(?-u)\beyJ[A-Za-z0-9_-]{10,1000}\.eyJ[A-Za-z0-9_-]{10,2000}\.[A-Za-z0-9_-]{10,600}"),
    (
        Kind::Email,
        r"(?-u)\b[A-Za-z0-9](?:[A-Za-z0-9._%+-]{0,62}[A-Za-z0-9_+-])?@(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,6}[A-Za-z]{2,24}\b",
    ),
    (Kind::Iban, r"(?-u)\b[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?\b"),
    (
        Kind::CnId,
        r"(?-u)\b[1-9][0-9]{5}(?:18|19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{3}[0-9Xx]\b",
    ),
    (
        Kind::FrNir,
        r"(?-u)\b[12] ?[0-9]{2} ?(?:0[1-9]|1[0-2]|[2-9][0-9]) ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}\b",
    ),
    (Kind::Card, r"(?-u)\b[2-6][0-9](?:[ -]?[0-9]){11,17}\b"),
    (Kind::UsSsn, r"(?-u)\b[0-8][0-9]{2}(?:-[0-9]{2}-| [0-9]{2} |[0-9]{2})[0-9]{4}\b"),
    (Kind::BrCpf, r"(?-u)\b[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}\b"),
    (Kind::InAadhaar, r"(?-u)\b[2-9][0-9]{3}(?: [0-9]{4} |-[0-9]{4}-)[0-9]{4}\b"),
    (Kind::PlPesel, r"(?-u)\b[0-9]{2}(?:[02468][1-9]|[13579][0-2])[0-3][0-9][0-9]{5}\b"),
    (Kind::KrRrn, r"(?-u)\b[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])-[1-8][0-9]{6}\b"),
    (Kind::EsDni, r"(?-u)\b(?:[0-9]{8}|[XYZ]-?[0-9]{7})-?[A-HJ-NP-TV-Z]\b"),
    (Kind::ItCf, r"(?-u)\b[A-Z]{6}[0-9LMNPQRSTUV]{2}[A-EHLMPRST][0-9LMNPQRSTUV]{2}[A-Z][0-9LMNPQRSTUV]{3}[A-Z]\b"),
    (Kind::SgNric, r"(?-u)\b[STFG][0-9]{7}[A-Z]\b"),
    (Kind::HkId, r"(?-u)\b[A-Z]{1,2}[0-9]{6}\([0-9A]\)"),
    (Kind::TwId, r"(?-u)\b[A-Z][12][0-9]{8}\b"),
    (Kind::UkNino, r"(?-u)\b[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?: [0-9]{2} [0-9]{2} [0-9]{2} |[0-9]{6} ?)[A-D]\b"),
    (
        Kind::Phone,
        r"(?-u)\b(?:86[- ]?)?1[3-9][0-9](?:[ -]?[0-9]{4}){2}\b|\b0[1-9][0-9]{1,2}-[0-9]{7,8}\b|(?:\([2-9][0-9]{2}\) ?|\b[2-9][0-9]{2}[.-])[2-9][0-9]{2}[.-][0-9]{4}\b",
    ),
    (Kind::Phone, r"(?-u)\+[1-9](?:[ .()-]{0,2}[0-9]){7,14}\b"),
];

/// Known forms of API keys.
const API_KEY: &str = r"(?x-u) \b(?:
    sk-(?:[A-Za-z0-9]{1,10}-){0,3}[A-Za-z0-9_-]{20,}
  | tsk-[A-Za-z0-9_-]{16,}
  | (?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b
  | gh[pousr]_[A-Za-z0-9]{36,}
  | github_pat_[A-Za-z0-9_]{22,}
  | glpat-[A-Za-z0-9_-]{20,}
  | xox[abeoprs]-[A-Za-z0-9-]{10,}
  | AIza[A-Za-z0-9_-]{35}
  | (?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}
  | whsec_[A-Za-z0-9+/=]{24,}
  | hf_[A-Za-z0-9]{30,}
  | npm_[A-Za-z0-9]{36}\b
  | SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}
  | ya29\.[A-Za-z0-9_-]{20,}
  | LTAI[A-Za-z0-9]{12,24}\b
  | AKID[A-Za-z0-9]{32}\b
  | dop_v1_[a-f0-9]{64}\b
)";

/// Finds the kinds it was made for.
#[derive(Debug)]
pub(crate) struct PersonalData {
    kinds: Vec<Kind>,
    pub(crate) patterns: Patterns,
}

impl PersonalData {
    /// A finder of these kinds.
    pub(crate) fn new(wanted: impl Fn(Kind) -> bool) -> Result<Option<Self>, Error> {
        let shapes: Vec<_> = SHAPES.iter().filter(|(kind, _)| wanted(*kind)).collect();
        if shapes.is_empty() {
            return Ok(None);
        }
        let expressions: Vec<_> = shapes.iter().map(|(_, shape)| *shape).collect();
        let patterns = Patterns::new(&expressions, |i| format!("personal.{:?}", shapes[i].0))?;
        Ok(Some(Self { kinds: shapes.iter().map(|(kind, _)| *kind).collect(), patterns }))
    }

    /// A finder of these kinds; one that is `known` already is shared, for its automata are large.
    pub(crate) fn shared(
        known: &mut Vec<Arc<Self>>,
        wanted: impl Fn(Kind) -> bool,
    ) -> Result<Option<Arc<Self>>, Error> {
        let kinds: Vec<Kind> = SHAPES.iter().map(|(kind, _)| *kind).filter(|kind| wanted(*kind)).collect();
        if let Some(same) = known.iter().find(|data| data.kinds == kinds) {
            return Ok(Some(same.clone()));
        }
        let made = Self::new(wanted)?.map(Arc::new);
        known.extend(made.clone());
        Ok(made)
    }

    /// The kinds it finds.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.kinds.iter().copied()
    }

    /// What this expression looks for.
    pub(crate) fn kind(&self, pattern: usize) -> Kind {
        self.kinds[pattern]
    }
}

impl Kind {
    /// The rule's name in verdicts; behind its dot stands what a mask says.
    pub fn rule(self) -> &'static str {
        match self {
            Self::PrivateKey => "personal.private_key",
            Self::ApiKey => "personal.api_key",
            Self::Jwt => "personal.jwt",
            Self::Email => "personal.email",
            Self::Iban => "personal.iban",
            Self::CnId => "personal.cn_id",
            Self::FrNir => "personal.fr_nir",
            Self::Card => "personal.card",
            Self::UsSsn => "personal.us_ssn",
            Self::BrCpf => "personal.br_cpf",
            Self::InAadhaar => "personal.in_aadhaar",
            Self::PlPesel => "personal.pl_pesel",
            Self::KrRrn => "personal.kr_rrn",
            Self::EsDni => "personal.es_dni",
            Self::ItCf => "personal.it_cf",
            Self::SgNric => "personal.sg_nric",
            Self::HkId => "personal.hk_id",
            Self::TwId => "personal.tw_id",
            Self::UkNino => "personal.uk_nino",
            Self::Phone => "personal.phone",
        }
    }
}

impl Judge for PersonalData {
    fn judge(&self, pattern: usize, view: &View, found: Range<usize>) -> Option<Range<usize>> {
        let kind = self.kinds[pattern];
        if kind > Kind::Email && !stands_alone(view, found.start) {
            return None;
        }
        let bytes = view.slice(found.clone());
        let length = length(kind, bytes, || announced(kind, view, found.start))?;
        Some(found.start..found.start + length)
    }
}

/// How much of the match is what it looks like; `None` if it is not.
fn length(kind: Kind, bytes: &[u8], announced: impl Fn() -> bool) -> Option<usize> {
    let digits = || bytes.iter().filter(|b| b.is_ascii_digit()).map(|b| b - b'0').collect::<Vec<u8>>();
    let holds = match kind {
        Kind::PrivateKey | Kind::Email | Kind::Jwt => true,
        Kind::ApiKey => bytes.iter().any(u8::is_ascii_digit) && bytes.iter().any(u8::is_ascii_alphabetic),
        Kind::Iban => return sums::iban(bytes),
        Kind::Card => return sums::card(bytes),
        Kind::CnId => sums::cn_id(bytes),
        Kind::FrNir => sums::fr_nir(bytes),
        Kind::UsSsn => sums::us_ssn(&digits()) && (bytes.len() > 9 || announced()),
        Kind::BrCpf => sums::br_cpf(&digits()),
        Kind::InAadhaar => sums::verhoeff(&digits()),
        Kind::PlPesel => sums::pl_pesel(&digits()) && announced(),
        Kind::KrRrn => sums::kr_rrn(&digits()),
        Kind::EsDni => sums::es_dni(bytes),
        Kind::ItCf => sums::it_cf(bytes),
        Kind::SgNric => sums::sg_nric(bytes),
        Kind::HkId => sums::hk_id(bytes),
        Kind::TwId => sums::tw_id(bytes),
        Kind::UkNino => sums::uk_nino(bytes),
        Kind::Phone => sums::phone(&digits()),
    };
    holds.then_some(bytes.len())
}

/// Whether the number is no fraction, no tail of a longer number or name, and no sum of money.
fn stands_alone(view: &View, start: usize) -> bool {
    let before = |n: usize| start.checked_sub(n).and_then(|offset| view.get(offset));
    match before(1) {
        Some(b'$') => false,
        Some(b'.' | b',' | b'-' | b'/' | b'+') => !before(2).is_some_and(|b| b.is_ascii_alphanumeric()),
        Some(b) => !b.is_ascii_alphanumeric() && b != b'_',
        None => true,
    }
}

/// Whether a word shortly before says what the number is.
fn announced(kind: Kind, view: &View, start: usize) -> bool {
    let words: &[&str] = match kind {
        Kind::UsSsn => &["ssn", "social security"],
        Kind::PlPesel => &["pesel"],
        _ => &[],
    };
    let before = view.slice(start.saturating_sub(40)..start).to_ascii_lowercase();
    words.iter().any(|word| before.windows(word.len()).any(|window| window == word.as_bytes()))
}

//! The sampling fields that chat and text completions share: ranges on the way in, neutral values left out on the way out.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use super::body::within;
use crate::openai::schema::shapes;
use crate::{Error, Sampling, Stop};

/// The most strings `stop` may hold.
const MAX_STOPS: usize = 16;
/// The longest of them, in bytes: the stop scanner holds back that much text.
const MAX_STOP_BYTES: usize = 1024;

/// The shared fields as they came.
#[derive(Debug, Default)]
pub(super) struct Knobs {
    pub(super) temperature: Option<f32>,
    pub(super) top_p: Option<f32>,
    pub(super) top_k: Option<i64>,
    pub(super) min_p: Option<f32>,
    pub(super) presence_penalty: Option<f32>,
    pub(super) frequency_penalty: Option<f32>,
    pub(super) repetition_penalty: Option<f32>,
    pub(super) logit_bias: Option<LogitBias>,
    pub(super) seed: Option<i64>,
    pub(super) stop: Option<StopStrings>,
    pub(super) ignore_eos: Option<bool>,
}

/// Moves the shared fields out of a wire type. They are declared flat in every wire type, because serde loses the path of
/// a mistake inside a flattened struct.
macro_rules! take_knobs {
    ($request:expr) => {
        $crate::openai::knobs::Knobs {
            temperature: $request.temperature,
            top_p: $request.top_p,
            top_k: $request.top_k,
            min_p: $request.min_p,
            presence_penalty: $request.presence_penalty,
            frequency_penalty: $request.frequency_penalty,
            repetition_penalty: $request.repetition_penalty,
            logit_bias: $request.logit_bias.take(),
            seed: $request.seed,
            stop: $request.stop.take(),
            ignore_eos: $request.ignore_eos,
        }
    };
}
pub(super) use take_knobs;

impl Knobs {
    /// The sampling settings and the stop conditions (without the token limit), or the field that is out of range.
    pub(super) fn check(self) -> Result<(Sampling, Stop), Error> {
        let stop = Stop {
            max_tokens: None,
            strings: self.stop.map(StopStrings::check).transpose()?.unwrap_or_default(),
            ignore_eos: self.ignore_eos.unwrap_or(false),
        };
        let or = |value: Result<Option<f32>, Error>, default: f32| value.map(|v| v.unwrap_or(default));
        let sampling = Sampling {
            temperature: or(within("temperature", self.temperature, 0.0, 2.0), 1.0)?,
            top_k: top_k(self.top_k)?,
            top_p: or(within("top_p", self.top_p, 0.0, 1.0), 1.0)?,
            min_p: or(within("min_p", self.min_p, 0.0, 1.0), 0.0)?,
            presence_penalty: or(within("presence_penalty", self.presence_penalty, -2.0, 2.0), 0.0)?,
            frequency_penalty: or(within("frequency_penalty", self.frequency_penalty, -2.0, 2.0), 0.0)?,
            repetition_penalty: repetition(self.repetition_penalty)?,
            logit_bias: self.logit_bias.map(LogitBias::check).transpose()?.unwrap_or_default(),
            // The whole range of the wire's signed number is a seed.
            seed: self.seed.map(i64::cast_unsigned),
        };
        Ok((sampling, stop))
    }

    /// The fields that give these settings, neutral ones left out.
    pub(super) fn show(sampling: &Sampling, stop: &Stop) -> Self {
        let neutral = Sampling::default();
        let unless = |value: f32, neutral: f32| (value.to_bits() != neutral.to_bits()).then_some(value);
        Self {
            temperature: unless(sampling.temperature, neutral.temperature),
            top_p: unless(sampling.top_p, neutral.top_p),
            top_k: (sampling.top_k > 0).then(|| i64::try_from(sampling.top_k).unwrap_or(i64::MAX)),
            min_p: unless(sampling.min_p, neutral.min_p),
            presence_penalty: unless(sampling.presence_penalty, neutral.presence_penalty),
            frequency_penalty: unless(sampling.frequency_penalty, neutral.frequency_penalty),
            repetition_penalty: unless(sampling.repetition_penalty, neutral.repetition_penalty),
            logit_bias: LogitBias::show(&sampling.logit_bias),
            seed: sampling.seed.map(u64::cast_signed),
            stop: (!stop.strings.is_empty()).then(|| StopStrings(stop.strings.clone())),
            ignore_eos: stop.ignore_eos.then_some(true),
        }
    }
}

fn top_k(value: Option<i64>) -> Result<usize, Error> {
    match value {
        None | Some(-1) => Ok(0),
        Some(k) => usize::try_from(k).map_err(|_| {
            Error::invalid("top_k", format!("`top_k` is {k}, but must be 1 or more, or 0 or -1 to keep all tokens."))
        }),
    }
}

fn repetition(value: Option<f32>) -> Result<f32, Error> {
    match value {
        None => Ok(1.0),
        Some(v) if v > 0.0 && v <= 10.0 => Ok(v),
        Some(v) => {
            let message = format!("`repetition_penalty` is {v}, but must be above 0 and at most 10.");
            Err(Error::invalid("repetition_penalty", message))
        }
    }
}

/// `logit_bias`: token ids (as strings, JSON has no other keys) to a bias.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct LogitBias(pub BTreeMap<String, f32>);

impl LogitBias {
    fn check(self) -> Result<BTreeMap<u32, f32>, Error> {
        let entry = |(key, bias): (String, f32)| {
            let place = format!("logit_bias.{key}");
            let id = key.parse().map_err(|_| {
                Error::invalid(&*place, format!("`{place}`: the key must be a token id, such as \"50256\"."))
            })?;
            within(&place, Some(bias), -100.0, 100.0)?;
            Ok((id, bias))
        };
        self.0.into_iter().map(entry).collect()
    }

    fn show(bias: &BTreeMap<u32, f32>) -> Option<Self> {
        (!bias.is_empty()).then(|| Self(bias.iter().map(|(id, b)| (id.to_string(), *b)).collect()))
    }
}

/// `stop`: one string or several.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StopStrings(pub Vec<String>);

impl StopStrings {
    fn check(self) -> Result<Vec<String>, Error> {
        if self.0.len() > MAX_STOPS {
            let message = format!("`stop` has {} strings; at most {MAX_STOPS} are watched for.", self.0.len());
            return Err(Error::invalid("stop", message));
        }
        match self.0.iter().position(|s| s.is_empty() || s.len() > MAX_STOP_BYTES) {
            None => Ok(self.0),
            Some(i) => {
                let message = format!("`stop[{i}]` must have between 1 and {MAX_STOP_BYTES} bytes.");
                Err(Error::invalid(format!("stop[{i}]"), message))
            }
        }
    }
}

shapes!(StopStrings, "StopStrings": String, Vec<String>);

impl Serialize for StopStrings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.serialize_str(one),
            several => serializer.collect_seq(several),
        }
    }
}

impl<'de> Deserialize<'de> for StopStrings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StopVisitor)
    }
}

struct StopVisitor;

impl<'de> Visitor<'de> for StopVisitor {
    type Value = StopStrings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of strings")
    }

    fn visit_str<E>(self, text: &str) -> Result<StopStrings, E> {
        Ok(StopStrings(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<StopStrings, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(seq)).map(StopStrings)
    }
}

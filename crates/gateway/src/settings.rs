//! `tessera.toml`: read whole or refused, with the key and the line of every mistake.
//!
//! The types in `sections` are the one description: serde reads them, schemars makes the JSON schema of them, and that
//! schema's descriptions are the comments of `config init`, of `config show` and of `docs/configuration.md`. `unit` holds
//! values that carry their unit, `written` lays settings out as a file, `live` watches the file and swaps what changed, and
//! `litellm` turns a LiteLLM proxy's configuration into ours.

mod check;
mod litellm;
mod live;
mod sections;
mod unit;
mod written;

use std::{fmt, io, path::Path};

use schemars::Schema;
use sha2::{Digest, Sha256};

pub use litellm::{Imported, import};
pub use live::{InForce, Live, Refused, Watch};
pub use sections::*;
pub use unit::{Money, Secret, Size, Span};
pub use written::{Key, Section};

/// The file's usual name.
pub const FILE: &str = "tessera.toml";

/// Why settings are refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}; `tessera config init` writes one")]
    Read {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// Its text has mistakes.
    #[error("{}", listed(path, mistakes))]
    Mistakes {
        /// The file.
        path: String,
        /// All that were found.
        mistakes: Vec<Mistake>,
    },
}

/// A mistake in a settings file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1; 0 where there is none, because something is missing.
    pub line: usize,
    /// What is wrong, with the key.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.message),
            line => write!(f, "line {line}: {}", self.message),
        }
    }
}

fn listed(path: &str, mistakes: &[Mistake]) -> String {
    mistakes.iter().map(|mistake| format!("{path}: {mistake}")).collect::<Vec<_>>().join("\n")
}

impl Settings {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let shown = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(|mistakes| SettingsError::Mistakes { path: shown, mistakes }),
            Err(source) => Err(SettingsError::Read { path: shown, source }),
        }
    }

    /// Reads a file's text: TOML, keys and types first, then what the values mean together.
    pub fn parse(text: &str) -> Result<Self, Vec<Mistake>> {
        let settings: Self = toml::from_str(text).map_err(|error| vec![misfit(text, &error)])?;
        let wrong = check::check(&settings);
        if wrong.is_empty() { Ok(settings) } else { Err(check::placed(text, wrong)) }
    }

    /// Names these settings: half of the SHA-256 of what `config show --json` prints, in hex.
    pub fn digest(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        Sha256::digest(&text)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The JSON schema of the file.
    pub fn schema() -> Schema {
        schemars::schema_for!(Self)
    }
}

fn misfit(text: &str, error: &toml::de::Error) -> Mistake {
    let line = error.span().map_or(0, |span| line_at(text, span.start));
    Mistake { line, message: error.message().to_owned() }
}

/// The line of a byte, from 1.
fn line_at(text: &str, byte: usize) -> usize {
    text.bytes().take(byte).filter(|&b| b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        Settings::parse(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_is_the_default() {
        assert_eq!(Settings::parse("").unwrap(), Settings::default());
    }

    #[test]
    fn every_mistake_has_its_line() {
        let check = |text: &str, line: &str, word: &str| {
            let found = mistakes(text).join("; ");
            assert!(found.contains(line) && found.contains(word), "{text}: {found}");
        };
        check("[server]\nlisten = 1", "line 2", "expected a string");
        check("[server]\n\nlisten_on = \"x\"", "line 3", "listen_on");
        check("[servr]\n", "line 1", "servr");
        check("[server]\nmax_body = \"8 parsecs\"", "line 2", "not a size");
        check("[server]\nlisten = \"8080\"", "line 2", "host:port");
        check("[server.tls]\ncertificate = \"a.pem\"", "line 1", "server.tls.key");
        check("[tenants.acme]\nbudget = \"1,5\"", "line 2", "amount");
        check("[[upstreams]]\nname = \"a\"\nurl = \"ftp://x\"\nmodels = { m = \"m\" }", "line 3", "http");
        check("[[upstreams]]\nname = \"a\"\nurl = \"http://x\"", "line 1", "models");
        check(
            "[[upstreams]]\nname=\"a\"\nurl=\"http://x\"\nmodels={m=\"m\"}\nkey=\"${TESSERA_NO_SUCH}\"",
            "line 5",
            "TESSERA_NO_SUCH",
        );
        check("[[workers]]\nurl = \"http://x\"", "line 1", "secret");
        check("[[routes]]\nmodel = \"m\"", "line 1", "targets");
        check("[[rollouts]]\nmodel = \"m\"\nversions = { a = 0 }", "line 3", "weight");
        check("[[rollouts]]\nversions = { a = 1 }", "line 1", "model");
        check(
            "[[routes]]\nmodel = \"m\"\ntargets = [\"a\"]\n[[rollouts]]\nmodel = \"m\"\nversions = { a = 1 }",
            "line 5",
            "another rollout",
        );
        check("[[rollouts]]\nmodel = \"m\"\nversions = { a = 1 }\nshadow_share = 2.0", "line 4", "between 0 and 1");
        let cascade = "[[cascades]]\nmodel = \"m\"\nstudent = \"a\"\nteacher = \"b\"\n";
        check(cascade, "line 1", "calibration");
        check(&format!("{cascade}threshold = 0.5\ncalibration = \"c.json\""), "line 5", "beside");
        check(&format!("{cascade}threshold = 1.5"), "line 5", "between 0 and 1");
        check("[[cascades]]\nmodel = \"m\"\nstudent = \"a\"\nteacher = \"a\"\nthreshold = 0.5", "line 3", "twice");
        check("[[cascades]]\nmodel = \"m\"\nstudent = \"a\"\nthreshold = 0.5", "line 1", "teacher");
        check(
            &format!("[[rollouts]]\nmodel = \"m\"\nversions = {{ a = 1 }}\n{cascade}threshold = 0.5"),
            "line 5",
            "another cascade",
        );
        let rollout = "[[rollouts]]\nmodel = \"m\"\nversions = { a = 1 }\ncanary = ";
        check(&format!("{rollout}\"a\""), "line 4", "one of the versions");
        check(&format!("{rollout}\"b\"\nsteps = [1, 1, 100]"), "line 5", "grow");
        check(&format!("{rollout}\"b\"\nsteps = [0, 100]"), "line 5", "grow");
        check(&format!("{rollout}\"b\"\nsteps = [1, 50]"), "line 5", "100");
        check("[[conversions]]\nshare = \"0.02\"", "line 1", "name");
        check("[[conversions]]\nname = \"order\"", "line 1", "one of them");
        check("[[conversions]]\nname = \"order\"\nshare = \"0.02\"\namount = \"1.00\"", "line 3", "one of them");
        check("[[conversions]]\nname = \"order\"\nshare = \"1.5\"", "line 3", "at most 1");
        check("[[conversions]]\nname = \"order\"\nshare = \"0.0000001\"", "line 3", "six places");
        check("[[conversions]]\nname = \"order\"\namount = \"9000.01\"", "line 3", "9000.00");
        let rollout = "[[rollouts]]\nmodel = \"m\"\nversions = { a = 1 }\n";
        let circle = |name: &str, of: &str| {
            format!("{rollout}[[loops]]\nname = \"{name}\"\nrollout = \"{of}\"\nteacher = \"t\"\nbase = \"b\"\n")
        };
        check(&circle("a b", "m"), "line 5", "letters, digits");
        check(&circle("a", "n"), "line 6", "no [[rollouts]]");
        check(&(circle("a", "m") + "risk = 7.0"), "line 9", "between 0 and 1");
        check(&(circle("a", "m") + "student_width = 64"), "line 9", "without student_layers");
        check("[models]\nstudents = [\"a\", \"../b\"]", "line 2", "models.students.1 is `../b`");
        check("[models]\nstudents = [\"a\", \"a\"]", "line 2", "before");
        check(&format!("{rollout}[[loops]]\nname = \"a\"\nrollout = \"m\"\nbase = \"b\""), "line 4", "teacher");
        check("[tracing]\nsample = 2.0", "line 2", "between 0 and 1");
        check("[auth.oidc]\nissuer = \"https://i\"", "line 1", "roles");
        check("[ledger]\ncurrency = \"euro\"", "line 2", "three letters");
        check("[server\n", "line 1", "");
    }

    #[test]
    fn all_mistakes_of_meaning_are_found_at_once() {
        assert_eq!(mistakes("[server]\nlisten = \"x\"\n[tracing]\nsample = -1.0").len(), 2);
    }

    #[test]
    fn the_digest_follows_the_meaning_and_not_the_text() {
        let digest = |text: &str| Settings::parse(text).unwrap().digest();
        assert_eq!(digest(""), digest("# a comment\n[server]\nmax_body = \"8192KiB\"\n"));
        assert_ne!(digest(""), digest("[server]\nmax_body = \"9MiB\"\n"));
        assert_eq!(digest("").len(), 32);
    }

    #[test]
    fn the_schema_knows_every_section_and_refuses_others() {
        let schema = Settings::schema();
        let schema = schema.as_value();
        assert_eq!(schema["additionalProperties"], false);
        for section in ["server", "models", "auth", "limits", "tenants", "prices", "ledger", "upstreams", "tracing"] {
            assert!(schema["properties"][section].is_object(), "{section}");
        }
    }
}

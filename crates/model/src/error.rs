//! To be written.
/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

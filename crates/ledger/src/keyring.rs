//! The two secrets of a ledger, in one file that lies apart from it: the key that signs checkpoints, and the key that wraps the keys of people.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chacha20poly1305::{Key, KeyInit as _, XChaCha20Poly1305};

use crate::{Error, Result, note::Signer};

/// The secrets.
#[derive(Clone)]
pub(crate) struct Keyring {
    pub(crate) signer: Signer,
    pub(crate) wrap: XChaCha20Poly1305,
}

const HEAD: &str = "# Secrets of a Tessera ledger. Whoever has this file can sign the log and read its contents; without it contents\n\
                    # are lost and nothing new can be signed. Keep a copy of it, apart from copies of the database.\n";

impl Keyring {
    /// Reads the file, or creates it for its owner alone.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => {
                let mode = fs::metadata(path).map_err(|error| Error::file(path, &error))?.permissions().mode();
                if mode & 0o077 != 0 {
                    return Err(Error::Settings(format!("{}: others can read it; chmod 600 it", path.display())));
                }
                Self::parse(&text)
                    .ok_or_else(|| Error::Settings(format!("{} holds no keys of a ledger", path.display())))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Self::create(path),
            Err(error) => Err(Error::file(path, &error)),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let signer = Signer::decode(value("sign ")?)?;
        let wrap: [u8; 32] = STANDARD.decode(value("wrap ")?).ok()?.try_into().ok()?;
        Some(Self { signer, wrap: XChaCha20Poly1305::new(&Key::from(wrap)) })
    }

    /// Written under another name first, so that whoever finds the file finds it whole; of two that create it at once, one wins and both use it.
    fn create(path: &Path) -> Result<Self> {
        let signer = Signer::new(&format!("tessera-{}", crate::note::hex(&rand::random::<[u8; 4]>())), &rand::random());
        let wrap = STANDARD.encode(rand::random::<[u8; 32]>());
        let text = format!("{HEAD}sign {}\nwrap {wrap}\n# public {}\n", signer.encode(), signer.verifier());
        let failed = |error| Error::file(path, &error);
        if let Some(directory) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let draft = path.with_extension(format!("draft-{}", crate::note::hex(&rand::random::<[u8; 4]>())));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(failed)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let linked = written.and_then(|()| fs::hard_link(&draft, path));
        fs::remove_file(&draft).map_err(failed)?;
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(failed(error)),
            _ => Self::open(path),
        }
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("public", self.signer.verifier()).finish_non_exhaustive()
    }
}

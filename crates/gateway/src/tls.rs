//! The listener's certificate. Its files are looked at now and then, so that a renewed certificate needs no restart; one that
//! cannot be read leaves the last good one in use.

use std::{fs, path::Path, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

use crate::settings;

/// Makes the provider of cryptography the process's own, for clients too; again is harmless.
pub(crate) fn install() {
    // An error means that there is one already.
    let _ = ring::default_provider().install_default();
}

/// A certificate that may be replaced while it is in use.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: settings::Tls,
    in_use: ArcSwap<CertifiedKey>,
    read: Mutex<Option<[SystemTime; 2]>>,
}

impl Certificate {
    /// Reads both files.
    pub(crate) fn load(files: settings::Tls) -> Result<Arc<Self>, String> {
        install();
        let read = Mutex::new(changed(&files));
        let in_use = ArcSwap::from_pointee(certified(&files)?);
        Ok(Arc::new(Self { files, in_use, read }))
    }

    /// What turns accepted sockets into TLS connections.
    pub(crate) fn acceptor(self: &Arc<Self>) -> TlsAcceptor {
        let config = ServerConfig::builder().with_no_client_auth();
        let mut config = config.with_cert_resolver(Arc::new(Resolver(self.clone())));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config).into()
    }

    /// Takes over files that changed.
    pub(crate) fn refresh(&self) {
        let now = changed(&self.files);
        let mut read = self.read.lock();
        if now == *read || now.is_none() {
            return;
        }
        *read = now;
        match certified(&self.files) {
            Ok(key) => {
                self.in_use.store(Arc::new(key));
                tracing::info!("the new certificate is in use");
            }
            Err(error) => tracing::error!(error, "the last certificate stays in use"),
        }
    }
}

fn changed(files: &settings::Tls) -> Option<[SystemTime; 2]> {
    let at = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    Some([at(&files.certificate)?, at(&files.key)?])
}

fn certified(files: &settings::Tls) -> Result<CertifiedKey, String> {
    let chain = CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| format!("{}: {error}", files.certificate.display()))?;
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", files.key.display());
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&error))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| wrong(&error))
}

#[derive(Debug)]
struct Resolver(Arc<Certificate>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.in_use.load_full())
    }
}

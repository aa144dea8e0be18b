//! Where the server listens: what may be bound, and with which certificate.
//!
//! Without keys anybody who reaches the port may use the models, and without TLS anybody on the way may read keys: an address
//! that another machine can reach is refused unless keys are demanded and the connection is private, or the owner says in the
//! settings that something in front of the server makes it so.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::net::{TcpListener, lookup_host};

use crate::{settings, tls::Certificate};

/// Why the server does not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not an address.
    #[error("`{address}` is not an address to listen on ({source}): write host:port, such as 127.0.0.1:8080")]
    Address {
        /// What was asked for.
        address: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// Other machines could reach the address, and nothing protects it.
    #[error("refusing to listen on {address}, which other machines can reach: {missing}")]
    Exposed {
        /// What was asked for.
        address: SocketAddr,
        /// What it would take.
        missing: &'static str,
    },
    /// The certificate cannot be used.
    #[error("no TLS: {0}")]
    Tls(String),
    /// The address cannot be bound.
    #[error(
        "cannot listen on {address}: {source}; stop what holds the port, or choose another (port 0 takes a free one)"
    )]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// What protects a listener.
#[derive(Debug, Clone, Default)]
pub struct Protection {
    /// Keys are demanded of callers.
    pub keys: bool,
    /// The certificate's files; empty means plain HTTP.
    pub tls: settings::Tls,
    /// Plain HTTP is private enough, the owner says.
    pub plain_remote: bool,
}

impl Protection {
    /// What is missing before other machines may connect.
    fn missing(&self) -> Option<&'static str> {
        let private = self.plain_remote || !self.tls.certificate.as_os_str().is_empty();
        match (self.keys, private) {
            (false, _) => Some(
                "nobody is asked for a key; make one first (`tessera keys create`), or use 127.0.0.1 and a tunnel (ssh -L)",
            ),
            (_, false) => Some(
                "keys would cross the network in the clear; set server.tls, or server.plain_remote = true behind a proxy \
                 that speaks TLS",
            ),
            _ => None,
        }
    }
}

/// A bound socket, ready for [`crate::serve`].
#[derive(Debug)]
pub struct Listener {
    pub(crate) socket: TcpListener,
    address: SocketAddr,
    pub(crate) certificate: Option<Arc<Certificate>>,
}

impl Listener {
    /// The address in use, with the port the system chose for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// `https` with a certificate, else `http`.
    pub fn scheme(&self) -> &'static str {
        if self.certificate.is_some() { "https" } else { "http" }
    }
}

/// Binds `address` (`host:port`; port 0 takes a free one) with nothing to protect it, so every address the name stands for
/// must be this machine's own.
pub async fn bind(address: &str) -> Result<Listener, Error> {
    bind_protected(address, &Protection::default()).await
}

/// Binds `address`; one that other machines reach only with enough protection.
pub async fn bind_protected(address: &str, protection: &Protection) -> Result<Listener, Error> {
    let resolved = resolve(address).await.map_err(|source| Error::Address { address: address.to_owned(), source })?;
    let first = resolved[0];
    let outside = resolved.iter().find(|a| !a.ip().to_canonical().is_loopback());
    if let (Some(&address), Some(missing)) = (outside, protection.missing()) {
        return Err(Error::Exposed { address, missing });
    }
    let certificate = certified(&protection.tls)?;
    let bound = |socket: TcpListener| socket.local_addr().map(|address| Listener { socket, address, certificate });
    let socket = TcpListener::bind(resolved.as_slice()).await.and_then(bound);
    socket.map_err(|source| Error::Bind { address: first, source })
}

fn certified(files: &settings::Tls) -> Result<Option<Arc<Certificate>>, Error> {
    if files.certificate.as_os_str().is_empty() {
        return Ok(None);
    }
    Certificate::load(files.clone()).map(Some).map_err(Error::Tls)
}

/// At least one address.
async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    let resolved: Vec<_> = lookup_host(address).await?.collect();
    if resolved.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(resolved)
}

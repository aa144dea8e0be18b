//! Where the server listens: what may be bound, TLS, every accepted socket without Nagle's delay.
//!
//! Without keys anybody who reaches the port may use the models, and without TLS anybody on the way may read keys: an address
//! that another machine can reach is refused unless keys are demanded and the connection is private, or the owner says in the
//! settings that something in front of the server makes it so. A token stream is many small writes, so each of them must
//! leave at once: TCP_NODELAY is set by the only type `serve` takes, not left to the caller.

use std::{io, net::SocketAddr, pin::Pin, sync::Arc, task, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, lookup_host},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{settings, tls::Certificate};

/// How long a client may take to agree on a key.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at the same time; further connections wait in the system's queue.
const HANDSHAKES: usize = 256;

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
    /// The server broke while running.
    #[error("the server stopped: {0}")]
    Serve(#[from] io::Error),
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

/// A TLS connection that is being opened; `None` if it failed.
type Handshake = BoxFuture<'static, Option<(TlsStream<TcpStream>, SocketAddr)>>;

/// A bound socket, ready for [`crate::serve`].
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
}

struct Tls {
    certificate: Arc<Certificate>,
    acceptor: TlsAcceptor,
    handshakes: FuturesUnordered<Handshake>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Listener {
    /// The address in use, with the port the system chose for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// `https` with a certificate, else `http`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    pub(crate) fn certificate(&self) -> Option<Arc<Certificate>> {
        self.tls.as_ref().map(|tls| tls.certificate.clone())
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
    let tls = secured(&protection.tls)?;
    let bound = |socket: TcpListener| socket.local_addr().map(|address| Listener { socket, address, tls });
    let socket = TcpListener::bind(resolved.as_slice()).await.and_then(bound);
    socket.map_err(|source| Error::Bind { address: first, source })
}

fn secured(files: &settings::Tls) -> Result<Option<Tls>, Error> {
    if files.certificate.as_os_str().is_empty() {
        return Ok(None);
    }
    let certificate = Certificate::load(files.clone()).map_err(Error::Tls)?;
    let acceptor = certificate.acceptor();
    Ok(Some(Tls { certificate, acceptor, handshakes: FuturesUnordered::new() }))
}

/// At least one address.
async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    let resolved: Vec<_> = lookup_host(address).await?.collect();
    if resolved.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(resolved)
}

/// An accepted connection.
#[derive(Debug)]
pub enum Connection {
    /// Plain HTTP.
    Plain(TcpStream),
    /// HTTPS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// The socket under it.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

async fn accept(socket: &mut TcpListener) -> (TcpStream, SocketAddr) {
    let (stream, peer) = axum::serve::Listener::accept(socket).await;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::warn!(%error, %peer, "cannot turn Nagle's delay off");
    }
    (stream, peer)
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    /// Handshakes go on side by side, so that a slow client keeps nobody waiting.
    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let Some(Tls { acceptor, handshakes, .. }) = &mut self.tls else {
            let (stream, peer) = accept(&mut self.socket).await;
            return (Connection::Plain(stream), peer);
        };
        loop {
            tokio::select! {
                (stream, peer) = accept(&mut self.socket), if handshakes.len() < HANDSHAKES => {
                    let agreed = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
                    handshakes.push(Box::pin(async move { agreed.await.ok()?.ok().map(|stream| (stream, peer)) }));
                }
                Some(Some((stream, peer))) = handshakes.next(), if !handshakes.is_empty() => {
                    return (Connection::Tls(Box::new(stream)), peer);
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> task::Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> task::Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> task::Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

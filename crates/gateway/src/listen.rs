//! Where the server listens: loopback only, every accepted socket without Nagle's delay.
//!
//! There are no API keys yet, so anybody who reaches the port may use the models: an address that another machine can
//! reach is refused. A token stream is many small writes, so each of them must leave at once: TCP_NODELAY is set by the
//! only type `serve` takes, not left to the caller.

use std::{io, net::SocketAddr};

use tokio::net::{TcpListener, TcpStream, lookup_host};

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
    /// Other machines could reach the address.
    #[error(
        "refusing to listen on {address}: there are no API keys yet, so only this machine may connect; \
         use 127.0.0.1 or [::1], and a tunnel (ssh -L) to reach it from elsewhere"
    )]
    NotLoopback {
        /// What was asked for.
        address: SocketAddr,
    },
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

/// A bound loopback socket, ready for [`crate::serve`].
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// The address in use, with the port the system chose for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// Binds `address` (`host:port`; port 0 takes a free one). Every address the name stands for must be loopback.
pub async fn bind(address: &str) -> Result<Listener, Error> {
    let resolved = resolve(address).await.map_err(|source| Error::Address { address: address.to_owned(), source })?;
    let first = resolved[0];
    if let Some(&outside) = resolved.iter().find(|a| !a.ip().to_canonical().is_loopback()) {
        return Err(Error::NotLoopback { address: outside });
    }
    let bound = |socket: TcpListener| socket.local_addr().map(|address| Listener { socket, address });
    let socket = TcpListener::bind(resolved.as_slice()).await.and_then(bound);
    socket.map_err(|source| Error::Bind { address: first, source })
}

/// At least one address.
async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    let resolved: Vec<_> = lookup_host(address).await?.collect();
    if resolved.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(resolved)
}

impl axum::serve::Listener for Listener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, peer) = axum::serve::Listener::accept(&mut self.socket).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::warn!(%error, %peer, "cannot turn Nagle's delay off");
        }
        (stream, peer)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

//! A plain Mainline node in server mode: what a closed network without internet meets at.
//!
//! Invariants:
//! - It serves anyone and knows nothing of networks of ours: to it a slot is a value like any other.
//! - Nothing is kept on disk. After a restart the nodes' next renewals fill it again.
//! - It never asks the public DHT: without a bootstrap node it is the first of a DHT of its own.
//!
//! Source: BEP 5, BEP 42, BEP 44, as mainline implements them.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
};

use mainline::{Dht, async_dht::AsyncDht};

use crate::client::resolve;

/// How a DHT node runs.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where it listens. Mainline speaks IPv4 alone.
    pub listen: SocketAddrV4,
    /// Nodes to join by, `host:port`. None: it is the first.
    pub bootstrap: Vec<String>,
    /// The address under which others see it, where that is public: its id follows from it (BEP 42).
    pub public_ip: Option<Ipv4Addr>,
}

/// Why a DHT node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Somebody else listens there. Choose another port, or stop them.
    #[error(
        "UDP {0} is in use: another DHT node or BitTorrent client runs here, or choose another port"
    )]
    PortInUse(SocketAddrV4),
    /// The system doesn't let it listen there.
    #[error("cannot listen on UDP {listen}")]
    Bind {
        /// Where.
        listen: SocketAddrV4,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// None of the nodes to join by has an address.
    #[error("no way into the DHT")]
    Bootstrap(#[source] io::Error),
}

/// A running DHT node. Stops when it is dropped.
#[derive(Debug)]
pub struct Server {
    dht: AsyncDht,
    address: SocketAddrV4,
}

impl Server {
    /// Starts it. Returns when it listens; it joins from then on, and tries again while nobody answers.
    ///
    /// # Errors
    ///
    /// [`ServerError`].
    pub async fn start(config: ServerConfig) -> Result<Self, ServerError> {
        let listen = config.listen;
        let cannot_listen = move |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ServerError::PortInUse(listen),
            _ => ServerError::Bind { listen, source },
        };
        // Names are looked up, and mainline waits for its thread.
        let built = tokio::task::spawn_blocking(move || {
            let mut builder = Dht::builder();
            builder.server_mode().bind_address(*listen.ip()).port(listen.port());
            match config.bootstrap.as_slice() {
                [] => builder.no_bootstrap(),
                hosts => builder.bootstrap(&resolve(hosts).map_err(ServerError::Bootstrap)?),
            };
            if let Some(ip) = config.public_ip {
                builder.public_ip(ip);
            }
            // Tried here first, and given back: where mainline's thread can't bind it may be over before
            // it is asked how it went, and then mainline panics rather than say so.
            drop(UdpSocket::bind(listen).map_err(cannot_listen)?);
            builder.build().map_err(cannot_listen)
        });
        let dht = built.await.unwrap_or_else(|panicked| {
            Err(ServerError::Bind { listen, source: io::Error::other(panicked) })
        })?;
        let dht = dht.as_async();
        let address = dht.info().await.local_addr();
        Ok(Self { dht, address })
    }

    /// Where it listens, with the port that it got.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Nodes in its routing table.
    pub async fn known(&self) -> usize {
        self.dht.to_bootstrap().await.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn local(port: u16, bootstrap: Vec<String>) -> ServerConfig {
        let listen = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        ServerConfig { listen, bootstrap, public_ip: None }
    }

    #[tokio::test]
    async fn the_second_joins_by_the_first() {
        let first = Server::start(local(0, Vec::new())).await.expect("loopback is there");
        let bootstrap = vec![first.address().to_string()];
        let second = Server::start(local(0, bootstrap)).await.expect("loopback is there");
        let met = async {
            while first.known().await == 0 || second.known().await == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), met).await.expect("they meet");
    }

    #[tokio::test]
    async fn a_taken_port_and_a_name_without_an_address_are_told_apart() {
        let first = Server::start(local(0, Vec::new())).await.expect("loopback is there");
        let again = Server::start(local(first.address().port(), Vec::new())).await;
        assert!(matches!(again, Err(ServerError::PortInUse(at)) if at == first.address()));
        let nowhere = Server::start(local(0, vec!["no-such-host.invalid:6881".into()])).await;
        assert!(matches!(nowhere, Err(ServerError::Bootstrap(_))));
    }
}

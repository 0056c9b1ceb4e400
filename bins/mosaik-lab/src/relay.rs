//! An iroh relay in this process: plain HTTP on 127.0.0.1.

use anyhow::{Context, Result};
use iroh_relay::server::{RelayConfig, Server, ServerConfig};

/// The relay; it stops when it is dropped.
#[derive(Debug)]
pub struct LocalRelay {
    // Held, not used: the server ends with it.
    _server: Server,
    url: String,
}

impl LocalRelay {
    /// Starts it on a free port.
    ///
    /// # Errors
    ///
    /// If a socket can't be had.
    pub async fn start() -> Result<Self> {
        let mut config = ServerConfig::default();
        config.relay = Some(RelayConfig::new(([127, 0, 0, 1], 0)));
        let server = Server::spawn(config).await.context("cannot start a local relay")?;
        let address = server.http_addr().context("the local relay has no address")?;
        Ok(Self { _server: server, url: format!("http://{address}/") })
    }

    /// What `--relay` takes.
    pub fn url(&self) -> &str {
        &self.url
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn the_relay_answers_plain_http_at_its_url() {
        let relay = LocalRelay::start().await.expect("loopback is there");
        let address = relay.url().trim_start_matches("http://").trim_end_matches('/');
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
        stream.write_all(b"GET /ping HTTP/1.0\r\n\r\n").await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        assert!(answer.starts_with("HTTP/1.") && answer.contains("200 OK"), "{answer}");
    }
}

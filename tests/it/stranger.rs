//! A peer that is no node: an iroh endpoint that says what it is told to.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, anyhow, bail, ensure};
use iroh::{
    Endpoint, EndpointAddr, EndpointId, RelayMode, SecretKey,
    endpoint::{Connection, ConnectionError, PortmapperConfig, RecvStream, SendStream, presets},
};
use mosaik_lab::Node;
use tokio::time::timeout;

use crate::wire::{Keys, bytes, varint};

/// How long any one step may take.
pub(crate) const STEP: Duration = Duration::from_secs(60);

/// What a node speaks.
pub(crate) const ALPN: &[u8] = b"mosaik-node/sync/1";

/// What a `Greet` says of the program.
pub(crate) const APP: &str = "mosaik-node/sync";

/// How a connection was closed from the other end: code and text.
pub(crate) type Closed = (u64, String);

/// An endpoint on loopback that listens for one protocol.
pub(crate) async fn endpoint(alpn: &[u8]) -> Result<Endpoint> {
    Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&rand::random()))
        .alpns(vec![alpn.to_vec()])
        .relay_mode(RelayMode::Disabled)
        .portmapper_config(PortmapperConfig::Disabled)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .context("an address")?
        .bind()
        .await
        .context("an endpoint on loopback")
}

/// Where a node is reached.
pub(crate) async fn place_of(node: &Node) -> Result<EndpointAddr> {
    let identity = node.identity().await?;
    let mut place = EndpointAddr::new(identity.node.parse::<EndpointId>()?);
    for address in &identity.addresses {
        place = place.with_ip_addr(address.parse::<SocketAddr>()?);
    }
    Ok(place)
}

/// How the node ends a connection.
pub(crate) async fn closed(connection: &Connection) -> Result<Closed> {
    match timeout(STEP, connection.closed()).await.context("the connection stays open")? {
        ConnectionError::ApplicationClosed(close) => {
            let text = String::from_utf8_lossy(&close.reason).into_owned();
            Ok((close.error_code.into(), text))
        }
        other => bail!("it ended otherwise: {other}"),
    }
}

/// What a `Greet` says.
#[derive(Debug, Clone)]
pub(crate) struct Greet {
    pub(crate) app: &'static str,
    pub(crate) versions: (u64, u64),
    pub(crate) proof: [u8; 32],
}

impl Greet {
    pub(crate) fn body(&self) -> Vec<u8> {
        let (lowest, highest) = self.versions;
        let app = bytes(self.app.as_bytes());
        [&app[..], &varint(lowest), &varint(highest), &self.proof].concat()
    }
}

/// A stream that a stranger has opened to a node.
pub(crate) struct Stranger {
    /// It lives as long as its streams.
    endpoint: Endpoint,
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    recv: RecvStream,
}

impl Stranger {
    pub(crate) async fn dial(place: &EndpointAddr) -> Result<Self> {
        let endpoint = endpoint(ALPN).await?;
        let dialing = endpoint.connect(place.clone(), ALPN);
        let connection = timeout(STEP, dialing).await.context("the dial")??;
        let (send, recv) = connection.open_bi().await?;
        Ok(Self { endpoint, connection, send, recv })
    }

    /// Its id, as the node shows it.
    pub(crate) fn id(&self) -> String {
        self.endpoint.id().to_string()
    }

    /// What proves to the node that this end is in the network, on this connection.
    pub(crate) fn proof(&self, keys: &Keys) -> Result<[u8; 32]> {
        let (own, other) = (self.endpoint.id(), self.connection.remote_id());
        self.proof_of(keys, own.as_bytes(), other.as_bytes())
    }

    fn proof_of(&self, keys: &Keys, sender: &[u8], receiver: &[u8]) -> Result<[u8; 32]> {
        let mut binding = [0; 32];
        let exported = self.connection.export_keying_material(&mut binding, ALPN, b"");
        exported.map_err(|error| anyhow!("no binding: {error:?}"))?;
        let proven = [&binding[..], sender, receiver].concat();
        Ok(*blake3::keyed_hash(&keys.membership, &proven).as_bytes())
    }

    pub(crate) async fn send(&mut self, kind: u8, body: &[u8]) -> Result<()> {
        let len = u32::try_from(body.len() + 1)?;
        self.send_raw(&[&len.to_be_bytes()[..], &[kind], body].concat()).await
    }

    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.send.write_all(bytes).await?)
    }

    /// The next frame: type and body.
    pub(crate) async fn frame(&mut self) -> Result<(u8, Vec<u8>)> {
        let reading = async {
            let mut len = [0; 4];
            self.recv.read_exact(&mut len).await.context("no frame any more")?;
            let mut frame = vec![0; u32::from_be_bytes(len) as usize];
            self.recv.read_exact(&mut frame).await.context("half a frame")?;
            Ok((frame[0], frame.split_off(1)))
        };
        timeout(STEP, reading).await.context("no frame in time")?
    }

    /// Passes over frames until one of this type comes.
    pub(crate) async fn frame_of(&mut self, wanted: u8) -> Result<Vec<u8>> {
        loop {
            match self.frame().await? {
                (kind, body) if kind == wanted => return Ok(body),
                (14, body) => bail!("the node said goodbye: {:?}", String::from_utf8_lossy(&body)),
                _ => {}
            }
        }
    }

    /// Goes through the whole greeting as a node of this network would, and holds the other end's
    /// proof against what it must be.
    pub(crate) async fn open(place: &EndpointAddr, keys: &Keys) -> Result<Self> {
        let mut peer = Self::dial(place).await?;
        let greet = Greet { app: APP, versions: (1, 1), proof: peer.proof(keys)? };
        peer.send(1, &greet.body()).await?;
        let (own, other) = (peer.endpoint.id(), peer.connection.remote_id());
        let proof = peer.proof_of(keys, other.as_bytes(), own.as_bytes())?;
        let theirs = Greet { proof, ..greet };
        ensure!(peer.frame_of(1).await? == theirs.body(), "its greeting is another");
        peer.frame_of(2).await?;
        let hello = [
            &bytes(b"stranger")[..],
            &varint(0),
            &varint(1 << 20),
            &varint(1 << 20),
            &varint(0),
            &bytes(b"stranger"),
            &varint(1),
            // Topmost hash, authors, events, digest of declines, tags: nothing here, nothing declined.
            &[0; 16],
            &[0, 0],
            &[0; 16],
            &[0],
        ];
        peer.send(2, &hello.concat()).await?;
        // Done, of all: there is nothing to compare.
        peer.send(7, &[0]).await?;
        peer.is_served().await?;
        Ok(peer)
    }

    /// A comparison still gets its answer: so what was sent before it was taken, and ended nothing.
    pub(crate) async fn is_served(&mut self) -> Result<()> {
        self.send(3, &[0xee; 16]).await?;
        self.frame_of(3).await.context("the session is over")?;
        self.send(7, &[0]).await
    }

    /// How the node ends this session. Keeps the connection until then.
    pub(crate) async fn closed(&mut self) -> Result<Closed> {
        closed(&self.connection).await
    }
}

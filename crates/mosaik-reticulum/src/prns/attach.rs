//! Makes the interfaces that the configuration names.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use personal_rns::{
    PrnsNodeHandle,
    interfaces::{
        BitrateBps, InterfaceId, InterfaceKind, ReportsStatus, StatusView, serial, tcp, udp,
    },
    kiss::KissInterface,
    manifold::{interface_seam::Interface as Attached, reconnect::ReconnectPolicy},
    pipe::{PipeInterface, PipeRespawnDelay, spawn},
    serial::{SerialInterface, open_host_serial},
    tcp::{TcpClientInterface, TcpServerConnection},
    udp::UdpInterface,
};
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use super::{
    Event, Place, PrnsConfig, StartError,
    ceiling::Account,
    gate::Gate,
    rnsd::Rnsd,
    tap::{Lookout, Tapped},
};
use crate::{stack::Interface, via::Via};

/// How long a program that ended is left alone before it is started again.
const RESPAWN_S: u64 = 5;

/// How long accepting pauses after a failure that isn't the peer's: no descriptors left, say.
const ACCEPT_PAUSE_MS: u64 = 200;

/// Why an interface can't be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// No way is named.
    #[error("no way into Reticulum is named: add one, like --rns rnsd")]
    None,
    /// More than an interface's number can tell.
    #[error("more than {} ways into Reticulum are named", u16::MAX)]
    TooMany,
    /// A socket isn't free, or isn't of this machine.
    #[error("cannot listen on {address} for Reticulum: choose another address or port")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A device isn't there, or belongs to others.
    #[error("cannot open {} for Reticulum: connect it, or name the device that it has now", device.display())]
    Device {
        /// Which.
        device: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// An interface of the configuration, in the stack.
pub(super) struct Known {
    pub(super) interface: Interface,
    pub(super) name: String,
    pub(super) bitrate: Option<u32>,
    /// Its place; none for a listening socket, whose connections have places.
    pub(super) id: Option<InterfaceId>,
    /// Whether it is online; none for a listening socket, which always is.
    pub(super) view: Option<StatusView>,
    /// What its frames are held against.
    pub(super) gate: Arc<Gate>,
}

/// Makes all interfaces that the configuration names.
pub(super) async fn all(
    config: &PrnsConfig,
    handle: &PrnsNodeHandle,
    lookout: &Lookout,
) -> Result<Vec<Known>, StartError> {
    if config.ways.is_empty() {
        return Err(AttachError::None.into());
    }
    let mut known = Vec::new();
    for (index, way) in config.ways.iter().enumerate() {
        let interface = Interface(u16::try_from(index).map_err(|_| AttachError::TooMany)?);
        let account = way.ceiling.map(|ceiling| Account::new(ceiling, Instant::now()));
        let gate = Arc::new(Gate::new(account, Instant::now()));
        let add = Add { handle, lookout, interface, gate: &gate };
        let place = add.make(config, &way.via).await?;
        let (id, view) = place.map_or((None, None), |(id, view)| (Some(id), view));
        let (name, bitrate) = (way.via.to_string(), way.via.bitrate());
        known.push(Known { interface, name, bitrate, id, view, gate });
    }
    Ok(known)
}

/// How one interface comes into the stack.
struct Add<'a> {
    handle: &'a PrnsNodeHandle,
    lookout: &'a Lookout,
    interface: Interface,
    gate: &'a Arc<Gate>,
}

impl Add<'_> {
    async fn make(
        &self,
        config: &PrnsConfig,
        via: &Via,
    ) -> Result<Option<(InterfaceId, Option<StatusView>)>, StartError> {
        let tag = via.to_string();
        let tag = tag.as_bytes();
        Ok(Some(match via {
            Via::Rnsd => {
                let rnsd = Rnsd::of(config.rns_config.as_deref())?;
                rnsd.probe()?;
                self.one(rnsd.interface())
            }
            Via::Tcp { host, port } => {
                let target = match host.contains(':') {
                    true => format!("[{host}]:{port}"),
                    false => format!("{host}:{port}"),
                };
                self.one(TcpClientInterface::new(target))
            }
            Via::TcpListen(address) => {
                let listener = TcpListener::bind(address).await;
                let listener =
                    listener.map_err(|source| AttachError::Bind { address: *address, source })?;
                tokio::spawn(accept(listener, self.interface, self.lookout.clone()));
                return Ok(None);
            }
            Via::Udp { listen, peer } => {
                let bound = UdpInterface::bind(listen, peer, udp::UDP_BITRATE_ESTIMATE).await;
                self.one(bound.map_err(|source| AttachError::Bind { address: *listen, source })?)
            }
            Via::Serial { device, baud } => {
                let path = checked(device)?;
                let baud = *baud;
                let open = move || std::future::ready(open_host_serial(&path, baud));
                let bitrate = BitrateBps::new(baud.into()).unwrap_or(serial::SERIAL_BITRATE_BPS);
                let policy = serial::policy_for_bitrate(bitrate);
                self.one(SerialInterface::with_policy(open, ReconnectPolicy::STANDARD, policy, tag))
            }
            Via::Kiss { device, baud } => {
                let path = checked(device)?;
                let baud = *baud;
                let open = move || std::future::ready(open_host_serial(&path, baud));
                self.one(KissInterface::new(open, ReconnectPolicy::STANDARD, tag))
            }
            Via::Pipe { command } => {
                let command = command.clone();
                let open = move || {
                    let command = command.clone();
                    async move { spawn(&command).await }
                };
                let respawn = PipeRespawnDelay::new(Duration::from_secs(RESPAWN_S));
                self.one(PipeInterface::new(open, respawn, tag))
            }
        }))
    }

    fn one<I>(&self, made: I) -> (InterfaceId, Option<StatusView>)
    where
        I: Attached + ReportsStatus + Send + 'static,
    {
        let id = made.descriptor().id;
        let view = made.status_view();
        let place = Place { interface: self.interface, id };
        let (lookout, gate) = (self.lookout.clone(), Arc::clone(self.gate));
        self.handle.add_interface(Tapped::new(made, place, lookout, gate));
        (id, view)
    }
}

/// A connection that somebody made to a listening socket, as a part of that interface.
pub(super) fn member(
    handle: &PrnsNodeHandle,
    lookout: &Lookout,
    listening: &Known,
    stream: TcpStream,
    from: SocketAddr,
) -> Place {
    let interface = listening.interface;
    let tag = format!("{interface:?} {from}").into_bytes();
    let id = InterfaceId::from_channel_tag(InterfaceKind::TcpServerPeer, &tag);
    let connection = TcpServerConnection::new(tag, stream, tcp::TCP_BITRATE_ESTIMATE);
    Add { handle, lookout, interface, gate: &listening.gate }.one(connection);
    Place { interface, id }
}

/// Tells of all who connect. Whether there is room for them is decided there.
async fn accept(listener: TcpListener, interface: Interface, lookout: Lookout) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let _ = stream.set_nodelay(true);
                if lookout.events.send(Event::Accepted { interface, stream, from }).is_err() {
                    return;
                }
            }
            Err(error) => {
                warn!(%error, "a connection of Reticulum could not be accepted");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
    }
}

/// A device that is there now; one that goes is waited for.
fn checked(device: &Path) -> Result<String, AttachError> {
    let failed = |source| AttachError::Device { device: device.to_owned(), source };
    std::fs::metadata(device).map_err(failed)?;
    let path = device.to_str().map(str::to_owned);
    path.ok_or_else(|| failed(io::Error::new(io::ErrorKind::InvalidInput, "its name is no text")))
}

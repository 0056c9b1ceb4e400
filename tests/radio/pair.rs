//! Our stack and a Python peer with a connection between them.

use std::{
    net::{Ipv4Addr, TcpListener, UdpSocket},
    process,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result, bail};
use mosaik_reticulum::stack::{Interface, Peer, Report, Service};
use tempfile::TempDir;

use super::{
    ours::Ours,
    python::{ALONE, Python, SOON, configure, hash, hex, tcp_client, tcp_server},
    venv::Venv,
};

/// How long an announce is waited for before it is made again: the interface may just have come up.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(2);

pub(crate) struct Pair {
    pub(crate) ours: Ours,
    pub(crate) python: Python,
    /// Gone with the pair.
    pub(crate) _directory: TempDir,
}

/// Ports below those that the system gives to whoever asks for any.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port that is free and is given to nobody else here: whoever it is for may take seconds until it has it.
pub(crate) fn free_port() -> Result<u16> {
    static GIVEN: AtomicUsize = AtomicUsize::new(0);
    // Who runs these tests twice at once shouldn't get the same.
    let begun = process::id() as usize * 101;
    for _ in PORTS {
        let at = begun + GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + u16::try_from(at % PORTS.len())?;
        let place = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(place).is_ok() && UdpSocket::bind(place).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free");
}

impl Pair {
    /// We listen, Python connects.
    pub(crate) async fn we_listen(venv: &Venv) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let port = free_port()?;
        let way = format!("tcp-listen://127.0.0.1:{port}");
        let ours = Ours::start(&directory.path().join("ours"), &[&way])?;
        let python = directory.path().join("python");
        configure(&python, ALONE, &tcp_client(port))?;
        let python = Python::start(venv, &python).await?;
        Ok(Self { ours, python, _directory: directory })
    }

    /// Python listens, we connect.
    pub(crate) async fn python_listens(venv: &Venv) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let port = free_port()?;
        let python = directory.path().join("python");
        configure(&python, ALONE, &tcp_server(port))?;
        let python = Python::start(venv, &python).await?;
        let way = format!("tcp://127.0.0.1:{port}");
        let mut ours = Ours::start(&directory.path().join("ours"), &[&way])?;
        ours.online(true).await?;
        Ok(Self { ours, python, _directory: directory })
    }

    /// Python serves, announces, and is heard.
    pub(crate) async fn hear_python(&mut self, service: Service, prove: bool) -> Result<Peer> {
        self.python.serve(service, prove).await?;
        hear_python(&mut self.ours, &mut self.python, service, b"python").await?;
        Ok(self.python.peer)
    }

    /// We announce and are heard: returns the hash of our destination.
    pub(crate) async fn hear_ours(&mut self, service: Service) -> Result<String> {
        heard_by_python(&self.ours, &mut self.python, service, b"ours").await
    }
}

/// Lets Python announce until we hear it: its hops and its interface.
pub(crate) async fn hear_python(
    ours: &mut Ours,
    python: &mut Python,
    service: Service,
    app_data: &[u8],
) -> Result<(u8, Interface)> {
    let peer = python.peer;
    for _ in 0..SOON.as_secs() / AGAIN.as_secs() {
        python.announce(service, app_data).await?;
        if let Ok(heard) = heard(ours, peer, service, app_data).await {
            return Ok(heard);
        }
    }
    heard(ours, peer, service, app_data).await
}

/// Waits for an announce at our stack.
pub(crate) async fn heard(
    ours: &mut Ours,
    from: Peer,
    of: Service,
    said: &[u8],
) -> Result<(u8, Interface)> {
    ours.expect_within(AGAIN, "an announce", |report| match report {
        Report::Heard { service, peer, keys, app_data, hops, interface } => {
            let right = keys.peer() == *peer && *service == of && app_data == said;
            (right && *peer == from).then_some((*hops, *interface))
        }
        _ => None,
    })
    .await
}

/// Announces until Python hears it: returns the hash of our destination.
pub(crate) async fn heard_by_python(
    ours: &Ours,
    python: &mut Python,
    service: Service,
    app_data: &[u8],
) -> Result<String> {
    let (peer, app_data_hex) = (ours.peer(), hex(app_data));
    let mut last = None;
    for _ in 0..SOON.as_secs() / AGAIN.as_secs() {
        ours.announce(service, app_data);
        let heard = python.expect_within(AGAIN, "announce", |event| {
            hash(&event["identity"]).is_ok_and(|hash| hash == peer.0)
                && event["app_data"] == *app_data_hex
        });
        match heard.await {
            Ok(event) => return Ok(event["destination"].as_str().context("a hash")?.to_owned()),
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("there was time for one announce")?)
}

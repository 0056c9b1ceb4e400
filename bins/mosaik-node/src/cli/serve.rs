//! `serve`: the services that a closed network runs for itself. They need no network id and keep
//! nothing.

mod relay;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::Context;
use clap::Args;
use mosaik_api::SCHEMA;
use mosaik_dht::server::{Server, ServerConfig};
use serde_json::json;

pub(super) use self::relay::{RelayFlags, relay};
use super::{
    Failed,
    output::{note, print, print_json},
    run::{Signals, Wish},
};

/// How a DHT node runs.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct DhtFlags {
    /// The UDP address to listen on, IPv4
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:6881", value_parser = parse_listen)]
    listen: SocketAddrV4,
    /// Another DHT node to join by; without one this is the first
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Vec<String>,
    /// The address under which others see it, if that is a public one
    #[arg(long, value_name = "IP")]
    public_ip: Option<Ipv4Addr>,
}

/// Reads where to listen; the DHT has no IPv6.
fn parse_listen(text: &str) -> Result<SocketAddrV4, String> {
    match text.parse() {
        Ok(SocketAddr::V4(address)) => Ok(address),
        Ok(SocketAddr::V6(_)) => Err("the Mainline DHT speaks IPv4 alone".to_owned()),
        Err(_) => Err("give an IPv4 address and a port, as 0.0.0.0:6881".to_owned()),
    }
}

/// Runs a DHT node until a signal stops it.
#[tokio::main(flavor = "current_thread")]
pub(super) async fn dht(flags: DhtFlags, json: bool) -> Result<(), Failed> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let DhtFlags { listen, bootstrap, public_ip } = flags;
    let is_first = bootstrap.is_empty();
    let config = ServerConfig { listen, bootstrap: bootstrap.clone(), public_ip };
    let server = Server::start(config).await.map_err(anyhow::Error::new)?;
    let address = server.address();
    if json {
        print_json(&json!({
            "schema": SCHEMA,
            "dht": { "address": address.to_string(), "bootstrap": bootstrap },
        }))?;
    } else {
        let host = match address.ip() {
            ip if ip.is_unspecified() => "HOST".to_owned(),
            ip => ip.to_string(),
        };
        print(format!("dht        {address}, {}", if is_first { "the first" } else { "joining" }))?;
        note(format!("nodes use it with --dht-bootstrap {host}:{}", address.port()));
    }
    while !matches!(signals.next().await, Wish::Stop) {}
    note("stopped");
    Ok(())
}

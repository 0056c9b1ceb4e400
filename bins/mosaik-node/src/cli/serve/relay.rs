//! `serve relay`: a relay of one's own, iroh's server with the settings that a person needs.
//!
//! Invariant: a list of nodes that can't be read is never taken for an empty one, nor for none.

use std::{
    collections::HashSet,
    fs, io,
    net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use iroh_relay::{
    defaults::DEFAULT_RELAY_QUIC_PORT,
    server::{
        Access, AccessControl, AcmeConfig, CertConfig, ClientRequest, QuicConfig, RelayConfig,
        Server, ServerConfig, TlsConfig, reloading_resolver,
    },
};
use mosaik_api::SCHEMA;
use mosaik_core::id::NodeId;
use serde_json::json;
use tokio::time::timeout;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use super::super::{
    Failed,
    output::{count, note, print, print_json},
    run::{Signals, Wish},
};

/// How often the certificate's files are read again.
const CERTIFICATE_EVERY: Duration = Duration::from_secs(10 * 60);
/// How long clients may take to hear of the end.
const END_MAX: Duration = Duration::from_secs(3);
/// The longest list of nodes, in bytes: some 100,000 of them.
const ALLOW_LEN_MAX: u64 = 8 << 20;

/// How a relay runs.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct RelayFlags {
    /// The relay's certificate and those between it and its authority, in PEM; read again every 10 min
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "acme")]
    cert: Option<PathBuf>,
    /// The key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// A name of this host to get a certificate for, by ACME: its TCP port 443 must lead here
    #[arg(long, value_name = "HOST", requires = "acme_contact")]
    acme: Vec<String>,
    /// The mail address that the authority may write to
    #[arg(long, value_name = "MAIL", requires = "acme", value_parser = parse_mail)]
    acme_contact: Option<String>,
    /// Where certificates are kept [default: acme in $STATE_DIRECTORY]
    #[arg(long, value_name = "DIR", requires = "acme")]
    acme_dir: Option<PathBuf>,
    /// Another authority than Let's Encrypt: the URL of its ACME directory
    #[arg(long, value_name = "URL", requires = "acme")]
    acme_server: Option<String>,
    /// TCP: where nodes come in, with a certificate [default: [::]:443; UDP 7842 goes with it]
    #[arg(long, value_name = "ADDR:PORT")]
    https: Option<SocketAddr>,
    /// TCP: where nodes come in without a certificate; with one, where they look for portals that keep
    /// them from the internet [default: [::]:80 with a certificate]
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<SocketAddr>,
    /// TCP: metrics in Prometheus' format
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    /// Serve these nodes alone: a file with one node id a line (`mosaik-node id`); SIGHUP reads it again
    #[arg(long, value_name = "FILE")]
    allow: Option<PathBuf>,
}

fn parse_mail(text: &str) -> Result<String, String> {
    match text.split_once('@') {
        Some((name, host)) if !name.is_empty() && !host.is_empty() => Ok(text.to_owned()),
        _ => Err("give a mail address, as ops@example.org".to_owned()),
    }
}

/// Runs a relay until a signal stops it.
#[tokio::main]
pub(in super::super) async fn relay(flags: RelayFlags, json: bool) -> Result<(), Failed> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    log()?;
    let allowed = flags.allow.as_deref().map(Allowed::read).transpose()?.map(Arc::new);
    let config = config(&flags, allowed.clone()).await?;
    claim(&config)?;
    let mut server = Server::spawn(config)
        .await
        .map_err(|error| anyhow::anyhow!("cannot start the relay: {error:#}"))?;
    tell(&flags, &server, allowed.as_deref(), json)?;
    loop {
        let wish = tokio::select! {
            wish = signals.next() => wish,
            _ = server.join() => {
                return Err(anyhow::anyhow!("the relay ended by itself; its log says why").into());
            }
        };
        match (wish, &allowed) {
            (Wish::Stop, _) => break,
            (Wish::Reload, Some(allowed)) => match allowed.read_again(&server) {
                Ok(nodes) => note(format!("read again: {} may use it", count(nodes, "node"))),
                Err(Failed::With(failure)) => note(format!("the list stays as it was: {failure}")),
                Err(_) => {}
            },
            (Wish::Reload, None) => {}
        }
    }
    // Clients that don't listen any more must not keep it.
    let _ = timeout(END_MAX, server.shutdown()).await;
    note("stopped");
    Ok(())
}

/// What goes wrong with certificates is in the log alone.
fn log() -> anyhow::Result<()> {
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(io::stderr);
    // Not who comes with what: that is anybody of the internet.
    let errors = Targets::new()
        .with_default(LevelFilter::ERROR)
        .with_target("iroh_relay::server::http_server", LevelFilter::OFF);
    Ok(tracing_subscriber::registry().with(layer).with(errors).try_init()?)
}

async fn config(flags: &RelayFlags, allowed: Option<Arc<Allowed>>) -> Result<ServerConfig, Failed> {
    let certificate = certificate(flags).await?;
    let all = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let http = match (flags.http, &certificate) {
        (Some(address), _) => address,
        (None, Some(_)) => all(80),
        (None, None) => {
            return Err(Failed::usage(
                "a relay needs a certificate: give --cert and --key, or --acme and --acme-contact; \
                 for a lab or a closed network --http ADDR:PORT alone serves without",
            ));
        }
    };
    if certificate.is_none() && flags.https.is_some() {
        return Err(Failed::usage("--https needs a certificate: --cert and --key, or --acme"));
    }
    let mut relay = RelayConfig::new(http);
    let mut server = ServerConfig::default();
    if let Some(allowed) = allowed {
        relay.access = allowed;
    }
    if let Some(certificate) = certificate {
        let https = flags.https.unwrap_or_else(|| all(443));
        relay.tls = Some(TlsConfig::new(https, certificate));
        // The port is not in a relay's URL: nodes know no other.
        server.quic = Some(QuicConfig::new((https.ip(), DEFAULT_RELAY_QUIC_PORT)));
    }
    server.relay = Some(relay);
    server.metrics_addr = flags.metrics;
    Ok(server)
}

async fn certificate(flags: &RelayFlags) -> Result<Option<CertConfig>, Failed> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring has what these versions need")
        .with_no_client_auth();
    if let (Some(cert), Some(key)) = (&flags.cert, &flags.key) {
        for path in [cert, key] {
            fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        }
        let resolver =
            reloading_resolver(&provider, cert.clone(), key.clone(), CERTIFICATE_EVERY).await;
        let resolver = resolver.map_err(|error| {
            let (cert, key) = (cert.display(), key.display());
            anyhow::anyhow!("{cert} and {key} are no certificate with its key: {error:#}")
        })?;
        let server_config = tls.with_cert_resolver(resolver);
        return Ok(Some(CertConfig::Manual { server_config }));
    }
    let Some(contact) = &flags.acme_contact else { return Ok(None) };
    let directory = acme_directory(flags.acme_dir.as_deref())?;
    crate::directory::make_private(&directory)?;
    let acme = match &flags.acme_server {
        Some(url) => AcmeConfig::new(url.clone()),
        None => AcmeConfig::letsencrypt(true),
    };
    let acme_config = acme
        .domains(flags.acme.clone())
        .contact(vec![format!("mailto:{contact}")])
        .cache_path(directory);
    Ok(Some(CertConfig::LetsEncrypt { acme_config, server_config_builder: tls }))
}

/// Certificates that are not kept are asked for at every start, and authorities soon refuse that.
fn acme_directory(given: Option<&Path>) -> Result<PathBuf, Failed> {
    let state = std::env::var_os("STATE_DIRECTORY").filter(|state| !state.is_empty());
    match (given, state) {
        (Some(directory), _) => Ok(directory.to_owned()),
        (None, Some(state)) => Ok(Path::new(&state).join("acme")),
        (None, None) => Err(Failed::usage("say where certificates are kept: --acme-dir DIR")),
    }
}

/// Tries each address, for an error that names it.
fn claim(config: &ServerConfig) -> Result<(), Failed> {
    let tcp = |address: SocketAddr| (address, "TCP", TcpListener::bind(address).map(drop));
    let udp = |address: SocketAddr| (address, "UDP", UdpSocket::bind(address).map(drop));
    let relay = config.relay.iter();
    let tried = relay
        .flat_map(|relay| {
            [Some(relay.http_bind_addr), relay.tls.as_ref().map(|tls| tls.https_bind_addr)]
        })
        .chain([config.metrics_addr])
        .flatten()
        .map(tcp)
        .chain(config.quic.iter().map(|quic| udp(quic.bind_addr)));
    for (address, protocol, bound) in tried {
        let Err(error) = bound else { continue };
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => "is in use by another program",
            io::ErrorKind::PermissionDenied => "may not be listened on by this user",
            io::ErrorKind::AddrNotAvailable => "is at no interface of this machine",
            _ => {
                return Err(
                    anyhow::anyhow!("cannot listen on {protocol} {address}: {error}").into()
                );
            }
        };
        return Err(anyhow::anyhow!("{protocol} {address} {why}").into());
    }
    Ok(())
}

fn tell(
    flags: &RelayFlags,
    server: &Server,
    allowed: Option<&Allowed>,
    json: bool,
) -> Result<(), Failed> {
    let (http, https, quic) = (server.http_addr(), server.https_addr(), server.quic_addr());
    let nodes = allowed.map(Allowed::len);
    if json {
        let text = |address: Option<SocketAddr>| address.map(|address| address.to_string());
        return print_json(&json!({
            "schema": SCHEMA,
            "relay": {
                "http": text(http),
                "https": text(https),
                "quic": text(quic),
                "metrics": text(flags.metrics),
                "allowed": nodes,
            },
        }));
    }
    let ways = [("https", https), ("http", http), ("UDP", quic), ("metrics", flags.metrics)];
    let ways = ways.into_iter().filter_map(|(name, at)| Some(format!("{name} {}", at?)));
    print(format!("relay      {}", ways.collect::<Vec<_>>().join(", ")))?;
    print(match nodes {
        Some(nodes) => format!("serves     {} of the list", count(nodes, "node")),
        None => "serves     whoever comes".to_owned(),
    })?;
    note(format!("nodes use it with --relay {}", url(flags, http, https)));
    Ok(())
}

/// What nodes are told, as far as it is known here.
fn url(flags: &RelayFlags, http: Option<SocketAddr>, https: Option<SocketAddr>) -> String {
    let (scheme, usual, address) = match (https, http) {
        (Some(address), _) => ("https", 443, address),
        (None, Some(address)) => ("http", 80, address),
        (None, None) => return "URL".to_owned(),
    };
    let host = match (flags.acme.first(), address.ip()) {
        (Some(name), _) => name.clone(),
        // A certificate names hosts, rarely addresses.
        (None, ip) if ip.is_unspecified() || scheme == "https" => "HOST".to_owned(),
        (None, ip) if ip.is_ipv6() => format!("[{ip}]"),
        (None, ip) => ip.to_string(),
    };
    match address.port() {
        port if port == usual => format!("{scheme}://{host}"),
        port => format!("{scheme}://{host}:{port}"),
    }
}

/// The nodes that may use the relay.
#[derive(Debug)]
struct Allowed {
    path: PathBuf,
    nodes: RwLock<HashSet<NodeId>>,
}

impl Allowed {
    fn read(path: &Path) -> Result<Self, Failed> {
        Ok(Self { path: path.to_owned(), nodes: RwLock::new(read_nodes(path)?) })
    }

    fn len(&self) -> u64 {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    fn has(&self, node: NodeId) -> bool {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).contains(&node)
    }

    /// Takes the file as it is now; who isn't in it any more is cut off. Returns how many nodes it has.
    fn read_again(&self, server: &Server) -> Result<u64, Failed> {
        let new = read_nodes(&self.path)?;
        let nodes = new.len() as u64;
        let old = std::mem::replace(
            &mut *self.nodes.write().unwrap_or_else(PoisonError::into_inner),
            new.clone(),
        );
        for gone in old.difference(&new) {
            if let (Some(service), Ok(id)) =
                (server.relay_service(), iroh::EndpointId::from_bytes(gone.as_bytes()))
            {
                service.clients().disconnect(id, None);
            }
        }
        Ok(nodes)
    }
}

impl AccessControl for Allowed {
    async fn on_connect(&self, request: &ClientRequest) -> Access {
        let node = NodeId(*request.endpoint_id().as_bytes());
        match self.has(node) {
            true => Access::Allow,
            false => {
                Access::Deny { reason: Some(format!("node {} is not on its list", node.short())) }
            }
        }
    }
}

/// One id a line; empty lines, and what follows a #, say nothing.
fn read_nodes(path: &Path) -> Result<HashSet<NodeId>, Failed> {
    let shown = path.display();
    let len = fs::metadata(path).with_context(|| format!("cannot read {shown}"))?.len();
    if len > ALLOW_LEN_MAX {
        return Err(Failed::usage(format!(
            "{shown} has {len} bytes, the limit is {ALLOW_LEN_MAX}"
        )));
    }
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let mut nodes = HashSet::new();
    for (line, text) in text.lines().enumerate() {
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let node = text.parse().map_err(|error| {
            Failed::usage(format!("{shown}, line {}: no node id: {error}", line + 1))
        })?;
        nodes.insert(node);
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Result<HashSet<NodeId>, Failed> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("allow");
        fs::write(&path, text).expect("ours");
        read_nodes(&path)
    }

    #[test]
    fn a_list_of_nodes_has_comments_and_empty_lines() {
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        let nodes = list(&format!("# the office\n\n{a}\n  {b}  # hq\n{a}\n")).expect("it is good");
        assert_eq!(nodes, HashSet::from([a, b]));
        assert_eq!(list("").expect("nobody is a list too"), HashSet::new());
    }

    #[test]
    fn a_line_that_is_no_node_id_is_named() {
        let bad = format!("{}\n\nhq\n", NodeId([1; 32]));
        let Err(Failed::With(failure)) = list(&bad) else { panic!("it was taken") };
        assert!(failure.message.contains("line 3: no node id"), "{failure}");
    }
}

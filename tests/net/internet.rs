//! A small internet: a public segment with a relay and three DHT nodes, and homes behind NATs.
//!
//! ```text
//! host 10.0.N.2 ─ home NAT ─┬─ 203.0.113.0/24 ─┬─ .1 relay (HTTPS, UDP 7842)
//! host 10.0.N.2 ─ home NAT ─ 100.64.N.0/24 ─ carrier NAT ─┘  └─ .2 .3 .4 DHT
//! ```

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use mosaik_lab::{
    Node,
    binary::node_binary,
    process::{Group, Process},
    wait,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::process::Command;

use super::space::Host;

/// How long a service may take to say that it runs.
const SERVICE_MAX: Duration = Duration::from_secs(60);
/// The switch of the core, and what homes call their cable to it.
const SEGMENT: &str = "segment";
const WAN: &str = "wan";
const LAN: &str = "lan";
const RELAY: &str = "203.0.113.1";
const DHT: [&str; 3] = ["203.0.113.2", "203.0.113.3", "203.0.113.4"];

/// What stands between a host and the public segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Nat {
    /// Nothing: its address is public.
    None,
    /// One port outside for each port inside, open to all: endpoint-independent mapping and
    /// filtering, "full cone".
    Open,
    /// One port outside for each port inside, open to whom it has sent to: endpoint-independent
    /// mapping, address and port dependent filtering. What most homes have.
    Restricted,
    /// Another port outside for each peer: "symmetric".
    Symmetric,
    /// A home's NAT behind a carrier's, both restricted.
    Double,
}

impl Nat {
    pub(crate) const ALL: [Self; 5] =
        [Self::None, Self::Open, Self::Restricted, Self::Symmetric, Self::Double];

    /// Whether a direct path can be had between hosts behind these. Whoever is told a port of a
    /// symmetric one is told another than it gets, which only matters to who filters by it.
    pub(crate) fn lets_through(self, other: Self) -> bool {
        let filters = |nat| matches!(nat, Self::Restricted | Self::Symmetric | Self::Double);
        let one_way = |a, b| a == Self::Symmetric && filters(b);
        !one_way(self, other) && !one_way(other, self)
    }

    /// The rules of a router of this kind; `wan` is its address outside.
    fn rules(self, wan: &str) -> String {
        const CLOSED: &str = "table ip filter { \
            chain input { type filter hook input priority 0; \
                iifname wan ct state established,related accept; iifname wan drop; }; \
            chain forward { type filter hook forward priority 0; \
                iifname wan ct state established,related accept; iifname wan drop; }; };";
        match self {
            Self::None => String::new(),
            Self::Open => format!(
                "table ip nat {{ \
                    map inside {{ type inet_service : ipv4_addr . inet_service; \
                        flags dynamic,timeout; timeout 300s; size 65536; }}; \
                    chain pre {{ type nat hook prerouting priority dstnat; \
                        iifname wan meta l4proto udp dnat to udp dport map @inside; }}; \
                    chain post {{ type nat hook postrouting priority srcnat; \
                        oifname wan meta l4proto udp \
                            update @inside {{ udp sport : ip saddr . udp sport }}; \
                        oifname wan snat to {wan}; }}; }};"
            ),
            Self::Restricted | Self::Double => format!(
                "table ip nat {{ chain post {{ type nat hook postrouting priority srcnat; \
                    oifname wan snat to {wan}; }}; }}; {CLOSED}"
            ),
            Self::Symmetric => format!(
                "table ip nat {{ chain post {{ type nat hook postrouting priority srcnat; \
                    oifname wan masquerade random,fully-random; }}; }}; {CLOSED}"
            ),
        }
    }
}

impl fmt::Display for Nat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Open => "full cone",
            Self::Restricted => "restricted",
            Self::Symmetric => "symmetric",
            Self::Double => "double",
        })
    }
}

/// A host, and the routers before it.
pub(crate) struct Home {
    pub(crate) nat: Nat,
    pub(crate) host: Host,
    /// The home's first; then the carrier's.
    pub(crate) routers: Vec<Host>,
    /// Its number: a byte of its address.
    pub(crate) number: u8,
}

impl Home {
    /// The host's device, its first address, and another of the same net.
    fn addresses(&self) -> (&'static str, String, String) {
        let number = self.number;
        match self.nat {
            Nat::None => (WAN, public(number), format!("203.0.113.{}", 100 + number)),
            _ => (LAN, format!("10.0.{number}.2"), format!("10.0.{number}.77")),
        }
    }

    /// The way out of the host.
    fn gateway(&self) -> String {
        match self.nat {
            Nat::None => RELAY.to_owned(),
            _ => format!("10.0.{}.1", self.number),
        }
    }

    /// Counts what the host sends from its first address, and gives it another one.
    pub(crate) fn readdress(&self) -> Result<()> {
        let (device, old, new) = self.addresses();
        self.host.ip(&format!("addr del {old}/24 dev {device}"))?;
        self.host.ip(&format!("addr add {new}/24 dev {device}"))?;
        self.host.route(&self.gateway())?;
        self.host.rules(&format!(
            "table inet count {{ counter old {{ }}; chain output {{ type filter hook output \
             priority 0; ip saddr {old} counter name old; }}; }}"
        ))
    }

    /// Pulls the host's cable.
    pub(crate) fn cut(&self) -> Result<()> {
        self.host.ip(&format!("link set {} down", self.addresses().0))
    }

    /// Plugs it in again.
    pub(crate) fn mend(&self) -> Result<()> {
        self.host.ip(&format!("link set {} up", self.addresses().0))?;
        self.host.route(&self.gateway())
    }
}

/// What a home is called outside.
fn public(number: u8) -> String {
    format!("203.0.113.{}", 10 + number)
}

pub(crate) struct Internet {
    directory: PathBuf,
    authority: PathBuf,
    // Before the namespace that they run in.
    _services: Vec<Process>,
    core: Host,
    homes: u8,
}

impl Internet {
    /// Starts the services; certificates, logs and the nodes' directories come into `directory`.
    pub(crate) async fn new(directory: &Path) -> Result<Self> {
        tokio::task::spawn_blocking(node_binary).await??;
        let core = Host::new()?;
        let all = [RELAY].into_iter().chain(DHT).map(|ip| format!("{ip}/24"));
        core.switch(SEGMENT, &all.collect::<Vec<_>>())?;
        let [authority, cert, key] = certificates(directory)?;
        let mut services = Vec::new();
        let files = [&cert, &key].map(|path| path.to_string_lossy().into_owned());
        let [https, http] = [443, 80].map(|port| format!("{RELAY}:{port}"));
        let relay = ["--https", &https, "--http", &http, "--cert", &files[0], "--key", &files[1]];
        services.push(serve(&core, directory, "relay", &relay).await?);
        let first = format!("{}:6881", DHT[0]);
        for ip in DHT {
            let listen = format!("{ip}:6881");
            let mut words = vec!["--listen", listen.as_str(), "--public-ip", ip];
            if listen != first {
                words.extend(["--bootstrap", first.as_str()]);
            }
            services.push(serve(&core, directory, "dht", &words).await?);
        }
        Ok(Self { directory: directory.to_owned(), authority, _services: services, core, homes: 0 })
    }

    /// One more host.
    pub(crate) fn home(&mut self, nat: Nat) -> Result<Home> {
        self.homes += 1;
        let number = self.homes;
        let public = public(number);
        let mut home = Home { nat, host: Host::new()?, routers: Vec::new(), number };
        let (host, routers) = (&home.host, &mut home.routers);
        if nat == Nat::None {
            host.plug(WAN, &format!("{public}/24"), &self.core, SEGMENT)?;
            host.route(RELAY)?;
            return Ok(home);
        }
        let router = Host::new()?;
        host.link(&router, LAN, [&format!("10.0.{number}.2/24"), &format!("10.0.{number}.1/24")])?;
        host.route(&format!("10.0.{number}.1"))?;
        router.forward()?;
        if nat == Nat::Double {
            let carrier = Host::new()?;
            let [at_home, at_carrier] = [2, 1].map(|end| format!("100.64.{number}.{end}"));
            // A cable has one name at both ends: the carrier's side gets another afterwards.
            router.link(&carrier, WAN, [&format!("{at_home}/24"), &format!("{at_carrier}/24")])?;
            carrier.ip(&format!("link set {WAN} down"))?;
            carrier.ip(&format!("link set {WAN} name customer up"))?;
            router.route(&at_carrier)?;
            router.rules(&nat.rules(&at_home))?;
            carrier.forward()?;
            carrier.plug(WAN, &format!("{public}/24"), &self.core, SEGMENT)?;
            carrier.rules(&nat.rules(&public))?;
            routers.extend([router, carrier]);
        } else {
            router.plug(WAN, &format!("{public}/24"), &self.core, SEGMENT)?;
            router.rules(&nat.rules(&public))?;
            routers.push(router);
        }
        Ok(home)
    }

    /// A node in a home that is told the network id, the DHT and the relay; it isn't started yet.
    pub(crate) fn node(&self, home: &Home, name: &str, network: &str) -> Result<Node> {
        let mut node = Node::new(&self.directory, name, node_binary()?, Group::Shared)?;
        node.through = home.host.through();
        let relay = format!("https://{RELAY}/");
        let authority = self.authority.to_string_lossy();
        let words = ["--network", network, "--name", name, "--relay", &relay];
        node.arguments = words.into_iter().map(str::to_owned).collect();
        node.arguments.extend(["--relay-ca".to_owned(), authority.into_owned()]);
        for ip in DHT {
            node.arguments.extend(["--dht-bootstrap".to_owned(), format!("{ip}:6881")]);
        }
        Ok(node)
    }
}

/// Starts `serve WHAT` in the core and waits until it says where.
async fn serve(core: &Host, directory: &Path, what: &str, words: &[&str]) -> Result<Process> {
    let through = core.through();
    let mut command = Command::new(&through[0]);
    command.args(&through[1..]).arg(node_binary()?).args(["serve", what]).args(words);
    let log = directory.join(format!("{what}-{}.log", words[1]));
    let process = Process::spawn(command, &log, Group::Shared)?;
    wait::until(what, SERVICE_MAX, || async {
        let text = fs::read_to_string(&log).unwrap_or_default();
        if text.contains("nodes use it with") { Ok(()) } else { Err(text) }
    })
    .await?;
    Ok(process)
}

/// An authority, and the relay's certificate and key, as PEM files.
fn certificates(directory: &Path) -> Result<[PathBuf; 3]> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let cert = CertificateParams::new(vec![RELAY.to_owned()])?.signed_by(&key, &authority)?;
    let texts = [authority.pem(), cert.pem(), key.serialize_pem()];
    let paths = ["authority.pem", "cert.pem", "key.pem"].map(|name| directory.join(name));
    for (path, text) in paths.iter().zip(texts) {
        fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    Ok(paths)
}

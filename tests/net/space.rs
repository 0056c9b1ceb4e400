//! Hosts as network namespaces.
//!
//! Invariant: what is made here is gone when it is dropped, however the test ended.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mosaik_lab::{
    binary::node_binary,
    process::{self, Group, Output, Process},
};

/// How long a command that asks a node may take.
const ASK_MAX: Duration = Duration::from_secs(90);

/// Where packets of a host go that don't leave the local network: private, link-local and multicast.
const LOCAL_V4: &str =
    "10.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16, 224.0.0.0/4";
const LOCAL_V6: &str = "::1, fc00::/7, fe80::/10, ff00::/8";

/// What the namespaces' names begin with; then come the process that made them, and a number.
const PREFIX: &str = "mosaik-";

/// Why no namespace can be made here.
pub(crate) fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root");
    }
    let runs = |program: &str| {
        let mut version = Command::new(program);
        version.arg("-V").stdout(Stdio::null()).stderr(Stdio::null());
        version.status().is_ok_and(|status| status.success())
    };
    match (runs("ip"), runs("nft")) {
        (false, _) => Some("needs ip, of the package iproute2"),
        (true, false) => Some("needs nft, of the package nftables"),
        (true, true) => None,
    }
}

/// Runs a command that sets something up.
fn set<S: AsRef<OsStr>>(program: &str, words: impl IntoIterator<Item = S>) -> Result<String> {
    let mut command = Command::new(program);
    let output = command.args(words).output().with_context(|| format!("no {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Commands as they would be typed, none of whose words has a space in it.
fn ip(line: &str) -> Result<String> {
    set("ip", line.split_whitespace())
}

/// Takes away what processes that were killed have left behind.
pub(crate) fn sweep() -> Result<()> {
    for name in ip("netns list")?.lines().filter_map(|line| line.split_whitespace().next()) {
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let process = process.filter(|process| process.parse::<u32>().is_ok());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            ip(&format!("netns del {name}"))?;
        }
    }
    Ok(())
}

/// A host.
pub(crate) struct Host {
    /// The namespace.
    name: String,
}

impl Host {
    /// A host that is linked to nobody.
    pub(crate) fn new() -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        ip(&format!("netns add {name}"))?;
        let host = Self { name };
        ip(&format!("-n {} link set lo up", host.name))?;
        Ok(host)
    }

    /// Joins two hosts by a cable: `device` at both ends, with these addresses.
    pub(crate) fn link(&self, other: &Self, device: &str, addresses: [&str; 2]) -> Result<()> {
        let (a, b) = (&self.name, &other.name);
        ip(&format!("link add {device} netns {a} type veth peer name {device} netns {b}"))?;
        for (name, address) in [a, b].into_iter().zip(addresses) {
            ip(&format!("-n {name} addr add {address} dev {device}"))?;
            ip(&format!("-n {name} link set {device} up"))?;
        }
        Ok(())
    }

    /// All that has no other way goes there.
    pub(crate) fn route(&self, gateway: &str) -> Result<()> {
        ip(&format!("-n {} route add default via {gateway}", self.name)).map(drop)
    }

    /// Joins several by a switch of this host, at which it has these addresses itself.
    pub(crate) fn switch(&self, device: &str, addresses: &[String]) -> Result<()> {
        self.ip(&format!("link add {device} type bridge"))?;
        for address in addresses {
            self.ip(&format!("addr add {address} dev {device}"))?;
        }
        self.ip(&format!("link set {device} up"))
    }

    /// Plugs `device`, with this address, into the switch of another host.
    pub(crate) fn plug(
        &self,
        device: &str,
        address: &str,
        other: &Self,
        switch: &str,
    ) -> Result<()> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let port = format!("port{}", MADE.fetch_add(1, Ordering::Relaxed));
        let (a, b) = (&self.name, &other.name);
        ip(&format!("link add {device} netns {a} type veth peer name {port} netns {b}"))?;
        other.ip(&format!("link set {port} master {switch} up"))?;
        self.ip(&format!("addr add {address} dev {device}"))?;
        self.ip(&format!("link set {device} up"))
    }

    /// Changes the network of this host, as `ip` is told to.
    pub(crate) fn ip(&self, line: &str) -> Result<()> {
        ip(&format!("-n {} {line}", self.name)).map(drop)
    }

    /// Passes packets on from now on.
    pub(crate) fn forward(&self) -> Result<()> {
        let words = ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"];
        set("ip", self.through().iter().map(String::as_str).skip(1).chain(words)).map(drop)
    }

    /// Adds rules of nftables.
    pub(crate) fn rules(&self, rules: &str) -> Result<()> {
        set("ip", ["netns", "exec", &self.name, "nft", rules]).map(drop)
    }

    /// What a command is started through, to run here.
    pub(crate) fn through(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name].map(str::to_owned).into()
    }

    /// Counts from now on what this host sends to addresses that are not local.
    pub(crate) fn count_outward(&self) -> Result<()> {
        let rules = format!(
            "table inet count {{ counter outward {{ }}; \
             chain out {{ type filter hook output priority 0; \
             ip daddr != {{ {LOCAL_V4} }} counter name outward; \
             ip6 daddr != {{ {LOCAL_V6} }} counter name outward; }}; }}"
        );
        self.rules(&rules)
    }

    /// How many packets that were.
    pub(crate) fn outward(&self) -> Result<u64> {
        self.counted("outward")
    }

    /// How many packets a counter of the table `inet count` has seen.
    pub(crate) fn counted(&self, counter: &str) -> Result<u64> {
        let list = format!("netns exec {} nft list counter inet count {counter}", self.name);
        let listed = ip(&list)?;
        let mut words = listed.split_whitespace();
        words.find(|word| *word == "packets");
        let packets = words.next().context("a counter has packets")?;
        packets.parse().with_context(|| listed.clone())
    }

    /// Starts a node here. It ends when it is dropped.
    pub(crate) fn node(&self, dir: &Path, flags: &[&str]) -> Result<Process> {
        let mut command = self.command()?;
        command.arg("--data-dir").arg(dir).args(flags);
        Process::spawn(command, &dir.with_extension("log"), Group::Shared)
    }

    /// Asks the node of a directory.
    pub(crate) async fn ask(&self, dir: &Path, words: &[&str]) -> Result<Output> {
        let mut command = self.command()?;
        command.arg("--data-dir").arg(dir).args(words);
        process::run(command, b"", ASK_MAX).await
    }

    fn command(&self) -> Result<tokio::process::Command> {
        let mut command = tokio::process::Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(node_binary()?);
        Ok(command)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = ip(&format!("netns del {}", self.name));
    }
}

//! Peers on the Python rns, and `rnsd`s.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use mosaik_lab::process::{Group, Process};
use mosaik_reticulum::stack::{Peer, Service};
use mosaik_tests::repository;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, timeout_at},
};

use super::venv::Venv;

/// How long anything may take that isn't on a slow channel: ten times what it takes here.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Writes a configuration of rns with these interfaces.
pub(crate) fn configure(directory: &Path, reticulum: &str, interfaces: &str) -> Result<()> {
    fs::create_dir_all(directory)?;
    let text =
        format!("[reticulum]\n{reticulum}\n[logging]\nloglevel = 5\n[interfaces]\n{interfaces}\n");
    fs::write(directory.join("config"), text)?;
    Ok(())
}

/// One that shares itself with nobody.
pub(crate) const ALONE: &str = "enable_transport = No\nshare_instance = No";
/// One that forwards for others.
pub(crate) const TRANSPORT: &str = "enable_transport = Yes\nshare_instance = No";

/// Connects to a TCP server interface of this machine.
pub(crate) fn tcp_client(port: u16) -> String {
    format!(
        "[[client]]\ntype = TCPClientInterface\nenabled = Yes\ntarget_host = 127.0.0.1\ntarget_port = {port}"
    )
}

/// Listens for TCP client interfaces.
pub(crate) fn tcp_server(port: u16) -> String {
    format!(
        "[[server]]\ntype = TCPServerInterface\nenabled = Yes\nlisten_ip = 127.0.0.1\nlisten_port = {port}"
    )
}

/// A Python peer.
pub(crate) struct Python {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// What came and wasn't asked for yet.
    seen: Vec<Value>,
    log: PathBuf,
    pub(crate) peer: Peer,
}

impl Python {
    /// Starts a peer with the configuration in `directory`.
    pub(crate) async fn start(venv: &Venv, directory: &Path) -> Result<Self> {
        let log = directory.join("peer.log");
        let mut command = Command::new(venv.program("python"));
        command.arg("-u").arg(repository().join("tests/radio/peer.py")).arg(directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(&log)?);
        let mut child = command.kill_on_drop(true).spawn().context("cannot start python")?;
        let stdin = child.stdin.take().context("its input is a pipe")?;
        let stdout = child.stdout.take().context("its output is a pipe")?;
        let lines = BufReader::new(stdout).lines();
        let (seen, peer) = (Vec::new(), Peer([0; 16]));
        let mut python = Self { child, stdin, lines, seen, log, peer };
        let ready = python.expect("ready", |_| true).await?;
        python.peer = Peer(hash(&ready["identity"])?);
        Ok(python)
    }

    /// Gives an order.
    pub(crate) async fn order(&mut self, order: Value) -> Result<()> {
        let mut line = order.to_string().into_bytes();
        line.push(b'\n');
        self.stdin.write_all(&line).await.context("the Python peer has ended")
    }

    /// Serves a destination, and returns its hash.
    pub(crate) async fn serve(&mut self, service: Service, prove: bool) -> Result<String> {
        let order = json!({"do": "serve", "name": service.to_string(), "prove": prove});
        self.order(order).await?;
        let serving = self.expect("serving", |_| true).await?;
        Ok(serving["destination"].as_str().context("a hash")?.to_owned())
    }

    pub(crate) async fn announce(&mut self, service: Service, app_data: &[u8]) -> Result<()> {
        let order =
            json!({"do": "announce", "name": service.to_string(), "app_data": hex(app_data)});
        self.order(order).await
    }

    /// Waits for the first event of this name that is looked for, and takes it.
    pub(crate) async fn expect(
        &mut self,
        name: &str,
        is: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        self.expect_within(SOON, name, is).await
    }

    /// Waits for the first event of one of these names.
    pub(crate) async fn expect_any(&mut self, names: &[&str]) -> Result<Value> {
        let is = |event: &Value| event["event"].as_str().is_some_and(|name| names.contains(&name));
        self.expect_that(SOON, &names.join(" or "), is).await
    }

    /// Takes an event of this name that came while another was waited for.
    pub(crate) fn seen(&mut self, name: &str) -> Option<Value> {
        let index = self.seen.iter().position(|event| event["event"] == name)?;
        Some(self.seen.remove(index))
    }

    pub(crate) async fn expect_within(
        &mut self,
        limit: Duration,
        name: &str,
        is: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        self.expect_that(limit, name, |event| event["event"] == name && is(event)).await
    }

    async fn expect_that(
        &mut self,
        limit: Duration,
        name: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(index) = self.seen.iter().position(&wanted) {
                return Ok(self.seen.remove(index));
            }
            let Ok(line) = timeout_at(deadline, self.lines.next_line()).await else {
                bail!("{limit:?} without {name:?} from Python; it said {}", short(&self.seen));
            };
            let Some(line) = line? else {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("the Python peer has ended: {log}");
            };
            self.seen.push(serde_json::from_str(&line).with_context(|| line)?);
        }
    }

    /// Ends it at once.
    pub(crate) async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}

/// Events for a person: without what is long.
fn short(seen: &[Value]) -> String {
    let lines = seen.iter().map(|event| event.to_string().chars().take(200).collect::<String>());
    lines.collect::<Vec<_>>().join("\n")
}

/// Starts an `rnsd` with the configuration in `directory`.
pub(crate) fn rnsd(venv: &Venv, directory: &Path) -> Result<Process> {
    let mut command = Command::new(venv.program("rnsd"));
    command.arg("--config").arg(directory).env("PYTHONUNBUFFERED", "1");
    Process::spawn(command, &directory.join("rnsd.log"), Group::Shared)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// Bytes of an event.
pub(crate) fn bytes(value: &Value) -> Result<Vec<u8>> {
    let text = value.as_str().with_context(|| format!("{value} is no text"))?;
    Ok(data_encoding::HEXLOWER.decode(text.as_bytes())?)
}

/// A hash of an event.
pub(crate) fn hash(value: &Value) -> Result<[u8; 16]> {
    let bytes = bytes(value)?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("{value} is no hash"))
}

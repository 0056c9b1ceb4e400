//! A real meshlogd, as far as links and messages go.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mosaik_lab::{
    process::{Group, Process},
    wait,
};
use mosaik_reticulum::stack::{Outcome, Report, Service};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
};

use super::{
    ours::Ours,
    pair::free_port,
    play,
    python::{ALONE, SOON, configure, tcp_client},
    venv::Venv,
};

/// How long an answer is waited for before it is asked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// A meshlogd, and a connection to its socket.
pub(crate) struct Daemon {
    _process: Process,
    socket: BufReader<TcpStream>,
    calls: u64,
}

impl Daemon {
    /// Starts one with these flags besides.
    pub(crate) async fn start(
        venv: &Venv,
        directory: &Path,
        interface: &str,
        flags: &[&str],
    ) -> Result<Self> {
        configure(directory, ALONE, interface)?;
        let port = free_port()?;
        let mut command = Command::new(venv.program("meshlogd"));
        command.args(["serve", "--rns", "--raw", "--gossip-interval", "2", "--configdir"]);
        command.arg(directory).arg("--identity").arg(directory.join("identity"));
        command.arg("--persist").arg(directory.join("log.jsonl"));
        command
            .args(flags)
            .arg("--tcp")
            .arg(format!("127.0.0.1:{port}"))
            .env("PYTHONUNBUFFERED", "1");
        let process = Process::spawn(command, &directory.join("log"), Group::Shared)?;
        let socket = wait::until("meshlogd's socket", SOON, async || {
            TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string())
        })
        .await;
        let socket = socket.with_context(|| process.log_tail())?;
        let mut daemon = Self { _process: process, socket: BufReader::new(socket), calls: 0 };
        // It greets whoever connects.
        daemon.line().await?;
        Ok(daemon)
    }

    async fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        tokio::time::timeout(SOON, self.socket.read_line(&mut line)).await??;
        // What is no JSON, and what no text can hold: only Python reads it, and no test looks at it.
        let line = ["NaN", "-Infinity", "Infinity"]
            .iter()
            .fold(line.replace("\\ud800\"", "\""), |line, word| line.replace(word, "null"));
        serde_json::from_str(&line).with_context(|| format!("meshlogd said {line:?}"))
    }

    /// Asks it for something.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.call_with(method, &params.to_string()).await
    }

    /// Lets it write an event; the payload as Python reads it.
    pub(crate) async fn emit(&mut self, kind: &str, payload: &str) -> Result<Value> {
        self.call_with("emit", &format!("{{\"kind\":\"{kind}\",\"payload\":{payload}}}")).await
    }

    async fn call_with(&mut self, method: &str, params: &str) -> Result<Value> {
        self.calls += 1;
        let id = self.calls;
        let call = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{params}}}\n"
        );
        self.socket.get_mut().write_all(call.as_bytes()).await?;
        loop {
            let mut answer = self.line().await?;
            if answer["id"] == self.calls {
                ensure!(answer.get("error").is_none(), "{answer}");
                return Ok(answer["result"].take());
            }
        }
    }
}

/// It dials us; we dial it, and it sends what we lack.
pub(crate) fn daemon(venv: Venv) -> Result<()> {
    play(async {
        let directory = tempfile::tempdir()?;
        let port = free_port()?;
        let way = format!("tcp-listen://127.0.0.1:{port}");
        let mut ours = Ours::start(&directory.path().join("ours"), &[&way])?;
        let home = directory.path().join("meshlogd");
        let mut daemon = Daemon::start(&venv, &home, &tcp_client(port), &[]).await?;
        let params = json!({"kind": "note", "payload": {"text": "from meshlogd"}});
        let emitted = daemon.call("emit", params).await?;
        let peer = ours
            .expect("an announce of meshlogd", |report| match report {
                Report::Heard { service: Service::Meshlog, peer, .. } => Some(*peer),
                _ => None,
            })
            .await?;

        // It dials whoever it hears. Where the answer comes before it has said what shall happen then,
        // it doesn't identify on that link: so ours mustn't depend on it.
        ours.announce(Service::Meshlog, b"");
        ours.accept(Service::Meshlog).await?;

        let link = ours.open(Service::Meshlog, peer).await?;
        // It drops what it reads before it has looked at who we are, so we ask again, as it does too.
        // On which of the two links it answers is its own business.
        let is = |report: &Report| match report {
            Report::Received { bytes, .. } => serde_json::from_slice::<Value>(bytes)
                .ok()
                .filter(|message| message["t"] == "events"),
            _ => None,
        };
        let deadline = Instant::now() + SOON;
        let mut token = 0;
        let events = loop {
            token += 1;
            ours.send(link, token, br#"{"t":"frontier","f":{}}"#);
            let outcome = ours.outcome(SOON, token).await?;
            ensure!(!matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
            match ours.expect_within(AGAIN, "events of meshlogd", is).await {
                Ok(events) => break events,
                Err(error) => ensure!(Instant::now() < deadline, "{error}"),
            }
        };
        let event = &events["e"][0];
        ensure!(event["p"]["text"] == "from meshlogd", "{event}");
        ensure!(event["a"] == *peer.to_string(), "{event} is not of {peer}");
        ensure!(event["i"] == emitted["event"]["id"], "{event} is not {emitted}");
        Ok(())
    })
}

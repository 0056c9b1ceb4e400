//! The program as a person uses it, with real nodes: up, logs, Ctrl-C, the demo, and a small bench.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use mosaik_lab::{
    binary::node_binary,
    lock::Lock,
    process::{self, Group, Output, Process},
    wait,
};
use rustix::process::Signal;
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::process::Command;

/// Long enough for a machine that also builds.
const LONG: Duration = Duration::from_secs(120);

/// Others may run clusters for as long as a test suite takes.
const TURN: Duration = Duration::from_secs(20 * 60);

/// A lab program with its own temporary directory, so that it finds no lab of anyone else.
struct Lab {
    home: TempDir,
    _turn: Lock,
}

impl Lab {
    async fn new() -> Self {
        // Built before the clock runs.
        tokio::task::spawn_blocking(node_binary)
            .await
            .expect("it does not panic")
            .expect("the node builds");
        let turn = Lock::take(TURN).await.expect("others end");
        Self { home: tempfile::tempdir().expect("a temporary directory"), _turn: turn }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mosaik-lab"));
        let node = node_binary().expect("it was found before");
        command.env("TMPDIR", self.home.path()).env("MOSAIK_NODE", node).args(arguments);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        process::run(self.command(arguments), b"", LONG).await.expect("it ends")
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Waits until the output of a lab says this.
async fn said(out: &Path, text: &str) {
    wait::until(text, LONG, || async {
        let seen = read(out);
        if seen.contains(text) { Ok(()) } else { Err(seen) }
    })
    .await
    .expect("it says so");
}

/// The processes that have this path on their command line.
fn processes(under: &Path) -> Vec<PathBuf> {
    let under = under.display().to_string();
    let entries = fs::read_dir("/proc").expect("this is Linux").flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| read(&path.join("cmdline")).contains(&under))
        .collect()
}

#[tokio::test]
async fn up_runs_nodes_until_ctrl_c_and_leaves_nothing_behind() {
    let lab = Lab::new().await;
    let (out, dir) = (lab.path("out"), lab.path("lab"));
    let command = lab.command(&["up", "2", "--dir", &dir.display().to_string()]);
    let mut up = Process::spawn(command, &out, Group::Shared).expect("it starts");
    said(&out, "Ctrl-C stops all").await;

    let log = lab.run(&["logs", "2"]).await.ok().expect("it has a second node");
    assert!(read(&dir.join("n2.log")).starts_with(&log) && !log.is_empty(), "{log}");
    let third = lab.run(&["logs", "3"]).await;
    assert!(third.code == Some(1) && third.stderr.contains("it has 1 to 2"), "{third:?}");
    assert_eq!(processes(&dir.join("n1")).len(), 1);

    up.signal(Signal::INT).expect("it runs");
    let ended = up.wait(LONG).await.expect("it stops");
    assert!(ended.success() && read(&out).contains("all stopped"), "{}", read(&out));
    assert_eq!(processes(&dir), Vec::<PathBuf>::new());
    let gone = lab.run(&["logs", "1"]).await;
    assert!(gone.code == Some(1) && gone.stderr.contains("no lab runs"), "{gone:?}");
}

#[tokio::test]
async fn up_starts_again_in_its_directory_with_the_network_that_it_had() {
    let lab = Lab::new().await;
    let dir = lab.path("lab");
    let mut networks = Vec::new();
    for name in ["first", "second"] {
        let out = lab.path(name);
        let arguments = ["up", "1", "--no-relay", "--dir", &dir.display().to_string()];
        let mut up =
            Process::spawn(lab.command(&arguments), &out, Group::Shared).expect("it starts");
        said(&out, "Ctrl-C stops all").await;
        up.terminate(LONG).await.expect("it stops");
        let text = read(&out);
        let line = text.lines().find(|line| line.starts_with("network ")).expect("it says so");
        networks.push(line.to_owned());
    }
    assert_eq!(networks[0], networks[1]);
}

#[tokio::test]
async fn the_demo_ends_with_one_view_on_all_four_nodes() {
    let lab = Lab::new().await;
    let demo = lab.run(&["demo"]).await.ok().expect("all views are equal");
    assert!(demo.contains("one view, and no acknowledged write is missing"), "{demo}");
    let left = fs::read_dir(lab.home.path()).expect("it is ours").count();
    assert_eq!(left, 0, "the demo leaves files behind");
}

#[tokio::test]
async fn bench_prints_each_figure_as_a_line_and_leaves_nothing_behind() {
    let lab = Lab::new().await;
    let asked = ["bench", "--only", "w1", "--events", "300", "--json"];
    let out = lab.run(&asked).await.ok().expect("all of it comes across");
    let figures: Vec<Json> =
        out.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let of = |case: &str, metric: &str| {
        let figure = figures.iter().find(|f| f["case"] == case && f["metric"] == metric);
        figure.unwrap_or_else(|| panic!("no {metric} of {case} in {out}")).clone()
    };
    for metric in ["events_per_s", "wire_bytes_per_event", "app_bytes", "disk_bytes_per_event"] {
        let figure = of("1x300", metric);
        assert_eq!(figure["workload"], "W1");
        assert!(figure["value"].as_f64().is_some_and(|value| value > 0.0), "{figure}");
    }
    // The events themselves went over the wire, and they can't be compressed.
    assert!(of("1x300", "app_bytes")["value"].as_f64().is_some_and(|bytes| bytes > 300.0 * 150.0));
    assert!(of("records-1x300", "events_per_s")["share_of_limit"].is_f64());
    // The lock stays, as every lock of this machine does.
    let left = fs::read_dir(lab.home.path()).expect("it is ours").flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["mosaik-lab.lock"]);
}

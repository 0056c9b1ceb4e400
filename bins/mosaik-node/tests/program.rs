//! The program as a person meets it: real processes without a network, their exit codes and sentences.

#[path = "program/keeping.rs"]
mod keeping;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::UdpSocket,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value as Json;

/// How long a verb may take on a machine that has much else to do.
const VERB_MAX: Duration = Duration::from_secs(120);

/// A data directory, and commands on it that see nothing of this machine's other nodes.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { root: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mosaik-node"));
        command
            .env_clear()
            .env("HOME", self.root.path())
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("MOSAIK_DATA_DIR", self.data_dir())
            .env("MOSAIK_CONFIG", self.file("empty.toml", ""))
            .args(line.split_whitespace())
            .stdin(Stdio::null());
        command
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("ours");
        path
    }

    /// Runs a verb to its end; one that has none is ended, and the test fails.
    fn run(&self, line: &str) -> Done {
        let mut command = self.command(line);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("it runs");
        let pid = rustix::process::Pid::from_child(&child);
        let (ended, end) = mpsc::channel::<()>();
        let watch = thread::spawn(move || {
            if end.recv_timeout(VERB_MAX) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        });
        let output = child.wait_with_output().expect("it ends");
        drop(ended);
        watch.join().expect("no panic");
        assert!(output.status.code().is_some(), "{line} did not end within {VERB_MAX:?}");
        Done::of(output)
    }

    /// Starts a node that looks for nobody, and waits until it answers.
    fn node(&self, network: &str) -> Node {
        self.node_with(network, "")
    }

    /// The same with more flags.
    fn node_with(&self, network: &str, flags: &str) -> Node {
        let line = format!(
            "--network {network} --no-dht --no-relay --lab --listen 127.0.0.1:0 --name test {flags}"
        );
        let mut child = self.command(&line).stdout(Stdio::piped()).spawn().expect("it runs");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let node = Node { child, stdout: stdout.lines() };
        self.run("wait --ready --timeout 60").is(0);
        node
    }
}

struct Node {
    child: Child,
    stdout: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Node {
    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("it runs");
    }

    /// Reads what it prints until a line holds `text`.
    fn says(&mut self, text: &str) -> String {
        let mut seen = String::new();
        for line in self.stdout.by_ref() {
            let line = line.expect("text");
            if line.contains(text) {
                return line;
            }
            seen.push_str(&line);
            seen.push('\n');
        }
        panic!("it never said {text:?}, but:\n{seen}");
    }

    fn stop(mut self) {
        self.signal(rustix::process::Signal::TERM);
        self.says("left");
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Only where a test failed before it was stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Done {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Done {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it was not killed"),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    #[track_caller]
    fn is(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Ends with this code and one sentence that holds all these.
    #[track_caller]
    fn fails(self, code: i32, says: &[&str]) {
        let done = self.is(code);
        for text in says {
            assert!(done.stderr.contains(text), "{text:?} in: {}", done.stderr);
        }
        assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
    }

    #[track_caller]
    fn json(self) -> Json {
        let done = self.is(0);
        let document: Json = serde_json::from_str(&done.stdout).expect("one document");
        assert_eq!(document["schema"], 1);
        document
    }
}

#[test]
fn a_node_says_what_it_is_serves_and_leaves() {
    let place = Place::new();
    let mut node = place.node("demo");
    let first = node.says("node ");
    assert!(first.contains("test ("), "{first}");
    node.says("anyone who knows its name can join");
    node.says("data dir");
    let socket = node.says("socket").split_whitespace().last().expect("a path").to_owned();
    node.says("waiting for peers");

    let status = place.run("status --json").json();
    assert_eq!(status["state"], "isolated");
    assert_eq!(status["socket"], socket.as_str());
    assert_eq!(status["network"]["kind"], "public");
    assert_eq!(status["data_dir"], place.data_dir().display().to_string());
    for directory in [Path::new(&socket).parent().expect("one"), &place.data_dir()] {
        let mode = fs::metadata(directory).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", directory.display());
    }
    let ticket = place.run("id --ticket").is(0).stdout;
    assert!(ticket.starts_with("mpeer1"), "{ticket}");
    assert_eq!(place.run("id --json").json()["addresses"].as_array().expect("a list").len(), 1);
    for noun in ["peers", "slots", "frontier", "feeds", "conflicts", "view", "events", "records"] {
        place.run(&format!("{noun} --json")).json();
        place.run(noun).is(0);
    }
    let digest = place.run("view --digest").is(0).stdout;
    assert_eq!(digest.len(), 65);
    node.stop();
    assert!(!Path::new(&socket).exists(), "it takes its socket away");
}

#[test]
fn records_are_written_read_and_kept_over_a_restart() {
    let place = Place::new();
    let node = place.node("demo");
    let made = place.run("record create --form visit state=open zip=007 n:int=42").is(0).stdout;
    assert_eq!(made.trim().len(), 26);
    place.run("record create R-1 --form visit a=1.5").is(0);
    place.run("record create R-1 --form visit").fails(1, &["R-1", "exists", "--if-absent"]);
    place.run("record create R-1 --form visit --if-absent").is(0);
    place.run("records set R-1 a=2 b:time=2026-11-21").is(0);
    place.run("record note R-1 seen").is(0);
    place.run("record archive R-1").is(0);
    let event = place.run("event emit sensor.reading [1,2.5]").is(0).stdout;
    assert_eq!(event.trim().len(), 64);
    place.run("wait --record R-1 --field a=2 --timeout 10").is(0);
    let before = place.run("view --digest").is(0).stdout;
    node.stop();

    let node = place.node("demo");
    assert_eq!(place.run("view --digest").is(0).stdout, before);
    let record = place.run("record get R-1 --json").json();
    assert_eq!((record["fields"]["a"].as_i64(), &record["archived"]), (Some(2), &Json::Bool(true)));
    let first = place.run(&format!("record get {} --json", made.trim())).json();
    assert_eq!(
        (first["fields"]["zip"].as_str(), first["fields"]["n"].as_i64()),
        (Some("007"), Some(42))
    );
    assert_eq!(place.run("records --json").json()["records"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        place.run("records --archived --json").json()["records"].as_array().map(Vec::len),
        Some(2)
    );
    node.stop();
}

#[test]
fn what_cannot_be_written_is_refused_in_a_sentence_and_changes_nothing() {
    let place = Place::new();
    let node = place.node("demo");
    place.run("record create R --form f").is(0);
    let events = place.run("status --json").json()["events"].clone();
    let long = "x".repeat(66_000);
    for (line, code, says) in [
        ("record get nope".to_owned(), 4, "no record"),
        ("record set nope a=1".to_owned(), 4, "no record"),
        ("record set R a:int=x".to_owned(), 2, "whole number"),
        ("record set R a:number=1".to_owned(), 2, "the types are"),
        ("record set R =1".to_owned(), 2, "name"),
        (format!("record set R a={long}"), 2, "65536"),
        (format!("record set R {}=1", "f".repeat(129)), 2, "128"),
        (format!("record create {} --form f", "r".repeat(257)), 2, "256"),
        ("event emit UPPER {}".to_owned(), 2, "a-z"),
        (format!("event emit {} {{}}", "k".repeat(65)), 2, "1 to 64"),
        ("event emit record.create {}".to_owned(), 2, "reserved"),
        ("event emit k {".to_owned(), 2, "JSON"),
        ("event emit k 99999999999999999999".to_owned(), 2, "digits"),
        ("peer show 00".to_owned(), 4, "no peer"),
        ("peer add mpeer1x".to_owned(), 2, "ticket"),
        ("peer block 1234".to_owned(), 4, "no peer"),
        ("statsu".to_owned(), 2, "status"),
        ("--listen 127.0.0.1:1 status".to_owned(), 2, "run"),
        ("wait --record nope --timeout 0".to_owned(), 5, "not here"),
        ("wait --synced --timeout 0.1".to_owned(), 5, "no peer"),
        ("wait --peers 1 --timeout 0".to_owned(), 5, "no peer"),
    ] {
        place.run(&line).fails(code, &[says]);
    }
    let failure = place.run("record get nope --json").is(4).stdout;
    let failure: Json = serde_json::from_str(&failure).expect("a document");
    assert_eq!(failure["error"]["code"], "not_found");
    assert_eq!(place.run("status --json").json()["events"], events);
    node.stop();
}

#[test]
fn a_file_is_imported_once_and_exported_the_same_with_and_without_a_node() {
    let place = Place::new();
    let node = place.node("demo");
    let mut table = "id,name,zip\n".to_owned();
    for n in 0..1200 {
        table.push_str(&format!("r{n:04},\"name, {n}\",{n:05}\n"));
    }
    table.push_str("r0001,again,1\ntoo,few\n,x,1\n");
    let file = place.file("table.csv", &table);
    let line = format!("import {} --form f --id-column id", file.display());
    let done = place.run(&line).is(1);
    assert!(
        done.stdout.contains("1200 created, 0 changed, 0 unchanged, 3 refused"),
        "{}",
        done.stdout
    );
    for line in ["line 1202", "line 1203", "line 1204", "3 rows refused"] {
        assert!(done.stderr.contains(line), "{}", done.stderr);
    }
    let events = place.run("status --json").json()["events"].clone();
    let again = place.run(&line).is(1).stdout;
    assert!(again.contains("0 created, 0 changed, 1200 unchanged"), "{again}");
    assert_eq!(place.run("status --json").json()["events"], events);

    let rows = "{\"id\":\"r0000\",\"zip\":\"00000\"}\n{\"id\":\"j\",\"n\":1.0}\n{\"id\":}\n";
    let mut import = place.command("import - --format jsonl --form f --id-column id --json");
    let mut import = import
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    import.stdin.take().expect("a pipe").write_all(rows.as_bytes()).expect("it reads");
    let done = Done::of(import.wait_with_output().expect("it ends")).is(1);
    let first = done.stdout.lines().next().expect("a document");
    let report: Json = serde_json::from_str(first).expect("a document");
    assert_eq!((&report["created"], &report["unchanged"]), (&Json::from(1), &Json::from(1)));
    assert_eq!(report["refused"][0]["line"], 3);

    for (line, says) in [
        (
            format!("import {} --form f --id-column nope", file.display()),
            "the columns are id, name, zip",
        ),
        ("import /nope.csv --form f --id-column id".to_owned(), "cannot read /nope.csv"),
        ("import - --form f --id-column id".to_owned(), "--format"),
        (format!("import {} --form f --id-column id", place.file("e.csv", "").display()), "empty"),
    ] {
        place.run(&line).fails(2, &[says]);
    }
    let exports: Vec<_> = ["export --format csv --form f", "export --format jsonl"]
        .into_iter()
        .map(|line| (line, place.run(line).is(0).stdout))
        .collect();
    assert_eq!(exports[0].1.lines().count(), 1202);
    assert!(exports[0].1.contains("r0007,,\"name, 7\",00007\n"), "{}", &exports[0].1[..200]);
    place.run("export --format csv --form f --id-column name").fails(2, &["--id-column"]);
    node.stop();
    for (line, with_node) in exports {
        assert_eq!(place.run(line).is(0).stdout, with_node, "{line}");
    }
}

#[test]
fn who_follows_events_sees_each_as_it_comes() {
    let place = Place::new();
    let node = place.node("demo");
    let mut follow =
        place.command("events --follow --json").stdout(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(follow.stdout.take().expect("a pipe")).lines();
    let mut next = move || -> Json {
        serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("an event")
    };
    assert_eq!(next()["kind"], "node.profile");
    place.run("event emit app.first 1").is(0);
    assert_eq!((&next()["kind"], 1), (&Json::from("app.first"), 1));
    place.run("record create R --form f a=1").is(0);
    assert_eq!(next()["kind"], "record.create");
    let set = next();
    assert_eq!(
        (&set["payload"]["value"], &set["last_of_arrival"]),
        (&Json::from(1), &Json::Bool(true))
    );
    node.stop();
    assert!(follow.wait().expect("it ends with the node").success());
}

#[test]
fn a_node_that_cannot_start_says_why_and_loses_nothing() {
    let place = Place::new();
    let node = place.node("demo");
    place.run("record create R --form f").is(0);
    let quiet = "--no-dht --no-relay --lab";
    let pid = node.pid().to_string();
    place.run(&format!("--network demo {quiet}")).fails(1, &["another mosaik-node holds", &pid]);

    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let line = format!("--network other {quiet} --listen 127.0.0.1:{port}");
    place.run(&line).fails(1, &["in use", &port]);
    node.stop();

    for (network, says) in
        [("mnet1qqqqqq", "mistyped"), ("MNET1X", "mistyped"), (&"n".repeat(257), "256")]
    {
        place.run(&format!("--network {network} {quiet}")).fails(2, &[says]);
    }
    place.run(&format!("--network-file /nope {quiet}")).fails(2, &["/nope"]);
    let file = place.file("a-file", "");
    place.run(&format!("--data-dir {} --network x {quiet}", file.display())).fails(1, &["a-file"]);
    for (flag, says) in [
        ("--listen 4242", "ADDR:PORT"),
        ("--sync-interval 0", "1 to 86400"),
        ("--peer mpeer1x", "ticket"),
        ("--relay relay.example", "URL"),
        ("--log-level loud", "trace"),
        ("--config /nope.toml", "/nope.toml"),
    ] {
        place.run(&format!("--network x --no-dht {flag}")).fails(2, &[says]);
    }
    let unknown = place.file("bad.toml", "sync_intervall = 5\n");
    place
        .run(&format!("--network x --config {}", unknown.display()))
        .fails(2, &["sync_intervall", "sync_interval"]);

    let networks = place.run("networks --json").json()["networks"].clone();
    let mut networks = networks.as_array().expect("a list").iter();
    let demo = networks.find(|network| network["name"] == "demo").expect("it is known");
    let store = Path::new(demo["directory"].as_str().expect("a path")).join("store.redb");
    let good = fs::read(&store).expect("ours");
    for bad in [&b"not a store at all, but some text"[..], b""] {
        fs::write(&store, bad).expect("ours");
        let done = place.run(&format!("--network demo {quiet}")).is(1);
        assert!(done.stderr.contains("store"), "{}", done.stderr);
    }
    fs::write(&store, good).expect("ours");
    let node = place.node("demo");
    place.run("record get R").is(0);
    node.stop();
}

#[test]
fn without_a_node_every_verb_says_how_to_start_one() {
    let place = Place::new();
    for line in ["status", "peers", "record get R", "event emit k 1", "wait --peers 1"] {
        place.run(line).fails(3, &["no node runs", "mosaik-node --data-dir"]);
    }
    place.run("wait --ready --timeout 0.3").fails(5, &["no node runs"]);
    place.run("wait --synced --timeout 0.3").fails(3, &["no node runs"]);
    place.run("export --format csv").fails(4, &["no network is known"]);
    place.run("--no-dht").fails(2, &["network new"]);
    place.run("network show").fails(4, &["network new"]);
    let failure: Json =
        serde_json::from_str(&place.run("status --json").is(3).stdout).expect("one");
    assert_eq!(failure["error"]["code"], "no_node");
}

#[test]
fn one_of_several_nodes_has_to_be_named() {
    let place = Place::new();
    let one = place.node("one");
    place.run("status").is(0);
    let mut other = place
        .command("--network two --no-dht --no-relay --lab --listen 127.0.0.1:0")
        .stdout(Stdio::null())
        .spawn()
        .expect("it runs");
    place.run("wait --network two --ready --timeout 60").is(0);
    place.run("status").fails(2, &["2 nodes run", "--network one", "--network two"]);
    let status = place.run("status --network two --json").json();
    assert_eq!(status["pid"], other.id());
    other.kill().expect("ours");
    other.wait().expect("it ends");
    // Its socket is still there, and nobody behind it.
    place.run("status").is(0);
    place.run("status --network two").fails(3, &["no node of this network"]);
    one.stop();
}

#[test]
fn a_secret_id_is_shown_where_it_is_asked_for_and_nowhere_else() {
    let place = Place::new();
    let made = place.run("network new --label flood").is(0);
    let id = made.stdout.trim().to_owned();
    assert_eq!(id.len(), 117);
    assert!(!made.stderr.contains(&id[5..]));
    let key = made.stderr.lines().find(|line| line.contains("author.key")).expect("it says where");
    let key = key.split_whitespace().last().expect("a path").trim_end_matches('.');
    let key = fs::read_to_string(key).expect("it is there");
    assert!(key.trim().len() == 64 && !made.stderr.contains(key.trim()), "{}", made.stderr);
    assert_eq!(place.run("network show").is(0).stdout.trim(), id);
    let drawn = place.run("network show --qr").is(0).stdout;
    let (first, code) = drawn.split_once('\n').expect("more than a line");
    assert!(first == id && code.lines().count() > 20 && !code.contains('\u{1b}'), "{drawn}");
    place.run("network show --qr --json").fails(2, &["--qr"]);
    place.run("network new --qr --json").fails(2, &["--qr"]);
    assert_eq!(place.run("network show --json").json()["network"]["id"], id.as_str());

    let line = "--no-dht --no-relay --lab --listen 127.0.0.1:0 --log-level trace";
    let mut child = place
        .command(line)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the only network known is taken");
    place.run("wait --ready --timeout 60").is(0);
    place.run("record create R --form f").is(0);
    let mut all = String::new();
    for line in [
        "status",
        "status --json",
        "id",
        "id --json",
        "peers",
        "slots --json",
        "networks",
        "networks --json",
        "config show --origin",
        "config --json",
        "feeds --json",
        "view --json",
    ] {
        let done = place.run(line).is(0);
        all.push_str(&done.stdout);
        all.push_str(&done.stderr);
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    let stdout = std::io::read_to_string(child.stdout.take().expect("a pipe")).expect("text");
    let stderr = std::io::read_to_string(child.stderr.take().expect("a pipe")).expect("text");
    assert!(child.wait().expect("it ends").success(), "{stderr}");
    for text in [&all, &stdout, &stderr] {
        assert!(!text.contains(&id[5..40]), "{text}");
    }
    let by_id = place.command("config show").env("MOSAIK_NETWORK", &id).output().expect("it runs");
    let by_id = Done::of(by_id).is(0).stdout;
    assert!(by_id.contains("secret, fingerprint") && !by_id.contains(&id[5..40]), "{by_id}");
    place.run("export --format jsonl").is(0);
}

/// It must not wait for a DHT that doesn't answer, and Ctrl-C is how it is meant to end.
#[test]
fn who_watches_the_slots_is_answered_at_once_until_ctrl_c() {
    let place = Place::new();
    let node = place.node("demo");
    let mut watch = place.command("slots --watch --json");
    let mut watch = watch.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(watch.stdout.take().expect("a pipe")).lines();
    let first = lines.next().expect("a line").expect("text");
    let first: Json = serde_json::from_str(&first).expect("a document");
    assert_eq!((&first["schema"], &first["slots"]), (&Json::from(1), &Json::Array(Vec::new())));
    let pid = rustix::process::Pid::from_child(&watch);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    assert!(watch.wait().expect("it ends").success());
    place.run("slots --watch show 3").fails(2, &["list"]);
    node.stop();
    place.run("slots --watch").fails(3, &["start one with"]);
}

/// One wrong letter must not become another network: who copies an id by hand is told.
#[test]
fn a_secret_id_with_one_changed_letter_is_called_mistyped() {
    let place = Place::new();
    let id = place.run("network new").is(0).stdout.trim().to_owned();
    for at in [5, 40, 80, id.len() - 1] {
        let other = if &id[at..=at] == "q" { "p" } else { "q" };
        let mistyped = format!("{}{other}{}", &id[..at], &id[at + 1..]);
        let done = place.run(&format!("--network {mistyped} network show")).is(2);
        assert!(done.stderr.contains("mistyped"), "{at}: {}", done.stderr);
        assert!(!done.stderr.contains(&mistyped[6..40]), "{}", done.stderr);
        place.run(&format!("--network {mistyped} --no-dht --no-relay")).fails(2, &["mistyped"]);
    }
}

#[test]
fn settings_show_where_they_come_from() {
    let place = Place::new();
    let file = place.file("node.toml", "sync_interval = 11\nname = \"from-file\"\n");
    let shown = |line: &str, env: &[(&str, &str)]| {
        let mut command = place.command(line);
        Done::of(command.envs(env.iter().copied()).output().expect("it runs"))
    };
    let line = format!("config show --origin --config {} --sync-jitter 3", file.display());
    let env = [("MOSAIK_NAME", "from-env"), ("LOG_LEVEL", "WARNING"), ("BOOT_NODE", "10.0.0.1:1")];
    let done = shown(&line, &env).is(0);
    let rows: Vec<Vec<&str>> =
        done.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    for row in [
        ["sync_interval", "11", file.to_str().expect("text")],
        ["sync_jitter", "3", "flag"],
        ["name", "from-env", "MOSAIK_NAME"],
        ["log_level", "warn", "LOG_LEVEL"],
        ["rate_down", "0", "default"],
    ] {
        assert!(rows.iter().any(|found| *found == row), "{row:?} in {}", done.stdout);
    }
    assert!(done.stderr.contains("none is needed"), "{}", done.stderr);
    shown("config check", &[]).is(0);
    shown("config check", &[("LOG_LEVEL", "LOUD")]).fails(2, &["LOUD", "LOG_LEVEL", "critical"]);
    let complete = shown("completions bash", &[]).is(0).stdout;
    assert!(complete.contains("mosaik-node"));
}

#[test]
fn the_log_goes_where_it_is_told_and_is_opened_anew_on_a_hangup() {
    let place = Place::new();
    let directory = place.path("log");
    let line = format!(
        "--network demo --no-dht --no-relay --lab --listen 127.0.0.1:0 --log-format json --log-dir {}",
        directory.display()
    );
    let mut child = place.command(&line).stdout(Stdio::piped()).spawn().expect("it runs");
    let stdout = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    place.run("wait --ready --timeout 60").is(0);
    let log = directory.join("mosaik-node.log");
    let text = fs::read_to_string(&log).expect("it logs");
    let first: Json = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["level"], "INFO");
    fs::rename(&log, directory.join("old.log")).expect("ours");
    let node = Node { child, stdout };
    node.signal(rustix::process::Signal::HUP);
    // The reload is logged to the new file; its existence is all that can be waited for.
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !fs::read_to_string(&log).is_ok_and(|text| text.contains("settings read again")) {
        assert!(std::time::Instant::now() < deadline, "the log is opened anew");
        thread::yield_now();
    }
    node.stop();
}

//! Command lines that can't be meant: refused before anything is made, written or waited for.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use mosaik_lab::{Cluster, Node, Output, node::VERB_TIMEOUT, process};
use mosaik_tests::{cluster, play, repository};
use serde_json::Value;
use tokio::process::Command;

use super::{QUIET, contents, goes_on, idle, is_as_before, refused, refuses};

/// Every verb that takes a network's id, with all that it needs besides.
const VERBS: [&str; 38] = [
    "",
    "run",
    "status",
    "id",
    "peers",
    "peer show 00",
    "peer add mpeer1x",
    "peer block 00",
    "peer unblock 00",
    "slots",
    "slot show 1",
    "frontier",
    "feeds",
    "feed show 00",
    "conflicts",
    "view",
    "view --digest",
    "events",
    "events --follow",
    "event emit k 1",
    "records",
    "record get R",
    "record create --form f",
    "record set R a=1",
    "record note R text",
    "record archive R",
    "import /dev/null --format csv --form f --id-column c",
    "export --format csv",
    "export --format jsonl",
    "wait --ready",
    "wait --synced",
    "wait --peers 1 --timeout 30",
    "wait --record R",
    "network list",
    "network show",
    "network new",
    "config show",
    "config check",
];

/// A mistyped secret must neither become a public name nor be shown to whoever reads a log.
#[tokio::test]
async fn a_mistyped_network_id_is_refused_by_every_verb_and_repeated_by_none() {
    let tried = async {
        let (_lab, mut node) = idle().await?;
        let good = secret_id()?;
        let secret = &good[20..60];
        let (head, tail) = good.split_at(50);
        let other = if tail.starts_with('q') { 'p' } else { 'q' };
        let mistyped = format!("{head}{other}{}", &tail[1..]);
        for verb in VERBS {
            let words = [&["--network", &mistyped][..], &verb.split(' ').collect::<Vec<_>>()];
            let words: Vec<&str> = words.concat().into_iter().filter(|w| !w.is_empty()).collect();
            let sentence = refuses(&node, &words, 2, &[]).await?;
            // `network new` makes its own, so that none can be given to it.
            let says =
                if verb == "network new" { "leave --network out" } else { "mistyped or cut" };
            ensure!(sentence.contains(says), "{verb}: {sentence}");
            ensure!(!sentence.contains(&secret[..20]), "{verb} repeats the id: {sentence}");
        }
        let file = node.data_dir().with_extension("id");
        fs::write(&file, format!("{mistyped}\n"))?;
        let file = file.to_str().context("a plain path")?;
        refuses(&node, &["--network-file", file, "status"], 2, &[file, "mistyped"]).await?;
        for (id, says) in [
            ("", "must not be empty"),
            (&*"n".repeat(257), "at most 256 bytes, this one has 257"),
            (&good[..100], "mistyped or cut"),
            (&*format!("{good}q"), "mistyped or cut"),
            (&*format!("{}{}", good[..60].to_uppercase(), &good[60..]), "mistyped or cut"),
            ("mnet1", "mistyped or cut"),
            ("MNET1-is-what-we-call-it", "mistyped or cut"),
        ] {
            refuses(&node, &[&["--network", id][..], &QUIET].concat(), 2, &[says]).await?;
            refuses(&node, &["--network", id, "status"], 2, &[says]).await?;
        }
        node.env.push(("MOSAIK_NETWORK".into(), mistyped));
        refuses(&node, &["status"], 2, &["MOSAIK_NETWORK", "mistyped"]).await?;
        refuses(&node, &QUIET, 2, &["MOSAIK_NETWORK", "mistyped"]).await?;
        ensure!(contents(node.data_dir())?.is_empty(), "something was made");
        Ok(())
    };
    tried.await.unwrap_or_else(|error: anyhow::Error| panic!("{error:#}"));
}

/// A way into Reticulum that isn't there ends the start in one sentence, and in no line of a library besides.
#[tokio::test]
async fn a_radio_that_is_not_there_is_named_with_what_to_do() {
    let tried = async {
        let (lab, node) = idle().await?;
        let rns = lab.path().join("rns");
        fs::create_dir(&rns)?;
        fs::write(
            rns.join("config"),
            "[reticulum]\nshare_instance = Yes\ninstance_name = nobody\n",
        )?;
        let (there, missing) = (rns.display().to_string(), lab.path().join("none"));
        let missing = missing.display().to_string();
        let tries: [(&[&str], i32, &[&str]); 4] = [
            (
                &["--rns", "rnsd", "--rns-config", &there],
                1,
                &["no rnsd listens", "start it with rnsd"],
            ),
            (&["--rns", "rnsd", "--rns-config", &missing], 1, &["cannot read", "start rnsd once"]),
            (&["--rns", "serial:/dev/none"], 1, &["/dev/none", "connect it"]),
            (&["--rns", "rnsd:"], 2, &["write rnsd, tcp://HOST:PORT"]),
        ];
        for (radio, code, says) in tries {
            let words = [&["--network", "radio-that-is-not-there"], &QUIET[..], radio].concat();
            let output = node.run(&words).await?;
            refused(&output, code, says)?;
            ensure!(!output.stderr.contains(" ERROR "), "{}", output.stderr);
        }
        anyhow::Ok(())
    };
    tried.await.unwrap_or_else(|error| panic!("{error:#}"));
}

/// The secret id of the golden vectors.
fn secret_id() -> Result<String> {
    let text = fs::read_to_string(repository().join("tests/vectors/keys.json"))?;
    let id = text.split('"').find(|word| word.starts_with("mnet1") && word.len() == 117);
    id.map(str::to_owned).context("the vectors have a secret network")
}

/// Two nodes with directories of their own: nobody can tell which one is meant.
#[tokio::test]
async fn one_of_several_nodes_in_several_directories_has_to_be_named() {
    play(cluster(2).dht(0).relay(false), async |cluster: &mut Cluster| {
        let runtime = cluster.directory().join("run").display().to_string();
        for node in &mut cluster.nodes {
            // As with one user's nodes on one machine.
            node.env.push(("XDG_RUNTIME_DIR".into(), runtime.clone()));
        }
        cluster.start().await?;
        let [n1, n2] = &mut cluster.nodes[..] else { unreachable!("two nodes") };
        let list: Vec<_> =
            [&*n1, &*n2].map(|n| format!("--data-dir {} --network", n.data_dir().display())).into();
        for verb in ["status", "record create --form f", "peers"] {
            let output = anywhere(n1, verb).await?;
            refused(&output, 2, &["2 nodes run; say which one is meant", &list[0], &list[1]])?;
        }
        n2.stop().await?;
        let only: Value = anywhere(n1, "status --json").await?.json()?;
        ensure!(only["node"] == n1.identity().await?.node, "another node answers");
        n1.stop().await?;
        let output = anywhere(n1, "status").await?;
        refused(&output, 3, &["no node runs", "start one with: mosaik-node"]).map(|_| ())
    })
    .await;
}

/// Runs a verb without saying which data directory is meant.
async fn anywhere(node: &Node, verb: &str) -> Result<Output> {
    let known = node.command();
    let known = known.as_std();
    let mut command = Command::new(known.get_program());
    command.env_clear();
    for (name, value) in known.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    // Nor is what this machine's own user keeps.
    command.env("STATE_DIRECTORY", "").env("HOME", node.data_dir().with_extension("home"));
    command.args(verb.split(' '));
    process::run(command, b"", VERB_TIMEOUT).await
}

/// What a running node refuses, it has not done in part.
#[tokio::test]
async fn a_refused_verb_leaves_view_and_files_as_they_were() {
    play(cluster(1).dht(0).relay(false), async |cluster: &mut Cluster| {
        let files = cluster.directory().join("files");
        fs::create_dir(&files)?;
        let [n1] = &mut cluster.nodes[..] else { unreachable!("one node") };
        n1.start().await?;
        n1.run(&["record", "create", "R-1", "--form", "report", "n:int=1"]).await?.ok()?;
        let status = n1.status().await?;
        let before = contents(n1.data_dir())?;
        let own = n1.identity().await?;
        let mistyped = format!("{}{}", &own.ticket[..own.ticket.len() - 1], {
            if own.ticket.ends_with('q') { 'p' } else { 'q' }
        });

        let deep = format!("{}1{}", "[".repeat(17), "]".repeat(17));
        let (long, over) = ("x".repeat(66_000), "y".repeat(100_000));
        for (words, code, says) in [
            (&["record", "create", "R-1", "--form", "other"][..], 1, "--if-absent"),
            (&["record", "create", "", "--form", "f"], 2, "1 to 256"),
            (&["record", "create", "R-2", "--form", "f", "n:int=abc"], 2, "whole number"),
            (&["record", "create", "R-2", "--form", "f", "a=1", "t:time=soon"], 2, "soon"),
            (&["record", "create", "R-2", "--form", "f", "a=1", &format!("b={long}")], 2, "65536"),
            (&["record", "create", "R-2", "--form", &"f".repeat(129)], 2, "128"),
            (&["record", "set", "R-1", "a=1", "b:json={"], 2, "JSON"),
            (&["record", "set", "R-1", "a=1", &format!("b={over}")], 2, "65536"),
            (&["record", "note", "R-1", &long], 2, "65536"),
            (&["record", "note", "R-9", "text"], 4, "R-9"),
            (&["record", "archive", "R-9"], 4, "R-9"),
            (&["event", "emit", "app.x", &deep], 2, "16"),
            (&["event", "emit", "app.x", &format!("\"{long}\"")], 2, "65536"),
            (&["event", "emit", &"k".repeat(65), "1"], 2, "64"),
            (&["event", "emit", "node.profile", "1"], 2, "reserved"),
            (&["event", "emit", "mosaik.later", "1"], 2, "reserved"),
            (&["event", "emit", "", "1"], 2, "1 to 64"),
            (&["peer", "add", &mistyped], 2, "ticket"),
            (&["peer", "add", &own.ticket], 2, "own ticket"),
            (&["peer", "block", &own.node], 2, "the node itself"),
            (&["peer", "unblock", "zz"], 4, "no peer"),
            (&["feed", "show", "zz"], 4, "zz"),
            (&["slot", "show", "16"], 2, "16"),
            (&["events", "--since", "x"], 2, "--since"),
            (&["wait", "--record", "R-1", "--field", "n=2", "--timeout", "0"], 5, "R-1"),
            (&["wait", "--peers", "1", "--timeout", "soon"], 2, "30 or 0.5"),
            (&["recrod", "get", "R-1"], 2, "'record'"),
            (&["record", "crate", "--form", "f"], 2, "'create'"),
            (&["event", "emti", "k", "1"], 2, "'emit'"),
            (&["peers", "blok", "00"], 2, "'block'"),
            (&["status", "--jsno"], 2, "'--json'"),
        ] {
            refuses(n1, words, code, &[says]).await?;
        }
        for (name, bytes, says) in files_of_rows() {
            let path = files.join(name);
            fs::write(&path, bytes)?;
            import(n1, &path, says).await.with_context(|| name.to_owned())?;
        }
        is_as_before(n1.data_dir(), &before)?;
        goes_on(n1, &status).await?;

        // Of a file with good rows these are kept, and only these.
        let path = files.join("some.jsonl");
        fs::write(
            &path,
            b"{\"id\": \"G-1\", \"a\": 1}\n[]\n{\"id\": \"R-1\"}\n{\"id\": \"G-2\"}\n",
        )?;
        import(n1, &path, &[(2, "object"), (3, "report")]).await?;
        for (record, code) in [("G-1", 0), ("G-2", 0), ("R-2", 4)] {
            n1.run(&["record", "get", record]).await?.exited(code)?;
        }
        Ok(())
    })
    .await;
}

/// What is wrong in which line; line 0 for the file as a whole.
type Says = &'static [(u64, &'static str)];

/// Files of which no row is good.
fn files_of_rows() -> [(&'static str, Vec<u8>, Says); 10] {
    let utf16 = "id,a\nB-1,1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let long = format!("{{\"id\": \"B-1\", \"a\": \"{}\"}}\n", "x".repeat(66_000));
    [
        ("types.csv", b"id,n:int\nB-1,one\nB-2,1.5\n".to_vec(), &[(2, "one"), (3, "1.5")]),
        ("cells.csv", b"id,a\nB-1\nB-2,1,2\n,1\n".to_vec(), &[(2, ""), (3, ""), (4, "")]),
        ("quotes.csv", b"id,a\nB-1,\"open\nB-2,1\n".to_vec(), &[(2, "")]),
        ("latin1.csv", b"id,a\nB-1,caf\xe9\n".to_vec(), &[(2, "UTF-8")]),
        ("column.csv", b"id,n:whole\nB-1,1\n".to_vec(), &[(0, "the types are")]),
        ("twice.csv", b"id,a,a\nB-1,1,2\n".to_vec(), &[(0, "two columns are called \"a\"")]),
        ("utf16.csv", utf16, &[(0, "")]),
        ("other.csv", b"id,n\nR-1,7\n".to_vec(), &[(2, "the form \"report\"")]),
        (
            "rows.jsonl",
            b"{\"id\": \"B-1\", \"a\": }\n{\"a\": 1}\n{\"id\": 7.5}\n[1]\n{\"id\": \"\"}\n"
                .to_vec(),
            &[(1, ""), (2, "id"), (3, ""), (4, "object"), (5, "")],
        ),
        ("long.jsonl", long.into_bytes(), &[(1, "65536")]),
    ]
}

/// Imports a file with bad rows: each is named by its line.
async fn import(node: &Node, path: &Path, says: Says) -> Result<()> {
    let path = path.to_str().context("a plain path")?;
    let output = node.run(&["import", path, "--form", "f", "--id-column", "id"]).await?;
    if let &[(0, says)] = says {
        return refused(&output, 2, &[path, says]).map(|_| ());
    }
    refused(&output, 1, &["refused; the other rows are kept"])?;
    let lines: Vec<_> = output.stderr.lines().filter(|line| line.starts_with("line ")).collect();
    ensure!(lines.len() == says.len(), "{} lines: {}", lines.len(), output.stderr);
    for (line, (number, says)) in lines.into_iter().zip(says) {
        let reason = line.strip_prefix(&format!("line {number}: "));
        let reason = reason.with_context(|| format!("line {number} is expected: {line}"))?;
        ensure!(!reason.is_empty() && reason.contains(says), "{says:?} is expected: {line}");
    }
    Ok(())
}

//! Data directories that a node must not begin with: it says why, and leaves every byte as it was.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use mosaik_lab::{Cluster, Node, Output, node::VERB_TIMEOUT, process};
use mosaik_tests::{cluster, play};
use redb::{Database, TableDefinition};
use tokio::process::Command;

use super::{QUIET, contents, goes_on, idle, is_as_before, refused, refuses};

/// What a store says of its schema: crates/mosaik-store/FORMAT.md.
const META: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("meta");

/// Whoever is nobody on most systems.
const NOBODY: u32 = 65_534;

/// Whatever is wrong with what a node kept, it is not begun anew over it.
#[tokio::test]
async fn a_store_that_is_not_this_nodes_is_left_as_it_is_and_named() {
    play(cluster(2).dht(0).relay(false), async |cluster: &mut Cluster| {
        let network = cluster.network().to_owned();
        let [n1, n2] = &mut cluster.nodes[..] else { unreachable!("two nodes") };
        for word in &mut n2.arguments {
            if *word == network {
                word.push_str("-2");
            }
        }
        n1.start().await?;
        n2.start().await?;
        n1.run(&["record", "create", "R-1", "--form", "report", "of=n1"]).await?.ok()?;
        let directory = network_directory(n1)?;
        let start: Vec<&str> = [&["--network", &network][..], &QUIET].concat();

        let before = n1.status().await?;
        let held = contents(&directory)?;
        let pid = format!("another mosaik-node holds this data directory (pid {})", before.pid);
        refuses(n1, &start, 1, &[&pid]).await?;
        is_as_before(&directory, &held)?;
        goes_on(n1, &before).await?;
        n1.stop().await?;
        n2.stop().await?;

        let good = contents(&directory)?;
        let foreign = contents(&network_directory(n2)?)?;
        for damage in damages(&directory, &network_directory(n2)?, &foreign)? {
            let Damage { name, spoil, says } = damage;
            spoil(&directory).with_context(|| name.to_owned())?;
            let spoilt = contents(&directory)?;
            ensure!(spoilt != good, "{name}: nothing was spoilt");
            refuses(n1, &start, 1, &says).await.with_context(|| name.to_owned())?;
            is_as_before(&directory, &spoilt).with_context(|| format!("{name}, by a start"))?;
            if name.contains("store") {
                // Who reads without a node is told the same.
                let export = ["export", "--format", "csv", "--network", &network];
                let code = if spoilt.contains_key(&directory.join("store.redb")) { 1 } else { 4 };
                refuses(n1, &export, code, &[]).await.with_context(|| name.to_owned())?;
                is_as_before(&directory, &spoilt).with_context(|| format!("{name}, by export"))?;
            }
            fs::remove_dir_all(&directory)?;
            restore(&good, &directory)?;
        }

        // As good as ever.
        n1.start().await?;
        let status = n1.status().await?;
        ensure!(status.view_digest == before.view_digest, "the view is another");
        ensure!(status.events == before.events + 1, "{} events", status.events);
        n1.run(&["record", "get", "R-1"]).await?.ok().map(|_| ())
    })
    .await;
}

type Spoil = Box<dyn Fn(&Path) -> Result<()>>;

/// What happens to a directory before a node is started in it.
struct Damage {
    name: &'static str,
    spoil: Spoil,
    /// What the node says about it, and what to do.
    says: Vec<&'static str>,
}

fn damages(
    directory: &Path,
    other: &Path,
    foreign: &BTreeMap<PathBuf, Vec<u8>>,
) -> Result<Vec<Damage>> {
    let good = fs::read(directory.join("store.redb"))?;
    let file = |path: &str| {
        foreign.get(&other.join(path)).cloned().with_context(|| format!("no {path} there"))
    };
    let (other_store, other_network) = (file("store.redb")?, file("network")?);
    let write =
        |name: &'static str, path: &'static str, bytes: Vec<u8>, says: &[&'static str]| Damage {
            name,
            spoil: Box::new(move |at| Ok(fs::write(at.join(path), &bytes)?)),
            says: says.to_vec(),
        };
    let half = good[..good.len() / 2].to_vec();
    // Past what redb itself checks when it opens a file: pages that are named and not there.
    let most = good[..good.len() - 4096].to_vec();
    let restore_or_delete = ["store.redb is empty", "restore it", "store.created"];
    let missing = Damage {
        name: "no store where there was one",
        spoil: Box::new(|at| Ok(fs::remove_file(at.join("store.redb"))?)),
        says: vec!["store.redb is missing", "restore it", "store.created"],
    };
    let newer = Damage {
        name: "a store of a newer program",
        spoil: Box::new(newer_schema),
        says: vec!["has schema 9", "knows up to", "install a newer one"],
    };
    Ok(vec![
        write(
            "a store that is a text",
            "store.redb",
            b"Dear diary,\n".repeat(1000),
            &["store.redb is not a store of mosaik-node", "move it away"],
        ),
        write("a store cut in half", "store.redb", half, &["store.redb is damaged", "restore it"]),
        write(
            "a store cut at its end",
            "store.redb",
            most,
            &["store.redb is damaged", "restore it"],
        ),
        write(
            "a store of four bytes",
            "store.redb",
            good[..4].to_vec(),
            &["store.redb", "damaged"],
        ),
        write("an empty store", "store.redb", Vec::new(), &restore_or_delete),
        missing,
        write(
            "the store of another network",
            "store.redb",
            other_store,
            &["store.redb belongs to network", "move it away"],
        ),
        newer,
        write(
            "another network's id",
            "network",
            other_network,
            &["says another network than the directory is named for", "move one of them away"],
        ),
        write(
            "a damaged network id",
            "network",
            b"mnet1qqqqqqqq\n".to_vec(),
            &["network holds no network id", "mistyped or cut"],
        ),
        write(
            "a key cut short",
            "author.key",
            b"0123456789abcdef\n".to_vec(),
            &["author.key holds no key", "restore it", "move it away"],
        ),
        write("a key that is no text", "node.key", vec![0xff; 65], &["node.key holds no key"]),
    ])
}

fn newer_schema(at: &Path) -> Result<()> {
    let database = Database::open(at.join("store.redb"))?;
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let known = meta.insert(&b".schema"[..], &9_u32.to_le_bytes()[..])?;
        ensure!(known.is_some_and(|known| known.value().len() == 4), "a schema");
    }
    Ok(transaction.commit()?)
}

/// A directory that the system doesn't let a node write, whoever owns it.
#[tokio::test]
async fn a_data_directory_that_may_not_be_written_is_named_with_the_reason() {
    let tried = async {
        let (lab, node) = idle().await?;
        let is_root = fs::metadata(lab.path())?.uid() == 0;
        set_mode(lab.path(), 0o755)?;
        let program = lab.path().join("mosaik-node");
        fs::copy(node.command().as_std().get_program(), &program)?;
        let quiet = [&["--network", "a"][..], &QUIET].concat();
        let start = || run_as_nobody(&node, &program, is_root, &quiet);

        set_mode(node.data_dir(), 0o555)?;
        refused(&start().await?, 1, &["cannot make the directory", "ermission denied"])?;
        ensure!(contents(node.data_dir())?.is_empty(), "something was made");

        // Owned by the one who starts a node, made by a node.
        set_mode(node.data_dir(), 0o755)?;
        let made = node.run(&["network", "new"]).await?.ok()?;
        let network = ["--network", made.trim()];
        let quiet = [&network[..], &QUIET].concat();
        let start = || run_as_nobody(&node, &program, is_root, &quiet);
        let directory = network_directory(&node)?;
        if is_root {
            let before = contents(&directory)?;
            let sentence = refused(&start().await?, 1, &["belongs to another user"])?;
            ensure!(sentence.contains("start it as that user"), "{sentence}");
            is_as_before(&directory, &before)?;
            for path in before.keys().chain([&directory]) {
                chown(path, Some(NOBODY), Some(NOBODY))?;
            }
        }
        set_mode(&directory, 0o500)?;
        let before = contents(&directory)?;
        refused(&start().await?, 1, &["can't write to", "ermission denied"])?;
        is_as_before(&directory, &before)?;
        set_mode(&directory, 0o700)
    };
    tried.await.unwrap_or_else(|error: anyhow::Error| panic!("{error:#}"));
}

/// Root may write everywhere, so the program has to be started as somebody else.
async fn run_as_nobody(
    node: &Node,
    program: &Path,
    is_root: bool,
    words: &[&str],
) -> Result<Output> {
    let known = node.command();
    let mut command = Command::new(program);
    command.args(known.as_std().get_args()).args(words).env_clear();
    command.env("MOSAIK_CONFIG", "/dev/null").current_dir("/");
    if is_root {
        command.uid(NOBODY).gid(NOBODY);
    }
    process::run(command, b"", VERB_TIMEOUT).await
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// The one directory of a network that a node has.
fn network_directory(node: &Node) -> Result<PathBuf> {
    let entries: Vec<_> = fs::read_dir(node.data_dir())?.collect::<Result<_, _>>()?;
    let [entry] = entries.as_slice() else { anyhow::bail!("{} directories", entries.len()) };
    Ok(entry.path())
}

fn restore(good: &BTreeMap<PathBuf, Vec<u8>>, directory: &Path) -> Result<()> {
    fs::create_dir(directory)?;
    good.iter().try_for_each(|(path, bytes)| Ok(fs::write(path, bytes)?))
}

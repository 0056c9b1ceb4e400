//! Backups: made by the running node or from the store, restored where there is nothing yet.
//!
//! Invariants:
//! - A file that is there is never written over; one that is not whole has another name.
//! - What is restored appears whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process,
};

use ed25519_dalek::SigningKey;
use mosaik_api::{SCHEMA, client::Client, work::Progress};
use mosaik_core::{
    id::AuthorId,
    key::{Network, NetworkKind},
};
use mosaik_store::{Backup, BackupHead, Restored, Store};
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    Failed, Place, connect,
    db::{Bar, Keeper, bytes, keeper, open},
    output::{count, named, note, plain, print, print_json},
};
use crate::{
    backup,
    directory::{Directory, Keys},
};

/// Pieces of a backup that may wait to be written; the node then waits too.
const CHUNKS_WAITING: usize = 4;

/// Makes a backup in a new file.
pub(super) async fn create(
    place: &Place,
    path: &Path,
    with_secret: bool,
    json: bool,
) -> Result<(), Failed> {
    let keeper = keeper(place).await?;
    let cannot_make = |error: io::Error| {
        let why = match error.kind() {
            io::ErrorKind::AlreadyExists => "there is one already; choose another name".to_owned(),
            _ => error.to_string(),
        };
        Failed::usage(format!("cannot make {}: {why}", path.display()))
    };
    if path.try_exists().map_err(cannot_make)? {
        return Err(cannot_make(io::ErrorKind::AlreadyExists.into()));
    }
    // Its own name for each process: two that make the same backup must not write into one file.
    let unfinished = path.with_added_extension(format!("{}.unfinished", process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(&unfinished).map_err(cannot_make)?;
    let made = match keeper {
        Keeper::Node(client) => by_node(&client, &file, with_secret).await,
        Keeper::Here(directory, fingerprint) => match open(&directory, &fingerprint) {
            Ok(store) => from_store(&store, &directory, &file, with_secret),
            Err(error) => Err(error),
        },
    };
    let cannot = |error| Failed::from(anyhow::anyhow!("cannot write {}: {error}", path.display()));
    let synced = made.and_then(|digest| {
        let len = file.sync_all().and_then(|()| file.metadata()).map_err(cannot)?.len();
        name_finished(&unfinished, path).map_err(cannot_make)?;
        Ok((digest, len))
    });
    let (digest, len) = match synced {
        Ok(made) => made,
        Err(error) => {
            // It is no backup; where it can't be removed, a restore says so.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
    };
    let digest = data_encoding::HEXLOWER.encode(&digest);
    if json {
        let file = path.display().to_string();
        return print_json(
            &json!({ "schema": SCHEMA, "file": file, "bytes": len, "digest": digest }),
        );
    }
    print(format!("{}  {}", digest, path.display()))?;
    note(format!(
        "{} with the node's keys: who has this file can write as this node, so keep it safe",
        bytes(len)
    ));
    Ok(())
}

/// Gives a whole backup its name, durably, and never that of another file.
fn name_finished(unfinished: &Path, path: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, unfinished, CWD, path, RenameFlags::NOREPLACE) {
        // Not every file system knows how; then another file could only have come meanwhile.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::rename(unfinished, path)?,
        renamed => renamed?,
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

fn tell(bar: &Bar, done: u64, total: u64) {
    bar.show(&Progress { phase: "runs".to_owned(), done, total });
}

fn from_store(
    store: &Store,
    directory: &Directory,
    file: &File,
    with_secret: bool,
) -> Result<[u8; 32], Failed> {
    let reader = store.reader().map_err(anyhow::Error::new)?;
    let bar = Bar::new();
    let made =
        backup::write(&reader, directory, with_secret, BufWriter::new(file), &mut |done, total| {
            tell(&bar, done, total);
            true
        });
    bar.end();
    Ok(made.map_err(anyhow::Error::new)?)
}

/// Writes what the node sends, and reads it as it passes: so the digest is that of what was written.
async fn by_node(client: &Client, file: &File, with_secret: bool) -> Result<[u8; 32], Failed> {
    let mut chunks = client.backup(with_secret).await?;
    let file = file.try_clone().map_err(anyhow::Error::new)?;
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
    let reading = tokio::task::spawn_blocking(move || {
        let bar = Bar::new();
        let passing = Passing { chunks: receiver, chunk: Vec::new(), file: BufWriter::new(file) };
        let read = Backup::open(passing).and_then(|backup| {
            backup.read_through(&mut |done, total| {
                tell(&bar, done, total);
                true
            })
        });
        bar.end();
        read
    });
    let mut broken = None;
    loop {
        match chunks.next().await {
            // Whoever reads has stopped, and says why.
            Ok(Some(chunk)) if sender.send(chunk.to_vec()).await.is_err() => break,
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => {
                broken = Some(error);
                break;
            }
        }
    }
    drop(sender);
    let read = reading.await.map_err(anyhow::Error::new)?;
    match (broken, read) {
        (Some(error), _) => Err(error.into()),
        (None, read) => Ok(read.map_err(anyhow::Error::new)?),
    }
}

/// What comes from the node, written to the file as it is read.
struct Passing {
    chunks: mpsc::Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    file: BufWriter<File>,
}

impl Read for Passing {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => {
                    self.file.write_all(&chunk)?;
                    self.chunk = chunk;
                }
                None => {
                    self.file.flush()?;
                    return Ok(0);
                }
            }
        }
        let len = out.len().min(self.chunk.len());
        out[..len].copy_from_slice(&self.chunk[..len]);
        self.chunk.drain(..len);
        Ok(len)
    }
}

/// Makes a node's directory from a backup.
pub(super) fn restore(place: &Place, path: &Path, json: bool) -> Result<(), Failed> {
    let cannot = |error| Failed::usage(format!("cannot read {}: {error}", path.display()));
    let file = File::open(path).map_err(cannot)?;
    if file.metadata().map_err(cannot)?.is_dir() {
        return Err(Failed::usage(format!("{} is a directory", path.display())));
    }
    let backup = Backup::open(BufReader::new(file)).map_err(anyhow::Error::new)?;
    let spot = connect::spot(place)?;
    let named_here = connect::named_network(spot.network.as_ref())?;
    let network = network(backup.head(), named_here)?;
    let fingerprint = network.keys().fingerprint;
    let directory = Directory::of(&spot.data_dir, &fingerprint);
    if !directory.is_empty()? {
        return Err(Failed::from(anyhow::anyhow!(
            "{} is not empty: move it away, or restore into another --data-dir",
            directory.path().display()
        )));
    }
    let author = SigningKey::from_bytes(&backup.head().author_key);
    let author = AuthorId(author.verifying_key().to_bytes());
    let staging = directory.staging()?;
    let restored = restore_into(&staging, &network, backup, &author);
    let restored =
        restored.and_then(|restored| Ok(directory.appear(&staging).map(|()| restored)?));
    let restored = match restored {
        Ok(restored) => restored,
        Err(error) => {
            // The next try begins with removing it.
            let _ = staging.remove();
            return Err(error);
        }
    };
    let seq = restored.own_seq.map_or(0, u64::from);
    let digest = data_encoding::HEXLOWER.encode(&restored.digest);
    if json {
        return print_json(&json!({
            "schema": SCHEMA,
            "directory": directory.path().display().to_string(),
            "fingerprint": fingerprint.to_string(),
            "author": author.to_string(),
            "name": restored.own_name,
            "seq": seq,
            "events": restored.events,
            "branches": restored.branches,
            "digest": digest,
        }));
    }
    let feed = named(&plain(&restored.own_name), &author.to_string());
    print(format!("feed {feed} restored to {seq}"))?;
    print(format!("{} in {}", count(restored.events, "event"), directory.path().display()))?;
    note(
        "Before it writes, the node asks the others for what it wrote since. The node that this is a \
         backup of must not run any more.",
    );
    Ok(())
}

/// The network that a backup says or, where it doesn't, the one that is named here.
fn network(head: &BackupHead, named: Option<Network>) -> Result<Network, Failed> {
    let within = match &head.network {
        Some(id) => Some(Network::parse(id).map_err(|_| {
            Failed::from(anyhow::anyhow!("the backup is damaged: it holds no network id"))
        })?),
        None => None,
    };
    let Some(network) = named.or(within) else {
        return Err(Failed::usage(format!(
            "the backup is of the secret network {} and does not hold its id: give it with \
             --network-file FILE",
            head.fingerprint.short()
        )));
    };
    let found = network.keys().fingerprint;
    if found != head.fingerprint {
        let kind = match network.kind() {
            NetworkKind::Public => "public",
            NetworkKind::Secret => "secret",
        };
        return Err(Failed::usage(format!(
            "the backup is of network {}, and the {kind} one that is named is {}",
            head.fingerprint.short(),
            found.short()
        )));
    }
    Ok(network)
}

fn restore_into(
    directory: &Directory,
    network: &Network,
    backup: Backup<BufReader<File>>,
    author: &AuthorId,
) -> Result<Restored, Failed> {
    directory.prepare(network)?;
    let head = backup.head();
    directory.adopt_keys(&Keys { node: head.node_key, author: head.author_key })?;
    let mut store =
        Store::open(directory.path(), &network.keys().fingerprint).map_err(anyhow::Error::new)?;
    let bar = Bar::new();
    let restored = backup.restore(&mut store, author, &mut |done, total| {
        tell(&bar, done, total);
        true
    });
    bar.end();
    Ok(restored.map_err(anyhow::Error::new)?)
}

//! The store as a whole: by the running node, or opened here where none runs.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mosaik_api::{
    SCHEMA,
    client::Client,
    failure::{Code, Failure},
    work::{Checked, Compacted, Progress, ViewCheck},
};
use mosaik_core::id::Fingerprint;
use mosaik_store::Store;

use super::{
    DbVerb, Failed, Place, connect,
    look::only_known,
    output::{count, print, print_json},
};
use crate::{check, directory::Directory};

/// Does what is asked with the store.
pub(super) async fn db(place: &Place, verb: &DbVerb, json: bool) -> Result<(), Failed> {
    match verb {
        DbVerb::Check => check(place, json).await,
        DbVerb::Compact => compact(place, json).await,
    }
}

/// Who can be asked about a store.
pub(super) enum Keeper {
    /// The node that runs.
    Node(Client),
    /// None runs: this process itself.
    Here(Directory, Fingerprint),
}

/// The node that is meant or, where none runs, its directory.
pub(super) async fn keeper(place: &Place) -> Result<Keeper, Failed> {
    match connect::node(place).await {
        Ok(client) => return Ok(Keeper::Node(client)),
        Err(Failed::With(Failure { code: Code::NoNode, .. })) => {}
        Err(error) => return Err(error),
    }
    let spot = connect::spot(place)?;
    let network = match connect::named_network(spot.network.as_ref())? {
        Some(network) => network,
        None => only_known(&spot.data_dir)?,
    };
    let fingerprint = network.keys().fingerprint;
    Ok(Keeper::Here(Directory::of(&spot.data_dir, &fingerprint), fingerprint))
}

/// Opens the store that no node has open.
pub(super) fn open(directory: &Directory, fingerprint: &Fingerprint) -> Result<Store, Failed> {
    if !directory.store().exists() {
        return Err(Failed::new(
            Code::NotFound,
            format!("there is no store in {}", directory.path().display()),
        ));
    }
    Ok(Store::open(directory.path(), fingerprint).map_err(anyhow::Error::new)?)
}

/// A bar on a terminal for a work that says how far it is.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg:10} {bar:40} {pos}/{len}, {eta} left");
        Self(match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        })
    }

    pub(super) fn show(&self, progress: &Progress) {
        self.0.set_message(progress.phase.clone());
        self.0.set_length(progress.total.max(progress.done));
        self.0.set_position(progress.done);
    }

    pub(super) fn end(self) {
        self.0.finish_and_clear();
    }
}

async fn compact(place: &Place, json: bool) -> Result<(), Failed> {
    let compacted = match keeper(place).await? {
        Keeper::Node(client) => client.compact().await?,
        Keeper::Here(directory, fingerprint) => {
            let mut store = open(&directory, &fingerprint)?;
            let len = |store: &Store| store.disk_len().map_err(anyhow::Error::new);
            let before = len(&store)?.unwrap_or(0);
            store.compact().map_err(anyhow::Error::new)?;
            Compacted { schema: SCHEMA, before, after: len(&store)?.unwrap_or(0) }
        }
    };
    if json {
        return print_json(&compacted);
    }
    let Compacted { before, after, .. } = compacted;
    print(format!("the store took {} on its disk, and takes {}", bytes(before), bytes(after)))
}

/// A size that a person reads.
pub(super) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

async fn check(place: &Place, json: bool) -> Result<(), Failed> {
    let keeper = keeper(place).await?;
    let bar = Bar::new();
    let checked = match keeper {
        Keeper::Node(client) => client.check(|progress| bar.show(progress)).await?,
        Keeper::Here(directory, fingerprint) => {
            let store = open(&directory, &fingerprint)?;
            let reader = store.reader().map_err(anyhow::Error::new)?;
            let mut go_on = |progress: Progress| {
                bar.show(&progress);
                true
            };
            check::check(&reader, directory.path(), &mut go_on).map_err(anyhow::Error::new)?
        }
    };
    bar.end();
    if json {
        print_json(&checked)?;
    } else {
        print_checked(&checked)?;
    }
    match checked.findings.len() as u64 + checked.findings_more {
        0 => Ok(()),
        damaged => Err(Failed::Shown(Failure::new(
            Code::Failed,
            format!(
                "{} in this store: stop the node and restore a backup, or move the store away and \
                 let it fetch all from its peers",
                if damaged == 1 {
                    "1 thing is damaged".to_owned()
                } else {
                    format!("{damaged} things are damaged")
                }
            ),
        ))),
    }
}

fn print_checked(checked: &Checked) -> Result<(), Failed> {
    for finding in &checked.findings {
        print(format!("damaged     {}: {}", finding.table, finding.what))?;
    }
    if checked.findings_more > 0 {
        print(format!("damaged     ... and {} more", checked.findings_more))?;
    }
    let line = |name: &str, value: String| print(format!("{name:<12}{value}"));
    line(
        "feeds",
        format!(
            "{} in {} on {}, {} good",
            count(checked.events, "event"),
            count(checked.blocks, "block"),
            if checked.branches == 1 {
                "1 branch".to_owned()
            } else {
                format!("{} branches", checked.branches)
            },
            count(checked.signatures, "signature"),
        ),
    )?;
    line(
        "lists",
        format!(
            "{}, {} missing, {} pruned, {} held back",
            count(checked.arrivals, "arrival"),
            checked.missing,
            checked.pruned,
            checked.held_back
        ),
    )?;
    let cells = count(checked.cells, "cell");
    line(
        "view",
        match checked.view {
            ViewCheck::Compared => format!("{cells}, held against a fresh fold"),
            ViewCheck::NotFolded => "not folded yet: the next start of the node does".to_owned(),
            ViewCheck::NotCompared => {
                format!("{cells}, not compared: events are damaged that it is made of")
            }
        },
    )?;
    match &checked.view_digest {
        Some(digest) => line("digest", digest.clone()),
        None => Ok(()),
    }
}

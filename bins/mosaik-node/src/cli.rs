//! The command line: one grammar, `mosaik-node [noun] [verb] [what]`.
//!
//! Invariants:
//! - Singular and plural of a noun are one word; the bare noun lists, `show` gives one.
//! - Without a noun the node runs.
//! - Everything that is said here is in [`Cli`]; what the words do is in the modules below.

mod attachment;
mod backup;
mod bridge;
mod connect;
mod db;
mod doctor;
mod field;
mod flags;
mod look;
mod network;
mod output;
mod ping;
mod probe;
mod qr;
mod run;
mod serve;
mod settings;
mod slots;
mod wait;
mod write;
mod write_meshlog;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

pub(crate) use field::{Assignment, Type, guess, split_type};
pub(crate) use flags::{Place, RunFlags, layer};
pub(crate) use output::{Failed, finish};

/// A leaderless node: one shared signed dataset, found by network id alone.
///
/// Without a noun it runs a node in the foreground. All else asks the running one.
#[derive(Debug, Parser)]
#[command(name = "mosaik-node", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Print one JSON document; chatter goes to stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) run: RunFlags,
    #[command(subcommand)]
    pub(crate) noun: Option<Noun>,
}

const EXAMPLES: &str = "\
Examples:
  mosaik-node --network my-network              run a node of a public network
  mosaik-node network new                       make a secret network, then run it with: mosaik-node
  mosaik-node status                            how the running node is
  mosaik-node record create --form visit state=open households:int=42

Exit codes: 0 ok, 1 error, 2 usage, 3 no node runs, 4 not found, 5 timeout, 6 degraded;\nof ping 10 not direct, 11 no answer";

/// What is spoken of.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one a process, for a moment")]
pub(crate) enum Noun {
    /// Run a node in the foreground (what happens without a noun)
    Run(RunFlags),
    /// How the node is
    Status {
        /// Fail with 6 if it has no peer, takes no writes, or a carrier is dead
        #[arg(long)]
        check: bool,
    },
    /// What works here and what doesn't, and what to do; exit 6 if something doesn't
    Doctor,
    /// Who the node is
    Id {
        /// Print the ticket alone: what --peer takes on another node
        #[arg(long)]
        ticket: bool,
    },
    /// Nodes that this one knows
    #[command(visible_alias = "peers")]
    Peer {
        #[command(subcommand)]
        verb: Option<PeerVerb>,
    },
    /// Ask a peer for an answer: exit 0 if the way is direct, 10 if it is a relay's, 11 if none comes
    Ping {
        /// Its node id, or how that begins
        peer: String,
        /// How often at the most, once a second; ends at the first answer that came directly
        #[arg(long, value_name = "N", default_value_t = 5,
              value_parser = clap::value_parser!(u32).range(1..))]
        count: u32,
    },
    /// End all sessions and look for nobody until `resume` or the next start; reads and writes go on
    Pause,
    /// Let a paused node go on
    Resume,
    /// Ask all nodes of the network for an answer, at most once a minute: who is reached, and how soon
    Probe(probe::ProbeFlags),
    /// The 16 meeting points of the network in the DHT
    #[command(visible_alias = "slots")]
    Slot {
        #[command(flatten)]
        list: SlotList,
        #[command(subcommand)]
        verb: Option<SlotVerb>,
    },
    /// What goes over radio: the ways into Reticulum, their airtime, and who is heard
    Bridge {
        #[command(subcommand)]
        verb: Option<BridgeVerb>,
    },
    /// The newest events held, by author
    Frontier,
    /// What each author wrote
    #[command(visible_alias = "feeds")]
    Feed {
        #[command(subcommand)]
        verb: Option<FeedVerb>,
    },
    /// Fields that were set to different values at once
    #[command(visible_alias = "conflict")]
    Conflicts,
    /// What all events add up to
    View {
        /// Print the digest alone: equal on all nodes that hold the same events
        #[arg(long)]
        digest: bool,
    },
    /// What came, in the order in which it came
    #[command(visible_alias = "events")]
    Event {
        #[command(flatten)]
        list: EventList,
        #[command(subcommand)]
        verb: Option<EventVerb>,
    },
    /// The records
    #[command(visible_alias = "records")]
    Record {
        #[command(flatten)]
        list: RecordList,
        #[command(subcommand)]
        verb: Option<RecordVerb>,
    },
    /// Files that belong to records
    #[command(visible_alias = "attachments")]
    Attachment {
        #[command(flatten)]
        list: AttachmentList,
        #[command(subcommand)]
        verb: Option<AttachmentVerb>,
    },
    /// Turn the rows of a file into records, or take in a meshlogd's log; the same file twice changes nothing
    Import {
        /// A file, or - for stdin
        file: PathBuf,
        /// The form of every row
        #[arg(long, value_name = "F", required_unless_present_any = ["format"])]
        form: Option<String>,
        /// The column that holds the record's id
        #[arg(long, value_name = "C", required_unless_present_any = ["format"])]
        id_column: Option<String>,
        /// csv or jsonl [default: by the file's name], or meshlog: the log of a meshlogd, whose lines are
        /// taken in as its events, each once, without --form and --id-column
        #[arg(long, value_name = "FORMAT")]
        format: Option<ImportFormat>,
        #[command(flatten)]
        replicated: Replicated,
    },
    /// Write the records to stdout: equal, byte for byte, on all nodes with the same view
    Export {
        /// csv (one table, types as text) or jsonl (one object a line, types kept)
        #[arg(long, value_name = "FORMAT")]
        format: FileFormat,
        /// Only records of this form
        #[arg(long, value_name = "F")]
        form: Option<String>,
        /// What the column with the record's id is called
        #[arg(long, value_name = "C", default_value = "record")]
        id_column: String,
        /// Archived records too
        #[arg(long)]
        archived: bool,
    },
    /// Wait until something holds, then exit with 0; with 5 when the time is over
    #[command(group = clap::ArgGroup::new("until").required(true))]
    Wait {
        /// So many peers are connected
        #[arg(long, value_name = "N", group = "until")]
        peers: Option<u64>,
        /// A comparison that begins now has ended, and all it showed is here
        #[arg(long, group = "until")]
        synced: bool,
        /// So many connected peers hold all that was written here, durably
        #[arg(long, value_name = "N", group = "until")]
        replicas: Option<u64>,
        /// The node runs and answers
        #[arg(long, group = "until")]
        ready: bool,
        /// This record is here
        #[arg(long, value_name = "ID", group = "until")]
        record: Option<String>,
        /// ... and this field of it shows this value
        #[arg(long, value_name = "FIELD[:TYPE]=VALUE",
              conflicts_with_all = ["peers", "synced", "replicas", "ready"])]
        field: Vec<Assignment>,
        /// Give up after so many seconds
        #[arg(long, value_name = "S", value_parser = wait::parse_timeout)]
        timeout: Option<std::time::Duration>,
    },
    /// The networks that are known here
    #[command(visible_alias = "networks")]
    Network {
        #[command(subcommand)]
        verb: Option<NetworkVerb>,
    },
    /// The settings
    Config {
        #[command(flatten)]
        show: ConfigShow,
        #[command(subcommand)]
        verb: Option<ConfigVerb>,
    },
    /// The store as a whole
    Db {
        #[command(subcommand)]
        verb: DbVerb,
    },
    /// Copies of a whole node, to be restored elsewhere
    #[command(visible_alias = "backups")]
    Backup {
        #[command(subcommand)]
        verb: BackupVerb,
    },
    /// Run a service that a closed network needs; no node, and no network id
    Serve {
        #[command(subcommand)]
        what: Service,
    },
    /// Print the completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileFormat {
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

/// What a file to import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportFormat {
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object a line.
    Jsonl,
    /// The log of a meshlogd.
    Meshlog,
}

/// What can be done with peers.
#[derive(Debug, Subcommand)]
pub(crate) enum PeerVerb {
    /// All of them
    List,
    /// One of them
    Show {
        /// Its node id, or how that begins
        peer: String,
    },
    /// Dial one now, and remember it
    Add {
        /// Its ticket
        ticket: String,
    },
    /// Close its connections; don't dial or accept it, nor listen to its gossip
    Block {
        /// Its node id, or how that begins
        peer: String,
    },
    /// Forget all that is known of one; it is known again when it comes or somebody names it
    Forget {
        /// Its node id, or how that begins
        peer: String,
    },
    /// Lift a block
    Unblock {
        /// Its node id, or how that begins
        peer: String,
    },
}

/// How the slots are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct SlotList {
    /// Show them again whenever one changes, until Ctrl-C; with --json one document a line
    #[arg(long)]
    pub(crate) watch: bool,
}

/// What can be done with slots.
#[derive(Debug, Subcommand)]
pub(crate) enum SlotVerb {
    /// All of them
    List(SlotList),
    /// One of them
    Show {
        /// Its number, 0 to 15
        #[arg(value_parser = clap::value_parser!(u8).range(0..16))]
        slot: u8,
    },
}

/// What can be done with the bridge.
#[derive(Debug, Subcommand)]
pub(crate) enum BridgeVerb {
    /// How it is (what happens without a verb)
    Status,
}

/// What can be done with feeds.
#[derive(Debug, Subcommand)]
pub(crate) enum FeedVerb {
    /// All of them
    List,
    /// One of them
    Show {
        /// Its author, or how that begins
        author: String,
    },
}

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct EventList {
    /// Only those after this arrival
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) since: u64,
    /// Go on with new ones as they come; with --json one object a line
    #[arg(long)]
    pub(crate) follow: bool,
}

/// What can be done with events.
#[derive(Debug, Subcommand)]
pub(crate) enum EventVerb {
    /// All of them
    List(EventList),
    /// One of them, by its place in a feed
    #[command(visible_alias = "get")]
    Show {
        /// Its author, or how that begins
        author: String,
        /// Its place in that author's feed, from 1
        seq: u64,
        /// If its payload was pruned, fetch it from a peer that has it
        #[arg(long)]
        fetch: bool,
    },
    /// Append one of an application's own kind
    Emit {
        /// Its kind: 1 to 64 of a-z, 0-9, '.', '_' and '-'
        kind: String,
        /// Its payload
        value: String,
        #[command(flatten)]
        replicated: Replicated,
    },
}

/// Which records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct RecordList {
    /// Only those of this form
    #[arg(long, value_name = "F")]
    pub(crate) form: Option<String>,
    /// Archived ones too
    #[arg(long)]
    pub(crate) archived: bool,
}

/// Who else must hold a write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub(crate) struct Replicated {
    /// Then wait until so many connected peers hold it too, durably
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) replicas: Option<u64>,
    /// ... but no longer than so many seconds: then exit with 5; it stays written here
    #[arg(long, value_name = "S", requires = "replicas", value_parser = wait::parse_timeout)]
    pub(crate) timeout: Option<std::time::Duration>,
}

/// What can be done with records.
#[derive(Debug, Subcommand)]
pub(crate) enum RecordVerb {
    /// All of them
    List(RecordList),
    /// One of them
    #[command(visible_alias = "show")]
    Get {
        /// Its id
        record: String,
    },
    /// Make one, and print its id
    Create {
        /// Its id, then its fields; without an id a sortable random one is made
        #[arg(value_name = "ID | FIELD[:TYPE]=VALUE")]
        what: Vec<String>,
        /// Its form
        #[arg(long, value_name = "F")]
        form: String,
        /// An id that exists here is fine: nothing is written then
        #[arg(long)]
        if_absent: bool,
        #[command(flatten)]
        replicated: Replicated,
    },
    /// Set fields
    Set {
        /// Its id
        record: String,
        /// What to set
        #[arg(required = true, value_name = "FIELD[:TYPE]=VALUE")]
        fields: Vec<Assignment>,
        #[command(flatten)]
        replicated: Replicated,
    },
    /// Add a remark that stays
    Note {
        /// Its id
        record: String,
        /// What to say
        text: String,
        #[command(flatten)]
        replicated: Replicated,
    },
    /// Put it away
    Archive {
        /// Its id
        record: String,
        /// Take it back
        #[arg(long)]
        undo: bool,
        #[command(flatten)]
        replicated: Replicated,
    },
}

impl RecordVerb {
    fn replicated(&self) -> Replicated {
        match self {
            Self::Create { replicated, .. }
            | Self::Set { replicated, .. }
            | Self::Note { replicated, .. }
            | Self::Archive { replicated, .. } => *replicated,
            Self::List(_) | Self::Get { .. } => Replicated::default(),
        }
    }
}

/// Which attachments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct AttachmentList {
    /// Only those of this record
    #[arg(long, value_name = "ID")]
    pub(crate) record: Option<String>,
}

impl AttachmentList {
    fn or(self, weaker: Self) -> Self {
        Self { record: self.record.or(weaker.record) }
    }
}

/// What can be done with attachments.
#[derive(Debug, Subcommand)]
pub(crate) enum AttachmentVerb {
    /// All of them
    List(AttachmentList),
    /// One of them
    Show {
        /// The record, or the hash of the file alone
        #[arg(value_name = "RECORD | BLOB")]
        what: String,
        /// The field, or how the hash begins
        #[arg(value_name = "FIELD | BLOB")]
        file: Option<String>,
    },
    /// Attach a file to a record, and print its hash
    Add {
        /// The record
        record: String,
        /// The field that it belongs to
        field: String,
        /// The file, or - for stdin
        file: PathBuf,
        /// Its media type [default: by its name]
        #[arg(long, value_name = "TYPE")]
        mime: Option<String>,
        /// Its name [default: its own]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        replicated: Replicated,
    },
    /// Fetch the file if it isn't here, and write it to stdout
    Get {
        /// The record, or the hash of the file alone
        #[arg(value_name = "RECORD | BLOB")]
        what: String,
        /// The field, or how the hash begins
        #[arg(value_name = "FIELD | BLOB")]
        file: Option<String>,
        /// Write it to this file instead
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Give up after so many seconds, and exit with 5; it is fetched on
        #[arg(long, value_name = "S", value_parser = wait::parse_timeout)]
        timeout: Option<std::time::Duration>,
        /// Ask for it over radio too: slow, behind all else, and at most 256 KiB
        #[arg(long)]
        over_radio: bool,
    },
    /// Keep the file, and fetch it, whatever the settings say
    Pin {
        /// The record, or the hash of the file alone
        #[arg(value_name = "RECORD | BLOB")]
        what: String,
        /// The field, or how the hash begins
        #[arg(value_name = "FIELD | BLOB")]
        file: Option<String>,
        /// Lift that
        #[arg(long)]
        undo: bool,
    },
    /// Give the file's bytes back to the disk, here alone; the record names it as before
    Drop {
        /// The record, or the hash of the file alone
        #[arg(value_name = "RECORD | BLOB")]
        what: String,
        /// The field, or how the hash begins
        #[arg(value_name = "FIELD | BLOB")]
        file: Option<String>,
    },
}

/// What can be done with networks.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkVerb {
    /// All that are known here
    List,
    /// Make a secret one, and print its id: the only key to it
    New {
        /// What to call it here; nobody else sees that
        #[arg(long, value_name = "LABEL")]
        label: Option<String>,
        /// Print the id as a QR code too
        #[arg(long)]
        qr: bool,
    },
    /// Print the id of one, the secret included
    Show {
        /// Print it as a QR code too
        #[arg(long)]
        qr: bool,
    },
}

/// What can be done with the store.
#[derive(Debug, Subcommand)]
pub(crate) enum DbVerb {
    /// Look at every block, chain and signature, and hold the view against a fresh fold
    Check,
    /// Move what the store holds together, and give the rest back to the disk
    Compact,
}

/// What can be done with backups.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupVerb {
    /// Write all events, and the node's keys, to a new file: who has it can write as this node
    Create {
        /// The file
        file: PathBuf,
        /// Put the id of a secret network in, too: who has the file can then join it
        #[arg(long)]
        with_secret: bool,
    },
    /// Make a node's directory from a backup, in a data directory that has none of its network
    Restore {
        /// The file
        file: PathBuf,
    },
}

/// What can be served.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one a process, for a moment")]
pub(crate) enum Service {
    /// A plain Mainline DHT node: where nodes without internet find each other (--dht-bootstrap)
    Dht(serve::DhtFlags),
    /// A relay: it carries traffic between nodes that don't reach each other directly (--relay)
    Relay(serve::RelayFlags),
}

/// What to show of the settings.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigShow {
    /// Where each value comes from
    #[arg(long)]
    pub(crate) origin: bool,
    #[command(flatten)]
    pub(crate) run: RunFlags,
}

impl ConfigShow {
    fn or(self, weaker: Self) -> Self {
        Self { origin: self.origin || weaker.origin, run: self.run.or(weaker.run) }
    }
}

/// What can be done with settings.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Every setting and its value
    #[command(visible_alias = "list")]
    Show(ConfigShow),
    /// Read them all, and say what is wrong
    Check(RunFlags),
}

/// From its arguments to its exit code.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.json;
    finish(execute(cli), json)
}

/// Does what the command line says.
fn execute(cli: Cli) -> Result<(), Failed> {
    let Cli { place, json, run, noun } = cli;
    let takes_run_flags = matches!(noun, None | Some(Noun::Run(_) | Noun::Config { .. }));
    if !run.is_empty() && !takes_run_flags {
        return Err(Failed::usage(
            "flags that say how a node runs (--name, --listen, ...) go with `run`; \
             the node that is asked runs already",
        ));
    }
    let has_no_document = match &noun {
        None | Some(Noun::Run(_)) => Some("run"),
        Some(Noun::Export { .. }) => Some("export"),
        Some(Noun::Completions { .. }) => Some("completions"),
        Some(_) => None,
    };
    if let (true, Some(noun)) = (json, has_no_document) {
        return Err(Failed::usage(format!("{noun} prints no document, so it takes no --json")));
    }
    match noun {
        None => run::run(&place, &run),
        Some(Noun::Run(own)) => run::run(&place, &own.or(run)),
        Some(Noun::Config { show, verb }) => match verb {
            None => settings::show(&place, show, run, json),
            Some(ConfigVerb::Show(own)) => settings::show(&place, own.or(show), run, json),
            Some(ConfigVerb::Check(own)) => settings::check(&place, &own.or(show.run).or(run)),
        },
        Some(Noun::Completions { shell }) => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "mosaik-node",
                &mut std::io::stdout(),
            );
            Ok(())
        }
        Some(Noun::Serve { what: Service::Dht(flags) }) => serve::dht(flags, json),
        Some(Noun::Serve { what: Service::Relay(flags) }) => serve::relay(flags, json),
        Some(Noun::Network { verb }) => match verb {
            None | Some(NetworkVerb::List) => network::list(&place, json),
            Some(NetworkVerb::New { qr: true, .. } | NetworkVerb::Show { qr: true }) if json => {
                Err(Failed::usage("--qr draws for people, --json writes for programs: choose one"))
            }
            Some(NetworkVerb::New { label, qr }) => {
                network::new(&place, label.as_deref(), qr, json)
            }
            Some(NetworkVerb::Show { qr }) => network::show(&place, qr, json),
        },
        Some(Noun::Backup { verb: BackupVerb::Restore { file } }) => {
            backup::restore(&place, &file, json)
        }
        Some(noun) => ask(&place, noun, json),
    }
}

/// Does what needs a running node.
#[tokio::main(flavor = "current_thread")]
async fn ask(place: &Place, noun: Noun, json: bool) -> Result<(), Failed> {
    match noun {
        Noun::Doctor => doctor::doctor(place, json).await,
        Noun::Wait { peers, synced, replicas, ready, record, field, timeout } => {
            let until = wait::Until { peers, synced, replicas, ready, record, fields: field };
            wait::wait(place, until, timeout, json).await
        }
        Noun::Db { verb } => db::db(place, &verb, json).await,
        Noun::Backup { verb: BackupVerb::Create { file, with_secret } } => {
            backup::create(place, &file, with_secret, json).await
        }
        Noun::Export { format, form, id_column, archived } => {
            look::export(place, format, form, id_column, archived).await
        }
        noun => {
            let client = connect::node(place).await?;
            match noun {
                Noun::Import { file, form, id_column, format, replicated } => {
                    match import_of(file, form, id_column, format)? {
                        Import::Rows(file) => write::import(&client, file, json).await?,
                        Import::Meshlog(path) => {
                            write_meshlog::import(&client, &path, json).await?
                        }
                    }
                    write::replicated(&client, replicated).await
                }
                Noun::Record { list, verb: Some(verb) } if !matches!(verb, RecordVerb::List(_)) => {
                    nothing_before_the_verb(list == RecordList::default())?;
                    let replicated = verb.replicated();
                    write::record(&client, verb, json).await?;
                    write::replicated(&client, replicated).await
                }
                Noun::Event { list, verb: Some(EventVerb::Emit { kind, value, replicated }) } => {
                    nothing_before_the_verb(list == EventList::default())?;
                    write::emit(&client, kind, &value, json).await?;
                    write::replicated(&client, replicated).await
                }
                Noun::Attachment { list, verb } => {
                    let is_list = matches!(verb, None | Some(AttachmentVerb::List(_)));
                    nothing_before_the_verb(is_list || list == AttachmentList::default())?;
                    attachment::attachment(&client, list, verb, json).await
                }
                Noun::Peer { verb: Some(verb) } if !matches!(verb, PeerVerb::List) => {
                    write::peer(&client, verb, json).await
                }
                Noun::Pause => write::pause(&client, true, json).await,
                Noun::Resume => write::pause(&client, false, json).await,
                Noun::Ping { peer, count } => ping::ping(&client, peer, count, json).await,
                Noun::Probe(flags) => probe::probe(&client, flags, json).await,
                noun => look::look(&client, noun, json).await,
            }
        }
    }
}

/// An import as it is to be done.
enum Import {
    Rows(write::ImportFile),
    Meshlog(PathBuf),
}

fn import_of(
    path: PathBuf,
    form: Option<String>,
    id_column: Option<String>,
    format: Option<ImportFormat>,
) -> Result<Import, Failed> {
    let format = match format {
        Some(ImportFormat::Meshlog) if form.is_some() || id_column.is_some() => {
            let sentence = "a meshlogd's log says itself what its records are: leave out --form and --id-column";
            return Err(Failed::usage(sentence));
        }
        Some(ImportFormat::Meshlog) => return Ok(Import::Meshlog(path)),
        Some(ImportFormat::Csv) => Some(FileFormat::Csv),
        Some(ImportFormat::Jsonl) => Some(FileFormat::Jsonl),
        None => None,
    };
    let (Some(form), Some(id_column)) = (form, id_column) else {
        return Err(Failed::usage("rows become records by --form and --id-column; give both"));
    };
    Ok(Import::Rows(write::ImportFile { path, form, id_column, format }))
}

/// Refuses `events --since 5 emit`: the flag belongs to the list.
fn nothing_before_the_verb(is_nothing: bool) -> Result<(), Failed> {
    if is_nothing {
        return Ok(());
    }
    Err(Failed::usage("the flags between noun and verb belong to the list, not to this verb"))
}

#[cfg(test)]
mod tests;

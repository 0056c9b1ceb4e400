//! What reads answer: one document each, as JSON.
//!
//! Ids are lower-case hex of all their bytes; instants are milliseconds since 1970 and end in `_ms`;
//! field values are JSON as [`crate::json`] maps them. Fields may be added, never renamed: a reader
//! ignores what it doesn't know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// `GET /status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of this document.
    pub schema: u32,
    /// The node's id.
    pub node: String,
    /// What it calls itself: a claim, not an identity.
    pub name: String,
    /// The author that it writes as.
    pub author: String,
    /// Its network.
    pub network: NetworkName,
    /// What `--data-dir` names.
    pub data_dir: String,
    /// Where it listens for requests.
    pub socket: String,
    /// Its process.
    pub pid: u32,
    /// Its program and version.
    pub software: String,
    /// How far it is.
    pub state: State,
    /// One sentence about that: what it waits for, or does next.
    pub doing: String,
    /// Peers that are connected.
    pub peers: u64,
    /// Authors of whom it holds events.
    pub authors: u64,
    /// Events that it holds.
    pub events: u64,
    /// Tips of all feeds: as many as authors where no key was used twice.
    pub branches: u64,
    /// Fields with candidates that differ.
    pub conflicts: u64,
    /// Events stamped too far ahead to count yet.
    pub held_back: u64,
    /// Payloads that should be here and aren't.
    pub missing: u64,
    /// Of those, the ones that every connected peer lacks.
    pub unavailable: u64,
    /// Feeds that this node or a peer holds back from the other.
    pub declined: u64,
    /// Authors with too many branches.
    pub crowded: u64,
    /// Sessions since the start that ended because one side broke the protocol, as the other said.
    #[serde(default)]
    pub violations: u64,
    /// The digest of the view: equal on all nodes that hold the same events.
    pub view_digest: String,
    /// Why it can't write, if it can't.
    pub degraded: Option<String>,
    /// Whether a person has paused it: no sessions until `resume` or the next start.
    #[serde(default)]
    pub paused: bool,
    /// What its bytes were for since the start.
    #[serde(default)]
    pub traffic: Vec<Traffic>,
    /// What keeps it from its work, in sentences: `status --check` fails if there is any.
    #[serde(default)]
    pub failing: Vec<String>,
    /// What a person should look at, in sentences.
    pub notices: Vec<String>,
}

/// Bytes of one purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// `sync`, `files`, `gossip`, or `links` for all that keeps connections; names may be added.
    pub purpose: String,
    /// To peers and relays.
    pub sent: u64,
    /// From them.
    pub received: u64,
}

/// A network as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkName {
    /// Names it and opens nothing.
    pub fingerprint: String,
    /// `public` or `secret`.
    pub kind: String,
}

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No peer, and none being talked to. A state, not a failure.
    #[default]
    Isolated,
    /// Peers are being dialed.
    Joining,
    /// Connected, and events are lacking here.
    Syncing,
    /// A comparison within the last two intervals ended with nothing lacking.
    InSync,
}

impl State {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::Joining => "joining",
            Self::Syncing => "syncing",
            Self::InSync => "in_sync",
        }
    }
}

/// `GET /id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The version of this document.
    pub schema: u32,
    /// The node's id.
    pub node: String,
    /// What it calls itself.
    pub name: String,
    /// The author that it writes as.
    pub author: String,
    /// Its network.
    pub network: NetworkName,
    /// Its ticket for `--peer`: node id and addresses.
    pub ticket: String,
    /// The addresses in the ticket.
    pub addresses: Vec<String>,
    /// The relays in the ticket.
    pub relays: Vec<String>,
}

/// `GET /peers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peers {
    /// The version of this document.
    pub schema: u32,
    /// All that are known, connected ones first.
    pub peers: Vec<Peer>,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its node id.
    pub id: String,
    /// What it calls itself; empty before it said so.
    pub name: String,
    /// How it stands.
    pub state: PeerState,
    /// Of a connected one: `lan` (UDP to a private address), `direct` (UDP), or `relay`.
    pub path: Option<String>,
    /// The address or the relay that the path leads over.
    pub address: Option<String>,
    /// Round trip; of one that isn't connected, as it was when it last was.
    pub rtt_ms: Option<f64>,
    /// Of a connected one: events that it has and this node has not, as far as it has shown.
    pub events_behind: Option<u64>,
    /// Of a connected one: events that it has asked for and that are still to be sent.
    pub events_ahead: Option<u64>,
    /// The program that it runs and its version; empty before it said so.
    pub software: String,
    /// The version of the protocol that it and this node speak.
    pub protocol: Option<u64>,
    /// What it can do beyond that: `zstd`, ...
    pub capabilities: Vec<String>,
    /// What told of it first: `ticket`, `slot`, `cache`, `inbound`, `gossip`, ...
    pub found_by: String,
    /// Where it was said to be, by every source.
    pub known_addresses: Vec<KnownAddress>,
    /// When it became known.
    pub first_seen_ms: Option<u64>,
    /// When it was last heard of.
    pub last_seen_ms: Option<u64>,
    /// Dials that have failed since it was last heard.
    pub failures: u32,
    /// Why the last dial or session ended, in words; of a connected one nothing.
    pub reason: Option<String>,
}

impl Peer {
    /// One of whom nothing else is known.
    pub fn new(id: impl Into<String>, state: PeerState, found_by: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            name: String::new(),
            state,
            path: None,
            address: None,
            rtt_ms: None,
            events_behind: None,
            events_ahead: None,
            software: String::new(),
            protocol: None,
            capabilities: Vec::new(),
            found_by: found_by.into(),
            known_addresses: Vec::new(),
            first_seen_ms: None,
            last_seen_ms: None,
            failures: 0,
            reason: None,
        }
    }
}

/// `GET /doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doctor {
    /// The version of this document.
    pub schema: u32,
    /// What was looked at, in the order in which a person would look.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// `peers`, `udp`, `ipv4`, `ipv6`, `nat`, `dht`, `slots`, `relay`, `mdns`, `clock`, `disk`; without a
    /// node `node`, `disk`.
    pub name: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// Where something is amiss: what still works, and what to do.
    pub advice: Option<String>,
}

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, with something that a person should know.
    Warn,
    /// It doesn't work.
    Bad,
    /// It is switched off, or not there.
    Off,
    /// Nobody could tell yet.
    Unknown,
}

impl Verdict {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Off => "off",
            Self::Unknown => "unknown",
        }
    }
}

/// `POST /peers/{id}/ping`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pinged {
    /// The version of this document.
    pub schema: u32,
    /// The peer's node id.
    pub id: String,
    /// Whether it answered.
    pub answered: bool,
    /// From the ping to the answer, through both programs.
    pub rtt_ms: Option<f64>,
    /// The way: as in [`Peer::path`].
    pub path: Option<String>,
    /// The address or the relay that the path leads over.
    pub address: Option<String>,
    /// Why no answer came, in words.
    pub reason: Option<String>,
}

/// `GET` and `POST /probe`: what has come so far of the last probe that this node sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The version of this document.
    pub schema: u32,
    /// What names the probe: 32 hex digits.
    pub id: String,
    /// The node that sent it: this one.
    pub node: String,
    /// When, by its own clock.
    pub sent_ms: u64,
    /// How long ago that is.
    pub elapsed_ms: f64,
    /// Other nodes that are known: those that answered, and those that gave a sign of life within the last
    /// hour and have neither left nor been turned away.
    pub known: u64,
    /// How many of them have answered.
    pub answered: u64,
    /// Within how many milliseconds the probe reached so many of those that answered: half the round trip
    /// of each. None before the first answer.
    pub propagation_ms: Option<Percentiles>,
    /// One a node, the soonest first.
    pub answers: Vec<ProbeAnswer>,
    /// The known ones that have not answered.
    pub silent: Vec<SilentNode>,
}

/// Of some times the ones that so many percent of them don't exceed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of them.
    pub p50: f64,
    /// Three of four.
    pub p75: f64,
    /// Nine of ten.
    pub p90: f64,
    /// All but one of a hundred.
    pub p99: f64,
}

/// A node's answer to a probe. Nobody signs it: a member of the network can lie.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// Its node id.
    pub id: String,
    /// What it calls itself.
    pub name: String,
    /// Sessions that the probe came over.
    pub hops: u8,
    /// The node id at the other end of the last one.
    pub from: String,
    /// The way of the last one, as in [`Peer::path`], if it is known.
    pub path: Option<String>,
    /// From the probe to the answer, measured here.
    pub rtt_ms: f64,
    /// Half of that: what the percentiles are made of. No clock but this node's counts.
    pub propagation_ms: f64,
    /// When it got the probe, by its own clock.
    pub received_ms: u64,
    /// How long after the sending that was, once its clock is corrected by what its greeting told of it:
    /// of nodes with a session alone, and no better than the time that the greeting took.
    pub received_after_ms: Option<f64>,
}

/// A known node that has not answered a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilentNode {
    /// Its node id.
    pub id: String,
    /// What it calls itself.
    pub name: String,
    /// How it stands.
    pub state: PeerState,
}

/// Where a peer was said to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownAddress {
    /// A socket address, or a relay's URL.
    pub address: String,
    /// Who says so, as in [`Peer::found_by`].
    pub source: String,
    /// When that was last said, or proved to be so.
    pub seen_ms: u64,
    /// Whether that is so long ago that it isn't dialed any more.
    pub expired: bool,
}

/// How a peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// There is a session with it.
    Connected,
    /// A dial is on its way.
    Dialing,
    /// Known, and it was reached before or may be.
    Reachable,
    /// Dials failed; the next one waits.
    BackingOff,
    /// It went silent without saying goodbye.
    Lost,
    /// It said goodbye.
    Left,
    /// It isn't spoken to.
    Blocked,
    /// It is in another network, or speaks another protocol.
    Refused,
}

impl PeerState {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Dialing => "dialing",
            Self::Reachable => "reachable",
            Self::BackingOff => "backing_off",
            Self::Lost => "lost",
            Self::Left => "left",
            Self::Blocked => "blocked",
            Self::Refused => "refused",
        }
    }
}

/// `GET /bridge`: what goes over radio.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// The version of this document.
    pub schema: u32,
    /// This node's identity hash in Reticulum, 32 hex digits; none without a bridge.
    pub identity: Option<String>,
    /// Its ways into Reticulum.
    pub interfaces: Vec<BridgeInterface>,
    /// Nodes of this network that were heard there.
    pub peers: Vec<BridgePeer>,
    /// What goes between this network and meshlogd; none where that isn't asked for.
    #[serde(default)]
    pub meshlog: Option<BridgeMeshlog>,
    /// Files that were asked for over radio and aren't whole yet, in the order of that.
    #[serde(default)]
    pub files: Vec<BridgeFile>,
    /// Files that are wanted and don't go over radio unless they are asked for.
    #[serde(default)]
    pub held_back: BridgeHeldBack,
}

/// A file that was asked for over radio.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeFile {
    /// Its hash.
    pub blob: String,
    /// Its bytes, as claimed.
    pub size: u64,
    /// Bytes of it that are here.
    pub here: u64,
    /// Whether a piece of it is under way.
    pub coming: bool,
}

/// Files that wait for another way than radio.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeHeldBack {
    /// How many.
    pub files: u64,
    /// Their bytes, as claimed.
    pub bytes: u64,
}

/// What goes between this network and meshlogd, since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeMeshlog {
    /// Authors of whom something is held that meshlogd can have: ours, and its own.
    pub authors: u64,
    /// Identities whose keys are known.
    pub keys: u64,
    /// Events taken that their author has signed.
    pub verified: u64,
    /// Events taken of authors whose keys aren't known.
    pub unverified: u64,
    /// Events that were taken before their author's key was known, and are not signed with it.
    pub mismatched: u64,
    /// Events that came and were here already.
    pub known: u64,
    /// This network's own that came back.
    pub echoed: u64,
    /// Events sent that came, as far as can be known.
    pub sent: u64,
    /// Events that wait for one before them.
    pub pending: u64,
    /// Other bridges of this network that were heard.
    pub bridges: u64,
    /// What came and was refused.
    pub refused: Vec<Refusal>,
    /// The peers.
    pub peers: Vec<MeshlogPeer>,
}

/// How much was refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Its name: `fork`, `malformed`, `bad_signature`, ...
    pub why: String,
    /// How many events; of `malformed` messages.
    pub events: u64,
}

/// A peer on meshlogd's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshlogPeer {
    /// Its identity hash, 32 hex digits.
    pub identity: String,
    /// Whether there is a link on which both know each other.
    pub linked: bool,
    /// Milliseconds since its announce was heard; none if it came by itself.
    pub heard_ms: Option<u64>,
    /// Events that it lacks.
    pub lacks: u64,
    /// Events that it says to have and that lack here.
    pub offers: u64,
}

/// A way into Reticulum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeInterface {
    /// As in the settings.
    pub name: String,
    /// Whether it can send.
    pub online: bool,
    /// Bits a second that it is reckoned at; none: it is a wire.
    pub bitrate: Option<u32>,
    /// Milliseconds on air in the last hour, as reckoned.
    pub airtime_used_ms: u64,
    /// Milliseconds on air that are left in this hour; none without a limit.
    pub airtime_left_ms: Option<u64>,
    /// What waits to be sent.
    pub queued: BridgeQueue,
    /// Events that went to all neighbours at once, since the start; those sent again count again.
    #[serde(default)]
    pub broadcasts_sent: u64,
    /// Events that were heard so.
    #[serde(default)]
    pub broadcasts_heard: u64,
    /// Broadcasts that were not of this network, or made no sense.
    #[serde(default)]
    pub broadcasts_refused: u64,
}

/// What waits to be sent over radio, the most urgent class first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeQueue {
    /// Greetings, comparisons and wants.
    pub control: BridgeWaiting,
    /// Events of now.
    pub news: BridgeWaiting,
    /// Events of before that a peer asked for, of kinds that go first.
    pub priority: BridgeWaiting,
    /// Events of before that a peer asked for.
    pub history: BridgeWaiting,
    /// Pieces of files that were asked for.
    #[serde(default)]
    pub files: BridgeWaiting,
}

/// What waits of one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeWaiting {
    /// Events.
    pub events: u64,
    /// Bytes, before the link shortens them.
    pub bytes: u64,
}

/// A node that was heard over radio.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgePeer {
    /// Its identity hash, 32 hex digits.
    pub identity: String,
    /// The author whose identity it is, as that author says and it has signed, 64 hex digits; none before the
    /// author's feed is here.
    pub author: Option<String>,
    /// What that author calls itself.
    pub name: Option<String>,
    /// Events that it announced.
    pub events: u64,
    /// Whether it announced that it holds what this node holds.
    pub in_sync: bool,
    /// Transport nodes in between.
    pub hops: u8,
    /// Milliseconds since it was heard.
    pub heard_ms: u64,
    /// Whether there is a session with it.
    pub linked: bool,
}

/// `GET /slots`, and each line of `GET /slots/stream`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// The version of this document.
    pub schema: u32,
    /// The 16 slots, in order.
    pub slots: Vec<Slot>,
}

/// One slot of the bootstrap chain, as last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its number, 0 to 15.
    pub slot: u8,
    /// What was found in it.
    pub state: SlotState,
    /// The node whose lease is in it.
    pub holder: Option<String>,
    /// What that node calls itself; none while it isn't known.
    #[serde(default)]
    pub holder_name: Option<String>,
    /// When that lease was issued, by the holder's clock.
    #[serde(default)]
    pub issued_ms: Option<u64>,
    /// When that lease ends.
    pub expires_ms: Option<u64>,
    /// The holder's addresses, as it published them.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// The holder's relays, likewise.
    #[serde(default)]
    pub relays: Vec<String>,
    /// The last dial to the holder since this node's start; none if there was none.
    #[serde(default)]
    pub last_dial: Option<LastDial>,
    /// Why what is in it is foreign or forged, in words.
    #[serde(default)]
    pub reason: Option<String>,
}

/// How the last try to reach a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastDial {
    /// When.
    pub at_ms: u64,
    /// How.
    pub ended: DialEnd,
}

/// How a dial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DialEnd {
    /// With a session, whichever side began it.
    Ok,
    /// Without one.
    Failed,
}

impl DialEnd {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
        }
    }
}

/// What was found in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// No storage node has answered yet.
    Unknown,
    /// Nothing.
    Empty,
    /// A live lease of this node.
    Mine,
    /// A live lease of another node.
    Live,
    /// A live lease of another node, which can't be reached.
    Dead,
    /// A good lease that has run out, or not begun.
    Expired,
    /// A holder that said goodbye.
    Left,
    /// Not one of this network's records.
    Foreign,
    /// A record whose lease was forged or copied.
    Forged,
    /// At the highest seq there is: nobody can write there any more.
    Locked,
}

impl SlotState {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Empty => "empty",
            Self::Mine => "mine",
            Self::Live => "live",
            Self::Dead => "dead",
            Self::Expired => "expired",
            Self::Left => "left",
            Self::Foreign => "foreign",
            Self::Forged => "forged",
            Self::Locked => "locked",
        }
    }
}

/// `GET /frontier`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontier {
    /// The version of this document.
    pub schema: u32,
    /// Per author its tips, by seq and id.
    pub frontier: BTreeMap<String, Vec<Tip>>,
}

/// A held event that no held event follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tip {
    /// Its place in the feed.
    pub seq: u64,
    /// Its id.
    pub id: String,
}

/// `GET /feeds`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feeds {
    /// The version of this document.
    pub schema: u32,
    /// One an author, by author.
    pub feeds: Vec<Feed>,
}

/// One author's feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    /// Whose.
    pub author: String,
    /// What the author calls itself, if it said so.
    pub name: String,
    /// Whether this node writes it.
    pub own: bool,
    /// Events held, on all branches.
    pub events: u64,
    /// Branches: 1 where the key was used in one place only.
    pub branches: u64,
    /// The newest events held, one a branch.
    pub tips: Vec<Tip>,
    /// Whether it has too many branches, and is declined.
    pub crowded: bool,
}

/// `GET /records`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Records {
    /// The version of this document.
    pub schema: u32,
    /// A page of them, by id.
    pub records: Vec<RecordLine>,
    /// Give this as `after` for the next page; absent on the last one.
    pub next: Option<String>,
}

/// One record in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordLine {
    /// Its id.
    pub record: String,
    /// Its form, if one shows.
    pub form: Option<String>,
    /// Whether it is put away.
    pub archived: bool,
}

/// `GET /records/{record}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this document.
    pub schema: u32,
    /// Its id.
    pub record: String,
    /// Its form, if one shows.
    pub form: Option<String>,
    /// The author of its first `record.create`, if there is one.
    pub created_by: Option<String>,
    /// Whether it is put away.
    pub archived: bool,
    /// What its fields show.
    pub fields: BTreeMap<String, Json>,
    /// Its notes, in the order in which they were written.
    pub notes: Vec<Note>,
    /// Its attachments, by field and blob.
    pub attachments: Vec<Attachment>,
    /// Its fields with candidates that differ; the empty name is the form.
    pub conflicts: Vec<Conflict>,
}

/// A note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Its event.
    pub id: String,
    /// Who wrote it.
    pub author: String,
    /// What the author calls itself, or is called in the system that the note is from; may be empty.
    #[serde(default)]
    pub author_name: String,
    /// When, by the writer's clock.
    pub time_ms: u64,
    /// What it says.
    pub text: String,
}

/// A reference to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The field that it belongs to.
    pub field: String,
    /// The blob's hash.
    pub blob: String,
    /// Its bytes.
    pub size: u64,
    /// Its media type, as claimed.
    pub mime: String,
    /// Its file name, as claimed.
    pub name: String,
    /// How it stands with the file.
    #[serde(default)]
    pub state: FileState,
    /// Bytes of it that are here, of one that is whole, being fetched, or asked for over radio.
    #[serde(default)]
    pub here: u64,
    /// Whether it is asked for over radio.
    #[serde(default)]
    pub over_radio: bool,
    /// What it waits for, in words; null if it is here.
    #[serde(default)]
    pub waits_for: Option<String>,
    /// Whether it is kept whatever settings and records say.
    #[serde(default)]
    pub pinned: bool,
}

/// How it stands with the file of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// It is wanted and not here yet.
    #[default]
    Pending,
    /// It is being fetched.
    Fetching,
    /// All of it is here.
    Here,
    /// It isn't fetched until somebody asks: the settings leave it out, or it was dropped.
    LeftOut,
}

impl FileState {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Fetching => "fetching",
            Self::Here => "here",
            Self::LeftOut => "left_out",
        }
    }
}

/// `GET /attachments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachments {
    /// The version of this document.
    pub schema: u32,
    /// Those of one record by field and blob, or those of all by blob, record and field.
    pub attachments: Vec<RecordAttachment>,
    /// What to give as `after` for the next page; null on the last one.
    pub next: Option<String>,
}

/// An attachment, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordAttachment {
    /// The record.
    pub record: String,
    /// What it names.
    #[serde(flatten)]
    pub attachment: Attachment,
}

/// `POST /records/{record}/attachments`: what was attached, durable here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The version of this document.
    pub schema: u32,
    /// The record.
    pub record: String,
    /// The field.
    pub field: String,
    /// The file's hash.
    pub blob: String,
    /// The file's bytes.
    pub size: u64,
    /// Who wrote the event.
    pub author: String,
    /// The event.
    pub events: Vec<Tip>,
}

/// What a fetch, pin or drop of a file ends in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobChanged {
    /// The version of this document.
    pub schema: u32,
    /// The file's hash.
    pub blob: String,
    /// Its bytes that are here.
    pub here: u64,
    /// Whether it is pinned.
    pub pinned: bool,
}

/// `GET /conflicts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conflicts {
    /// The version of this document.
    pub schema: u32,
    /// All of them, by record and field.
    pub conflicts: Vec<Conflict>,
}

/// A field whose candidates differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// The record.
    pub record: String,
    /// The field; the empty name is the form.
    pub field: String,
    /// The candidate that shows.
    pub shown: Candidate,
    /// The others, greatest first.
    pub others: Vec<Candidate>,
}

/// A set of a field that none replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its event.
    pub id: String,
    /// Who wrote it.
    pub author: String,
    /// What its author calls itself, if it said so.
    pub author_name: String,
    /// When, by the writer's clock.
    pub time_ms: u64,
    /// The value.
    pub value: Json,
}

/// `GET /view`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The version of this document.
    pub schema: u32,
    /// The digest: 64 hex digits.
    pub digest: String,
    /// The version of the fold; digests of different ones can't be compared.
    pub fold: u32,
    /// Records in it, archived ones too.
    pub records: u64,
    /// Fields with candidates that differ.
    pub conflicts: u64,
    /// Events stamped too far ahead to count yet.
    pub held_back: u64,
    /// Payloads that should be here and aren't.
    pub missing: u64,
    /// Authors with too many branches.
    pub crowded: u64,
}

/// `GET /events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// The version of this document.
    pub schema: u32,
    /// In the order in which they came to be here.
    pub events: Vec<Event>,
    /// Give this as `since` to go on after these.
    pub next: u64,
    /// Whether more are here already.
    pub more: bool,
}

/// One event; also one line of `GET /events/stream`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The version of this document.
    pub schema: u32,
    /// The number of the run with which it came; the cursor of `since`.
    pub arrival: u64,
    /// Whether it is the last of that arrival: only then has a reader seen all up to it.
    pub last_of_arrival: bool,
    /// When it was committed here.
    pub received_ms: u64,
    /// How it came.
    pub way: String,
    /// Whose feed.
    pub author: String,
    /// Its place in the feed.
    pub seq: u64,
    /// Its id.
    pub id: String,
    /// When it was written, by the writer's clock.
    pub time_ms: u64,
    /// Its kind.
    pub kind: String,
    /// Its payload decoded; null where it is absent or does not decode.
    pub payload: Json,
    /// `present`, `absent`, or `undecodable`.
    pub payload_state: PayloadState,
}

/// What is known of an event's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadState {
    /// Here, and it decodes.
    Present,
    /// Not here.
    Absent,
    /// Here; it folds to nothing.
    Undecodable,
}

/// What a write answers: what was appended, durable here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The version of this document.
    pub schema: u32,
    /// The record that was written to, if it was one.
    pub record: Option<String>,
    /// The author who wrote.
    pub author: String,
    /// The events, oldest first; empty if there was nothing to write.
    pub events: Vec<Tip>,
}

/// What an import request answers: every good row is durable here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Imported {
    /// The version of this document.
    pub schema: u32,
    /// Rows that became new records.
    pub created: u64,
    /// Rows that changed a record.
    pub changed: u64,
    /// Rows equal to what the view shows: nothing was written.
    pub unchanged: u64,
    /// Rows that were refused, whole.
    pub refused: Vec<RefusedRow>,
}

/// What an import of meshlogd's events answers: every event that was taken is durable here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImportedMeshlog {
    /// The version of this document.
    pub schema: u32,
    /// Events that are new here.
    pub imported: u64,
    /// Events that were here already.
    pub known: u64,
    /// Events that are this program's own, as a bridge translated them: not taken.
    pub translated: u64,
    /// Of the new ones those that are signed, which nobody has checked: no key of their author is known.
    pub unverified: u64,
    /// Of the new ones those that are not signed.
    pub unsigned: u64,
    /// Lines that were refused.
    pub refused: Vec<RefusedRow>,
    /// What is odd about new events, by their lines.
    pub notices: Vec<RefusedRow>,
}

/// A row that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRow {
    /// Its line in the file.
    pub line: u64,
    /// Why.
    pub reason: String,
}

/// What `POST /wait` answers once the condition holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waited {
    /// The version of this document.
    pub schema: u32,
    /// The state that met it, in one sentence.
    pub state: String,
}

/// What blocking, unblocking and adding a peer answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerChanged {
    /// The version of this document.
    pub schema: u32,
    /// The peer.
    pub id: String,
    /// Whether it is blocked now.
    pub blocked: bool,
}

/// What `POST /pause` and `POST /resume` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// The version of this document.
    pub schema: u32,
    /// Whether the node is paused now.
    pub paused: bool,
}

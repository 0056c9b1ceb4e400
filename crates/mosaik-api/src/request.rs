//! What writes ask: the bodies of `POST` and `PATCH`, and what comes back.
//!
//! Field values are JSON as [`crate::json`] maps them. An unknown key is refused: a typo must not
//! pass for a write that was done.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Most rows that one import request may carry.
///
/// One request is one commit: at 500 rows the fixed price of a commit is spread thin while others
/// still get their turn.
pub const IMPORT_ROWS_MAX: usize = 500;

/// Bytes of one request's body at most.
///
/// A row may be as large as all its fields at 64 KiB each; 32 MiB holds a batch of ordinary rows many
/// times over, and bounds what one caller can make the node hold.
pub const BODY_LEN_MAX: usize = 32 << 20;

/// `POST /records`: a new record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateRecord {
    /// Its id; without one the node makes a sortable random id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// Its form.
    pub form: String,
    /// Its first fields.
    #[serde(default)]
    pub fields: BTreeMap<String, Json>,
    /// Whether an id that exists here is fine, and then nothing is written.
    #[serde(default)]
    pub if_absent: bool,
}

/// `PATCH /records/{record}`: fields to set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetFields {
    /// The fields and their new values.
    pub fields: BTreeMap<String, Json>,
}

/// `POST /records/{record}/notes`: a note to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddNote {
    /// What it says.
    pub text: String,
}

/// `POST /records/{record}/archive`: put it away, or take it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetArchived {
    /// Whether it is put away from now on.
    pub archived: bool,
}

/// `POST /events`: an event of an application's own kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmitEvent {
    /// Its kind, outside the reserved prefixes.
    pub kind: String,
    /// Its payload.
    pub value: Json,
}

/// Most events that one request may carry.
///
/// One request is one commit: at 1,000 events the fixed price of a commit is spread thin while
/// others still get their turn.
pub const EMIT_EVENTS_MAX: usize = 1000;

/// `POST /events/batch`: events of applications' own kinds, all or none. At most
/// [`EMIT_EVENTS_MAX`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmitEvents {
    /// The events, in their order in the feed.
    pub events: Vec<EmitEvent>,
}

/// `POST /import`: rows that become records. At most [`IMPORT_ROWS_MAX`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRows {
    /// The form of every row.
    pub form: String,
    /// The rows, in the order of the file.
    pub rows: Vec<ImportRow>,
}

/// One row of an import.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRow {
    /// Where in the file it stands, for the report.
    pub line: u64,
    /// The record that it describes.
    pub record: String,
    /// Its fields.
    pub fields: BTreeMap<String, Json>,
}

/// `POST /import/meshlog`: events of meshlogd that become foreign events. At most [`IMPORT_ROWS_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportMeshlog {
    /// The events, in the order of their log.
    pub events: Vec<MeshlogLine>,
}

/// One event of a log of meshlogd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshlogLine {
    /// Where in the file it stands, for the report.
    pub line: u64,
    /// Its JSON, word for word.
    pub event: String,
}

/// `POST /peers`: a peer to dial now and to remember.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddPeer {
    /// Its ticket, `mpeer1...`.
    pub ticket: String,
}

/// `POST /blobs/{blob}/fetch`: answer when the file is here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchBlob {
    /// When to give up, in milliseconds; without it never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Whether it may come over radio too, piece by piece; it is asked for there until it is whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over_radio: bool,
}

/// `POST /blobs/{blob}/pin`: keep the file whatever happens, or lift that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinBlob {
    /// Whether it is kept from now on.
    pub pinned: bool,
}

/// `POST /wait`: answer when this holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// What must hold.
    pub until: Condition,
    /// When to give up, in milliseconds; without it never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// What can be waited for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// The node answers.
    Ready,
    /// So many peers are connected.
    Peers(u64),
    /// A comparison that began after the call has ended, and all that it showed is here, declined
    /// or unavailable.
    Synced,
    /// So many connected peers hold all that this node had written at the call, durably.
    Replicas(u64),
    /// A record is here, and its fields show these values.
    Record {
        /// Which.
        record: String,
        /// What its fields must show.
        #[serde(default)]
        fields: BTreeMap<String, Json>,
    },
}

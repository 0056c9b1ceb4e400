//! Limits that two implementations must share. Each crate keeps those that concern it alone.

/// Bytes of one event's payload. Larger things are attachments.
pub const PAYLOAD_LEN_MAX: usize = 64 * 1024;
/// Bytes of a kind.
pub const KIND_LEN_MAX: usize = 64;
/// Events in one run.
pub const RUN_EVENTS_MAX: usize = 1024;
/// Bytes of one run before compression, absent payloads counted at their length.
pub const RUN_LEN_MAX: usize = 256 * 1024;
/// Events after which an author signs at the latest, so that the next signed head is never further
/// than one run.
pub const UNSIGNED_EVENTS_MAX: usize = 256;
/// Bytes of payload after which an author signs at the latest.
pub const UNSIGNED_PAYLOAD_MAX: usize = 64 * 1024;
/// Tips of one author. With one more the author is crowded, and declined from then on.
pub const TIPS_MAX: usize = 64;
/// Bytes of a public network's name.
pub const NETWORK_NAME_LEN_MAX: usize = 256;
/// Lists and maps that may lie in one another in a value.
pub const VALUE_DEPTH_MAX: usize = 16;
/// Bytes of a record's id, which has one at least.
pub const RECORD_LEN_MAX: usize = 256;
/// Bytes of the name of a form or field.
pub const FIELD_LEN_MAX: usize = 128;
/// Sets that one `field.set` may name as replaced.
pub const OVER_MAX: usize = 16;

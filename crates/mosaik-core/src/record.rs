//! What an event says of a record: the payloads of this version's reserved kinds.
//!
//! Invariants:
//! - [`RecordEvent::decode`] takes what [`RecordEvent::encode`] writes and nothing else: what is
//!   over a limit, ill-typed or in another form of bytes is no record event on any node.
//! - An application's draft never has a reserved kind, so that a later version can give those a
//!   meaning.
//!
//! Source: FORMAT.md beside this crate, section 8.

use crate::{
    codec::{ReadError, Reader, Writer},
    event::{Draft, Kind, PayloadTooLong},
    limits::{FIELD_LEN_MAX, OVER_MAX, RECORD_LEN_MAX},
    value::Value,
};

/// What kinds begin with that are not an application's to use.
pub const RESERVED_PREFIXES: [&str; 11] = [
    "record.",
    "field.",
    "note.",
    "attachment.",
    "event.",
    "feed.",
    "author.",
    "writer.",
    "node.",
    "foreign.",
    "mosaik.",
];

const RECORD_CREATE: &str = "record.create";
const FIELD_SET: &str = "field.set";
const NOTE_ADD: &str = "note.add";
const ATTACHMENT_ADD: &str = "attachment.add";
const RECORD_ARCHIVE: &str = "record.archive";
const NODE_PROFILE: &str = "node.profile";

/// Whether `kind` is not an application's to use.
pub fn is_reserved(kind: &str) -> bool {
    RESERVED_PREFIXES.iter().any(|prefix| kind.starts_with(prefix))
}

/// The first 8 bytes of an event id, by which a set names the sets that it replaces.
pub type SetName = [u8; 8];

/// Why something can't be written as an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DraftError {
    /// A record id that is empty or too long.
    #[error("a record id has 1 to {RECORD_LEN_MAX} bytes, this one has {0}")]
    RecordLen(usize),
    /// A form's name that is too long.
    #[error("the name of a form has at most {FIELD_LEN_MAX} bytes, this one has {0}")]
    FormLen(usize),
    /// A field's name that is too long.
    #[error("the name of a field has at most {FIELD_LEN_MAX} bytes, this one has {0}")]
    FieldLen(usize),
    /// Too many replaced sets named.
    #[error("a set names at most {OVER_MAX} others as replaced, this one names {0}")]
    OverLen(usize),
    /// A value for the form, which is text.
    #[error("the field with the empty name is the record's form and takes text, not {0}")]
    FormNotText(&'static str),
    /// An application's event under a kind that is not its to use.
    #[error("the kind {0} is reserved, as are all that begin with {list}", list = RESERVED_PREFIXES.join(", "))]
    Reserved(Kind),
    /// All is well, but too long together.
    #[error(transparent)]
    PayloadLen(#[from] PayloadTooLong),
}

/// What an event says of a record, or of its author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordEvent {
    /// `record.create`: the record is there, under this form. Also takes it out of the archive.
    Create {
        /// Its id.
        record: String,
        /// Its form: a set of the field with the empty name.
        form: String,
    },
    /// `field.set`: the field has this value.
    Set {
        /// The record's id.
        record: String,
        /// The field's name; empty for the form.
        field: String,
        /// The value; text for the form.
        value: Value,
        /// The sets that it replaces: the candidates that its writer saw.
        over: Vec<SetName>,
    },
    /// `note.add`: a remark that stays.
    Note {
        /// The record's id.
        record: String,
        /// What it says.
        text: String,
    },
    /// `attachment.add`: a file that is kept elsewhere.
    Attach {
        /// The record's id.
        record: String,
        /// The field that it belongs to; need not be set.
        field: String,
        /// BLAKE3 of the file.
        blob: [u8; 32],
        /// Its bytes.
        size: u64,
        /// Its media type, as claimed.
        mime: String,
        /// Its name, as claimed.
        name: String,
    },
    /// `record.archive`: the record goes into the archive or comes out of it.
    Archive {
        /// The record's id.
        record: String,
        /// Whether it goes in.
        archived: bool,
    },
    /// `node.profile`: what the author calls itself. A claim, never an identity.
    Profile {
        /// The name.
        name: String,
    },
}

impl RecordEvent {
    /// The kind.
    pub fn kind(&self) -> Kind {
        Kind::new(self.kind_str()).expect("the kinds of this list are well formed")
    }

    fn kind_str(&self) -> &'static str {
        match self {
            Self::Create { .. } => RECORD_CREATE,
            Self::Set { .. } => FIELD_SET,
            Self::Note { .. } => NOTE_ADD,
            Self::Attach { .. } => ATTACHMENT_ADD,
            Self::Archive { .. } => RECORD_ARCHIVE,
            Self::Profile { .. } => NODE_PROFILE,
        }
    }

    /// The record that it speaks of; none for a profile.
    pub fn record(&self) -> Option<&str> {
        match self {
            Self::Create { record, .. }
            | Self::Set { record, .. }
            | Self::Note { record, .. }
            | Self::Attach { record, .. }
            | Self::Archive { record, .. } => Some(record),
            Self::Profile { .. } => None,
        }
    }

    /// The draft of an event that says this.
    ///
    /// # Errors
    ///
    /// [`DraftError`] for what no node would fold.
    pub fn encode(&self) -> Result<Draft, DraftError> {
        self.check()?;
        let mut writer = Writer::new();
        match self {
            Self::Create { record, form } => {
                writer.str(record).str(form);
            }
            Self::Set { record, field, value, over } => {
                value.write(writer.str(record).str(field));
                writer.len(over.len()).raw(over.as_flattened());
            }
            Self::Note { record, text } => {
                writer.str(record).str(text);
            }
            Self::Attach { record, field, blob, size, mime, name } => {
                writer.str(record).str(field).raw(blob).varint(*size).str(mime).str(name);
            }
            Self::Archive { record, archived } => {
                writer.str(record).bool(*archived);
            }
            Self::Profile { name } => {
                writer.str(name);
            }
        }
        Ok(Draft::new(self.kind(), writer.into_bytes())?)
    }

    fn check(&self) -> Result<(), DraftError> {
        if let Some(record) = self.record()
            && !(1..=RECORD_LEN_MAX).contains(&record.len())
        {
            return Err(DraftError::RecordLen(record.len()));
        }
        match self {
            Self::Create { form, .. } if form.len() > FIELD_LEN_MAX => {
                Err(DraftError::FormLen(form.len()))
            }
            Self::Set { field, .. } | Self::Attach { field, .. } if field.len() > FIELD_LEN_MAX => {
                Err(DraftError::FieldLen(field.len()))
            }
            Self::Set { over, .. } if over.len() > OVER_MAX => Err(DraftError::OverLen(over.len())),
            Self::Set { field, value, .. } if field.is_empty() && value.as_text().is_none() => {
                Err(DraftError::FormNotText(value.type_name()))
            }
            _ => Ok(()),
        }
    }

    /// What an event of this kind says with this payload; none for a kind that is an application's,
    /// or reserved and without a meaning in this version.
    ///
    /// # Errors
    ///
    /// [`ReadError`] for a payload that [`RecordEvent::encode`] wouldn't write. Such an event is
    /// stored and relayed all the same, and counts for nothing.
    pub fn decode(kind: &str, payload: &[u8]) -> Result<Option<Self>, ReadError> {
        let mut reader = Reader::new(payload);
        let event = match kind {
            RECORD_CREATE => Self::Create {
                record: read_record(&mut reader)?,
                form: read_text(&mut reader, FIELD_LEN_MAX)?,
            },
            FIELD_SET => Self::read_set(&mut reader)?,
            NOTE_ADD => Self::Note {
                record: read_record(&mut reader)?,
                text: read_text(&mut reader, usize::MAX)?,
            },
            ATTACHMENT_ADD => Self::Attach {
                record: read_record(&mut reader)?,
                field: read_text(&mut reader, FIELD_LEN_MAX)?,
                blob: reader.array()?,
                size: reader.varint()?,
                mime: read_text(&mut reader, usize::MAX)?,
                name: read_text(&mut reader, usize::MAX)?,
            },
            RECORD_ARCHIVE => {
                Self::Archive { record: read_record(&mut reader)?, archived: reader.bool()? }
            }
            NODE_PROFILE => Self::Profile { name: read_text(&mut reader, usize::MAX)? },
            _ => return Ok(None),
        };
        reader.finish()?;
        Ok(Some(event))
    }

    fn read_set(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        let record = read_record(reader)?;
        let field = read_text(reader, FIELD_LEN_MAX)?;
        let value = Value::read(reader)?;
        if field.is_empty() && value.as_text().is_none() {
            return Err(ReadError::Invalid("the form of a record is not text"));
        }
        let count = reader.count(OVER_MAX, size_of::<SetName>())?;
        let over = (0..count).map(|_| reader.array()).collect::<Result<_, _>>()?;
        Ok(Self::Set { record, field, value, over })
    }
}

/// The draft of an application's own event.
///
/// # Errors
///
/// [`DraftError::Reserved`] or [`DraftError::PayloadLen`].
pub fn application_draft(kind: Kind, value: &Value) -> Result<Draft, DraftError> {
    if is_reserved(kind.as_str()) {
        return Err(DraftError::Reserved(kind));
    }
    Ok(Draft::new(kind, value.encode())?)
}

fn read_record(reader: &mut Reader<'_>) -> Result<String, ReadError> {
    let record = read_text(reader, RECORD_LEN_MAX)?;
    if record.is_empty() { Err(ReadError::Invalid("a record id is empty")) } else { Ok(record) }
}

fn read_text(reader: &mut Reader<'_>, len_max: usize) -> Result<String, ReadError> {
    reader.str(len_max).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::PAYLOAD_LEN_MAX;

    fn set(record: &str, field: &str, value: Value, over: usize) -> RecordEvent {
        let (record, field) = (record.to_owned(), field.to_owned());
        RecordEvent::Set { record, field, value, over: vec![[7; 8]; over] }
    }

    fn all() -> [RecordEvent; 6] {
        let record = "r1".to_owned();
        [
            RecordEvent::Create { record: record.clone(), form: String::new() },
            set("r1", "name", Value::Int(300), 2),
            RecordEvent::Note { record: record.clone(), text: "seen".to_owned() },
            RecordEvent::Attach {
                record: record.clone(),
                field: String::new(),
                blob: [9; 32],
                size: 300,
                mime: "image/png".to_owned(),
                name: "ä.png".to_owned(),
            },
            RecordEvent::Archive { record, archived: true },
            RecordEvent::Profile { name: "kitchen".to_owned() },
        ]
    }

    #[test]
    fn an_event_comes_back_from_its_draft() {
        for event in all() {
            let draft = event.encode().expect("within the limits");
            let back = RecordEvent::decode(draft.kind.as_str(), &draft.payload);
            assert_eq!(back, Ok(Some(event)));
        }
    }

    #[test]
    fn a_set_has_the_bytes_of_the_format() {
        let draft = set("r", "f", Value::Null, 1).encode().expect("within the limits");
        assert_eq!(draft.kind.as_str(), "field.set");
        assert_eq!(draft.payload, [1, b'r', 1, b'f', 0, 1, 7, 7, 7, 7, 7, 7, 7, 7]);
    }

    #[test]
    fn what_is_over_a_limit_can_neither_be_written_nor_read() {
        let long = |len| "x".repeat(len);
        let null = Value::Null;
        let cases = [
            (set("", "f", null.clone(), 0), DraftError::RecordLen(0)),
            (set(&long(257), "f", null.clone(), 0), DraftError::RecordLen(257)),
            (set("r", &long(129), null.clone(), 0), DraftError::FieldLen(129)),
            (set("r", "f", null.clone(), 17), DraftError::OverLen(17)),
            (set("r", "", null, 0), DraftError::FormNotText("null")),
            (
                RecordEvent::Create { record: "r".to_owned(), form: long(129) },
                DraftError::FormLen(129),
            ),
            (
                RecordEvent::Note { record: "r".to_owned(), text: long(PAYLOAD_LEN_MAX) },
                DraftError::PayloadLen(PayloadTooLong(PAYLOAD_LEN_MAX + 5)),
            ),
        ];
        for (event, error) in cases {
            assert_eq!(event.encode(), Err(error));
        }
        for bytes in [
            vec![0, 1, b'f', 0, 0],
            [&[0x81, 2][..], &[b'x'; 257], &[1, b'f', 0, 0]].concat(),
            [&[1, b'r', 0x81, 1][..], &[b'x'; 129], &[0, 0]].concat(),
            [&[1, b'r', 1, b'f', 0, 17][..], &[7; 17 * 8]].concat(),
            vec![1, b'r', 0, 0, 0],
        ] {
            assert!(RecordEvent::decode(FIELD_SET, &bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn the_longest_names_can_be_written_and_read() {
        let event = set(&"r".repeat(256), &"f".repeat(128), Value::Null, 16);
        let draft = event.encode().expect("at the limits");
        assert_eq!(RecordEvent::decode(FIELD_SET, &draft.payload), Ok(Some(event)));
    }

    #[test]
    fn an_application_may_not_use_a_reserved_kind() {
        for kind in ["record.create", "event.erase", "mosaik.x", "node.", "writer.grant"] {
            let kind = Kind::new(kind).expect("a kind");
            let error = DraftError::Reserved(kind.clone());
            assert_eq!(application_draft(kind, &Value::Null), Err(error));
        }
        for kind in ["records.x", "sensor", "app.event.x", "noted"] {
            assert!(application_draft(Kind::new(kind).expect("a kind"), &Value::Null).is_ok());
        }
    }

    #[test]
    fn a_kind_without_a_meaning_in_this_version_is_not_decoded() {
        for kind in ["event.erase", "record.rename", "sensor.reading"] {
            assert_eq!(RecordEvent::decode(kind, &[1, b'r', 0]), Ok(None));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn changed_payloads_are_refused_or_are_the_one_form_of_another_event(
            which in 0usize..6,
            at: prop::sample::Index,
            byte: u8,
            grow: bool,
        ) {
            let draft = all()[which].encode().expect("within the limits");
            let mut payload = draft.payload;
            let at = at.index(payload.len());
            if grow { payload.insert(at, byte) } else { payload[at] = byte }
            if let Ok(Some(event)) = RecordEvent::decode(draft.kind.as_str(), &payload) {
                prop_assert_eq!(event.encode().expect("decoded").payload, payload);
            }
        }
    }
}

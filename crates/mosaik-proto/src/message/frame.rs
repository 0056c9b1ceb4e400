//! The one frame of each message: length, type, body.
//!
//! Invariants:
//! - A frame is refused before anything is allocated for it if its length is over [`FRAME_MAX`].
//! - Counts and lengths are bounded by constants and by the bytes that are there.
//! - Bytes behind the fields known here are left alone: later versions put new fields there.
//!
//! Source: FORMAT.md beside this crate, section 1.

use std::{cell::RefCell, io, thread::LocalKey};

use mosaik_core::{
    codec::{ReadError, Reader, Writer},
    event::Hasher,
    feed::{self, Tip},
    id::{AuthorId, BlobId, EventId, NodeId},
    limits::{PAYLOAD_LEN_MAX, TIPS_MAX},
    run::{Run, RunError, VerifiedRun},
    trie::{LEAF_MAX, Prefix},
};

use zstd::bulk::{Compressor, Decompressor};

use super::{
    Ask, BYE_TEXT_MAX, Bye, ByeCode, FILE_PIECE_MAX, FILE_SLICE_MAX, FRAME_MAX, FRAME_MIN,
    FilePart, FileWant, FrontierItem, Greet, Hello, Items, LOCATOR_MAX, LackReason, Message,
    NAME_LEN_MAX, PAGE_ITEMS_MAX, Payloads, Probe, ProbeId, Probed, RUN_BYTES_MAX, Reason,
    SessionWay, Short, Want,
};

/// Why a frame ends the session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than allowed, or without a type.
    #[error("a frame of {0} bytes, the limit is {FRAME_MAX}")]
    Length(usize),
    /// A type below 128 that does not exist.
    #[error("a frame of unknown type {0}")]
    Type(u8),
    /// A body that is not its type's.
    #[error("a malformed frame of type {kind}: {source}")]
    Body {
        /// The frame's type.
        kind: u8,
        /// What is wrong.
        source: ReadError,
    },
    /// A run that does not hold.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A run that does not decompress.
    #[error("a run that does not decompress within {RUN_BYTES_MAX} bytes")]
    Compression,
}

/// Checks a frame's length field before anything is read or allocated for it.
///
/// # Errors
///
/// [`FrameError::Length`].
pub fn frame_len(header: [u8; 4]) -> Result<usize, FrameError> {
    let len = u32::from_be_bytes(header) as usize;
    if (1..=FRAME_MAX).contains(&len) { Ok(len) } else { Err(FrameError::Length(len)) }
}

/// Runs are compressed from so many bytes on, at this level. Measured on runs of notes, JSON, readings
/// as floats, and noise: level 1 leaves 0.47, 0.45, 0.95 and 1.02 of 512 bytes and 0.22, 0.26, 0.82 and
/// 1.00 of 16 KiB, at 280 to 580 MB/s; level 3 leaves the same and takes up to half as long again, level
/// 6 takes six times as long for a tenth less. Half of what is below 512 bytes is key, id and signature.
const COMPRESS_FROM: usize = 512;
const COMPRESS_LEVEL: i32 = 1;
/// A piece of so many bytes from the middle of a run that has four times as many tells whether all of
/// it is worth compressing. Pictures and ciphertext aren't, and cost as much to try.
const COMPRESS_SAMPLE: usize = 1024;
/// It pays where it takes off at least this part: less is stamps alone, and the receiver, too, has work
/// with it.
const COMPRESS_GAIN: usize = 10;

/// The frame of an encoded run; with `zstd` it is compressed where that makes it shorter.
pub fn run_frame(run: &[u8], zstd: bool) -> Vec<u8> {
    let mut writer = Writer::with_capacity(run.len() + 16);
    writer.raw(&[0; 4]).u8(RUN);
    write_run(run, zstd, &mut writer);
    finish_frame(writer)
}

/// Puts its length before a frame.
fn finish_frame(writer: Writer) -> Vec<u8> {
    let mut frame = writer.into_bytes();
    let len = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&len.to_be_bytes());
    frame
}

/// The type of a run's frame.
const RUN: u8 = 9;

impl Message {
    /// The whole frame: length, type, body. A run goes uncompressed ([`run_frame`] compresses).
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(128);
        writer.raw(&[0; 4]).u8(self.kind());
        self.write_body(&mut writer);
        finish_frame(writer)
    }

    /// The frame's type.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Greet(_) => 1,
            Self::Hello(_) => 2,
            Self::Root(_) => 3,
            Self::Tree(..) => 4,
            Self::Leaf(..) => 5,
            Self::Items(_) => 6,
            Self::Done(_) => 7,
            Self::Want(_) => 8,
            Self::Run(_) => RUN,
            Self::Have(..) => 10,
            Self::Payloads(_) => 11,
            Self::Decline(..) => 12,
            Self::Lack(..) => 13,
            Self::Bye(_) => 14,
            Self::Again(_) => 128,
            Self::Twin(_) => 129,
            Self::Ping(_) => 130,
            Self::Pong(_) => 131,
            Self::Probe(_) => 132,
            Self::Probed(_) => 133,
            Self::FileWant(_) => 134,
            Self::FilePart(_) => 135,
            Self::Skipped(kind) => *kind,
        }
    }

    fn write_body(&self, writer: &mut Writer) {
        match self {
            Self::Greet(greet) => {
                writer.str(&greet.app).varint(greet.versions.0).varint(greet.versions.1);
                writer.raw(&greet.proof);
            }
            Self::Hello(hello) => write_hello(hello, writer),
            Self::Root(hash) => {
                writer.raw(hash);
            }
            Self::Tree(prefix, children) => {
                prefix.write(writer);
                writer.raw(children.as_flattened());
            }
            Self::Leaf(prefix, shorts) => {
                prefix.write(writer);
                write_shorts(shorts, writer);
            }
            Self::Items(items) => {
                items.prefix.write(writer);
                writer.len(items.items.len());
                for item in &items.items {
                    feed::write_item(&item.author, &item.tips, writer);
                }
                write_shorts(&items.lacked, writer);
                writer.bool(items.more);
            }
            Self::Done(prefix) => prefix.write(writer),
            Self::Want(want) => {
                writer.raw(want.author.as_bytes());
                write_option_tip(want.tip, writer);
                writer.len(want.locator.len());
                for tip in &want.locator {
                    write_tip(tip, writer);
                }
                writer.varint(want.credit);
            }
            Self::Run(run) => write_run(&run.encode(), false, writer),
            Self::Have(author, tip) => {
                writer.raw(author.as_bytes());
                write_tip(tip, writer);
            }
            Self::Payloads(payloads) => write_payloads(payloads, writer),
            Self::Decline(author, reason) => {
                writer.raw(author.as_bytes()).u8(reason.as_u8());
            }
            Self::Lack(author, tip, reason) => {
                writer.raw(author.as_bytes());
                write_option_tip(*tip, writer);
                writer.u8(reason.as_u8());
            }
            Self::Bye(bye) => {
                writer.u8(bye.code.as_u8()).str(&bye.text);
            }
            Self::Again(token) | Self::Ping(token) | Self::Pong(token) => {
                writer.varint(*token);
            }
            Self::Twin(boot) => {
                writer.varint(*boot);
            }
            Self::Probe(probe) => {
                writer.raw(&probe.id.0).raw(probe.origin.as_bytes());
                writer.varint(probe.sent_ms).u8(probe.hops);
            }
            Self::Probed(probed) => {
                writer.raw(&probed.id.0).raw(probed.node.as_bytes()).str(&probed.name);
                writer.varint(probed.received_ms).u8(probed.hops);
                writer.raw(probed.from.as_bytes()).u8(probed.way.as_u8());
            }
            Self::FileWant(want) => {
                writer.varint(want.token).raw(&want.blob.0);
                writer.varint(u64::from(want.group)).varint(u64::from(want.from));
            }
            Self::FilePart(part) => {
                writer.varint(part.token).varint(u64::from(part.total)).bytes(&part.bytes);
            }
            Self::Skipped(_) => {}
        }
    }

    /// Reads a frame without its length field, and verifies the run in it: all that can be checked
    /// without knowing what is held.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; each ends the session.
    pub fn decode(frame: &[u8], hasher: &Hasher) -> Result<Self, FrameError> {
        let Some((&kind, body)) = frame.split_first() else {
            return Err(FrameError::Length(0));
        };
        if frame.len() > FRAME_MAX {
            return Err(FrameError::Length(frame.len()));
        }
        let mut reader = Reader::new(body);
        if kind == RUN {
            return read_run(&mut reader, hasher).map(Self::Run);
        }
        Self::read_body(kind, &mut reader)
            .map_err(|source| FrameError::Body { kind, source })?
            .ok_or(FrameError::Type(kind))
    }

    fn read_body(kind: u8, reader: &mut Reader<'_>) -> Result<Option<Self>, ReadError> {
        Ok(Some(match kind {
            1 => Self::Greet(Greet {
                app: reader.str(NAME_LEN_MAX)?.to_owned(),
                versions: (reader.varint()?, reader.varint()?),
                proof: reader.array()?,
            }),
            2 => Self::Hello(read_hello(reader)?),
            3 => Self::Root(reader.array()?),
            4 => {
                let prefix = Prefix::read(reader, 63)?;
                let mut children = [[0; 8]; 16];
                for child in &mut children {
                    *child = reader.array()?;
                }
                Self::Tree(prefix, children)
            }
            5 => Self::Leaf(Prefix::read(reader, 64)?, read_shorts(reader)?),
            6 => Self::Items(read_items(reader)?),
            7 => Self::Done(Prefix::read(reader, 64)?),
            8 => Self::Want(read_want(reader)?),
            10 => Self::Have(AuthorId(reader.array()?), read_head(reader)?),
            11 => Self::Payloads(read_payloads(reader)?),
            12 => Self::Decline(AuthorId(reader.array()?), Reason::from_u8(reader.u8()?)),
            13 => Self::Lack(
                AuthorId(reader.array()?),
                read_option_tip(reader)?,
                LackReason::from_u8(reader.u8()?),
            ),
            14 => Self::Bye(Bye {
                code: ByeCode::from_u8(reader.u8()?),
                text: reader.str(BYE_TEXT_MAX)?.to_owned(),
            }),
            128 => Self::Again(reader.varint()?),
            129 => Self::Twin(reader.varint()?),
            130 => Self::Ping(reader.varint()?),
            131 => Self::Pong(reader.varint()?),
            132 => Self::Probe(Probe {
                id: ProbeId(reader.array()?),
                origin: NodeId(reader.array()?),
                sent_ms: reader.varint()?,
                hops: reader.u8()?,
            }),
            133 => Self::Probed(Probed {
                id: ProbeId(reader.array()?),
                node: NodeId(reader.array()?),
                name: reader.str(NAME_LEN_MAX)?.to_owned(),
                received_ms: reader.varint()?,
                hops: reader.u8()?,
                from: NodeId(reader.array()?),
                way: SessionWay::from_u8(reader.u8()?),
            }),
            134 => Self::FileWant(FileWant {
                token: reader.varint()?,
                blob: BlobId(reader.array()?),
                group: reader.varint_u32()?,
                from: reader.varint_u32()?,
            }),
            135 => Self::FilePart(read_file_part(reader)?),
            136.. => Self::Skipped(kind),
            _ => return Ok(None),
        }))
    }
}

fn read_file_part(reader: &mut Reader<'_>) -> Result<FilePart, ReadError> {
    let (token, total) = (reader.varint()?, reader.varint_u32()?);
    let bytes = reader.bytes(FILE_SLICE_MAX)?.to_vec();
    if total as usize > FILE_PIECE_MAX {
        return Err(ReadError::TooLong { len: u64::from(total), limit: FILE_PIECE_MAX });
    }
    if bytes.len() > total as usize || (bytes.is_empty() && total > 0) {
        return Err(ReadError::Invalid(
            "a slice of a file that is longer than its piece, or empty",
        ));
    }
    Ok(FilePart { token, total, bytes })
}

fn write_hello(hello: &Hello, writer: &mut Writer) {
    writer.str(&hello.software).varint(hello.capabilities).varint(u64::from(hello.frame_max));
    writer.varint(hello.credit).varint(hello.clock_ms).str(&hello.name).varint(hello.boot);
    writer.raw(&hello.top).varint(hello.authors).varint(hello.events).raw(&hello.declines);
    // No tags in this version.
    writer.len(0);
}

fn read_hello(reader: &mut Reader<'_>) -> Result<Hello, ReadError> {
    let hello = Hello {
        software: reader.str(NAME_LEN_MAX)?.to_owned(),
        capabilities: reader.varint()?,
        frame_max: reader.varint_u32()?,
        credit: reader.varint()?,
        clock_ms: reader.varint()?,
        name: reader.str(NAME_LEN_MAX)?.to_owned(),
        boot: reader.varint()?,
        top: reader.array()?,
        authors: reader.varint()?,
        events: reader.varint()?,
        declines: reader.array()?,
    };
    for _ in 0..reader.count(FRAME_MAX, 2)? {
        reader.varint()?;
        reader.bytes(FRAME_MAX)?;
    }
    if hello.frame_max < FRAME_MIN {
        return Err(ReadError::Invalid("a largest frame that the longest run does not fit"));
    }
    Ok(hello)
}

fn write_tip(tip: &Tip, writer: &mut Writer) {
    writer.varint(tip.seq).raw(tip.id.as_bytes());
}

fn read_tip(reader: &mut Reader<'_>) -> Result<Tip, ReadError> {
    Ok(Tip { seq: reader.varint()?, id: EventId(reader.array()?) })
}

/// A tip that names an event: not the place before the first.
fn read_head(reader: &mut Reader<'_>) -> Result<Tip, ReadError> {
    match read_tip(reader)? {
        Tip { seq: 0, .. } => Err(ReadError::Invalid("an event of seq 0")),
        tip => Ok(tip),
    }
}

fn write_option_tip(tip: Option<Tip>, writer: &mut Writer) {
    writer.bool(tip.is_some());
    if let Some(tip) = tip {
        write_tip(&tip, writer);
    }
}

fn read_option_tip(reader: &mut Reader<'_>) -> Result<Option<Tip>, ReadError> {
    if reader.option()? { read_head(reader).map(Some) } else { Ok(None) }
}

fn write_shorts(shorts: &[Short], writer: &mut Writer) {
    writer.len(shorts.len()).raw(shorts.as_flattened());
}

fn read_shorts(reader: &mut Reader<'_>) -> Result<Vec<Short>, ReadError> {
    let count = reader.count(LEAF_MAX, 8)?;
    (0..count).map(|_| reader.array()).collect()
}

fn read_items(reader: &mut Reader<'_>) -> Result<Items, ReadError> {
    let prefix = Prefix::read(reader, 64)?;
    let count = reader.count(PAGE_ITEMS_MAX, 66)?;
    let mut items: Vec<FrontierItem> = Vec::with_capacity(count);
    for _ in 0..count {
        let item = read_item(reader)?;
        if !prefix.covers(&item.author.0) {
            return Err(ReadError::Invalid("an item outside its prefix"));
        }
        if items.last().is_some_and(|last| last.author >= item.author) {
            return Err(ReadError::Invalid("items are not ascending"));
        }
        items.push(item);
    }
    Ok(Items { prefix, items, lacked: read_shorts(reader)?, more: reader.bool()? })
}

/// Reads one frontier item: 1 to 64 tips, ascending by seq and id, none of seq 0.
///
/// # Errors
///
/// [`ReadError`] for anything else.
pub fn read_item(reader: &mut Reader<'_>) -> Result<FrontierItem, ReadError> {
    let author = AuthorId(reader.array()?);
    let count = reader.count(TIPS_MAX, 33)?;
    let tips: Vec<Tip> = (0..count).map(|_| read_head(reader)).collect::<Result<_, _>>()?;
    if tips.is_empty() || tips.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(ReadError::Invalid("tips are missing or not ascending"));
    }
    Ok(FrontierItem { author, tips })
}

fn read_want(reader: &mut Reader<'_>) -> Result<Want, ReadError> {
    let author = AuthorId(reader.array()?);
    let tip = read_option_tip(reader)?;
    let count = reader.count(LOCATOR_MAX, 33)?;
    let locator: Vec<Tip> = (0..count).map(|_| read_tip(reader)).collect::<Result<_, _>>()?;
    let falling = locator.windows(2).all(|pair| pair[0].seq >= pair[1].seq);
    if !falling || locator.iter().any(|tip| tip.seq == 0 && *tip != Tip::ROOT) {
        return Err(ReadError::Invalid("a locator is not falling, or names an event of seq 0"));
    }
    Ok(Want { author, tip, locator, credit: reader.varint()? })
}

fn write_run(bytes: &[u8], zstd: bool, writer: &mut Writer) {
    if zstd
        && bytes.len() >= COMPRESS_FROM
        && seems_compressible(bytes)
        && let Some(compressed) = compress(bytes)
    {
        writer.u8(1).bytes(&compressed);
        return;
    }
    writer.u8(0).bytes(bytes);
}

fn seems_compressible(bytes: &[u8]) -> bool {
    let from = bytes.len() / 2;
    bytes.len() < 4 * COMPRESS_SAMPLE || compress(&bytes[from..from + COMPRESS_SAMPLE]).is_some()
}

thread_local! {
    /// To make one takes longer than to compress a run with it.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// What `make` made first on this thread, for `run`.
fn with_kept<T, R>(
    kept: &'static LocalKey<RefCell<Option<T>>>,
    make: impl FnOnce() -> io::Result<T>,
    run: impl FnOnce(&mut T) -> io::Result<R>,
) -> io::Result<R> {
    kept.with_borrow_mut(|kept| match kept {
        Some(kept) => run(kept),
        None => run(kept.insert(make()?)),
    })
}

/// None where it doesn't pay. A compressor that fails leaves the run as it is.
fn compress(bytes: &[u8]) -> Option<Vec<u8>> {
    let make = || Compressor::new(COMPRESS_LEVEL);
    let compressed = with_kept(&COMPRESSOR, make, |kept| kept.compress(bytes)).ok()?;
    (compressed.len() + bytes.len() / COMPRESS_GAIN <= bytes.len()).then_some(compressed)
}

fn read_run(reader: &mut Reader<'_>, hasher: &Hasher) -> Result<VerifiedRun, FrameError> {
    let body = |source| FrameError::Body { kind: RUN, source };
    let compression = reader.u8().map_err(body)?;
    let bytes = reader.bytes(FRAME_MAX).map_err(body)?;
    let run = match compression {
        0 if bytes.len() <= RUN_BYTES_MAX => Run::decode(bytes)?,
        0 => return Err(FrameError::Compression),
        1 => Run::decode(&decompress(bytes)?)?,
        tag => return Err(body(ReadError::Tag(u64::from(tag)))),
    };
    Ok(run.verify(hasher)?)
}

/// One zstd frame and nothing behind it, at most [`RUN_BYTES_MAX`] bytes.
fn decompress(bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
    let one = zstd::zstd_safe::find_frame_compressed_size(bytes);
    if one != Ok(bytes.len()) {
        return Err(FrameError::Compression);
    }
    let run = |kept: &mut Decompressor<'static>| kept.decompress(bytes, RUN_BYTES_MAX);
    with_kept(&DECOMPRESSOR, Decompressor::new, run).map_err(|_| FrameError::Compression)
}

fn write_payloads(payloads: &Payloads, writer: &mut Writer) {
    writer.len(payloads.ask.len());
    for ask in &payloads.ask {
        writer.raw(ask.author.as_bytes());
        write_tip(&ask.tip, writer);
    }
    writer.len(payloads.give.len());
    for (id, bytes) in &payloads.give {
        writer.raw(id.as_bytes()).bytes(bytes);
    }
    writer.len(payloads.lack.len());
    for id in &payloads.lack {
        writer.raw(id.as_bytes());
    }
}

fn read_payloads(reader: &mut Reader<'_>) -> Result<Payloads, ReadError> {
    let mut payloads = Payloads::default();
    for _ in 0..reader.count(FRAME_MAX, 65)? {
        payloads.ask.push(Ask { author: AuthorId(reader.array()?), tip: read_head(reader)? });
    }
    for _ in 0..reader.count(FRAME_MAX, 33)? {
        let id = EventId(reader.array()?);
        payloads.give.push((id, reader.bytes(PAYLOAD_LEN_MAX)?.to_vec()));
    }
    for _ in 0..reader.count(FRAME_MAX, 32)? {
        payloads.lack.push(EventId(reader.array()?));
    }
    Ok(payloads)
}

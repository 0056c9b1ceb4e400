//! The short form of a session's messages on a link: what was said there before goes by number.
//!
//! Each end keeps two lists, of what it has said and of what it has heard there: authors, and events as
//! (author, seq, id). The first time a thing goes in full, then as its number in one of the two lists.
//!
//! Invariants:
//! - The form is lossless: what [`Codec::expand`] gives is the frame that [`Codec::shorten`] took, and it
//!   is checked as every frame is. So a peer gains nothing by a wrong number but a refused frame.
//! - It needs the records of a link in the order sent, without a gap. Then what one end said is what the
//!   other has heard, up to a point, and numbers mean the same at both.
//! - Both lists are bounded. What fell out of them goes in full again.
//!
//! Source: FORMAT.md beside this crate, section 3.

use std::collections::{HashMap, VecDeque};

use mosaik_core::{
    codec::{ReadError, Reader, Writer},
    event::Hasher,
    feed::Tip,
    id::{AuthorId, EventId},
    limits::TIPS_MAX,
    trie::{LEAF_MAX, Prefix},
};
use mosaik_proto::message::{
    APP, FrameError, Hello, LOCATOR_MAX, Message, NAME_LEN_MAX, PAGE_ITEMS_MAX, RUN_BYTES_MAX,
    Short,
};
use zstd::bulk::{Compressor, Decompressor};

/// Authors in one list; further ones go in full each time. A guess: an island has some dozens.
const AUTHORS_MAX: usize = 1024;
/// Events in one list: the oldest fall out.
const EVENTS_MAX: usize = 4096;
/// Of the events heard, the newest that may be named by number. The peer may have said others since,
/// and dropped the oldest: as many as fit what is on its way at the most, 33 bytes each.
const EVENTS_HEARD_MAX: usize = 1024;
/// The frame type of a run; its body is shortened as bytes, for it is signed as they are.
const RUN: u8 = 9;
/// The type of a record with a compressed run: none that a frame has.
const RUN_COMPRESSED: u8 = 73;
/// How long a run is that one tries to compress, in bytes: below that there is nothing to find.
const COMPRESS_FROM: usize = 160;
/// Airtime is dearer than processor time: the level that finds most in some kilobytes.
const COMPRESS_LEVEL: i32 = 19;
/// What runs are full of, for the compressor: kinds, and how their payloads begin.
const DICTIONARY: &[u8] = b"node.profileattachment.addrecord.archiverecord.createfield.setnote.add\
    image/jpegapplication/jsontext/plaintemperaturebatterypositionstatus";

/// What every zstd frame begins with: it isn't sent.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// One end's short form of one link.
#[derive(Debug)]
pub struct Codec {
    hasher: Hasher,
    said: Known,
    heard: Known,
}

/// What one direction of a link has named so far.
#[derive(Debug, Default)]
struct Known {
    authors: Vec<AuthorId>,
    author_at: HashMap<AuthorId, usize>,
    events: VecDeque<(AuthorId, Tip)>,
    event_at: HashMap<(AuthorId, Tip), u64>,
    /// How many events were noted ever: the number of the next one.
    count: u64,
}

impl Known {
    fn note_author(&mut self, author: AuthorId) {
        if self.authors.len() < AUTHORS_MAX && !self.author_at.contains_key(&author) {
            self.author_at.insert(author, self.authors.len());
            self.authors.push(author);
        }
    }

    fn note_event(&mut self, author: AuthorId, tip: Tip) {
        if tip == Tip::ROOT || self.event_at.contains_key(&(author, tip)) {
            return;
        }
        if self.events.len() == EVENTS_MAX
            && let Some(oldest) = self.events.pop_front()
        {
            self.event_at.remove(&oldest);
        }
        self.events.push_back((author, tip));
        self.event_at.insert((author, tip), self.count);
        self.count += 1;
    }

    /// How far before the newest it stands, from 0.
    fn back(&self, author: AuthorId, tip: Tip) -> Option<u64> {
        self.event_at.get(&(author, tip)).map(|at| self.count - 1 - at)
    }

    fn event(&self, back: u64) -> Option<(AuthorId, Tip)> {
        let back = usize::try_from(back).ok()?;
        self.events.len().checked_sub(back + 1).and_then(|at| self.events.get(at)).copied()
    }

    /// The event whose number ends like this.
    fn event_ending(&self, number: u64) -> Option<(AuthorId, Tip)> {
        let back = self.count.wrapping_sub(1).wrapping_sub(number) % EVENTS_MAX as u64;
        self.event(back)
    }
}

/// How an author or an event is written.
const IN_FULL: u64 = 0;
/// The place before a feed's first event.
const ROOT: u64 = 1;
/// Numbers stand above these, with the list in the lowest bit: the sender's own, or the receiver's.
const NUMBERED: u64 = 2;

impl Codec {
    /// A link on which nothing was said.
    pub fn new(hasher: Hasher) -> Self {
        Self { hasher, said: Known::default(), heard: Known::default() }
    }

    /// The short form of a message, which goes next.
    pub fn shorten(&mut self, message: &Message) -> Vec<u8> {
        let mut writer = Writer::with_capacity(1024);
        let (kind, entries) = match message {
            Message::Run(run) => entries(&run.encode()),
            _ => (message.kind(), Vec::new()),
        };
        writer.u8(kind);
        match message {
            Message::Greet(greet) => {
                writer.varint(greet.versions.0).varint(greet.versions.1).raw(&greet.proof);
            }
            Message::Hello(hello) => write_hello(hello, &mut writer),
            Message::Items(items) => {
                items.prefix.write(&mut writer);
                writer.len(items.items.len());
                for item in &items.items {
                    self.write_author(item.author, &mut writer);
                    writer.len(item.tips.len());
                    item.tips.iter().for_each(|tip| self.write_tip(item.author, *tip, &mut writer));
                }
                writer.len(items.lacked.len()).raw(items.lacked.as_flattened()).bool(items.more);
            }
            Message::Want(want) => {
                self.write_author(want.author, &mut writer);
                writer.bool(want.tip.is_some());
                want.tip.iter().for_each(|tip| self.write_tip(want.author, *tip, &mut writer));
                writer.len(want.locator.len());
                want.locator.iter().for_each(|tip| self.write_tip(want.author, *tip, &mut writer));
                writer.varint(want.credit);
            }
            Message::Run(run) => {
                let (author, (seq, id)) = (run.author(), run.base());
                self.write_author(author, &mut writer);
                self.write_tip(author, Tip { seq, id }, &mut writer);
                writer.raw(&entries);
                self.said.note_event(author, Tip::from(run.head()));
            }
            Message::Have(author, tip) => {
                self.write_author(*author, &mut writer);
                self.write_tip(*author, *tip, &mut writer);
            }
            Message::Decline(author, reason) => {
                self.write_author(*author, &mut writer);
                writer.u8(reason.as_u8());
            }
            Message::Lack(author, tip, reason) => {
                self.write_author(*author, &mut writer);
                writer.bool(tip.is_some());
                tip.iter().for_each(|tip| self.write_tip(*author, *tip, &mut writer));
                writer.u8(reason.as_u8());
            }
            _ => {
                writer.raw(&message.encode()[5..]);
            }
        }
        writer.into_bytes()
    }

    /// The message of a record that came next.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; each ends the session.
    pub fn expand(&mut self, record: &[u8]) -> Result<Message, FrameError> {
        let Some((&kind, body)) = record.split_first() else {
            return Err(FrameError::Length(0));
        };
        let malformed = |source| FrameError::Body { kind, source };
        let mut frame = Writer::with_capacity(record.len() + 256);
        let mut reader = Reader::new(body);
        let is_run = kind == RUN || kind == RUN_COMPRESSED;
        frame.u8(if is_run { RUN } else { kind });
        if is_run {
            let run = self.read_run(kind == RUN_COMPRESSED, &mut reader).map_err(malformed)?;
            frame.u8(0).bytes(&run);
        } else {
            self.read_body(kind, &mut reader, &mut frame).map_err(malformed)?;
            reader.finish().map_err(malformed)?;
        }
        let message = Message::decode(frame.as_bytes(), &self.hasher)?;
        if let Message::Run(run) = &message {
            self.heard.note_event(run.author(), Tip::from(run.head()));
        }
        Ok(message)
    }

    fn read_body(
        &mut self,
        kind: u8,
        reader: &mut Reader<'_>,
        frame: &mut Writer,
    ) -> Result<(), ReadError> {
        match kind {
            1 => {
                frame.str(APP).varint(reader.varint()?).varint(reader.varint()?);
                frame.raw(reader.raw(32)?);
            }
            2 => read_hello(reader, frame)?,
            6 => {
                Prefix::read(reader, 64)?.write(frame);
                let items = reader.count(PAGE_ITEMS_MAX, 3)?;
                frame.len(items);
                for _ in 0..items {
                    let author = self.read_author(reader, frame)?;
                    let tips = reader.count(TIPS_MAX, 1)?;
                    frame.len(tips);
                    (0..tips).try_for_each(|_| self.read_tip(author, reader, frame))?;
                }
                let lacked = reader.count(LEAF_MAX, size_of::<Short>())?;
                frame.len(lacked).raw(reader.raw(lacked * size_of::<Short>())?);
                frame.bool(reader.bool()?);
            }
            8 => {
                let author = self.read_author(reader, frame)?;
                self.read_option_tip(author, reader, frame)?;
                let locator = reader.count(LOCATOR_MAX, 1)?;
                frame.len(locator);
                (0..locator).try_for_each(|_| self.read_tip(author, reader, frame))?;
                frame.varint(reader.varint()?);
            }
            10 => {
                let author = self.read_author(reader, frame)?;
                self.read_tip(author, reader, frame)?;
            }
            12 => {
                self.read_author(reader, frame)?;
                frame.u8(reader.u8()?);
            }
            13 => {
                let author = self.read_author(reader, frame)?;
                self.read_option_tip(author, reader, frame)?;
                frame.u8(reader.u8()?);
            }
            _ => {
                frame.raw(reader.raw(reader.remaining())?);
            }
        }
        Ok(())
    }

    fn write_author(&mut self, author: AuthorId, writer: &mut Writer) {
        let heard = self.heard.author_at.get(&author).map(|at| (*at, 1));
        let known = self.said.author_at.get(&author).map(|at| (*at, 0)).or(heard);
        match known {
            Some((at, list)) => {
                writer.varint(NUMBERED + ((at as u64) << 1 | list));
            }
            None => {
                writer.varint(IN_FULL).raw(author.as_bytes());
                self.said.note_author(author);
            }
        }
    }

    fn read_author(
        &mut self,
        reader: &mut Reader<'_>,
        frame: &mut Writer,
    ) -> Result<AuthorId, ReadError> {
        let author = match reader.varint()? {
            IN_FULL => {
                let author = AuthorId(reader.array()?);
                self.heard.note_author(author);
                author
            }
            ROOT => return Err(ReadError::Tag(ROOT)),
            number => {
                let (at, list) = numbered(number);
                let known = if list == 0 { &self.heard } else { &self.said };
                let at = usize::try_from(at).unwrap_or(usize::MAX);
                *known.authors.get(at).ok_or(ReadError::Invalid("an author never named here"))?
            }
        };
        frame.raw(author.as_bytes());
        Ok(author)
    }

    fn write_tip(&mut self, author: AuthorId, tip: Tip, writer: &mut Writer) {
        if tip == Tip::ROOT {
            writer.varint(ROOT);
        } else if let Some(back) = self.said.back(author, tip) {
            writer.varint(NUMBERED + (back << 1));
        } else if let Some(at) = self.heard.event_at.get(&(author, tip))
            && self.heard.count - at <= EVENTS_HEARD_MAX as u64
        {
            writer.varint(NUMBERED + ((at % EVENTS_MAX as u64) << 1 | 1));
        } else {
            writer.varint(IN_FULL).varint(tip.seq).raw(tip.id.as_bytes());
            self.said.note_event(author, tip);
        }
    }

    fn read_tip(
        &mut self,
        author: AuthorId,
        reader: &mut Reader<'_>,
        frame: &mut Writer,
    ) -> Result<(), ReadError> {
        let tip = self.tip(author, reader)?;
        frame.varint(tip.seq).raw(tip.id.as_bytes());
        Ok(())
    }

    fn tip(&mut self, author: AuthorId, reader: &mut Reader<'_>) -> Result<Tip, ReadError> {
        let known = match reader.varint()? {
            IN_FULL => {
                let tip = Tip { seq: reader.varint()?, id: EventId(reader.array()?) };
                if tip.seq == 0 {
                    return Err(ReadError::Invalid("the place before the first event in full"));
                }
                self.heard.note_event(author, tip);
                return Ok(tip);
            }
            ROOT => return Ok(Tip::ROOT),
            number => match numbered(number) {
                (back, 0) => self.heard.event(back),
                (number, _) => self.said.event_ending(number),
            },
        };
        match known {
            Some((of, tip)) if of == author => Ok(tip),
            _ => Err(ReadError::Invalid("an event never named here")),
        }
    }

    fn read_option_tip(
        &mut self,
        author: AuthorId,
        reader: &mut Reader<'_>,
        frame: &mut Writer,
    ) -> Result<(), ReadError> {
        let is_some = reader.option()?;
        frame.bool(is_some);
        if is_some { self.read_tip(author, reader, frame) } else { Ok(()) }
    }

    fn read_run(
        &mut self,
        is_compressed: bool,
        reader: &mut Reader<'_>,
    ) -> Result<Vec<u8>, ReadError> {
        let mut run = Writer::with_capacity(reader.remaining() + 80);
        run.u8(1);
        let author = self.read_author(reader, &mut run)?;
        let base = self.tip(author, reader)?;
        let seq = base.seq.checked_add(1).ok_or(ReadError::Varint)?;
        run.varint(seq).raw(base.id.as_bytes());
        let entries = reader.raw(reader.remaining())?;
        if is_compressed {
            run.raw(&decompress(entries)?);
        } else {
            run.raw(entries);
        }
        Ok(run.into_bytes())
    }
}

fn numbered(number: u64) -> (u64, u64) {
    let number = number - NUMBERED;
    (number >> 1, number & 1)
}

/// All of an encoded run behind its base, kinds, events and signature, and the type of its record.
fn entries(run: &[u8]) -> (u8, Vec<u8>) {
    let mut reader = Reader::new(run);
    let behind = |reader: &mut Reader<'_>| -> Result<(), ReadError> {
        reader.raw(33)?;
        reader.varint()?;
        reader.raw(32).map(|_| ())
    };
    behind(&mut reader).expect("an encoded run begins with version, author, seq and base");
    let entries = reader.rest();
    match compress(entries).filter(|compressed| compressed.len() < entries.len()) {
        Some(compressed) => (RUN_COMPRESSED, compressed),
        None => (RUN, entries.to_vec()),
    }
}

fn compress(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() < COMPRESS_FROM {
        return None;
    }
    let mut compressor = Compressor::with_dictionary(COMPRESS_LEVEL, DICTIONARY).ok()?;
    compressor.include_checksum(false).ok()?;
    compressor.include_dictid(false).ok()?;
    let frame = compressor.compress(bytes).ok()?;
    frame.strip_prefix(&ZSTD_MAGIC).map(<[u8]>::to_vec)
}

fn decompress(bytes: &[u8]) -> Result<Vec<u8>, ReadError> {
    let fails = ReadError::Invalid("a run that does not decompress within its limit");
    let frame = [&ZSTD_MAGIC, bytes].concat();
    if zstd::zstd_safe::find_frame_compressed_size(&frame) != Ok(frame.len()) {
        return Err(fails);
    }
    let decompressor = Decompressor::with_dictionary(DICTIONARY);
    let run = decompressor.and_then(|mut it| it.decompress(&frame, RUN_BYTES_MAX));
    run.map_err(|_| fails)
}

/// A `Hello` in the order of its frame, but that nothing declined is one byte.
fn write_hello(hello: &Hello, writer: &mut Writer) {
    writer.str(&hello.software).varint(hello.capabilities).varint(u64::from(hello.frame_max));
    writer.varint(hello.credit).varint(hello.clock_ms).str(&hello.name).varint(hello.boot);
    writer.raw(&hello.top).varint(hello.authors).varint(hello.events);
    let declines = hello.declines != [0; 16];
    writer.bool(declines);
    if declines {
        writer.raw(&hello.declines);
    }
}

fn read_hello(reader: &mut Reader<'_>, frame: &mut Writer) -> Result<(), ReadError> {
    frame.str(reader.str(NAME_LEN_MAX)?).varint(reader.varint()?).varint(reader.varint()?);
    frame.varint(reader.varint()?).varint(reader.varint()?).str(reader.str(NAME_LEN_MAX)?);
    frame.varint(reader.varint()?).raw(reader.raw(16)?);
    frame.varint(reader.varint()?).varint(reader.varint()?);
    let declines = if reader.bool()? { reader.array()? } else { [0; 16] };
    frame.raw(&declines).len(0);
    Ok(())
}

#[cfg(test)]
mod tests;

//! Frames out of a stream of bytes.
//!
//! Invariants:
//! - A length is checked before anything is allocated for it.
//! - A frame takes as much memory as has arrived of it, never as much as it claims.
//!
//! Source: FORMAT.md of `mosaik-proto`, section 1.

use bytes::{Buf, Bytes};
use mosaik_proto::message::{FrameError, frame_len};

/// Puts frames together from the pieces in which they arrive.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    header: [u8; 4],
    /// Bytes of the header that are here.
    header_len: usize,
    /// Length of the body; known once the header is whole.
    body_len: usize,
    body: Vec<u8>,
}

impl Assembler {
    /// Takes bytes from the front of `piece` up to the end of a frame; returns it, type and body,
    /// or `None` when `piece` is used up before.
    ///
    /// # Errors
    ///
    /// [`FrameError::Length`]: nothing after it can be read.
    pub(crate) fn take(&mut self, piece: &mut Bytes) -> Result<Option<Vec<u8>>, FrameError> {
        if self.header_len < self.header.len() {
            let len = piece.len().min(self.header.len() - self.header_len);
            piece.copy_to_slice(&mut self.header[self.header_len..self.header_len + len]);
            self.header_len += len;
            if self.header_len < self.header.len() {
                return Ok(None);
            }
            self.body_len = frame_len(self.header)?;
        }
        let len = piece.len().min(self.body_len - self.body.len());
        self.body.extend_from_slice(&piece.split_to(len));
        if self.body.len() < self.body_len {
            return Ok(None);
        }
        self.header_len = 0;
        Ok(Some(std::mem::take(&mut self.body)))
    }

    /// Whether a frame has begun and is not whole.
    pub(crate) fn is_partial(&self) -> bool {
        self.header_len > 0
    }
}

#[cfg(test)]
mod tests {
    use mosaik_proto::message::{Bye, ByeCode, FRAME_MAX, Message};

    use super::*;

    #[test]
    fn frames_come_out_whole_however_the_bytes_are_cut() {
        let first = Message::Again(7).encode();
        let second = Message::Bye(Bye::new(ByeCode::Done, "x".repeat(200))).encode();
        let bytes = Bytes::from([first.clone(), second.clone()].concat());
        for size in 1..=bytes.len() {
            let mut assembler = Assembler::default();
            let mut frames = Vec::new();
            for piece in bytes.chunks(size) {
                let mut piece = Bytes::copy_from_slice(piece);
                while let Some(frame) = assembler.take(&mut piece).expect("good frames") {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, [&first[4..], &second[4..]], "pieces of {size}");
            assert!(!assembler.is_partial());
        }
    }

    #[test]
    fn an_oversize_length_is_refused_before_anything_is_allocated() {
        for len in [0, FRAME_MAX as u32 + 1, 1 << 30, u32::MAX] {
            let mut assembler = Assembler::default();
            let mut piece = Bytes::copy_from_slice(&len.to_be_bytes());
            assert_eq!(assembler.take(&mut piece), Err(FrameError::Length(len as usize)));
            assert_eq!(assembler.body.capacity(), 0);
        }
    }

    #[test]
    fn a_legal_length_without_its_bytes_takes_no_memory() {
        let mut assembler = Assembler::default();
        let mut piece = Bytes::from([&(FRAME_MAX as u32).to_be_bytes()[..], &[9; 10]].concat());
        assert_eq!(assembler.take(&mut piece), Ok(None));
        assert!(assembler.is_partial());
        assert!(assembler.body.capacity() < 1024, "{}", assembler.body.capacity());
    }
}

//! Pieces of files, for carriers that have no streams: each with what proves it.
//!
//! Invariants:
//! - A piece is kept only if the file's hash proves it.
//! - A piece is what iroh-blobs sends for its bytes: the file's length in 8 bytes, least first, pairs of
//!   hashes from the topmost down, data.

use std::{io, ops::Range};

use iroh_blobs::{
    api::{self, blobs::BlobStatus},
    protocol::{ChunkRanges, ChunkRangesExt},
};
use mosaik_core::id::BlobId;
use mosaik_proto::message::{FILE_GROUP_LEN, FILE_PIECE_MAX};

use super::shelf::{Shelf, ShelfError, other, to_hash};

/// Bytes that are hashed together at the least, in BLAKE3.
const CHUNK_LEN: u64 = 1024;
const CHUNKS: u64 = FILE_GROUP_LEN / CHUNK_LEN;

/// What became of a piece that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenPiece {
    /// It is here, and with it the whole file, durably.
    Whole,
    /// It is here.
    Held,
    /// It is no piece of a file with that hash and length.
    Wrong,
}

impl Shelf {
    /// The pieces that lack of a file of so many bytes.
    ///
    /// # Errors
    ///
    /// [`ShelfError`], here and below.
    pub async fn lacking(&self, blob: BlobId, size: u64) -> Result<Vec<u32>, ShelfError> {
        let held = match self.is_begun() {
            true => self.store().await?.blobs().observe(to_hash(blob)).await.map_err(other)?.ranges,
            false => ChunkRanges::empty(),
        };
        let count = u32::try_from(size.div_ceil(FILE_GROUP_LEN)).unwrap_or(u32::MAX);
        let lacks = |group: &u32| {
            let Range { start, end } = chunks(*group);
            !ChunkRanges::chunks(start..end.min(size.div_ceil(CHUNK_LEN))).is_subset(&held)
        };
        Ok((0..count).filter(lacks).collect())
    }

    /// A piece of a file, if it is here and the file is no longer than `len_max`.
    pub async fn piece(
        &self,
        blob: BlobId,
        group: u32,
        len_max: u64,
    ) -> Result<Option<Vec<u8>>, ShelfError> {
        if !self.is_begun() {
            return Ok(None);
        }
        let (blobs, hash) = (self.store().await?.blobs(), to_hash(blob));
        let size = match blobs.status(hash).await.map_err(other)? {
            BlobStatus::Complete { size } => Some(size),
            BlobStatus::Partial { size } => size,
            BlobStatus::NotFound => None,
        };
        let begin = u64::from(group) * FILE_GROUP_LEN;
        if size.is_none_or(|size| size > len_max || size <= begin) {
            return Ok(None);
        }
        // One that isn't here fails: what is read is held against its hashes.
        let piece = blobs.export_bao(hash, ChunkRanges::chunks(chunks(group))).bao_to_vec().await;
        Ok(piece.ok().filter(|piece| piece.len() <= FILE_PIECE_MAX))
    }

    /// Takes a piece of a file of `size` bytes, if it is one.
    pub async fn take_piece(
        &self,
        blob: BlobId,
        size: u64,
        group: u32,
        piece: Vec<u8>,
    ) -> Result<TakenPiece, ShelfError> {
        // The last piece proves the length, the others only their own place in a file of that length.
        if piece.first_chunk().is_none_or(|said| u64::from_le_bytes(*said) != size) {
            return Ok(TakenPiece::Wrong);
        }
        let (store, hash) = (self.store().await?, to_hash(blob));
        self.keep(blob).await?;
        let ranges = ChunkRanges::chunks(chunks(group));
        if let Err(error) = store.blobs().import_bao_bytes(hash, ranges, piece).await {
            let api::Error::Io(error) = error.into();
            return match error.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Ok(TakenPiece::Wrong),
                _ => Err(error.into()),
            };
        }
        match store.blobs().status(hash).await.map_err(other)? {
            BlobStatus::Complete { .. } => {
                self.make_durable(&hash).await?;
                Ok(TakenPiece::Whole)
            }
            _ => Ok(TakenPiece::Held),
        }
    }
}

fn chunks(group: u32) -> Range<u64> {
    let begin = u64::from(group) * CHUNKS;
    begin..begin + CHUNKS
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_lite::stream;

    use super::*;

    const LEN_MAX: u64 = 256 << 10;

    fn directory() -> tempfile::TempDir {
        tempfile::Builder::new().prefix("mlab-").tempdir().expect("a directory")
    }

    /// A shelf with one file of so many bytes.
    async fn shelf(dir: &tempfile::TempDir, len: usize) -> (Shelf, BlobId, Vec<u8>) {
        let file: Vec<u8> = (0..len).map(|at| (at / 1000 * 7 + at) as u8).collect();
        let shelf = Shelf::new(dir.path().join("blobs"));
        let pieces = stream::once(Ok(Bytes::from(file.clone())));
        let blob = shelf.add(pieces, LEN_MAX).await.expect("room").blob;
        (shelf, blob, file)
    }

    #[tokio::test]
    async fn a_file_goes_piece_by_piece_and_a_restart_costs_nothing() {
        for len in [1, 1024, 16_384, 16_385, 40_000, 256 << 10] {
            let [from, to] = [directory(), directory()];
            let (from, blob, file) = shelf(&from, len).await;
            let mut shelf = Shelf::new(to.path().join("blobs"));
            let size = len as u64;
            let groups = shelf.lacking(blob, size).await.expect("nothing is here");
            assert_eq!(groups.len() as u64, size.div_ceil(FILE_GROUP_LEN));
            let last = groups.len() - 1;
            for (at, group) in groups.iter().rev().enumerate() {
                let piece = from.piece(blob, *group, LEN_MAX).await.expect("a disk");
                let piece = piece.expect("it is here");
                assert!(piece.len() <= FILE_PIECE_MAX);
                let taken = shelf.take_piece(blob, size, *group, piece).await.expect("a disk");
                let is_last = at == last;
                assert_eq!(taken, if is_last { TakenPiece::Whole } else { TakenPiece::Held });
                let lacking = shelf.lacking(blob, size).await.expect("a disk");
                assert_eq!(lacking, groups[..last - at]);
                if at == 0 {
                    shelf.close().await;
                    shelf = Shelf::new(to.path().join("blobs"));
                }
            }
            let mut reading = shelf.read(blob).await.expect("it is whole");
            let mut read = Vec::new();
            while let Some(piece) = reading.next().await.expect("it is as its name says") {
                read.extend_from_slice(&piece);
            }
            assert!(read == file, "another file");
        }
    }

    #[tokio::test]
    async fn a_wrong_piece_is_refused_and_nothing_of_it_is_kept() {
        let [from, to] = [directory(), directory()];
        let (from, blob, _) = shelf(&from, 40_000).await;
        let shelf = Shelf::new(to.path().join("blobs"));
        let piece = from.piece(blob, 1, LEN_MAX).await.expect("a disk").expect("it is here");
        let mut wrong = vec![Vec::new(), piece[..piece.len() - 1].to_vec(), vec![0xff; 100]];
        for at in [0, 7, 8, 70, 136, piece.len() - 1] {
            let mut changed = piece.clone();
            changed[at] ^= 1;
            wrong.push(changed);
        }
        // Of another length the file would be cut in other ways.
        let mut longer = piece.clone();
        longer[..8].copy_from_slice(&(200_000u64).to_le_bytes());
        for (size, piece) in wrong.into_iter().map(|it| (40_000, it)).chain([(200_000, longer)]) {
            let taken = shelf.take_piece(blob, size, 1, piece).await.expect("a disk");
            assert_eq!(taken, TakenPiece::Wrong);
        }
        for group in [0, 2] {
            let taken = shelf.take_piece(blob, 40_000, group, piece.clone()).await.expect("a disk");
            assert_eq!(taken, TakenPiece::Wrong, "it is another one");
        }
        assert_eq!(shelf.lacking(blob, 40_000).await.expect("a disk"), [0, 1, 2]);
        let taken = shelf.take_piece(blob, 40_000, 1, piece).await.expect("a disk");
        assert_eq!(taken, TakenPiece::Held);
        // Its length isn't proved yet.
        assert!(shelf.piece(blob, 1, LEN_MAX).await.expect("a disk").is_none());
        let last = from.piece(blob, 2, LEN_MAX).await.expect("a disk").expect("it is here");
        let taken = shelf.take_piece(blob, 40_000, 2, last).await.expect("a disk");
        assert_eq!(taken, TakenPiece::Held);
        // What isn't here can't be given, nor what is too long.
        assert!(shelf.piece(blob, 0, LEN_MAX).await.expect("a disk").is_none());
        assert!(shelf.piece(blob, 1, LEN_MAX).await.expect("a disk").is_some());
        assert!(from.piece(blob, 0, 39_999).await.expect("a disk").is_none());
        assert!(from.piece(blob, 3, LEN_MAX).await.expect("a disk").is_none());
        assert!(from.piece(BlobId([7; 32]), 0, LEN_MAX).await.expect("a disk").is_none());
    }
}

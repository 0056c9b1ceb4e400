//! The file: sections one after the other, and a digest over all of them.

use std::io;

use super::{BackupError, tag};

/// What a backup begins with; the digit is its version.
const MAGIC: &[u8] = b"mosaik-node backup 1\n";

/// Bytes of a section at most: what a node remembers of 65,536 declined authors, and as much again.
const SECTION_LEN_MAX: u32 = 4 << 20;

/// A backup that is written.
pub(super) struct Target<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: io::Write> Target<W> {
    pub(super) fn begin(out: W) -> Result<Self, BackupError> {
        let mut target = Self { out, hasher: blake3::Hasher::new() };
        target.write(MAGIC)?;
        Ok(target)
    }

    pub(super) fn section(&mut self, tag: u8, bytes: &[u8]) -> Result<(), BackupError> {
        let len = u32::try_from(bytes.len()).ok().filter(|len| *len <= SECTION_LEN_MAX);
        let len = len.ok_or_else(|| {
            let what = format!("a section of {} bytes is too long", bytes.len());
            BackupError::Write(io::Error::other(what))
        })?;
        self.write(&[tag])?;
        self.write(&len.to_le_bytes())?;
        self.write(bytes)
    }

    /// Writes the digest and gives it.
    pub(super) fn end(mut self) -> Result<[u8; 32], BackupError> {
        let digest = *self.hasher.finalize().as_bytes();
        self.section(tag::END, &digest)?;
        self.out.flush().map_err(BackupError::Write)?;
        Ok(digest)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.hasher.update(bytes);
        self.out.write_all(bytes).map_err(BackupError::Write)
    }
}

/// A backup that is read.
#[derive(Debug)]
pub(super) struct Source<R> {
    source: R,
    hasher: blake3::Hasher,
    /// Of all before the section that was read last.
    before: [u8; 32],
}

impl<R: io::Read> Source<R> {
    pub(super) fn begin(source: R) -> Result<Self, BackupError> {
        let mut begun = Self { source, hasher: blake3::Hasher::new(), before: [0; 32] };
        let mut magic = [0; MAGIC.len()];
        match begun.read(&mut magic) {
            Ok(()) if magic == MAGIC => Ok(begun),
            Ok(()) | Err(BackupError::Cut) => Err(BackupError::Foreign),
            Err(error) => Err(error),
        }
    }

    /// The next section: its tag and bytes.
    pub(super) fn section(&mut self) -> Result<(u8, Vec<u8>), BackupError> {
        let before = self.hasher.clone();
        let mut head = [0; 5];
        self.read(&mut head)?;
        let [tag, len @ ..] = head;
        let len = u32::from_le_bytes(len);
        if len > SECTION_LEN_MAX {
            return Err(BackupError::Damaged(format!("a section of {len} bytes")));
        }
        if tag == tag::END {
            self.before = *before.finalize().as_bytes();
        }
        let mut bytes = vec![0; len as usize];
        self.read(&mut bytes)?;
        Ok((tag, bytes))
    }

    /// Holds the digest of the last section against what was read, and that nothing follows.
    pub(super) fn end(mut self, digest: &[u8]) -> Result<[u8; 32], BackupError> {
        if digest != self.before {
            return Err(BackupError::Damaged("its digest is that of something else".to_owned()));
        }
        match self.source.read(&mut [0]) {
            Ok(0) => Ok(self.before),
            Ok(_) => Err(BackupError::Damaged("bytes follow its end".to_owned())),
            Err(error) => Err(BackupError::Read(error)),
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        self.source.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BackupError::Cut,
            _ => BackupError::Read(error),
        })?;
        self.hasher.update(bytes);
        Ok(())
    }
}

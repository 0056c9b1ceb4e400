//! A file that is opened before the work, and written after it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
};

use super::super::Failed;

/// A file to be written. Dropped before that, it is as it was: not there, or with what was in it.
pub(super) struct OutFile {
    path: PathBuf,
    file: File,
    is_new: bool,
}

impl OutFile {
    pub(super) fn open(path: PathBuf) -> Result<Self, Failed> {
        let new = OpenOptions::new().write(true).create_new(true).open(&path);
        let opened = match new {
            Ok(file) => Ok((file, true)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                OpenOptions::new().write(true).open(&path).map(|file| (file, false))
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok((file, is_new)) => Ok(Self { path, file, is_new }),
            Err(error) => Err(Failed::usage(format!("cannot write {}: {error}", path.display()))),
        }
    }

    pub(super) fn write(mut self, content: &[u8]) -> Result<(), Failed> {
        let cut = |file: &File| match file.metadata()?.is_file() {
            true => file.set_len(0),
            // A pipe, a device.
            false => Ok(()),
        };
        cut(&self.file)
            .and_then(|()| self.file.write_all(content))
            .map_err(|error| anyhow::anyhow!("cannot write {}: {error}", self.path.display()))?;
        self.is_new = false;
        Ok(())
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        if self.is_new {
            // Nothing was written to it, or not all.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_as_it_was_until_it_is_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let (old, new) = (directory.path().join("old"), directory.path().join("new"));
        fs::write(&old, "what was there before").expect("a disk");
        drop(OutFile::open(old.clone()).expect("it can be written"));
        drop(OutFile::open(new.clone()).expect("it can be made"));
        assert_eq!(fs::read_to_string(&old).expect("it is there"), "what was there before");
        assert!(!new.exists());
        for path in [old, new] {
            OutFile::open(path.clone()).expect("it opens").write(b"now").expect("a disk");
            assert_eq!(fs::read(path).expect("it is there"), b"now");
        }
        assert!(OutFile::open(directory.path().to_owned()).is_err(), "a directory");
        assert!(OutFile::open(directory.path().join("a/b")).is_err(), "no directory");
    }
}

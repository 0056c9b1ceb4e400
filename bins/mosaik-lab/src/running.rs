//! Which labs run on this machine, so that `logs` finds one: a file a lab.
//!
//! A lab locks its file for as long as it lives. A file that can be locked is a lab's that is gone,
//! whatever way it went, and whoever notices removes it.

use std::{
    env,
    fs::{self, DirBuilder, File},
    io::Write,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// One running lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lab {
    /// Its process.
    pub(crate) pid: u32,
    /// Its directory.
    pub(crate) directory: PathBuf,
    /// Where its nodes print, `n1` first.
    pub(crate) logs: Vec<PathBuf>,
}

/// Says that a lab runs, until it is dropped.
#[derive(Debug)]
pub(crate) struct Announcement {
    path: PathBuf,
    _locked: File,
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // What stays is found unlocked, and removed then.
        let _ = fs::remove_file(&self.path);
    }
}

/// Where the files are: this user's own directory.
///
/// # Errors
///
/// If it can't be made, or is another user's.
pub(crate) fn place() -> Result<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let place = env::temp_dir().join(format!("mosaik-lab-{uid}"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&place)
        .with_context(|| format!("cannot make {}", place.display()))?;
    if fs::metadata(&place)?.uid() != uid {
        bail!("{} belongs to another user; set TMPDIR", place.display());
    }
    Ok(place)
}

impl Lab {
    /// Says in `place` that this lab runs.
    ///
    /// # Errors
    ///
    /// If its file can't be written.
    pub(crate) fn announce(&self, place: &Path) -> Result<Announcement> {
        let path = place.join(format!("{}.json", self.pid));
        let mut file = File::create(&path).with_context(|| format!("cannot write {path:?}"))?;
        file.try_lock().context("another lab has this process id")?;
        file.write_all(&serde_json::to_vec(self)?)?;
        Ok(Announcement { path, _locked: file })
    }

    /// The lab of this directory, else the only one that runs.
    ///
    /// # Errors
    ///
    /// If none runs, or several do and none was named.
    pub(crate) fn find(place: &Path, directory: Option<&Path>) -> Result<Self> {
        let mut labs = running(place)?;
        if let Some(directory) = directory {
            let directory = directory.canonicalize().context("no such lab")?;
            labs.retain(|lab| lab.directory == directory);
        }
        match labs.as_slice() {
            [] => bail!("no lab runs; `mosaik-lab up 3` starts one"),
            [_] => Ok(labs.remove(0)),
            several => {
                let named: Vec<_> = several
                    .iter()
                    .map(|lab| format!("--dir {}", lab.directory.display()))
                    .collect();
                bail!("{} labs run; say which:\n  {}", several.len(), named.join("\n  "))
            }
        }
    }
}

fn running(place: &Path) -> Result<Vec<Lab>> {
    let mut labs = Vec::new();
    for entry in fs::read_dir(place)?.flatten() {
        let path = entry.path();
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock_shared().is_ok() {
            let _ = fs::remove_file(&path);
        } else if let Ok(lab) = serde_json::from_slice(&fs::read(&path)?) {
            labs.push(lab);
        }
    }
    Ok(labs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab(pid: u32, directory: &Path) -> Lab {
        Lab { pid, directory: directory.to_owned(), logs: vec![directory.join("n1.log")] }
    }

    #[test]
    fn a_lab_is_found_while_it_runs_and_not_after() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let announced = lab(7, place.path()).announce(place.path()).expect("it is ours");
        let found = Lab::find(place.path(), None).expect("one runs");
        assert_eq!(found, lab(7, place.path()));
        drop(announced);
        assert!(Lab::find(place.path(), None).is_err());
    }

    /// A lab that was killed leaves its file behind.
    #[test]
    fn a_file_that_nobody_locks_is_removed_and_is_no_lab() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let path = place.path().join("8.json");
        let text = serde_json::to_vec(&lab(8, place.path())).expect("plain data");
        fs::write(&path, text).expect("it is ours");
        let error = Lab::find(place.path(), None).expect_err("none runs").to_string();
        assert!(error.starts_with("no lab runs"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn with_several_labs_one_must_be_named() {
        let places = [(); 3].map(|()| tempfile::tempdir().expect("a temporary directory"));
        let [place, one, two] =
            places.each_ref().map(|place| place.path().canonicalize().expect("it was just made"));
        let _one = lab(1, &one).announce(&place).expect("it is ours");
        let _two = lab(2, &two).announce(&place).expect("it is ours");
        let error = Lab::find(&place, None).expect_err("two run").to_string();
        assert!(error.starts_with("2 labs run"), "{error}");
        assert_eq!(Lab::find(&place, Some(&two)).expect("it is named").pid, 2);
    }
}

//! Where stores of a benchmark lie: one temporary directory, removed at the end.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::Cluster;

/// The network of all nodes here. They find each other by tickets alone.
pub(super) const NETWORK: &str = "mosaik-lab bench";

/// A directory on a disk.
#[derive(Debug)]
pub struct Place {
    root: TempDir,
    next: std::cell::Cell<u32>,
}

impl Place {
    /// On the disk of `parent`, else where the system puts temporary files.
    ///
    /// # Errors
    ///
    /// If it can't be made there.
    pub fn new(parent: Option<&Path>) -> Result<Self> {
        let parent = parent.map_or_else(env::temp_dir, Path::to_owned);
        // Short: a socket's path has at most 107 bytes.
        let root = tempfile::Builder::new().prefix("mbench-").tempdir_in(&parent);
        let root = root.with_context(|| format!("cannot write in {}", parent.display()))?;
        Ok(Self { root, next: std::cell::Cell::new(0) })
    }

    /// Another place on the same disk.
    pub(super) fn again(&self) -> Result<Self> {
        Self::new(Some(self.root.path()))
    }

    /// Which file system that is.
    pub(super) fn described(&self) -> String {
        let path = self.root.path();
        match file_system(path) {
            Some(kind) => format!("{} ({kind})", path.display()),
            None => path.display().to_string(),
        }
    }

    /// A new empty directory, removed when it is dropped.
    pub(super) fn directory(&self) -> Result<Directory> {
        let number = self.next.replace(self.next.get() + 1);
        let path = self.root.path().join(number.to_string());
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Directory(path))
    }
}

/// A directory of one case.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Nodes that don't run yet and know nobody.
    pub(super) async fn cluster(&self, nodes: usize) -> Result<Cluster> {
        let builder = Cluster::builder().network(NETWORK).dht(0).relay(false);
        builder.directory(&self.0).nodes(nodes).build().await
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What can't be removed now goes with the whole place.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Bytes that a file takes on its disk: a database may say to be longer, with holes.
pub(super) fn bytes_taken(file: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let data = fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(data.blocks() * 512)
}

/// The kind of file system that a path lies on: of all mounts above it, the one that is nearest.
fn file_system(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let above = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (at, kind) = (words.next()?, words.next()?);
        path.starts_with(at).then(|| (at.len(), kind.to_owned()))
    });
    above.max_by_key(|(len, _)| *len).map(|(_, kind)| kind)
}

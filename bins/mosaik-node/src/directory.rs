//! The data directory: one directory a network, and what is in it.
//!
//! ```text
//! <data dir>/<16 hex digits of the fingerprint>/
//!     network      the network id, for its user's eyes only
//!     node.key     64 hex digits: the node's Ed25519 seed
//!     author.key   64 hex digits: the author's
//!     port         the UDP port that was free at the first start
//!     label        what `network new --label` said; only ever shown here
//!     store.redb   the events and the view
//!     node.sock    where the running node answers
//! ```
//!
//! Invariants:
//! - Directories are 0700, files 0600: made so, and tightened where they are found otherwise.
//! - A file is written whole or not at all, and a key that is there is never written over.
//! - A damaged key is an error, never a new key: a node must not become another one silently.

use std::{
    env, fs,
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use mosaik_core::{
    id::Fingerprint,
    key::{Network, NetworkError},
};

use crate::dht_nodes::FILE_LEN_MAX;

/// Bytes of a Unix socket's path at most: `sun_path` is 108 with its closing zero.
const SOCKET_PATH_LEN_MAX: usize = 107;

/// Hex digits of the fingerprint that name a network's directory.
const DIRECTORY_NAME_LEN: usize = 16;

/// Bytes of the file with a network id that are read: more is no id.
const NETWORK_FILE_LEN_MAX: u64 = 4096;

/// Why the data directory, or a file in it, can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// Making or reading it failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A key file that holds no key.
    #[error(
        "{} holds no key (64 hex digits): restore it from a backup, or move it away to go on as a new one",
        path.display()
    )]
    BadKey {
        /// The file.
        path: PathBuf,
    },
    /// A file that holds no network id.
    #[error("{} holds no network id", path.display())]
    BadNetwork {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: NetworkError,
    },
    /// A directory of one network that says it is of another.
    #[error("{} says another network than the directory is named for; move one of them away", path.display())]
    OtherNetwork {
        /// The file.
        path: PathBuf,
    },
    /// A directory that belongs to somebody else.
    #[error(
        "{} belongs to another user: start it as that user, or choose a directory of yours (--data-dir; for sockets XDG_RUNTIME_DIR)",
        path.display()
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
    },
}

fn failed<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> DirectoryError + 'a {
    move |source| DirectoryError::Io { doing, path: path.to_owned(), source }
}

/// The two keys of a node.
pub struct Keys {
    /// The seed of the key that names the machine.
    pub node: [u8; 32],
    /// The seed of the key that signs the feed.
    pub author: [u8; 32],
}

/// One network's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    path: PathBuf,
}

/// A network that has a directory here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its directory.
    pub directory: Directory,
    /// Its id.
    pub network: Network,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// What it is called here.
    pub label: Option<String>,
}

impl Directory {
    /// The directory of the network with this fingerprint, under `data_dir`. Touches nothing.
    pub fn of(data_dir: &Path, fingerprint: &Fingerprint) -> Self {
        Self { path: data_dir.join(&fingerprint.to_string()[..DIRECTORY_NAME_LEN]) }
    }

    /// Where this directory is put together before it appears whole: see [`Directory::appear`].
    ///
    /// # Errors
    ///
    /// [`DirectoryError`] if what an earlier try left there can't be removed.
    pub fn staging(&self) -> Result<Self, DirectoryError> {
        let path = self.path.with_added_extension("new");
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(error))
            }
            _ => Ok(Self { path }),
        }
    }

    /// Makes what was put together in `staging` this directory, which must be empty or not there.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`] if that fails: then nothing has changed.
    pub fn appear(&self, staging: &Self) -> Result<(), DirectoryError> {
        // A rename replaces an empty directory, and no other.
        fs::rename(&staging.path, &self.path).map_err(failed("write", &self.path))?;
        sync_directory(&self.path)
    }

    /// Whether nothing is in it, or it isn't there.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`] if it can't be read.
    pub fn is_empty(&self) -> Result<bool, DirectoryError> {
        match fs::read_dir(&self.path) {
            Ok(mut entries) => Ok(entries.next().is_none()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(failed("read", &self.path)(error)),
        }
    }

    /// Removes it and all that is in it.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`] if a part of it stays.
    pub fn remove(&self) -> Result<(), DirectoryError> {
        fs::remove_dir_all(&self.path).map_err(failed("remove", &self.path))
    }

    /// Keeps these keys in a directory that has none.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`] if there are some already, or they can't be written.
    pub fn adopt_keys(&self, keys: &Keys) -> Result<(), DirectoryError> {
        write_key(&self.path.join("node.key"), &keys.node)?;
        write_key(&self.path.join("author.key"), &keys.author)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database.
    pub fn store(&self) -> PathBuf {
        self.path.join("store.redb")
    }

    /// Makes the directory and those above it, tightens its permissions, and keeps the id in it.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`] if it can't be made or written, or is another network's.
    pub fn prepare(&self, network: &Network) -> Result<(), DirectoryError> {
        make_private(&self.path)?;
        let file = self.path.join("network");
        match self.network()? {
            Some(known) if known.keys().fingerprint == network.keys().fingerprint => Ok(()),
            Some(_) => Err(DirectoryError::OtherNetwork { path: file }),
            None => write_private(&file, format!("{network}\n").as_bytes()),
        }
    }

    /// The network id that is kept in it, if there is one.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`] for a file that can't be read or holds none.
    pub fn network(&self) -> Result<Option<Network>, DirectoryError> {
        let file = self.path.join("network");
        if !file.try_exists().map_err(failed("read", &file))? {
            return Ok(None);
        }
        read_network(&file).map(Some)
    }

    /// The node's and the author's key; makes those that aren't there.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`] for a key file that can't be read, made, or is damaged.
    pub fn keys(&self) -> Result<Keys, DirectoryError> {
        Ok(Keys { node: self.key("node.key")?, author: self.key("author.key")? })
    }

    /// Whether this directory has an author key: whether a node wrote here before.
    pub fn has_author(&self) -> bool {
        self.path.join("author.key").exists()
    }

    /// Keeps `seed` as the author's key of a new network.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`] if there is one already, or it can't be written.
    pub fn adopt_author(&self, seed: &[u8; 32]) -> Result<(), DirectoryError> {
        write_key(&self.path.join("author.key"), seed)
    }

    /// Checks the keys that are there, and makes none.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`] for a key file that can't be read or is damaged.
    pub fn check_keys(&self) -> Result<(), DirectoryError> {
        ["node.key", "author.key"].into_iter().try_for_each(|name| self.held_key(name).map(|_| ()))
    }

    fn key(&self, name: &str) -> Result<[u8; 32], DirectoryError> {
        if let Some(seed) = self.held_key(name)? {
            return Ok(seed);
        }
        let seed: [u8; 32] = rand::random();
        write_key(&self.path.join(name), &seed)?;
        Ok(seed)
    }

    fn held_key(&self, name: &str) -> Result<Option<[u8; 32]>, DirectoryError> {
        let path = self.path.join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(DirectoryError::BadKey { path });
            }
            Err(error) => return Err(failed("read", &path)(error)),
        };
        tighten(&path, 0o600)?;
        let seed = text.trim_end_matches(['\r', '\n']).parse::<Fingerprint>();
        seed.map(|seed| Some(seed.0)).map_err(|_| DirectoryError::BadKey { path })
    }

    /// The UDP port that was free at the first start.
    pub fn port(&self) -> Option<u16> {
        fs::read_to_string(self.path.join("port"))
            .ok()?
            .trim()
            .parse()
            .ok()
            .filter(|port| *port != 0)
    }

    /// Keeps the port for the next start.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`] if it can't be written.
    pub fn keep_port(&self, port: u16) -> Result<(), DirectoryError> {
        replace_private(&self.path.join("port"), format!("{port}\n").as_bytes())
    }

    /// Which nodes of the DHT answered, as [`Directory::keep_dht_nodes`] left it; empty, if nothing
    /// readable is there.
    pub(crate) fn dht_nodes(&self) -> String {
        let mut text = String::new();
        let read = fs::File::open(self.path.join("dht-nodes"))
            .and_then(|file| file.take(FILE_LEN_MAX).read_to_string(&mut text));
        read.map_or_else(|_| String::new(), |_| text)
    }

    /// Keeps the nodes of the DHT that answered.
    pub(crate) fn keep_dht_nodes(&self, text: &str) -> Result<(), DirectoryError> {
        replace_private(&self.path.join("dht-nodes"), text.as_bytes())
    }

    /// What the network is called here.
    pub fn label(&self) -> Option<String> {
        let text = fs::read_to_string(self.path.join("label")).ok()?;
        Some(text.trim_end().to_owned()).filter(|label| !label.is_empty())
    }

    /// Calls the network so, here only.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`] if it can't be written.
    pub fn set_label(&self, label: &str) -> Result<(), DirectoryError> {
        replace_private(&self.path.join("label"), format!("{label}\n").as_bytes())
    }

    /// The node's socket: in the directory, or in `runtime` where that path is too long for one.
    ///
    /// A function of the directory's path alone, so that every verb finds it.
    pub fn socket(&self, runtime: &Path) -> PathBuf {
        let path = self.path.join("node.sock");
        if path.as_os_str().len() <= SOCKET_PATH_LEN_MAX {
            return path;
        }
        runtime.join(format!("{}.sock", self.tag()))
    }

    /// Names this directory among all of a machine.
    fn tag(&self) -> String {
        blake3_hex(self.path.as_os_str().as_bytes())
    }

    /// Says in `runtime` that a node runs here, so that a verb finds it without being told where.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`] if it can't be written.
    pub fn announce(&self, runtime: &Path) -> Result<(), DirectoryError> {
        make_private(runtime)?;
        let path = runtime.join(format!("{}.node", self.tag()));
        replace_private(&path, self.path.as_os_str().as_bytes())
    }

    /// Takes that back.
    pub fn withdraw(&self, runtime: &Path) {
        // Whoever finds a stale one finds no socket behind it.
        let _ = fs::remove_file(runtime.join(format!("{}.node", self.tag())));
    }
}

/// All networks that have a directory under `data_dir`, by its name. What can't be read is passed
/// over: it is another program's, or will be told about when it is used.
pub fn known_networks(data_dir: &Path) -> Vec<Known> {
    let Ok(entries) = fs::read_dir(data_dir) else { return Vec::new() };
    let mut known: Vec<_> =
        entries.flatten().filter_map(|entry| known_network(&entry.path())).collect();
    known.sort_by(|a, b| a.directory.path.cmp(&b.directory.path));
    known
}

/// The network of this directory, if it is one.
pub fn known_network(path: &Path) -> Option<Known> {
    let directory = Directory { path: path.to_owned() };
    let network = directory.network().ok()??;
    let fingerprint = network.keys().fingerprint;
    let is_named_for_it = Directory::of(path.parent()?, &fingerprint) == directory;
    let label = directory.label();
    is_named_for_it.then_some(Known { directory, network, fingerprint, label })
}

/// The directories of nodes that said in `runtime` that they run. What a killed node said of a
/// directory that is gone since is forgotten.
pub fn announced(runtime: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(runtime) else { return Vec::new() };
    let mut paths = Vec::new();
    for entry in entries.flatten().map(|entry| entry.path()) {
        if entry.extension().is_none_or(|extension| extension != "node") {
            continue;
        }
        let Ok(bytes) = fs::read(&entry) else { continue };
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(&bytes));
        if path.is_dir() {
            paths.push(path);
        } else {
            // Whoever may not remove it only looks again next time.
            let _ = fs::remove_file(&entry);
        }
    }
    paths.sort();
    paths
}

/// Reads a network id from a file: one line end after it is not part of it.
///
/// # Errors
///
/// [`DirectoryError`] if the file can't be read or holds no network id.
pub fn read_network(path: &Path) -> Result<Network, DirectoryError> {
    let read = || -> io::Result<String> {
        let mut text = String::new();
        io::Read::read_to_string(
            &mut io::Read::take(fs::File::open(path)?, NETWORK_FILE_LEN_MAX),
            &mut text,
        )?;
        Ok(text)
    };
    let text = read().map_err(failed("read a network id from", path))?;
    let id = text.strip_suffix('\n').unwrap_or(&text);
    let id = if id.len() < text.len() { id.strip_suffix('\r').unwrap_or(id) } else { id };
    Network::parse(id)
        .map_err(|source| DirectoryError::BadNetwork { path: path.to_owned(), source })
}

/// Where short-lived things are: sockets with long paths, and the list of running nodes.
pub fn runtime_directory(is_root: bool, uid: u32) -> PathBuf {
    match env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if !directory.is_empty() => PathBuf::from(directory).join("mosaik-node"),
        _ if is_root => PathBuf::from("/run/mosaik-node"),
        _ => env::temp_dir().join(format!("mosaik-node-{uid}")),
    }
}

/// Makes a directory and those above it; it is this user's alone.
///
/// # Errors
///
/// [`DirectoryError`] if it can't be made, or is somebody else's.
pub fn make_private(path: &Path) -> Result<(), DirectoryError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed("make the directory", path))?;
    let owner = fs::metadata(path).map_err(failed("look at", path))?.uid();
    if owner != rustix::process::geteuid().as_raw() {
        return Err(DirectoryError::NotOurs { path: path.to_owned() });
    }
    tighten(path, 0o700)
}

/// Takes away what others may do.
fn tighten(path: &Path, mode: u32) -> Result<(), DirectoryError> {
    let found = fs::metadata(path).map_err(failed("look at", path))?.permissions().mode() & 0o777;
    if found & !mode == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(found & mode))
        .map_err(failed("set the permissions of", path))
}

fn write_key(path: &Path, seed: &[u8; 32]) -> Result<(), DirectoryError> {
    write_private(path, format!("{}\n", Fingerprint(*seed)).as_bytes())
}

/// Writes a new file, durably and whole; one that is there already is an error.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), DirectoryError> {
    let written = write_beside(path, bytes)?;
    // A link, unlike a rename, refuses to replace.
    let linked = fs::hard_link(&written, path).map_err(failed("write", path));
    let _ = fs::remove_file(&written);
    linked?;
    sync_directory(path)
}

/// Writes a file, durably and whole, over what is there.
fn replace_private(path: &Path, bytes: &[u8]) -> Result<(), DirectoryError> {
    let written = write_beside(path, bytes)?;
    fs::rename(&written, path).map_err(failed("write", path))?;
    sync_directory(path)
}

fn write_beside(path: &Path, bytes: &[u8]) -> Result<PathBuf, DirectoryError> {
    let written = path.with_added_extension(format!("{:08x}.new", rand::random::<u32>()));
    let write = || -> io::Result<()> {
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&written)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&written);
        failed("write", path)(error)
    })?;
    Ok(written)
}

fn sync_directory(path: &Path) -> Result<(), DirectoryError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::File::open(parent).and_then(|directory| directory.sync_all()).map_err(failed("write", path))
}

/// 16 hex digits of the hash of these bytes.
fn blake3_hex(bytes: &[u8]) -> String {
    Fingerprint(mosaik_core::key::derive("data directory", bytes)).to_string()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    fn prepared(data_dir: &Path, name: &str) -> Directory {
        let network = Network::Public(name.into());
        let directory = Directory::of(data_dir, &network.keys().fingerprint);
        directory.prepare(&network).expect("a fresh directory");
        directory
    }

    #[test]
    fn what_is_made_is_its_users_alone() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = prepared(&root.path().join("a/b"), "demo");
        directory.keys().expect("keys are made");
        assert_eq!(mode(directory.path()), 0o700);
        for name in ["network", "node.key", "author.key"] {
            assert_eq!(mode(&directory.path().join(name)), 0o600, "{name}");
        }
    }

    #[test]
    fn permissions_that_are_too_wide_are_tightened() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = prepared(root.path(), "demo");
        directory.keys().expect("keys are made");
        let key = directory.path().join("node.key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("ours");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        directory.prepare(&Network::Public("demo".into())).expect("still ours");
        directory.keys().expect("still there");
        assert_eq!((mode(&key), mode(directory.path())), (0o600, 0o700));
    }

    #[test]
    fn keys_stay_the_same_and_a_damaged_one_is_not_replaced() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = prepared(root.path(), "demo");
        let (first, again) = (directory.keys().expect("made"), directory.keys().expect("read"));
        assert_eq!((first.node, first.author), (again.node, again.author));
        assert_ne!(first.node, first.author);
        let key = directory.path().join("author.key");
        for damage in ["", "abc", "\u{0}"] {
            fs::write(&key, damage).expect("ours");
            assert!(matches!(directory.keys(), Err(DirectoryError::BadKey { .. })));
        }
        fs::write(&key, [0xff, 0xfe]).expect("ours");
        assert!(matches!(directory.keys(), Err(DirectoryError::BadKey { .. })));
        assert!(directory.adopt_author(&[1; 32]).is_err(), "a key that is there stays");
    }

    #[test]
    fn one_line_end_after_an_id_is_not_part_of_it() {
        let root = tempfile::tempdir().expect("a directory");
        let file = root.path().join("id");
        for (text, id) in [
            ("a", "a"),
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            ("a\r", "a\r"),
            (" a \n", " a "),
        ] {
            fs::write(&file, text).expect("ours");
            assert_eq!(read_network(&file).expect("a name"), Network::Public(id.into()));
        }
        fs::write(&file, "mnet1qqqq\n").expect("ours");
        assert!(matches!(read_network(&file), Err(DirectoryError::BadNetwork { .. })));
    }

    #[test]
    fn only_directories_named_for_their_network_are_known() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = prepared(root.path(), "demo");
        fs::create_dir(root.path().join("other")).expect("ours");
        fs::write(root.path().join("other/network"), "demo").expect("ours");
        let known = known_networks(root.path());
        assert_eq!(known.len(), 1);
        assert_eq!(known[0].directory, directory);
        let wrong = directory.prepare(&Network::Public("another".into()));
        assert!(matches!(wrong, Err(DirectoryError::OtherNetwork { .. })));
    }

    #[test]
    fn a_long_path_puts_the_socket_into_the_runtime_directory() {
        let runtime = Path::new("/run/x");
        let fingerprint = Network::Public("demo".into()).keys().fingerprint;
        let short = Directory::of(Path::new("/data"), &fingerprint);
        assert_eq!(short.socket(runtime), short.path().join("node.sock"));
        let long = Directory::of(&Path::new("/data").join("x".repeat(100)), &fingerprint);
        assert!(long.socket(runtime).starts_with(runtime));
        assert_ne!(
            long.socket(runtime),
            Directory::of(&Path::new("/data").join("y".repeat(100)), &fingerprint).socket(runtime)
        );
    }

    #[test]
    fn running_nodes_are_found_while_they_say_so() {
        let root = tempfile::tempdir().expect("a directory");
        let runtime = root.path().join("run");
        let directory = prepared(root.path(), "demo");
        directory.announce(&runtime).expect("writable");
        assert_eq!(announced(&runtime), [directory.path().to_owned()]);
        directory.withdraw(&runtime);
        assert!(announced(&runtime).is_empty());
        directory.announce(&runtime).expect("writable");
        fs::remove_dir_all(directory.path()).expect("ours");
        assert!(announced(&runtime).is_empty());
        assert_eq!(fs::read_dir(&runtime).expect("it is there").count(), 0);
    }
}

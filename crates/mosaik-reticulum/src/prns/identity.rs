//! The file with this node's Reticulum identity.
//!
//! It holds what rns's own identity files hold: 64 bytes, an X25519 private key and an Ed25519 seed.
//! So a person can carry an identity from one to the other by copying the file.
//!
//! Invariants:
//! - The file appears whole or not at all, is 0600, and is never written over.
//! - A damaged file is an error, never a new identity: a node must not become another one silently.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use personal_rns::{
    IDENTITY_SECRET_KEY_LEN, Zeroizing,
    identity::{IdentitySigner, in_memory::InMemoryNodeIdentity},
};

use crate::stack::{Peer, PublicKeys};

/// Where the Ed25519 half begins, in private keys and in public ones.
const SIGNING: usize = 32;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Reading or writing the file failed.
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
    /// The file holds something else.
    #[error(
        "{} holds no Reticulum identity (64 bytes, it has {len}): restore it from a backup, or move it away to go on as a new one",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its bytes; one more than the right number stands for all above.
        len: usize,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers for a new Reticulum identity")]
    NoRandomness,
}

/// A Reticulum identity with its private keys.
pub struct Identity {
    secret: Zeroizing<[u8; IDENTITY_SECRET_KEY_LEN]>,
    keys: PublicKeys,
    peer: Peer,
}

impl Identity {
    /// Reads the identity from `path`; where there is no such file, makes a new one and writes it.
    ///
    /// # Errors
    ///
    /// [`IdentityError`]; the file is then as it was, but for its mode.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        match File::open(path) {
            Ok(file) => Self::read(path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(path),
            Err(error) => Err(failed("read", path)(error)),
        }
    }

    fn read(path: &Path, file: File) -> Result<Self, IdentityError> {
        let mode = file.metadata().map_err(failed("read", path))?.permissions().mode();
        if mode & 0o077 != 0 {
            let private = fs::Permissions::from_mode(0o600);
            file.set_permissions(private).map_err(failed("protect", path))?;
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(IDENTITY_SECRET_KEY_LEN + 1));
        file.take(IDENTITY_SECRET_KEY_LEN as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(failed("read", path))?;
        match <[u8; IDENTITY_SECRET_KEY_LEN]>::try_from(&bytes[..]) {
            // A file that was zeroed by a crash has the right length too.
            Ok(secret) if secret != [0; IDENTITY_SECRET_KEY_LEN] => {
                Ok(Self::of(Zeroizing::new(secret)))
            }
            _ => Err(IdentityError::Damaged { path: path.to_owned(), len: bytes.len() }),
        }
    }

    fn create(path: &Path) -> Result<Self, IdentityError> {
        let secret = personal_rns::try_generate_identity_secret()
            .map_err(|_| IdentityError::NoRandomness)?;
        // Beside it, so that a link makes it appear whole, and only where there still is none.
        let staged = path.with_extension("new");
        let written = write(&staged, &secret[..]).and_then(|()| fs::hard_link(&staged, path));
        let removed = fs::remove_file(&staged);
        written.and(removed).map_err(failed("write", path))?;
        let directory = path.parent().filter(|path| !path.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))
            .and_then(|directory| directory.sync_all())
            .map_err(failed("write", path))?;
        Ok(Self::of(secret))
    }

    fn of(secret: Zeroizing<[u8; IDENTITY_SECRET_KEY_LEN]>) -> Self {
        let signer = InMemoryNodeIdentity::from_secret_key_bytes(&secret);
        let peer = Peer(*signer.identity_hash().as_bytes());
        Self { keys: PublicKeys(signer.public_key_bytes()), peer, secret }
    }

    /// Its hash.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Its public keys.
    pub fn keys(&self) -> PublicKeys {
        self.keys
    }

    /// Signs as rns does: Ed25519 over the message itself.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let seed = self.secret[SIGNING..].first_chunk().expect("the second half is 32 bytes");
        SigningKey::from_bytes(seed).sign(message).to_bytes()
    }

    pub(super) fn secret(&self) -> Zeroizing<[u8; IDENTITY_SECRET_KEY_LEN]> {
        self.secret.clone()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.peer)
    }
}

impl PublicKeys {
    /// Whether their holder signed `message`, by the strict rules of RFC 8032.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let key = self.0[SIGNING..].first_chunk().expect("the second half is 32 bytes");
        let signature = Signature::from_bytes(signature);
        VerifyingKey::from_bytes(key)
            .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> IdentityError + 'a {
    move |source| IdentityError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once_and_read_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("rns.key");
        let made = Identity::load_or_create(&path).expect("it is made");
        let read = Identity::load_or_create(&path).expect("it is read");
        assert_eq!(made.peer(), read.peer());
        assert_eq!(made.keys().peer(), made.peer());
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = fs::read_dir(dir.path()).expect("a directory").count();
        assert_eq!(files, 1, "nothing else is left");
    }

    #[test]
    fn a_file_that_others_could_read_is_closed_to_them() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("rns.key");
        Identity::load_or_create(&path).expect("it is made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("it is ours");
        Identity::load_or_create(&path).expect("it is read");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_identity_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("rns.key");
        for bytes in [&[][..], &[1; 63], &[1; 65], &[0; 64]] {
            fs::write(&path, bytes).expect("a file");
            let said = Identity::load_or_create(&path).expect_err("damaged").to_string();
            assert!(said.contains("holds no Reticulum identity"), "{said}");
            assert_eq!(fs::read(&path).expect("it is there"), bytes);
        }
    }

    #[test]
    fn only_the_holder_of_the_keys_signs() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let one = Identity::load_or_create(&dir.path().join("one")).expect("it is made");
        let other = Identity::load_or_create(&dir.path().join("other")).expect("it is made");
        let signature = one.sign(b"said");
        assert!(one.keys().verify(b"said", &signature));
        assert!(!one.keys().verify(b"not said", &signature));
        assert!(!other.keys().verify(b"said", &signature));
    }
}

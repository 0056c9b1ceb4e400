//! What goes to all neighbours at once: one packet, sealed with the network's key, acknowledged by nobody.
//!
//! Invariants:
//! - What is read is bounded by the packet, and a run in it is verified: who knows the key can say what it
//!   likes of itself, and nothing in another's name.
//! - The nonce is a hash of what is sealed: one is used twice only for the same bytes.
//!
//! Source: FORMAT.md beside this crate, section 5.

use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use mosaik_core::{
    codec::{ReadError, Reader, Writer},
    event::Hasher,
    feed::Tip,
    id::AuthorId,
    key::{NetworkKeys, derive},
    run::VerifiedRun,
};
use mosaik_proto::message::{FrameError, Message};

use crate::{
    codec::Codec,
    stack::{BROADCAST_MAX, Peer},
};

const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// Bytes of an identity hash that name who speaks.
const SENDER_LEN: usize = 4;
/// Events that a [`Said::Lacks`] names at most.
pub const NAMES_MAX: usize = 8;

/// Seals and opens the broadcasts of one network.
#[derive(Clone)]
pub struct Seal(ChaCha20Poly1305, [u8; 32]);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(..)")
    }
}

/// Who speaks: the first bytes of its identity hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender(pub [u8; SENDER_LEN]);

impl Sender {
    /// The short name of a peer.
    pub fn of(peer: Peer) -> Self {
        Self([peer.0[0], peer.0[1], peer.0[2], peer.0[3]])
    }
}

/// An event's short name: the last bytes of its id.
pub type Name = [u8; 2];

/// The short name of an event.
pub fn name_of(tip: Tip) -> Name {
    [tip.id.0[30], tip.id.0[31]]
}

/// What somebody holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The first bytes of the topmost hash, as in an announce.
    pub top: [u8; 8],
    /// Events.
    pub events: u64,
}

/// What a broadcast says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A run.
    Run(VerifiedRun),
    /// What the sender holds, after something was broadcast.
    Holds(Held),
    /// The same of one that holds less than somebody said: of the last that were broadcast it has these.
    Lacks(Held, Vec<Name>),
}

/// Why a broadcast is dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CastError {
    /// It has no length that one has.
    #[error("a broadcast of {0} bytes")]
    Length(usize),
    /// It isn't sealed with this network's key.
    #[error("a broadcast of nobody in this network")]
    Seal,
    /// What was sealed is not well formed.
    #[error("a malformed broadcast: {0}")]
    Malformed(#[from] ReadError),
    /// A run that does not hold.
    #[error(transparent)]
    Run(#[from] FrameError),
}

impl Seal {
    /// The seal of a network.
    pub fn of(keys: &NetworkKeys) -> Self {
        let key = derive("radio broadcast", &keys.membership);
        Self(ChaCha20Poly1305::new(&key.into()), key)
    }

    /// The packet's bytes; none for what doesn't fit one.
    pub fn close(&self, sender: Sender, said: &Said, hasher: &Hasher) -> Option<Vec<u8>> {
        let mut writer = Writer::with_capacity(BROADCAST_MAX);
        let write_held = |held: &Held, writer: &mut Writer| {
            writer.raw(&held.top).varint(held.events);
        };
        match said {
            Said::Run(run) => {
                let record = Codec::new(hasher.clone()).shorten(&Message::Run(run.clone()));
                writer.u8(1).raw(&sender.0).raw(&record);
            }
            Said::Holds(held) => {
                writer.u8(2).raw(&sender.0);
                write_held(held, &mut writer);
            }
            Said::Lacks(held, names) => {
                writer.u8(3).raw(&sender.0);
                write_held(held, &mut writer);
                let names = &names[..names.len().min(NAMES_MAX)];
                writer.len(names.len()).raw(names.as_flattened());
            }
        }
        let plain = writer.into_bytes();
        if plain.len() + NONCE_LEN + TAG_LEN > BROADCAST_MAX {
            return None;
        }
        let hash = derive("radio broadcast nonce", &[&self.1[..], &plain].concat());
        let nonce: [u8; NONCE_LEN] = *hash.first_chunk()?;
        let payload = Payload { msg: &plain, aad: &[] };
        let sealed = self.0.encrypt(&Nonce::from(nonce), payload).ok()?;
        Some([&nonce[..], &sealed].concat())
    }

    /// Who says what in a packet.
    ///
    /// # Errors
    ///
    /// [`CastError`]; the packet is counted and dropped.
    pub fn open(&self, packet: &[u8], hasher: &Hasher) -> Result<(Sender, Said), CastError> {
        let whole = (NONCE_LEN + TAG_LEN..=BROADCAST_MAX).contains(&packet.len());
        let (nonce, sealed) = packet
            .split_first_chunk::<NONCE_LEN>()
            .filter(|_| whole)
            .ok_or(CastError::Length(packet.len()))?;
        let payload = Payload { msg: sealed, aad: &[] };
        let plain = self.0.decrypt(&Nonce::from(*nonce), payload).map_err(|_| CastError::Seal)?;
        let mut reader = Reader::new(&plain);
        let (kind, sender) = (reader.u8()?, Sender(reader.array()?));
        let said = match kind {
            1 => {
                let record = reader.raw(reader.remaining())?;
                match Codec::new(hasher.clone()).expand(record)? {
                    Message::Run(run) => Said::Run(run),
                    message => return Err(ReadError::Tag(u64::from(message.kind())).into()),
                }
            }
            2 => Said::Holds(read_held(&mut reader)?),
            3 => {
                let held = read_held(&mut reader)?;
                let count = reader.count(NAMES_MAX, size_of::<Name>())?;
                let names = (0..count).map(|_| reader.array());
                Said::Lacks(held, names.collect::<Result<_, _>>()?)
            }
            kind => return Err(ReadError::Tag(u64::from(kind)).into()),
        };
        Ok((sender, said))
    }
}

fn read_held(reader: &mut Reader<'_>) -> Result<Held, ReadError> {
    Ok(Held { top: reader.array()?, events: reader.varint()? })
}

/// What a run is known by: whose, and its last event.
pub(crate) fn key_of(run: &VerifiedRun) -> (AuthorId, Tip) {
    (run.author(), Tip::from(run.head()))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use mosaik_core::{
        event::{Kind, Payload},
        hlc::Hlc,
        id::EventId,
        key::Network,
        run::{Entry, chain},
    };

    use super::*;

    fn network(name: &str) -> (Seal, Hasher) {
        let keys = Network::Public(name.into()).keys();
        (Seal::of(&keys), Hasher::new(&keys.fingerprint))
    }

    fn run(hasher: &Hasher, seq: u64, len: usize) -> VerifiedRun {
        let key = SigningKey::from_bytes(&[7; 32]);
        let author = AuthorId(key.verifying_key().to_bytes());
        let (hlc, kind) = (Hlc::new(1_790_000_000_000, 0), Kind::new("reading").expect("a kind"));
        // Nothing that compresses.
        let payload = (0..len).map(blake).collect();
        let entry = Entry { hlc, kind, payload: Payload::Present(payload) };
        let before = if seq == 1 { EventId::ZERO } else { EventId([5; 32]) };
        VerifiedRun::sign(&key, chain(hasher, author, seq, before, vec![entry]))
    }

    fn blake(at: usize) -> u8 {
        derive("noise", &at.to_be_bytes())[0]
    }

    fn samples(hasher: &Hasher) -> Vec<Said> {
        let held = Held { top: [9; 8], events: 1_000_000 };
        let names = vec![[1, 2], [3, 4]];
        let runs = [1, 2].map(|seq| Said::Run(run(hasher, seq, 100)));
        runs.into_iter().chain([Said::Holds(held), Said::Lacks(held, names)]).collect()
    }

    #[test]
    fn what_is_said_comes_back_and_an_event_is_little_more_than_on_a_link() {
        let (seal, hasher) = network("island");
        let sender = Sender([1, 2, 3, 4]);
        for said in samples(&hasher) {
            let packet = seal.close(sender, &said, &hasher).expect("it fits");
            assert_eq!(seal.open(&packet, &hasher), Ok((sender, said.clone())));
            let most = if matches!(said, Said::Run(_)) { 290 } else { 52 };
            assert!(packet.len() <= most, "{} {said:?}", packet.len());
        }
        assert!(seal.close(sender, &Said::Run(run(&hasher, 1, 400)), &hasher).is_none());
    }

    #[test]
    fn what_others_send_is_refused_with_a_reason_and_never_panics() {
        let ((seal, hasher), (other, _)) = (network("island"), network("other"));
        for said in samples(&hasher) {
            let packet = seal.close(Sender([1; 4]), &said, &hasher).expect("it fits");
            assert_eq!(other.open(&packet, &hasher), Err(CastError::Seal));
            for at in 0..packet.len() {
                let mut changed = packet.clone();
                changed[at] ^= 1;
                assert_eq!(seal.open(&changed, &hasher), Err(CastError::Seal), "byte {at}");
                assert!(seal.open(&packet[..at], &hasher).is_err());
            }
        }
        assert_eq!(seal.open(&[0; 500], &hasher), Err(CastError::Length(500)));
    }

    /// Who knows the key seals what it likes.
    #[test]
    fn what_a_member_makes_up_is_refused_too() {
        let (seal, hasher) = network("island");
        let close = |plain: &[u8]| {
            let sealed = seal.0.encrypt(&Nonce::from([3; NONCE_LEN]), plain).expect("short");
            [&[3; NONCE_LEN][..], &sealed].concat()
        };
        for plain in [&[][..], &[1], &[9; 40], &[2, 1, 1, 1, 1, 7], &[3; 12], &[1; 300]] {
            assert!(seal.open(&close(plain), &hasher).is_err(), "{plain:?}");
        }
        // A run of another network; a record that is none.
        let (_, foreign) = network("other");
        let record = Codec::new(foreign.clone()).shorten(&Message::Run(run(&foreign, 1, 10)));
        let plain = [&[1, 1, 1, 1, 1][..], &record].concat();
        assert!(matches!(seal.open(&close(&plain), &hasher), Err(CastError::Run(_))));
        let record = Codec::new(hasher.clone()).shorten(&Message::Root([7; 16]));
        let plain = [&[1, 1, 1, 1, 1][..], &record].concat();
        assert!(matches!(seal.open(&close(&plain), &hasher), Err(CastError::Malformed(_))));
    }

    #[test]
    fn the_key_and_the_bytes_are_those_of_the_format() {
        let (seal, hasher) = network("mosaik-node-test-vector-1");
        let held = Held { top: [0x11; 8], events: 300 };
        let packet = seal.close(Sender([1, 2, 3, 4]), &Said::Holds(held), &hasher).expect("fits");
        let hex = data_encoding::HEXLOWER.encode(&packet);
        assert_eq!(
            hex,
            "6d61b39262648f81a164167362c20179eff73bf38a05b50383a0eecd1e2d0c269b2b3eec2888eff4dd0fb7"
        );
    }
}

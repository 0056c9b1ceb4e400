//! What one storage node keeps, and what it answers to a put: BEP 44 and what nodes make of it.
//!
//! Invariants:
//! - Pure: the time is an argument.
//! - Nothing is kept that its key did not sign, unless a test put it there.
//! - A pinned item is never replaced and never expires.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ed25519_dalek::{Signature, VerifyingKey};
use mainline::MutableItem;

use super::{EqualSeq, Item, Outcome};

/// The longest value, in bytes.
///
/// Source: BEP 44, "messages with a value longer than 1000 bytes are refused" with error 205.
const VALUE_LEN_MAX: usize = 1000;
/// The longest salt, in bytes; error 207.
const SALT_LEN_MAX: usize = 64;
/// Items of one node: some hundred networks of 16 slots. A put of one more gets error 202.
const ITEMS_MAX: usize = 2000;

/// Where an item lies: the SHA-1 of its key and salt.
pub(super) type Target = [u8; 20];

/// A put as it was asked for.
#[derive(Debug, Clone)]
pub(super) struct Request<'a> {
    pub(super) key: [u8; 32],
    pub(super) salt: Option<&'a [u8]>,
    pub(super) item: Item,
    pub(super) cas: Option<i64>,
}

impl Request<'_> {
    pub(super) fn target(&self) -> Target {
        target(&self.key, self.salt)
    }

    /// What the key's signature has to cover: BEP 44's salt, seq and value, bencoded in a row.
    fn signed(&self) -> Vec<u8> {
        let mut signed = Vec::new();
        if let Some(salt) = self.salt {
            signed.extend(format!("4:salt{}:", salt.len()).as_bytes());
            signed.extend(salt);
        }
        let Item { seq, value, .. } = &self.item;
        signed.extend(format!("3:seqi{seq}e1:v{}:", value.len()).as_bytes());
        signed.extend(value);
        signed
    }

    fn is_signed(&self) -> bool {
        let signature = Signature::from_bytes(&self.item.signature);
        VerifyingKey::from_bytes(&self.key)
            .and_then(|key| ed25519_dalek::Verifier::verify(&key, &self.signed(), &signature))
            .is_ok()
    }
}

/// The target of a key's item.
pub(super) fn target(key: &[u8; 32], salt: Option<&[u8]>) -> Target {
    *MutableItem::target_from_key(key, salt).as_bytes()
}

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) key: [u8; 32],
    pub(super) item: Item,
    /// When it expires; a pinned one never does.
    until: Option<Instant>,
    pinned: bool,
}

/// The items of one node.
#[derive(Debug)]
pub(super) struct Storage {
    equal_seq: EqualSeq,
    expires_after: Option<Duration>,
    items: BTreeMap<Target, Kept>,
}

impl Storage {
    pub(super) fn new(equal_seq: EqualSeq, expires_after: Option<Duration>) -> Self {
        Self { equal_seq, expires_after, items: BTreeMap::new() }
    }

    /// What is kept under a target and has not expired.
    pub(super) fn get(&self, target: &Target, now: Instant) -> Option<&Kept> {
        self.items.get(target).filter(|kept| kept.until.is_none_or(|until| now < until))
    }

    /// Puts an item there, whatever stands there, signed or not.
    pub(super) fn place(&mut self, key: [u8; 32], item: Item, pinned: bool, now: Instant) {
        let until = if pinned { None } else { self.until(now) };
        self.items.insert(target(&key, None), Kept { key, item, until, pinned });
    }

    /// Takes a put, or says why not.
    pub(super) fn put(&mut self, request: &Request<'_>, now: Instant) -> Outcome {
        if request.item.value.len() > VALUE_LEN_MAX {
            return Outcome::Refused(205);
        }
        if request.salt.is_some_and(|salt| salt.len() > SALT_LEN_MAX) {
            return Outcome::Refused(207);
        }
        if !request.is_signed() {
            return Outcome::Refused(206);
        }
        let target = request.target();
        if let Some(kept) = self.get(&target, now) {
            if request.cas.is_some_and(|cas| cas != kept.item.seq) {
                return Outcome::Refused(301);
            }
            if request.item.seq < kept.item.seq {
                return Outcome::Refused(302);
            }
            if kept.pinned {
                return Outcome::Ignored;
            }
            // BEP 44: the same value at the same seq resets the item's timeout.
            let same = kept.item.value == request.item.value;
            if request.item.seq == kept.item.seq && !same {
                match self.equal_seq {
                    EqualSeq::Ignored => return Outcome::Ignored,
                    EqualSeq::Refused => return Outcome::Refused(302),
                    EqualSeq::Overwrites => {}
                }
            }
        } else {
            self.items.retain(|_, kept| kept.until.is_none_or(|until| now < until));
            if self.items.len() >= ITEMS_MAX {
                return Outcome::Refused(202);
            }
        }
        let until = self.until(now);
        let kept = Kept { key: request.key, item: request.item.clone(), until, pinned: false };
        self.items.insert(target, kept);
        Outcome::Stored
    }

    fn until(&self, now: Instant) -> Option<Instant> {
        self.expires_after.map(|after| now + after)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};

    use super::*;

    fn put(
        storage: &mut Storage,
        seq: i64,
        value: &[u8],
        cas: Option<i64>,
        now: Instant,
    ) -> Outcome {
        storage.put(&request(seq, value, cas), now)
    }

    fn request(seq: i64, value: &[u8], cas: Option<i64>) -> Request<'static> {
        let key = SigningKey::from_bytes(&[1; 32]);
        let item = Item { seq, signature: [0; 64], value: value.to_vec() };
        let mut request = Request { key: key.verifying_key().to_bytes(), salt: None, item, cas };
        request.item.signature = key.sign(&request.signed()).to_bytes();
        request
    }

    fn value(storage: &Storage, now: Instant) -> Option<(i64, Vec<u8>)> {
        let kept = storage.get(&request(0, b"", None).target(), now)?;
        Some((kept.item.seq, kept.item.value.clone()))
    }

    #[test]
    fn a_put_is_refused_with_the_codes_of_bep_44() {
        let now = Instant::now();
        for equal_seq in [EqualSeq::Ignored, EqualSeq::Refused, EqualSeq::Overwrites] {
            let mut storage = Storage::new(equal_seq, None);
            // Where nothing stands, there is nothing to compare `cas` with.
            assert_eq!(put(&mut storage, 5, b"a", Some(3), now), Outcome::Stored);
            assert_eq!(put(&mut storage, 4, b"b", None, now), Outcome::Refused(302));
            assert_eq!(put(&mut storage, 6, b"b", Some(4), now), Outcome::Refused(301));
            assert_eq!(put(&mut storage, 6, &[0; 1001], None, now), Outcome::Refused(205));
            let mut forged = request(6, b"b", None);
            forged.item.value = b"c".to_vec();
            assert_eq!(storage.put(&forged, now), Outcome::Refused(206));
            let salted = Request { salt: Some(&[0; 65]), ..request(6, b"b", None) };
            assert_eq!(storage.put(&salted, now), Outcome::Refused(207));
            assert_eq!(value(&storage, now), Some((5, b"a".to_vec())));
            assert_eq!(put(&mut storage, 6, &[0; 1000], Some(5), now), Outcome::Stored);
        }
    }

    #[test]
    fn another_value_at_an_equal_seq_is_treated_as_the_behaviour_says() {
        let now = Instant::now();
        for (equal_seq, outcome, left) in [
            (EqualSeq::Ignored, Outcome::Ignored, b"a"),
            (EqualSeq::Refused, Outcome::Refused(302), b"a"),
            (EqualSeq::Overwrites, Outcome::Stored, b"b"),
        ] {
            let mut storage = Storage::new(equal_seq, None);
            put(&mut storage, 5, b"a", None, now);
            assert_eq!(put(&mut storage, 5, b"a", None, now), Outcome::Stored);
            assert_eq!(put(&mut storage, 5, b"b", None, now), outcome);
            assert_eq!(value(&storage, now), Some((5, left.to_vec())));
        }
    }

    #[test]
    fn an_item_expires_unless_it_is_put_again() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut storage = Storage::new(EqualSeq::Refused, Some(Duration::from_secs(10)));
        put(&mut storage, 5, b"a", None, at(0));
        put(&mut storage, 5, b"a", None, at(6));
        assert_eq!(value(&storage, at(15)), Some((5, b"a".to_vec())));
        assert_eq!(value(&storage, at(16)), None);
        // What has expired is no reason to refuse a lower seq.
        assert_eq!(put(&mut storage, 1, b"b", Some(9), at(16)), Outcome::Stored);
    }

    #[test]
    fn a_pinned_item_stays_whatever_is_put() {
        let now = Instant::now();
        let mut storage = Storage::new(EqualSeq::Overwrites, Some(Duration::ZERO));
        let Request { key, item, .. } = request(5, b"a", None);
        storage.place(key, item, true, now);
        assert_eq!(put(&mut storage, 6, b"b", None, now), Outcome::Ignored);
        assert_eq!(put(&mut storage, 6, b"b", Some(4), now), Outcome::Refused(301));
        assert_eq!(put(&mut storage, 4, b"b", None, now), Outcome::Refused(302));
        assert_eq!(value(&storage, now), Some((5, b"a".to_vec())));
    }
}

//! One who belongs to nobody and asks for all that makes others send: links, of which some are never used
//! and some never say whose they are, Resources that never come, signs of life, peers that don't exist. It
//! broadcasts, too: what makes no sense, and what those who are there are said to hold and to lack.

use std::collections::VecDeque;

use mosaik_core::{event::Hasher, key::NetworkKeys};
use mosaik_reticulum::{
    announce::Announce,
    cast::{Held, Said, Seal, Sender},
    stack::{BROADCAST_MAX, Link, Peer},
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::stack::{self, Packet};

/// How long it waits between two packets at the most, in milliseconds: what it asks for needs air too.
pub(super) const PAUSE_MS: u64 = 1_000;
/// Links that it uses: the newest.
const LINKS_MAX: usize = 40;
/// Bytes of the Resources that it offers: as many as are taken.
const OFFER_LEN: usize = 16 << 10;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Hostile {
    me: usize,
    tag: [u8; 4],
    seal: Seal,
    hasher: Hasher,
    pub(super) next_ms: u64,
    count: u64,
    /// Links that it asked for, and those that are up; each with its other end.
    asked: VecDeque<(Link, usize)>,
    links: VecDeque<(Link, usize)>,
    /// What it has to say before it makes up something else.
    answers: Vec<Packet>,
}

impl Hostile {
    /// One that has the network's keys, as everybody has those of a public one.
    pub(super) fn new(me: usize, keys: &NetworkKeys) -> Self {
        let (asked, links) = (VecDeque::new(), VecDeque::new());
        let (tag, seal) = (keys.radio, Seal::of(keys));
        let hasher = Hasher::new(&keys.fingerprint);
        let answers = Vec::new();
        Self { me, tag, seal, hasher, next_ms: 0, count: 0, asked, links, answers }
    }

    /// Its next packet.
    pub(super) fn next(&mut self, rng: &mut ChaCha8Rng) -> Packet {
        if let Some(answer) = self.answers.pop() {
            return answer;
        }
        self.count += 1;
        let token = self.count;
        let known = match self.links.len() {
            0 => None,
            links => Some(self.links[rng.random_range(0..links)]),
        };
        match (rng.random_range(0..40), known) {
            (0, _) => self.announce(rng),
            (1..5, Some((link, to))) => {
                Packet::Advertise { link, to, token, bytes: vec![7; OFFER_LEN] }
            }
            (5..9, Some((link, to))) => Packet::Alive { link, to, is_answer: false },
            (9..13, Some((link, to))) => Packet::Data { link, to, bytes: vec![0xFF; 40] },
            (20..26, _) => self.broadcast(rng),
            (13..20, Some((link, to))) => Packet::Identify { link, peer: nobody(rng), to },
            _ => self.request(rng),
        }
    }

    fn request(&mut self, rng: &mut ChaCha8Rng) -> Packet {
        let mut id = [0xFF; 16];
        id[..8].copy_from_slice(&self.count.to_be_bytes());
        let (link, to) = (Link(id), rng.random_range(0..self.me));
        remember(&mut self.asked, (link, to));
        Packet::Request { link, from: self.me, to }
    }

    /// Noise, or in the name of one who is there that it holds or lacks what makes others speak.
    fn broadcast(&self, rng: &mut ChaCha8Rng) -> Packet {
        let sender = Sender::of(stack::peer(rng.random_range(0..self.me)));
        let events = [0, 1, self.count, u64::MAX][rng.random_range(0..4)];
        let held = Held { top: rng.random(), events };
        let said = match rng.random_range(0..3) {
            0 => None,
            1 => Some(Said::Holds(held)),
            _ => Some(Said::Lacks(held, vec![rng.random(); 3])),
        };
        let sealed = said.and_then(|said| self.seal.close(sender, &said, &self.hasher));
        let bytes = sealed.unwrap_or_else(|| {
            (0..rng.random_range(0..=BROADCAST_MAX)).map(|_| rng.random()).collect()
        });
        Packet::Broadcast { bytes }
    }

    /// Of a new peer, with feeds that everybody lacks.
    fn announce(&self, rng: &mut ChaCha8Rng) -> Packet {
        let (tag, top) = (self.tag, rng.random());
        let (is_alone, is_bridge) = (rng.random(), rng.random());
        let (events, takes_broadcasts) = (self.count, rng.random());
        let announce = Announce { tag, top, events, is_alone, is_bridge, takes_broadcasts };
        Packet::Announce { peer: nobody(rng), app_data: announce.encode() }
    }

    pub(super) fn on_packet(&mut self, packet: &Packet) {
        let Packet::Proof { link, .. } = packet else { return };
        let Some(index) = self.asked.iter().position(|(asked, _)| asked == link) else { return };
        if let Some((link, to)) = self.asked.remove(index) {
            remember(&mut self.links, (link, to));
            self.answers.push(Packet::Rtt { link, to });
        }
    }
}

fn remember(links: &mut VecDeque<(Link, usize)>, link: (Link, usize)) {
    if links.len() >= LINKS_MAX {
        links.pop_front();
    }
    links.push_back(link);
}

/// Somebody who isn't there: half of them with a smaller hash than all who are.
fn nobody(rng: &mut ChaCha8Rng) -> Peer {
    let mut hash: [u8; 16] = rng.random();
    hash[0] = if rng.random() { 0 } else { 0xFF };
    Peer(hash)
}

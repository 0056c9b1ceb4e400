//! One who belongs to nobody and asks for all that makes others send: links, of which some are never used
//! and some never say whose they are, Resources that never come, signs of life, peers that don't exist.

use std::collections::VecDeque;

use mosaik_reticulum::{
    announce::Announce,
    stack::{Link, Peer},
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::stack::Packet;

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
    pub(super) next_ms: u64,
    count: u64,
    /// Links that it asked for, and those that are up; each with its other end.
    asked: VecDeque<(Link, usize)>,
    links: VecDeque<(Link, usize)>,
    /// What it has to say before it makes up something else.
    answers: Vec<Packet>,
}

impl Hostile {
    pub(super) fn new(me: usize, tag: [u8; 4]) -> Self {
        let (asked, links) = (VecDeque::new(), VecDeque::new());
        Self { me, tag, next_ms: 0, count: 0, asked, links, answers: Vec::new() }
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

    /// Of a new peer, with feeds that everybody lacks.
    fn announce(&self, rng: &mut ChaCha8Rng) -> Packet {
        let (tag, top) = (self.tag, rng.random());
        let (is_alone, is_bridge) = (rng.random(), rng.random());
        let announce = Announce { tag, top, events: self.count, is_alone, is_bridge };
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

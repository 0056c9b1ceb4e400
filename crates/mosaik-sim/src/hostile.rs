//! What a peer may say that nobody can trust: changed frames, and lies in good form.

use mosaik_core::{
    feed::Tip,
    id::{AuthorId, EventId},
    trie::Prefix,
};
use mosaik_proto::message::{
    Ask, FrontierItem, Items, LackReason, Message, Payloads, Reason, Want,
};
use rand::RngExt;

use crate::cluster::Cluster;

impl Cluster {
    /// What goes over the wire in the place of an honest frame.
    pub(crate) fn corrupt(&mut self, mut frame: Vec<u8>) -> Vec<Vec<u8>> {
        match self.rng.random_range(0..60) {
            0 => {
                let at = self.rng.random_range(0..frame.len());
                frame[at] ^= 1 << self.rng.random_range(0..8);
                vec![frame]
            }
            1 => {
                frame.truncate(self.rng.random_range(5..=frame.len()));
                vec![with_length(frame)]
            }
            2 => {
                let body: Vec<u8> =
                    (0..self.rng.random_range(1..100)).map(|_| self.rng.random()).collect();
                vec![with_length([vec![0; 4], body].concat()), frame]
            }
            3 => vec![frame.clone(), frame],
            4 => Vec::new(),
            5..15 => vec![self.lie().encode(), frame],
            _ => vec![frame],
        }
    }

    /// A message in good form that isn't true, of an author that exists if possible.
    fn lie(&mut self) -> Message {
        let known = self.acknowledged.len();
        let (author, tip) = match known {
            0 => (AuthorId([1; 32]), Tip { seq: 1, id: EventId([1; 32]) }),
            _ => self.acknowledged[self.rng.random_range(0..known)],
        };
        let above =
            Tip { seq: tip.seq + self.rng.random_range(1..1000), id: EventId(self.rng.random()) };
        let shown = if self.rng.random_bool(0.5) { tip } else { above };
        let prefix = if self.rng.random_bool(0.5) { Prefix::EMPTY } else { Prefix::EMPTY.child(3) };
        match self.rng.random_range(0..14) {
            0 | 1 => Message::Have(author, above),
            2 => Message::Have(AuthorId(self.rng.random()), above),
            3 => Message::Want(Want {
                author,
                tip: Some(shown),
                locator: vec![Tip::ROOT],
                credit: u64::MAX,
            }),
            4 => Message::Want(Want { author, tip: None, locator: vec![above], credit: 0 }),
            5 => Message::Lack(author, Some(shown), LackReason::SendLongLocator),
            6 => Message::Lack(author, Some(shown), LackReason::Gone),
            7 => Message::Payloads(Payloads {
                ask: vec![Ask { author, tip: shown }],
                give: vec![(shown.id, vec![1, 2, 3])],
                lack: vec![above.id],
            }),
            8 => Message::Decline(author, Reason::Quota),
            9 => Message::Items(Items {
                prefix: Prefix::EMPTY,
                items: vec![FrontierItem { author, tips: vec![shown] }],
                lacked: vec![],
                more: self.rng.random(),
            }),
            10 => Message::Done(prefix),
            11 => Message::Leaf(prefix, vec![self.rng.random()]),
            12 => Message::Tree(prefix, self.rng.random()),
            _ => Message::Twin(self.rng.random()),
        }
    }
}

/// Sets a frame's length field to what it is.
fn with_length(mut frame: Vec<u8>) -> Vec<u8> {
    let len = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&len.to_be_bytes());
    frame
}

//! Reticulum as far as a station sees it: links, packets, Resources, with the packets that they take.
//!
//! Lengths and steps are those of the reference; addresses, keys and cryptography are left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mosaik_proto::carrier::Role;
use mosaik_reticulum::{
    airtime::{
        ANNOUNCE_LEN, Account, Cause, Ceiling, HEADER_LEN, LINK_PROOF_LEN, LINK_REQUEST_LEN,
        link_packet_len,
    },
    stack::{Interface, Link, Order, Outcome, Peer, PublicKeys, Report, Service},
};

/// Bytes of a packet's payload on a link.
pub(super) const PACKET_MAX: usize = 431;
/// Bytes of a Resource in one part, and parts that are asked for at once, at first and at the most.
const PART_LEN: usize = 464;
const WINDOW_MIN: usize = 4;
const WINDOW_MAX: usize = 10;
/// How often a step of a Resource is tried by who sends it and by who gets it, and how long one waits at
/// the least, in milliseconds.
const TRIES_MAX: u32 = 8;
const WISHES_MAX: u32 = 16;
const STEP_MS: u64 = 15_000;
/// How long an answer to a link request may take, in milliseconds.
const REQUEST_MS: u64 = 20_000;
/// Signs of life come this often; after two without an answer a link is over.
const KEEPALIVE_MS: u64 = 180_000;
/// Links at most; above, requests are not answered.
const LINKS_MAX: usize = 128;
/// Bytes of a broadcast that carries no event, at the most.
const HELD_LEN_MAX: usize = 80;
/// Bytes of a Resource that is taken.
const RESOURCE_MAX: usize = 64 << 10;

/// What goes over the air, from one node to all who hear it.
#[derive(Debug, Clone)]
pub(super) enum Packet {
    Announce { peer: Peer, app_data: Vec<u8> },
    Request { link: Link, from: usize, to: usize },
    Proof { link: Link, to: usize },
    Rtt { link: Link, to: usize },
    Identify { link: Link, peer: Peer, to: usize },
    Data { link: Link, to: usize, bytes: Vec<u8> },
    Advertise { link: Link, to: usize, token: u64, bytes: Vec<u8> },
    Ask { link: Link, to: usize, token: u64, parts: Vec<usize> },
    Part { link: Link, to: usize, token: u64, part: usize, len: usize },
    Proved { link: Link, to: usize, token: u64 },
    Refuse { link: Link, to: usize, token: u64 },
    Alive { link: Link, to: usize, is_answer: bool },
    Close { link: Link, to: usize },
    Broadcast { bytes: Vec<u8> },
}

impl Packet {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Announce { app_data, .. } => ANNOUNCE_LEN + app_data.len(),
            Self::Request { .. } => LINK_REQUEST_LEN,
            Self::Proof { .. } => LINK_PROOF_LEN,
            Self::Rtt { .. } | Self::Proved { .. } | Self::Close { .. } => 83,
            Self::Identify { .. } => 211,
            Self::Data { bytes, .. } => link_packet_len(bytes.len()),
            Self::Advertise { .. } => 227,
            Self::Refuse { .. } => link_packet_len(32),
            Self::Ask { parts, .. } => 83 + (parts.len() * 4).div_ceil(16) * 16,
            Self::Part { len, .. } => 19 + len,
            Self::Alive { .. } => 20,
            Self::Broadcast { bytes } => HEADER_LEN + bytes.len(),
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Announce { .. } => "announce",
            Self::Request { .. } => "link request",
            Self::Proof { .. } => "link proof",
            Self::Rtt { .. } | Self::Identify { .. } => "identify",
            Self::Data { bytes, .. } if bytes.len() <= 4 => "ack",
            Self::Data { .. } => "data",
            Self::Advertise { .. } => "resource offer",
            Self::Ask { .. } => "resource wish",
            Self::Part { .. } => "resource part",
            Self::Proved { .. } => "resource proof",
            Self::Refuse { .. } => "refusal",
            Self::Alive { .. } => "keepalive",
            Self::Close { .. } => "close",
            Self::Broadcast { bytes } if bytes.len() <= HELD_LEN_MAX => "broadcast, held",
            Self::Broadcast { .. } => "broadcast, event",
        }
    }

    /// Whom it is for; none: all.
    pub(super) fn to(&self) -> Option<usize> {
        match self {
            Self::Announce { .. } | Self::Broadcast { .. } => None,
            Self::Request { to, .. }
            | Self::Proof { to, .. }
            | Self::Rtt { to, .. }
            | Self::Identify { to, .. }
            | Self::Data { to, .. }
            | Self::Advertise { to, .. }
            | Self::Ask { to, .. }
            | Self::Part { to, .. }
            | Self::Proved { to, .. }
            | Self::Refuse { to, .. }
            | Self::Alive { to, .. }
            | Self::Close { to, .. } => Some(*to),
        }
    }

    fn link(&self) -> Option<Link> {
        match self {
            Self::Announce { .. } | Self::Broadcast { .. } => None,
            Self::Request { link, .. }
            | Self::Proof { link, .. }
            | Self::Rtt { link, .. }
            | Self::Identify { link, .. }
            | Self::Data { link, .. }
            | Self::Advertise { link, .. }
            | Self::Ask { link, .. }
            | Self::Part { link, .. }
            | Self::Proved { link, .. }
            | Self::Refuse { link, .. }
            | Self::Alive { link, .. }
            | Self::Close { link, .. } => Some(*link),
        }
    }

    /// Whether a stack sends it for others alone, as beneath the real one it is told.
    fn cause(&self) -> Cause {
        match self {
            Self::Proof { .. } | Self::Refuse { .. } | Self::Close { .. } => Cause::Asked,
            _ => Cause::Own,
        }
    }
}

#[derive(Debug)]
struct OwnLink {
    other: usize,
    /// Whom it was opened to; none: the other end opened it.
    to: Option<Peer>,
    role: Role,
    is_up: bool,
    /// Whether this end knows who the other is.
    is_known: bool,
    requested_ms: u64,
    heard_ms: u64,
    /// When this end sent a sign of life, and when anything.
    told_ms: u64,
    sent_ms: u64,
}

/// A Resource on its way.
#[derive(Debug)]
struct Transfer {
    bytes: Vec<u8>,
    /// The receiver: parts that came.
    got: BTreeSet<usize>,
    window: usize,
    asked: usize,
    tries: u32,
    due_ms: u64,
    /// The receiver's: whole, and proved.
    is_done: bool,
}

/// One node's stack.
#[derive(Debug)]
pub(super) struct Stack {
    me: usize,
    /// What it may send, whatever makes it; none: all.
    account: Option<Account>,
    pub(super) queue: VecDeque<Packet>,
    links: BTreeMap<Link, OwnLink>,
    sending: BTreeMap<(Link, u64), Transfer>,
    receiving: BTreeMap<(Link, u64), Transfer>,
    next_link: u64,
    /// How long a whole packet takes: everything waits in proportion.
    packet_ms: u64,
}

pub(super) fn peer(node: usize) -> Peer {
    Peer([node as u8 + 1; 16])
}

/// Where it is; of one that is made up, nowhere.
fn node(peer: Peer) -> usize {
    usize::from(peer.0[0].wrapping_sub(1))
}

impl Stack {
    pub(super) fn new(me: usize, packet_ms: u64, ceiling: Option<Ceiling>, now_ms: u64) -> Self {
        Self {
            me,
            account: ceiling.map(|ceiling| Account::new(ceiling, now_ms)),
            queue: VecDeque::new(),
            links: BTreeMap::new(),
            sending: BTreeMap::new(),
            receiving: BTreeMap::new(),
            // One that starts anew has other links.
            next_link: now_ms,
            packet_ms,
        }
    }

    /// Hands a packet to the modem, if the account allows it.
    fn send(&mut self, packet: Packet, now_ms: u64) {
        let account = self.account.as_mut();
        if account.is_some_and(|it| !it.takes(packet.len(), packet.cause(), now_ms)) {
            return;
        }
        if let Some(it) = packet.link().and_then(|link| self.links.get_mut(&link)) {
            it.sent_ms = now_ms;
        }
        self.queue.push_back(packet);
    }

    pub(super) fn carry(&mut self, order: Order, now_ms: u64, reports: &mut Vec<Report>) {
        match order {
            Order::Announce { app_data, .. } => {
                self.send(Packet::Announce { peer: peer(self.me), app_data }, now_ms);
            }
            Order::Open { peer, .. } => {
                self.next_link += 1;
                let mut id = [self.me as u8; 16];
                id[..8].copy_from_slice(&self.next_link.to_be_bytes());
                let (link, other) = (Link(id), node(peer));
                self.begin(link, other, Some(peer), now_ms);
                self.send(Packet::Request { link, from: self.me, to: other }, now_ms);
            }
            Order::Send { link, token, bytes } => {
                let Some(to) = self.links.get(&link).map(|it| it.other) else {
                    let outcome = Outcome::Failed("no such link".into());
                    return reports.push(Report::Sent { link, token, outcome });
                };
                if bytes.len() <= PACKET_MAX {
                    self.send(Packet::Data { link, to, bytes }, now_ms);
                    return reports.push(Report::Sent { link, token, outcome: Outcome::Left });
                }
                self.sending.insert((link, token), self.transfer(bytes.clone(), now_ms));
                self.send(Packet::Advertise { link, to, token, bytes }, now_ms);
            }
            Order::Broadcast { bytes, .. } => self.send(Packet::Broadcast { bytes }, now_ms),
            Order::Close { link } => {
                if let Some(it) = self.links.remove(&link) {
                    self.send(Packet::Close { link, to: it.other }, now_ms);
                    self.forget(link);
                    reports.push(Report::Down { link, reason: "closed here".into() });
                }
            }
        }
    }

    fn transfer(&self, bytes: Vec<u8>, now_ms: u64) -> Transfer {
        let due_ms = now_ms + STEP_MS + 8 * self.packet_ms;
        let got = BTreeSet::new();
        let (window, asked, tries, is_done) = (WINDOW_MIN, 0, 0, false);
        Transfer { bytes, got, window, asked, tries, due_ms, is_done }
    }

    fn begin(&mut self, link: Link, other: usize, to: Option<Peer>, now_ms: u64) {
        let role = if to.is_some() { Role::Dialer } else { Role::Listener };
        let it = OwnLink {
            other,
            to,
            role,
            is_up: false,
            is_known: to.is_some(),
            requested_ms: now_ms,
            heard_ms: now_ms,
            told_ms: now_ms,
            sent_ms: now_ms,
        };
        self.links.insert(link, it);
    }

    fn forget(&mut self, link: Link) {
        self.sending.retain(|(of, _), _| *of != link);
        self.receiving.retain(|(of, _), _| *of != link);
        self.queue.retain(|packet| match packet {
            Packet::Data { link: of, .. } | Packet::Part { link: of, .. } => *of != link,
            _ => true,
        });
    }

    fn up(&mut self, link: Link, now_ms: u64) -> Option<Report> {
        let it = self.links.get_mut(&link).filter(|it| !it.is_up)?;
        it.is_up = true;
        it.heard_ms = now_ms;
        Some(Report::Up {
            link,
            service: Service::Feed,
            peer: it.to,
            role: it.role,
            rtt_ms: (now_ms - it.requested_ms) as u32,
            packet_max: PACKET_MAX,
            interface: Interface(0),
        })
    }

    pub(super) fn on_packet(&mut self, packet: Packet, now_ms: u64, reports: &mut Vec<Report>) {
        match packet {
            Packet::Announce { peer, app_data } => reports.push(Report::Heard {
                service: Service::Feed,
                peer,
                keys: PublicKeys([peer.0[0]; 64]),
                app_data,
                hops: 0,
                interface: Interface(0),
            }),
            Packet::Request { link, from, .. } => {
                if self.links.len() < LINKS_MAX {
                    self.begin(link, from, None, now_ms);
                    self.send(Packet::Proof { link, to: from }, now_ms);
                }
            }
            Packet::Proof { link, .. } => {
                let Some(to) = self.links.get(&link).map(|it| it.other) else { return };
                self.send(Packet::Rtt { link, to }, now_ms);
                self.send(Packet::Identify { link, peer: peer(self.me), to }, now_ms);
                reports.extend(self.up(link, now_ms));
            }
            Packet::Rtt { link, .. } => reports.extend(self.up(link, now_ms)),
            Packet::Identify { link, peer, .. } => {
                if self.is_up(link, now_ms) {
                    self.links.entry(link).and_modify(|it| it.is_known = true);
                    reports.push(Report::Identified { link, peer });
                }
            }
            Packet::Data { link, bytes, .. } => {
                if self.is_up(link, now_ms) {
                    reports.push(Report::Received { link, bytes });
                }
            }
            Packet::Advertise { link, token, bytes, .. } => {
                if self.is_up(link, now_ms) {
                    self.on_offer(link, token, bytes, now_ms);
                }
            }
            Packet::Ask { link, token, parts, .. } => {
                let step_ms = STEP_MS + (parts.len() as u64 + 4) * self.packet_ms;
                let Some(to) = self.links.get(&link).map(|it| it.other) else { return };
                let Some(sending) = self.sending.get_mut(&(link, token)) else { return };
                (sending.due_ms, sending.tries) = (now_ms + 2 * step_ms, 0);
                let whole = sending.bytes.len();
                for part in parts {
                    let len = part_len(whole, part);
                    self.send(Packet::Part { link, to, token, part, len }, now_ms);
                }
            }
            Packet::Refuse { link, token, .. } => {
                if self.sending.remove(&(link, token)).is_some() {
                    let outcome = Outcome::Failed("refused by the other end".into());
                    reports.push(Report::Sent { link, token, outcome });
                }
            }
            Packet::Part { link, token, part, .. } => {
                let Some(it) = self.receiving.get_mut(&(link, token)) else { return };
                it.got.insert(part);
                it.due_ms = now_ms + STEP_MS;
                let all = parts(it.bytes.len());
                if it.got.len() == all && !it.is_done {
                    it.is_done = true;
                    reports.push(Report::Received { link, bytes: it.bytes.clone() });
                    let to = self.links.get(&link).map_or(0, |it| it.other);
                    self.send(Packet::Proved { link, to, token }, now_ms);
                } else if it.got.len() >= it.asked && !it.is_done {
                    it.window = (it.window + 1).min(WINDOW_MAX);
                    self.ask(link, token, now_ms);
                }
            }
            Packet::Proved { link, token, .. } => {
                if self.sending.remove(&(link, token)).is_some() {
                    reports.push(Report::Sent { link, token, outcome: Outcome::Proved });
                }
            }
            Packet::Alive { link, is_answer, .. } => {
                let is_up = self.is_up(link, now_ms);
                let Some(it) = self.links.get(&link).filter(|_| is_up && !is_answer) else {
                    return;
                };
                // Only where this end has been silent for as long.
                if it.role == Role::Listener && it.sent_ms + KEEPALIVE_MS <= now_ms {
                    let to = it.other;
                    self.send(Packet::Alive { link, to, is_answer: true }, now_ms);
                }
            }
            Packet::Broadcast { bytes } => {
                reports.push(Report::Overheard { interface: Interface(0), bytes });
            }
            Packet::Close { link, .. } => {
                if self.links.remove(&link).is_some_and(|it| it.is_up) {
                    self.forget(link);
                    reports.push(Report::Down { link, reason: "closed by the other end".into() });
                }
            }
        }
    }

    fn is_up(&mut self, link: Link, now_ms: u64) -> bool {
        let it = self.links.get_mut(&link).filter(|it| it.is_up);
        it.map(|it| it.heard_ms = now_ms).is_some()
    }

    /// One at a time, of bounded length, from whom this end knows; others are refused.
    fn on_offer(&mut self, link: Link, token: u64, bytes: Vec<u8>, now_ms: u64) {
        let Some(it) = self.links.get(&link) else { return };
        let (to, is_known) = (it.other, it.is_known);
        let is_under_way = |((of, other), it): (&(Link, u64), &Transfer)| {
            *of == link && *other != token && !it.is_done
        };
        if !is_known || bytes.len() > RESOURCE_MAX || self.receiving.iter().any(is_under_way) {
            return self.send(Packet::Refuse { link, to, token }, now_ms);
        }
        let fresh = self.transfer(bytes, now_ms);
        self.receiving.entry((link, token)).or_insert(fresh);
        self.ask(link, token, now_ms);
    }

    /// The receiver asks for the next parts of a Resource, or proves it once more.
    fn ask(&mut self, link: Link, token: u64, now_ms: u64) {
        let Some(to) = self.links.get(&link).map(|it| it.other) else { return };
        let Some(it) = self.receiving.get_mut(&(link, token)) else { return };
        if it.is_done {
            return self.send(Packet::Proved { link, to, token }, now_ms);
        }
        let lacked = (0..parts(it.bytes.len())).filter(|part| !it.got.contains(part));
        let parts: Vec<usize> = lacked.take(it.window).collect();
        it.asked = it.got.len() + parts.len();
        it.due_ms = now_ms + STEP_MS + 2 * (parts.len() as u64 + 1) * self.packet_ms;
        self.send(Packet::Ask { link, to, token, parts }, now_ms);
    }

    /// What is due by now.
    pub(super) fn on_timeout(&mut self, now_ms: u64, reports: &mut Vec<Report>) {
        let late: Vec<Link> = self
            .links
            .iter()
            .filter(|(_, it)| match it.is_up {
                false => it.requested_ms + REQUEST_MS + 8 * self.packet_ms <= now_ms,
                true => it.heard_ms + 2 * KEEPALIVE_MS + 8 * self.packet_ms <= now_ms,
            })
            .map(|(link, _)| *link)
            .collect();
        for link in late {
            let Some(it) = self.links.remove(&link) else { continue };
            self.forget(link);
            match (it.is_up, it.to) {
                (true, _) => reports.push(Report::Down { link, reason: "no sign of life".into() }),
                (false, Some(peer)) => reports.push(Report::Unreachable {
                    service: Service::Feed,
                    peer,
                    reason: "no answer".into(),
                }),
                (false, None) => {}
            }
        }
        let mut silent = Vec::new();
        for (link, it) in &mut self.links {
            let is_due = it.told_ms.max(it.heard_ms) + KEEPALIVE_MS <= now_ms;
            if it.is_up && it.role == Role::Dialer && is_due {
                it.told_ms = now_ms;
                silent.push(Packet::Alive { link: *link, to: it.other, is_answer: false });
            }
        }
        silent.into_iter().for_each(|packet| self.send(packet, now_ms));
        let due = |transfers: &BTreeMap<(Link, u64), Transfer>| -> Vec<(Link, u64)> {
            let due = transfers.iter().filter(|(_, it)| it.due_ms <= now_ms && !it.is_done);
            due.map(|(at, _)| *at).collect()
        };
        for (link, token) in due(&self.receiving) {
            if let Some(it) = self.receiving.get_mut(&(link, token)) {
                it.tries += 1;
                if it.tries > WISHES_MAX {
                    self.receiving.remove(&(link, token));
                } else {
                    self.ask(link, token, now_ms);
                }
            }
        }
        for (link, token) in due(&self.sending) {
            let to = self.links.get(&link).map_or(0, |it| it.other);
            let wait_ms = STEP_MS + 8 * self.packet_ms;
            let Some(it) = self.sending.get_mut(&(link, token)) else { continue };
            it.tries += 1;
            it.due_ms = now_ms + wait_ms;
            if it.tries > TRIES_MAX {
                self.sending.remove(&(link, token));
                let outcome = Outcome::Failed("no answer".into());
                reports.push(Report::Sent { link, token, outcome });
            } else {
                let bytes = it.bytes.clone();
                self.send(Packet::Advertise { link, to, token, bytes }, now_ms);
            }
        }
    }

    /// When [`Stack::on_timeout`] has something to do.
    pub(super) fn next_timeout_ms(&self) -> Option<u64> {
        let links = self.links.values().map(|it| match (it.is_up, it.role) {
            (false, _) => it.requested_ms + REQUEST_MS + 8 * self.packet_ms,
            (true, Role::Dialer) => (it.told_ms.max(it.heard_ms) + KEEPALIVE_MS)
                .min(it.heard_ms + 2 * KEEPALIVE_MS + 8 * self.packet_ms),
            (true, Role::Listener) => it.heard_ms + 2 * KEEPALIVE_MS + 8 * self.packet_ms,
        });
        let transfers = self.sending.values().chain(self.receiving.values());
        links.chain(transfers.filter(|it| !it.is_done).map(|it| it.due_ms)).min()
    }
}

fn parts(len: usize) -> usize {
    (len + 64).div_ceil(PART_LEN)
}

fn part_len(len: usize, part: usize) -> usize {
    (len + 64 - part * PART_LEN).min(PART_LEN)
}

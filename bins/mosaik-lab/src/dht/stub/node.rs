//! One storage node at work: its socket, its answers, and how badly it gives them.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use rand::{RngExt, rngs::StdRng};
use tokio::net::UdpSocket;

use super::{
    Behaviour, Outcome, Put,
    krpc::{self, Answer, BAD_ARGUMENTS, Message, Query},
    ledger::Ledger,
    storage::{self, Target},
};

/// Bytes of a packet that are read. One that is longer is cut, and then is no bencode.
const PACKET_LEN_MAX: usize = 2048;
/// Contacts in one answer.
///
/// Source: BEP 5, "K (8) closest good nodes".
const CLOSEST: usize = 8;
/// Answers that wait in a slow node. What is more is dropped, as by a full buffer.
const DELAYED_MAX: usize = 4096;

/// A node as the others know it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contact {
    pub(super) id: [u8; 20],
    pub(super) address: SocketAddr,
}

/// A node of the stub.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) index: usize,
    pub(super) id: [u8; 20],
    pub(super) behaviour: Behaviour,
    pub(super) socket: UdpSocket,
    pub(super) contacts: Arc<[Contact]>,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) rng: StdRng,
}

impl Node {
    /// Answers until its task is aborted, or the socket fails.
    pub(super) async fn run(mut self) -> io::Result<()> {
        let mut packet = [0; PACKET_LEN_MAX];
        let mut delayed: VecDeque<(Instant, SocketAddr, Vec<u8>)> = VecDeque::new();
        loop {
            let due = delayed.front().map(|(at, ..)| *at);
            let (len, from) = tokio::select! {
                received = self.socket.recv_from(&mut packet) => received?,
                () = sleep_until(due) => {
                    if let Some((_, to, answer)) = delayed.pop_front() {
                        self.send(to, &answer).await;
                    }
                    continue;
                }
            };
            if self.behaviour.silent || self.is_lost() {
                continue;
            }
            let Some(answer) = self.answer(&packet[..len], from) else { continue };
            if self.behaviour.delay.is_zero() {
                self.send(from, &answer).await;
            } else if delayed.len() < DELAYED_MAX {
                delayed.push_back((Instant::now() + self.behaviour.delay, from, answer));
            }
        }
    }

    async fn send(&mut self, to: SocketAddr, answer: &[u8]) {
        if !self.is_lost() {
            // Whoever asked may be gone.
            let _ = self.socket.send_to(answer, to).await;
        }
    }

    fn is_lost(&mut self) -> bool {
        self.rng.random_range(0..100) < self.behaviour.loss_percent
    }

    fn answer(&self, packet: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
        let Message { transaction, query } = Message::read(packet)?;
        let nodes = match query {
            Ok(
                Query::FindNode { target } | Query::GetPeers { target } | Query::Get { target, .. },
            ) => Some(self.closest(target)),
            Ok(Query::Ping | Query::Put { .. }) | Err(_) => None,
        };
        let answer = Answer { nodes: nodes.as_deref(), ..Answer::default() };
        let token = self.token(from);
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        if ledger.silent {
            return None;
        }
        let answer = match query {
            Ok(Query::Ping | Query::FindNode { .. }) => Ok(answer),
            Ok(Query::GetPeers { .. }) => Ok(Answer { token: Some(&token), ..answer }),
            Ok(Query::Get { target, seq }) => {
                ledger.count(target).gets += 1;
                let kept = ledger.storages[self.index].get(&target, Instant::now());
                // BEP 44: who has that seq or a newer one is told ours, but not the item.
                let news = kept.filter(|kept| seq.is_none_or(|seq| seq < kept.item.seq));
                let item = news.map(|kept| (&kept.key, &kept.item));
                let seq = kept.map(|kept| kept.item.seq);
                Ok(Answer { token: Some(&token), seq, item, ..answer })
            }
            Ok(Query::Put { token: given, request }) => {
                match self.put(&mut ledger, request, from, given == token) {
                    Outcome::Refused(code) => Err(code),
                    Outcome::Stored | Outcome::Ignored => Ok(answer),
                }
            }
            Err(code) => Err(code),
        };
        Some(match answer {
            Ok(answer) => answer.write(transaction, &self.id, from),
            Err(code) => krpc::error(transaction, code),
        })
    }

    fn put(
        &self,
        ledger: &mut Ledger,
        request: storage::Request<'_>,
        from: SocketAddr,
        token_is_good: bool,
    ) -> Outcome {
        let (target, now) = (request.target(), Instant::now());
        ledger.count(target).puts += 1;
        let storage = &mut ledger.storages[self.index];
        let before = storage.get(&target, now).map(|kept| kept.item.clone());
        let outcome = if token_is_good {
            storage.put(&request, now)
        } else {
            Outcome::Refused(BAD_ARGUMENTS)
        };
        let storage::Request { key, item, cas, .. } = request;
        let node = self.index;
        ledger.note(Put { node, from, at: now, key, item, cas, before, outcome });
        outcome
    }

    /// The contacts closest to a target by XOR, in KRPC's compact form.
    fn closest(&self, target: Target) -> Vec<u8> {
        let distance =
            |contact: &Contact| -> Target { std::array::from_fn(|at| contact.id[at] ^ target[at]) };
        let others = self.contacts.iter().filter(|contact| contact.id != self.id);
        let mut contacts: Vec<&Contact> = others.collect();
        contacts.sort_by_cached_key(|contact| distance(contact));
        let closest = contacts.into_iter().take(CLOSEST);
        closest.flat_map(|node| [&node.id[..], &krpc::compact(node.address)].concat()).collect()
    }

    /// What a put from that address has to show. It changes with the DHT, not with time.
    fn token(&self, from: SocketAddr) -> [u8; 4] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.id).update(from.to_string().as_bytes());
        let mut token = [0; 4];
        hasher.finalize_xof().fill(&mut token);
        token
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

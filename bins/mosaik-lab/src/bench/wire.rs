//! Two replicas on their stores, and a wire between them that counts.

use std::{mem, path::PathBuf};

use anyhow::{Context, Result, ensure};
use ed25519_dalek::SigningKey;
use mosaik_core::{event::Hasher, trie::Prefix, view::ViewError};
use mosaik_proto::{
    carrier::{Effect, Input, Now, Role, SessionId},
    message::Message,
    replica::{Config, Replica},
};
use mosaik_store::{Batch, Store, StoreError};

use super::fill;

const SESSION: SessionId = SessionId(1);
/// Bytes of a frame that say how long it is.
const LENGTH_LEN: usize = 4;
/// Flights after which two replicas will not come to an end.
const FLIGHTS_MAX: usize = 1_000;

/// Two replicas. The second dials.
pub(super) struct Pair {
    ends: [End; 2],
    hasher: Hasher,
}

/// What two replicas said until they held the same and were silent.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Talk {
    /// Bytes of all frames: of the listener, and of the dialer.
    pub(super) bytes: [u64; 2],
    /// Of these, the frames that carry runs.
    pub(super) run_bytes: u64,
    /// From the moment at which both ends had the other's Hello to the last frame that was sent
    /// because of a difference: in halves, since a flight one way is half a trip.
    pub(super) round_trips: f64,
}

struct End {
    store: Store,
    replica: Replica,
    now: Now,
    effects: Vec<Effect>,
}

impl Pair {
    /// Opens both stores; the first gets one new event in each of so many feeds.
    pub(super) fn open(data_dirs: &[PathBuf; 2], differing: u64) -> Result<Self> {
        let [mut first, second] =
            [End::open(&data_dirs[0], 1, differing)?, End::open(&data_dirs[1], 2, 0)?];
        first.now = second.now;
        let hasher = Hasher::new(&fill::network()?.keys().fingerprint);
        Ok(Self { ends: [first, second], hasher })
    }

    /// Connects them and lets them talk until nobody says anything.
    pub(super) fn talk(&mut self) -> Result<Talk> {
        let nodes = [0, 1].map(|end: usize| self.ends[end].replica.node());
        for (end, role) in [(1, Role::Dialer), (0, Role::Listener)] {
            let (session, peer, binding) = (SESSION, nodes[1 - end], vec![7; 32]);
            self.ends[end].batch(vec![Input::Connected {
                session,
                peer,
                role,
                binding,
                rtt_ms: None,
            }])?;
        }
        let mut talk = Talk::default();
        let mut greeted: [Option<usize>; 2] = [None; 2];
        let mut last = 0;
        for flight in 1..=FLIGHTS_MAX {
            let under_way = self.take(&mut talk, &mut greeted, flight)?;
            if under_way.iter().all(Vec::is_empty) {
                let [Some(first), Some(second)] = greeted else { break };
                ensure!(
                    self.top(0) == self.top(1),
                    "two replicas are silent and hold not the same"
                );
                let flights = last - first.max(second);
                return Ok(Talk { round_trips: flights as f64 / 2.0, ..talk });
            }
            last = flight;
            for (end, inputs) in under_way.into_iter().enumerate() {
                self.ends[end].batch(inputs)?;
            }
        }
        anyhow::bail!("two replicas don't come to an end")
    }

    /// Takes what both have to say, and gives what each is to hear.
    fn take(
        &mut self,
        talk: &mut Talk,
        greeted: &mut [Option<usize>; 2],
        flight: usize,
    ) -> Result<[Vec<Input>; 2]> {
        let mut heard = [Vec::new(), Vec::new()];
        for from in [0, 1] {
            for effect in mem::take(&mut self.ends[from].effects) {
                let (session, frame) = match effect {
                    Effect::Send { session, frame, .. } => (session, frame),
                    Effect::Close { bye, .. } => {
                        anyhow::bail!("a session was closed: {}", bye.text)
                    }
                    _ => continue,
                };
                let body = frame.get(LENGTH_LEN..).context("a frame has a length")?;
                let message = Message::decode(body, &self.hasher)?;
                let bytes = frame.len() as u64;
                talk.bytes[from] += bytes;
                match &message {
                    Message::Hello(_) => greeted[1 - from] = Some(flight),
                    Message::Run(_) => talk.run_bytes += bytes,
                    _ => {}
                }
                heard[1 - from].push(Input::Frame { session, message });
                heard[from].push(Input::Sent { session, bytes: frame.len() });
            }
        }
        Ok(heard)
    }

    fn top(&self, end: usize) -> [u8; 16] {
        self.ends[end].replica.frontier().hash(&Prefix::EMPTY, &Default::default())
    }
}

impl End {
    fn open(data_dir: &std::path::Path, number: u8, differing: u64) -> Result<Self> {
        let (_, mut store) = fill::open(data_dir)?;
        fill::lengthen(&mut store, differing)?;
        let now = Now { mono_ms: 0, wall_ms: fill::now_ms()? };
        let config = Config {
            keys: fill::network()?.keys(),
            node_key: SigningKey::from_bytes(&[number; 32]),
            author_key: SigningKey::from_bytes(&[100 + number; 32]),
            author_is_new: true,
            name: format!("n{number}"),
            software: "mosaik-lab".to_owned(),
            sync_interval_ms: 60_000,
            sync_jitter_ms: 30_000,
            sessions_kept: mosaik_proto::peers::SESSIONS_KEPT,
            authors_max: 1_000_000,
            clock_floor_ms: 0,
            seed: number.into(),
        };
        let replica = store.write(|batch| Replica::open(config, now, batch))?;
        Ok(Self { store, replica, now, effects: Vec::new() })
    }

    /// A batch of inputs, as a node's loop takes it.
    fn batch(&mut self, inputs: Vec<Input>) -> Result<()> {
        let Self { store, replica, now, effects } = self;
        store.write(|batch: &mut Batch<'_>| -> Result<(), ViewError<StoreError>> {
            for input in inputs {
                replica.handle(*now, input, batch, effects)?;
            }
            replica.end_batch(*now, batch, effects)
        })?;
        Ok(())
    }
}

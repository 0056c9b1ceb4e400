//! Streams over a channel that loses, delays and doubles.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

const PACE: Pace = Pace { packet_max: 431, resource_max: 16 << 10, packet_ms: 1_430, rtt_ms: 900 };
/// On a wire a Resource is over long before an acknowledgement has to go.
const WIRE: Pace = Pace { packet_max: 431, resource_max: 16 << 10, packet_ms: 1, rtt_ms: 1 };

/// Two ends and what is between them.
struct Channel {
    ends: [Stream; 2],
    /// When, for which end, what, and the token if its sender hears of it.
    air: BTreeMap<(u64, u64), (usize, Vec<u8>)>,
    proofs: BTreeMap<(u64, u64), (usize, u64, bool)>,
    got: [Vec<Vec<u8>>; 2],
    now_ms: u64,
    count: u64,
    loss: f64,
    rng: StdRng,
    /// Of the channel: bytes a second, and milliseconds from packet to packet and to a proof.
    speed: u64,
    gap_ms: u64,
    proof_ms: u64,
    /// Packets and bytes sent, and of those again.
    sent: (u64, usize),
    again: usize,
    acks: u64,
}

impl Channel {
    fn new(loss: f64, seed: u64) -> Self {
        Self {
            ends: [Stream::new(PACE), Stream::new(PACE)],
            air: BTreeMap::new(),
            proofs: BTreeMap::new(),
            got: [Vec::new(), Vec::new()],
            now_ms: 0,
            count: 0,
            loss,
            rng: StdRng::seed_from_u64(seed),
            speed: 390,
            gap_ms: 100,
            proof_ms: 500,
            sent: (0, 0),
            again: 0,
            acks: 0,
        }
    }

    fn wire(loss: f64, seed: u64) -> Self {
        let ends = [Stream::new(WIRE), Stream::new(WIRE)];
        Self { ends, speed: 500_000, gap_ms: 0, proof_ms: 1, ..Self::new(loss, seed) }
    }

    /// Runs until nothing is under way; fails where that takes over a simulated day.
    fn settle(&mut self) -> Result<(), StreamError> {
        let mut free_ms = self.now_ms;
        loop {
            for end in 0..2 {
                while free_ms <= self.now_ms
                    && let Some(out) = self.ends[end].next(self.now_ms)?
                {
                    let air_ms = 1_000 * out.bytes.len() as u64 / self.speed;
                    free_ms = self.now_ms + air_ms + self.gap_ms;
                    self.put(end, out, free_ms);
                }
            }
            let next = [
                self.air.keys().next().map(|(ms, _)| *ms),
                self.proofs.keys().next().map(|(ms, _)| *ms),
                self.ends[0].next_timeout_ms().map(|ms| ms.max(free_ms)),
                self.ends[1].next_timeout_ms().map(|ms| ms.max(free_ms)),
            ];
            let Some(next_ms) = next.into_iter().flatten().min() else { return Ok(()) };
            self.now_ms = self.now_ms.max(next_ms);
            assert!(self.now_ms < 86_400_000, "it never ends");
            while let Some(((at, count), (to, bytes))) = self.air.pop_first() {
                if at > self.now_ms {
                    self.air.insert((at, count), (to, bytes));
                    break;
                }
                let records = self.ends[to].on_received(&bytes, self.now_ms)?;
                self.got[to].extend(records);
            }
            while let Some(((at, count), (of, token, arrived))) = self.proofs.pop_first() {
                if at > self.now_ms {
                    self.proofs.insert((at, count), (of, token, arrived));
                    break;
                }
                self.ends[of].on_sent(token, arrived);
            }
        }
    }

    /// What is due at an end goes.
    fn put_next(&mut self, end: usize) {
        while let Some(out) = self.ends[end].next(self.now_ms).expect("a good link") {
            self.put(end, out, self.now_ms + 1);
        }
    }

    fn put(&mut self, from: usize, out: Outgoing, at_ms: u64) {
        self.count += 1;
        self.sent = (self.sent.0 + 1, self.sent.1 + out.bytes.len());
        self.acks += u64::from(out.token == ACK_TOKEN);
        if out.is_again {
            self.again += out.bytes.len();
        }
        let is_lost = self.rng.random_bool(self.loss);
        if out.bytes.len() > PACE.packet_max {
            // A Resource arrives whole or fails, and its sender hears of it.
            self.proofs.insert((at_ms + self.proof_ms, self.count), (from, out.token, !is_lost));
        }
        if !is_lost {
            self.air.insert((at_ms, self.count), (1 - from, out.bytes));
        }
    }
}

fn records(count: usize, len_max: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|_| (0..rng.random_range(0..=len_max)).map(|_| rng.random()).collect()).collect()
}

#[test]
fn records_come_whole_once_and_in_order_whatever_is_lost() {
    for seed in 0..60 {
        let loss = [0.0, 0.1, 0.3][seed as usize % 3];
        let mut channel = Channel::new(loss, seed);
        let said = [records(40, 700, seed), records(25, 9_000, seed + 1_000)];
        for (end, records) in said.iter().enumerate() {
            records.iter().for_each(|record| channel.ends[end].push(record));
        }
        channel.settle().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(channel.got[1] == said[0], "seed {seed}");
        assert!(channel.got[0] == said[1], "seed {seed}");
        assert!(channel.ends.iter().all(Stream::is_idle));
    }
}

#[test]
fn packets_among_many_resources_are_neither_lost_nor_too_late() {
    for seed in 0..30 {
        let loss = [0.0, 0.05, 0.15][seed as usize % 3];
        let mut channel = Channel::wire(loss, seed);
        let (mut said, mut rng) = (Vec::new(), StdRng::seed_from_u64(seed));
        // What is pushed while nothing waits goes as a packet.
        for burst in 0..4 {
            said.extend(records(1, 300, seed + burst));
            channel.ends[0].push(&said[said.len() - 1]);
            channel.put_next(0);
            let resources = records(rng.random_range(0..20), 40_000, seed + 100 * burst);
            resources.iter().for_each(|record| channel.ends[0].push(record));
            said.extend(resources);
            channel.settle().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        assert!(channel.got[1] == said, "seed {seed}");
        assert!(loss > 0.0 || channel.again == 0, "seed {seed}: {} bytes again", channel.again);
    }
}

#[test]
fn nothing_goes_twice_where_nothing_is_lost() {
    let mut channel = Channel::new(0.0, 1);
    let said = records(100, 180, 2);
    said.iter().for_each(|record| channel.ends[0].push(record));
    channel.settle().expect("a good link");
    assert_eq!((channel.got[1].len(), channel.again), (100, 0));
    // Then silence.
    let sent = channel.sent;
    channel.now_ms += 3_600_000;
    channel.settle().expect("a good link");
    assert_eq!(channel.sent, sent);
}

/// One for a single record, and one for some eight packets of a burst.
#[test]
fn acknowledgements_are_few() {
    let mut channel = Channel::new(0.0, 1);
    channel.ends[0].push(&[7; 190]);
    channel.settle().expect("a good link");
    assert_eq!((channel.sent.0, channel.acks, channel.sent.1), (2, 1, 195 + 2));
    let mut channel = Channel::new(0.0, 1);
    (0..13).for_each(|_| channel.ends[0].push(&[7; 400]));
    channel.settle().expect("a good link");
    assert!((1..=3).contains(&channel.acks), "{}", channel.acks);
}

#[test]
fn a_link_without_an_answer_ends() {
    let mut channel = Channel::new(1.0, 1);
    channel.ends[0].push(b"is anybody there");
    assert_eq!(channel.settle(), Err(StreamError::NoAnswer));
    assert_eq!(channel.sent.0, u64::from(TRIES_MAX));
}

#[test]
fn hostile_segments_are_refused_or_ignored_and_never_panic() {
    let mut rng = StdRng::seed_from_u64(5);
    for _ in 0..20_000 {
        let mut stream = Stream::new(PACE);
        stream.push(&[1; 2_000]);
        let _ = stream.next(0);
        for _ in 0..4 {
            let len = rng.random_range(0..12);
            let bytes: Vec<u8> = (0..len).map(|_| rng.random::<u8>() & 0x1f).collect();
            if stream.on_received(&bytes, 0).is_err() {
                break;
            }
        }
    }
    let mut stream = Stream::new(PACE);
    let far = stream.on_received(&[DATA, 0, 20, 1], 0);
    assert_eq!(far, Err(StreamError::TooFarAhead(20)));
    let mut stream = Stream::new(PACE);
    let long = stream.on_received(&[DATA, 0, 0, 0xff, 0xff, 0xff, 0x7f], 0);
    assert!(matches!(long, Err(StreamError::TooLong(_))), "{long:?}");
}

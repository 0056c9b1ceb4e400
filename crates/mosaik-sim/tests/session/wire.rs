//! Nodes, a wire between two of them, and a peer that follows a script.

use std::collections::VecDeque;

use ed25519_dalek::SigningKey;
use mosaik_core::{
    event::{Draft, Event, Hasher, Kind, Payload},
    feed::Tip,
    hlc::Hlc,
    id::{AuthorId, NodeId},
    key::{Network, NetworkKeys},
    run::{Run, VerifiedRun},
    trie::Prefix,
};
use mosaik_proto::{
    carrier::{Addresses, Effect, Input, Now, Role, SessionId, Source},
    hint::Hint,
    message::{APP, Bye, Greet, Hello, Message, PING},
    peers::PeerState,
    proof::membership_proof,
    replica::{Config, Replica},
};
use mosaik_sim::disk::MemoryLedger;

pub(crate) const EPOCH_MS: u64 = 1_800_000_000_000;
pub(crate) const BINDING: [u8; 32] = [7; 32];

pub(crate) fn keys() -> NetworkKeys {
    Network::Public("session".into()).keys()
}

pub(crate) fn hasher() -> Hasher {
    Hasher::new(&keys().fingerprint)
}

pub(crate) fn config(n: u8) -> Config {
    Config {
        keys: keys(),
        node_key: SigningKey::from_bytes(&[n; 32]),
        author_key: SigningKey::from_bytes(&[100 + n; 32]),
        author_is_new: true,
        name: format!("n{n}"),
        software: "mosaik-sim".into(),
        sync_interval_ms: 60_000,
        sync_jitter_ms: 30_000,
        sessions_kept: mosaik_proto::peers::SESSIONS_KEPT,
        authors_max: 1_000_000,
        clock_floor_ms: EPOCH_MS - 1_000_000_000,
        seed: n.into(),
    }
}

/// One author's events, to be sent by whom they don't belong to.
#[derive(Clone)]
pub(crate) struct Author {
    key: SigningKey,
    pub(crate) events: Vec<Event>,
}

impl Author {
    pub(crate) fn new(n: u64) -> Self {
        let mut seed = [200; 32];
        seed[..8].copy_from_slice(&n.to_be_bytes());
        Self { key: SigningKey::from_bytes(&seed), events: Vec::new() }
    }

    /// An author with so many events.
    pub(crate) fn of(n: u64, events: u64) -> Self {
        let mut author = Self::new(n);
        (0..events).for_each(|i| author.write(&i.to_be_bytes()));
        author
    }

    pub(crate) fn id(&self) -> AuthorId {
        AuthorId(self.key.verifying_key().to_bytes())
    }

    pub(crate) fn tip(&self) -> Tip {
        self.events.last().map_or(Tip::ROOT, Tip::from)
    }

    pub(crate) fn write(&mut self, payload: &[u8]) {
        self.write_at(EPOCH_MS + self.events.len() as u64, "app.x", payload);
    }

    pub(crate) fn write_at(&mut self, ms: u64, kind: &str, payload: &[u8]) {
        let (author, last) = (self.id(), self.tip());
        let (seq, hlc) = (last.seq + 1, Hlc::new(ms, 0));
        let kind = Kind::new(kind).expect("a kind");
        let payload = Payload::Present(payload.to_vec());
        let id = hasher().id(&author, seq, &last.id, hlc, &kind, &payload);
        self.events.push(Event { id, author, seq, prev: last.id, hlc, kind, payload });
    }

    /// The same author's other feed: equal up to `seq`, then so many events of its own.
    pub(crate) fn branch(&self, seq: u64, events: u64, mark: u8) -> Self {
        let mut branch = self.clone();
        branch.events.truncate(seq as usize);
        (0..events).for_each(|i| branch.write(&[mark, i as u8]));
        branch
    }

    /// Events `from` to `to` under one signature.
    pub(crate) fn run(&self, from: u64, to: u64) -> VerifiedRun {
        VerifiedRun::sign(&self.key, self.events[from as usize - 1..to as usize].to_vec())
    }

    pub(crate) fn all(&self) -> VerifiedRun {
        self.run(1, self.tip().seq)
    }

    /// All events without their payloads.
    pub(crate) fn stripped(&self) -> VerifiedRun {
        let mut run = Run::decode(&self.all().encode()).expect("own encoding");
        for entry in &mut run.entries {
            let (len, hash) = (entry.payload.len() as u32, entry.payload.hash());
            entry.payload = Payload::Absent { len, hash };
        }
        run.verify(&hasher()).expect("payloads stand outside the header")
    }
}

/// A replica, its storage, and its time.
pub(crate) struct Node {
    pub(crate) replica: Replica,
    pub(crate) ledger: MemoryLedger,
    config: Config,
    pub(crate) mono_ms: u64,
    pub(crate) wall_ms: u64,
    /// Effects that nobody has looked at.
    pub(crate) effects: Vec<Effect>,
}

impl Node {
    pub(crate) fn new(n: u8) -> Self {
        Self::open(config(n), MemoryLedger::default(), EPOCH_MS)
    }

    pub(crate) fn open(config: Config, mut ledger: MemoryLedger, wall_ms: u64) -> Self {
        let now = Now { mono_ms: 0, wall_ms };
        let replica = Replica::open(config.clone(), now, &mut ledger).expect("memory never fails");
        ledger.commit();
        Self { replica, ledger, config, mono_ms: 0, wall_ms, effects: Vec::new() }
    }

    /// Started anew on the same storage.
    pub(crate) fn restart(self) -> Self {
        let config = Config { author_is_new: false, ..self.config };
        Self::open(config, self.ledger, self.wall_ms)
    }

    pub(crate) fn now(&self) -> Now {
        Now { mono_ms: self.mono_ms, wall_ms: self.wall_ms }
    }

    /// A batch of inputs, as the owner loop of a node does it.
    pub(crate) fn batch(&mut self, inputs: impl IntoIterator<Item = Input>) {
        let (now, ledger, effects) = (self.now(), &mut self.ledger, &mut self.effects);
        self.replica.handle_timeout(now, ledger, effects).expect("memory never fails");
        for input in inputs {
            self.replica.handle(now, input, ledger, effects).expect("memory never fails");
        }
        self.replica.end_batch(now, ledger, effects).expect("memory never fails");
        ledger.commit();
    }

    pub(crate) fn step(&mut self, input: Input) {
        self.batch([input]);
    }

    /// Lets time pass, timeout by timeout.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end_ms = self.mono_ms + ms;
        while self.mono_ms < end_ms {
            let next_ms = self.replica.next_timeout_ms().clamp(self.mono_ms + 1, end_ms);
            self.wall_ms += next_ms - self.mono_ms;
            self.mono_ms = next_ms;
            self.batch([]);
        }
    }

    /// Takes runs as if from gossip, in one batch.
    pub(crate) fn take(&mut self, runs: impl IntoIterator<Item = VerifiedRun>) {
        let from = NodeId([0; 32]);
        self.batch(runs.into_iter().map(|run| Input::Hint { from, hint: Hint::Run(run) }));
    }

    pub(crate) fn append(&mut self, payload: &[u8]) {
        let kind = Kind::new("app.own").expect("a kind");
        let drafts = vec![Draft { kind, payload: payload.to_vec() }];
        self.step(Input::Append { token: 1, drafts });
    }

    pub(crate) fn holds(&self, author: &Author) -> bool {
        let feed = self.replica.frontier().get(&author.id());
        feed.is_some_and(|feed| matches!(feed.find(author.tip(), &self.ledger), Ok(Some(_))))
    }

    pub(crate) fn top(&self) -> [u8; 16] {
        self.replica.frontier().hash(&Prefix::EMPTY, &Default::default())
    }

    pub(crate) fn knows(&mut self, peer: NodeId) {
        let addresses = Addresses { direct: vec![([127, 0, 0, 1], 9).into()], relays: vec![] };
        self.step(Input::Found { peer, addresses, source: Source::Ticket });
    }

    pub(crate) fn peer_state(&self, peer: NodeId) -> Option<PeerState> {
        self.replica.peers().get(&peer).map(|peer| peer.state())
    }
}

/// What went over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// Which node sent it.
    pub(crate) from: usize,
    pub(crate) len: usize,
    pub(crate) message: Message,
}

/// Two nodes and the wire between them. Time stands still until somebody lets it pass.
pub(crate) struct Pair {
    pub(crate) nodes: [Node; 2],
    pub(crate) sent: Vec<Sent>,
    pub(crate) half_trips: usize,
    pub(crate) ends: Vec<Bye>,
    /// What came of the pings of either.
    pub(crate) ponged: Vec<(u64, Result<SessionId, String>)>,
    next_session: u64,
}

impl Pair {
    pub(crate) fn new(a: Node, b: Node) -> Self {
        Self {
            nodes: [a, b],
            sent: Vec::new(),
            half_trips: 0,
            ends: Vec::new(),
            ponged: Vec::new(),
            next_session: 0,
        }
    }

    /// A connection that `dialer` opened. Nothing is said on it before [`Pair::settle`].
    pub(crate) fn connect(&mut self, dialer: usize) {
        self.next_session += 1;
        let session = SessionId(self.next_session);
        let ids = [self.nodes[0].replica.node(), self.nodes[1].replica.node()];
        for (node, role) in [(dialer, Role::Dialer), (1 - dialer, Role::Listener)] {
            let binding = [BINDING.as_slice(), &session.0.to_be_bytes()].concat();
            let peer = ids[1 - node];
            self.nodes[node].step(Input::Connected { session, peer, role, binding, rtt_ms: None });
        }
    }

    pub(crate) fn connected(a: Node, b: Node) -> Self {
        let mut pair = Self::new(a, b);
        pair.connect(0);
        pair.settle();
        pair
    }

    /// One flight each way. Whether anything flew.
    pub(crate) fn flight(&mut self) -> bool {
        let mut flew = false;
        for from in [0, 1] {
            let effects = std::mem::take(&mut self.nodes[from].effects);
            let mut inputs = Vec::new();
            let mut sent = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Send { session, frame, .. } => {
                        flew = true;
                        let message = Message::decode(&frame[4..], &hasher()).expect("own frame");
                        let len = frame.len();
                        self.sent.push(Sent { from, len, message: message.clone() });
                        inputs.push(Input::Frame { session, message });
                        sent.push(Input::Sent { session, bytes: len });
                    }
                    Effect::Close { session, bye } => {
                        self.ends.push(bye.clone());
                        inputs.push(Input::Frame { session, message: Message::Bye(bye) });
                        for list in [&mut inputs, &mut sent] {
                            let reason = "closed".into();
                            list.push(Input::Disconnected { session, reason });
                        }
                    }
                    Effect::Ponged { token, answer } => self.ponged.push((token, answer)),
                    _ => {}
                }
            }
            self.half_trips += usize::from(!inputs.is_empty());
            for input in inputs {
                self.nodes[1 - from].step(input);
            }
            for input in sent {
                self.nodes[from].step(input);
            }
        }
        flew
    }

    /// Until nobody says anything.
    pub(crate) fn settle(&mut self) {
        while self.flight() {}
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        for step in std::iter::repeat_n(50, (ms / 50) as usize) {
            self.nodes.iter_mut().for_each(|node| node.pass(step));
            self.settle();
        }
    }

    /// Bytes that each node has sent, runs left out or not.
    pub(crate) fn bytes(&self, with_runs: bool) -> [usize; 2] {
        [0, 1].map(|node| {
            let of_node = self.sent.iter().filter(|sent| {
                sent.from == node && (with_runs || !matches!(sent.message, Message::Run(_)))
            });
            of_node.map(|sent| sent.len).sum()
        })
    }

    pub(crate) fn agree(&self) -> bool {
        self.nodes[0].top() == self.nodes[1].top()
    }

    pub(crate) fn has_sent(&self, from: usize, is_it: impl Fn(&Message) -> bool) -> bool {
        self.sent.iter().any(|sent| sent.from == from && is_it(&sent.message))
    }
}

/// A node and a peer that the test speaks for.
pub(crate) struct Talk {
    pub(crate) node: Node,
    pub(crate) peer: NodeId,
    pub(crate) session: SessionId,
    pub(crate) end: Option<Bye>,
    sends: bool,
}

impl Talk {
    /// Connected, nothing said; `role` is the node's.
    pub(crate) fn raw(mut node: Node, role: Role) -> Self {
        let peer = NodeId([3; 32]);
        let session = SessionId(node.mono_ms + 1);
        let binding = BINDING.to_vec();
        node.step(Input::Connected { session, peer, role, binding, rtt_ms: None });
        Self { node, peer, session, end: None, sends: true }
    }

    /// Greeted, and the first comparison over: the peer dialed and says it holds the same.
    pub(crate) fn open(node: Node) -> Self {
        let mut talk = Self::raw(node, Role::Listener);
        talk.say(Message::Greet(talk.greet()));
        let top = talk.node.top();
        talk.say(Message::Hello(talk.hello(top)));
        talk.say(Message::Done(Prefix::EMPTY));
        assert_eq!(talk.end, None);
        talk
    }

    pub(crate) fn greet(&self) -> Greet {
        let (from, to) = (self.peer, self.node.replica.node());
        let membership = keys().membership;
        let proof = membership_proof(&membership, &BINDING, from.as_bytes(), to.as_bytes());
        Greet { app: APP.into(), versions: (1, 1), proof }
    }

    pub(crate) fn hello(&self, top: [u8; 16]) -> Hello {
        Hello {
            software: "script".into(),
            capabilities: PING,
            frame_max: 1 << 20,
            credit: 1 << 20,
            clock_ms: self.node.wall_ms,
            name: "script".into(),
            boot: 1,
            top,
            authors: 0,
            events: 0,
            declines: [0; 16],
        }
    }

    /// What the node has said since last asked.
    pub(crate) fn heard(&mut self) -> Vec<Message> {
        let mut heard = VecDeque::new();
        for effect in std::mem::take(&mut self.node.effects) {
            match effect {
                Effect::Send { session, frame, .. } if session == self.session => {
                    heard.push_back(Message::decode(&frame[4..], &hasher()).expect("own frame"));
                    if self.sends {
                        self.node.step(Input::Sent { session, bytes: frame.len() });
                    }
                }
                Effect::Close { bye, .. } => self.end = Some(bye),
                _ => {}
            }
        }
        // What sending made room for.
        if !heard.is_empty() {
            heard.extend(self.heard());
        }
        heard.into()
    }

    /// Says something. What the node answers.
    pub(crate) fn say(&mut self, message: Message) -> Vec<Message> {
        self.node.step(Input::Frame { session: self.session, message });
        self.heard()
    }

    /// Says something, and takes nothing off the node's wire.
    pub(crate) fn say_unsent(&mut self, message: Message) -> Vec<Message> {
        self.sends = false;
        self.say(message)
    }

    pub(crate) fn pass(&mut self, ms: u64) -> Vec<Message> {
        self.node.pass(ms);
        self.heard()
    }
}

/// The runs among some messages, as first and last seq.
pub(crate) fn runs(messages: &[Message]) -> Vec<(u64, u64)> {
    let run = |message: &Message| match message {
        Message::Run(run) => Some((run.base().0 + 1, run.head().seq)),
        _ => None,
    };
    messages.iter().filter_map(run).collect()
}

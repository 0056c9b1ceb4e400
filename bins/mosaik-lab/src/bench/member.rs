//! A member of a network that is no node: it greets whom it meets, keeps nothing, and tells by gossip what
//! it is told to.
//!
//! It is for nodes that hold nothing either: comparisons end at once.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow};
use ed25519_dalek::SigningKey;
use mosaik_core::{id::NodeId, key::NetworkKeys, reach::Reach, ticket::Ticket, trie::Prefix};
use mosaik_net::{Delivery, Net, NetConfig, RelaySetting};
use mosaik_proto::{
    carrier::{Addresses, Effect, Input, Role, SessionId},
    message::{APP, FRAME_MAX, Greet, Hello, Message, VERSIONS},
    proof::membership_proof,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::Node;

/// How long a session may take to open, or a dial to fail.
const STEP: Duration = Duration::from_secs(60);
/// Inputs and orders that may wait, and sessions that were not asked for.
const WAITING_MAX: usize = 256;
const CONNECTIONS_MAX: usize = 16;

/// See the module's head. Dropped, it is gone without a word.
pub(super) struct Member {
    node: NodeId,
    addresses: Addresses,
    orders: mpsc::Sender<Effect>,
    met: mpsc::Receiver<Result<Instant, String>>,
    alone: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Member {
    /// Listens on loopback.
    pub(super) async fn start(keys: &NetworkKeys, key: &SigningKey, gossip: bool) -> Result<Self> {
        let (sender, inbox) = mpsc::channel(WAITING_MAX);
        let config = NetConfig {
            keys: keys.clone(),
            secret: key.to_bytes(),
            listen: vec![([127, 0, 0, 1], 0).into()],
            relays: RelaySetting::None,
            relay_only: false,
            relay_ca: None,
            reach: Reach::Lab,
            rate_down: None,
            rate_up: None,
            connections_max: CONNECTIONS_MAX,
            mdns: false,
            gossip,
            shelf: None,
        };
        let net = Net::bind(config, sender).await?;
        let (node, addresses) = (net.node_id(), net.addresses());
        let (orders, ordered) = mpsc::channel(WAITING_MAX);
        let (met_sender, met) = mpsc::channel(WAITING_MAX);
        let (alone_sender, alone) = watch::channel(true);
        let play = Play {
            net,
            node,
            membership: keys.membership,
            sessions: HashMap::new(),
            dials: 0,
            met: met_sender,
            alone: alone_sender,
        };
        let task = tokio::spawn(play.run(inbox, ordered));
        Ok(Self { node, addresses, orders, met, alone, task })
    }

    pub(super) fn id(&self) -> NodeId {
        self.node
    }

    /// What a node is told to find it.
    pub(super) fn ticket(&self) -> String {
        let Addresses { direct, relays } = self.addresses.clone();
        Ticket { node: self.node, relays, addresses: direct }.to_string()
    }

    /// Has something done, in its turn.
    pub(super) async fn order(&self, effect: Effect) -> Result<()> {
        self.orders.send(effect).await.map_err(|_| anyhow!("the member has ended"))
    }

    pub(super) async fn dial(&self, (peer, addresses): (NodeId, Addresses)) -> Result<()> {
        self.order(Effect::Dial { peer, addresses }).await
    }

    /// When the next session opened, from either end.
    ///
    /// # Errors
    ///
    /// If a dial failed instead, or nothing comes of any.
    pub(super) async fn opened(&mut self) -> Result<Instant> {
        let met = timeout(STEP, self.met.recv()).await.context("no session opens")?;
        met.context("the member has ended")?.map_err(|reason| anyhow!("a dial failed: {reason}"))
    }

    /// Whether it has no connection, and dials nobody.
    pub(super) fn is_alone(&self) -> bool {
        *self.alone.borrow()
    }

    /// Says goodbye to all.
    pub(super) async fn leave(self) -> Result<()> {
        let Self { orders, task, .. } = self;
        drop(orders);
        task.await.context("it has ended")
    }
}

/// Where a node is, to be dialed.
pub(super) async fn place_of(node: &Node) -> Result<(NodeId, Addresses)> {
    let ticket: Ticket = node.identity().await?.ticket.parse()?;
    Ok((ticket.node, Addresses { direct: ticket.addresses, relays: ticket.relays }))
}

/// A session as far as it has come.
struct Begun {
    peer: NodeId,
    role: Role,
    binding: Vec<u8>,
}

struct Play {
    net: Net,
    node: NodeId,
    membership: [u8; 32],
    sessions: HashMap<SessionId, Begun>,
    dials: usize,
    met: mpsc::Sender<Result<Instant, String>>,
    alone: watch::Sender<bool>,
}

impl Play {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Delivery>,
        mut orders: mpsc::Receiver<Effect>,
    ) {
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(effect) => {
                        self.dials += usize::from(matches!(effect, Effect::Dial { .. }));
                        self.net.carry(effect);
                    }
                    None => return self.net.close().await,
                },
                delivery = inbox.recv() => match delivery {
                    Some(delivery) => self.take(delivery.input),
                    None => return,
                },
            }
            self.alone.send_replace(self.sessions.is_empty() && self.dials == 0);
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Connected { session, peer, role, binding, .. } => {
                self.sessions.insert(session, Begun { peer, role, binding });
                if role == Role::Dialer {
                    self.dials = self.dials.saturating_sub(1);
                    self.greet(session);
                }
            }
            Input::Frame { session, message } => self.answer(session, &message),
            Input::Disconnected { session, .. } => {
                self.sessions.remove(&session);
            }
            Input::DialFailed { reason, .. } => {
                self.dials = self.dials.saturating_sub(1);
                // Nobody may wait for it.
                let _ = self.met.try_send(Err(reason));
            }
            _ => {}
        }
    }

    fn answer(&mut self, session: SessionId, message: &Message) {
        let Some(&Begun { peer, role, .. }) = self.sessions.get(&session) else { return };
        match message {
            Message::Greet(_) => {
                if role == Role::Listener {
                    self.greet(session);
                }
                self.hello(session);
            }
            Message::Hello(_) => {
                self.net.carry(Effect::Opened { session, peer, role });
                if role == Role::Dialer {
                    self.send(session, &Message::Done(Prefix::EMPTY));
                }
                // Nobody may wait for it.
                let _ = self.met.try_send(Ok(Instant::now()));
            }
            Message::Root(_) => self.send(session, &Message::Done(Prefix::EMPTY)),
            _ => {}
        }
    }

    fn send(&mut self, session: SessionId, message: &Message) {
        self.net.carry(Effect::Send { session, frame: message.encode(), is_asked: false });
    }

    fn greet(&mut self, session: SessionId) {
        let Some(Begun { peer, binding, .. }) = self.sessions.get(&session) else { return };
        let (own, theirs) = (self.node.as_bytes(), peer.as_bytes());
        let proof = membership_proof(&self.membership, binding, own, theirs);
        let versions = (*VERSIONS.start(), *VERSIONS.end());
        self.send(session, &Message::Greet(Greet { app: APP.to_owned(), versions, proof }));
    }

    fn hello(&mut self, session: SessionId) {
        let hello = Hello {
            software: "mosaik-lab".to_owned(),
            capabilities: 0,
            frame_max: FRAME_MAX as u32,
            credit: 1 << 20,
            clock_ms: unix_ms(),
            name: "member".to_owned(),
            boot: 1,
            top: [0; 16],
            authors: 0,
            events: 0,
            declines: [0; 16],
        };
        self.send(session, &Message::Hello(hello));
    }
}

/// The wall clock, Unix ms.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

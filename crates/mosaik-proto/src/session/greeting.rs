//! The greeting: who the other is, before anything of this network is said.

use mosaik_core::feed::Ledger;

use super::{Me, Notice, Session, Shared, State, held};
use crate::{
    Fault,
    carrier::{Effect, Role},
    message::{
        APP, Bye, ByeCode, CAPABILITIES, FILES, FRAME_MAX, Greet, Hello, Message, VERSIONS,
        version_in_common,
    },
    proof::{declines_digest, membership_proof},
    reconcile::Comparison,
};

/// How long greeting and hello may take, in milliseconds: three slow round trips each.
pub(super) const GREET_TIMEOUT_MS: u64 = 10_000;

#[derive(Clone, Copy)]
enum Direction {
    Ours,
    Theirs,
}

impl Session {
    pub(super) fn greet<L: Ledger>(&mut self, shared: &mut Shared<'_, L>) {
        let greet = Greet {
            app: APP.into(),
            versions: (*VERSIONS.start(), *VERSIONS.end()),
            proof: self.proof(shared.me, Direction::Ours),
        };
        self.send(Message::Greet(greet), shared.effects);
    }

    fn proof(&self, me: &Me, direction: Direction) -> [u8; 32] {
        let (own, peer) = match &self.radio {
            Some(radio) => (&radio.own_name[..], &radio.peer_name[..]),
            None => (&me.node.as_bytes()[..], &self.peer.as_bytes()[..]),
        };
        let (sender, receiver) = match direction {
            Direction::Ours => (own, peer),
            Direction::Theirs => (peer, own),
        };
        membership_proof(&me.membership, &self.binding, sender, receiver)
    }

    pub(super) fn on_greet<L: Ledger>(&mut self, greet: &Greet, shared: &mut Shared<'_, L>) {
        let ours = (*VERSIONS.start(), *VERSIONS.end());
        let version = version_in_common(ours, greet.versions).filter(|_| greet.app == APP);
        let Some(version) = version else {
            let text = format!(
                "no common protocol: this node speaks {APP} {} to {}, the other {} {} to {}",
                ours.0, ours.1, greet.app, greet.versions.0, greet.versions.1,
            );
            return self.bye(Bye::new(ByeCode::Version, text), shared);
        };
        self.version = version;
        // Constant time: this is what keeps strangers out.
        let proof = blake3::Hash::from_bytes(self.proof(shared.me, Direction::Theirs));
        if proof != blake3::Hash::from_bytes(greet.proof) {
            let text = "the other node is not in this network: its network id differs";
            return self.bye(Bye::new(ByeCode::OtherNetwork, text), shared);
        }
        let direction = match self.role {
            Role::Dialer => Direction::Ours,
            Role::Listener => Direction::Theirs,
        };
        let key = self.proof(shared.me, direction);
        self.comparison = Comparison::new(key, FRAME_MAX);
        if self.is_radio() {
            self.comparison.set_short();
        }
        if self.role == Role::Listener {
            self.greet(shared);
            self.comparison.told();
            self.begin_round(shared.now.mono_ms, true);
        }
        self.say_hello(shared);
        let until_ms = shared.now.mono_ms + GREET_TIMEOUT_MS * self.patience();
        self.state = State::AwaitHello { until_ms };
    }

    fn say_hello<L: Ledger>(&mut self, shared: &mut Shared<'_, L>) {
        let me = shared.me;
        self.told_own = self.own_compared(shared.feeds);
        // Names take airtime; over radio a person finds them in the records.
        let said = |text: &String| if self.is_radio() { String::new() } else { text.clone() };
        let hello = Hello {
            software: said(&me.software),
            capabilities: if self.is_radio() { FILES } else { CAPABILITIES },
            frame_max: FRAME_MAX as u32,
            credit: crate::asks::CREDIT_MAX,
            clock_ms: shared.now.wall_ms,
            name: said(&me.name),
            boot: me.boot,
            top: held(shared.feeds, &self.skip).top(),
            authors: shared.feeds.frontier.len() as u64,
            events: shared.ledger.counts().map_or(0, |counts| counts.events),
            declines: declines_digest(&me.fingerprint, shared.feeds.declines.keys()),
        };
        self.send(Message::Hello(hello), shared.effects);
    }

    pub(super) fn on_hello<L: Ledger>(
        &mut self,
        hello: Hello,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        // The listener made its hello after the connection came up, so the first comparison is of
        // what it held then or later.
        let began_ms = std::mem::replace(&mut self.opened_ms, shared.now.mono_ms);
        self.state = State::Open;
        self.comparison.set_frame_max((hello.frame_max as usize).min(FRAME_MAX));
        self.on_declines_digest(hello.declines, hello.boot, shared.feeds);
        let top = hello.top;
        let gives_files = self.is_radio() && hello.capabilities & FILES != 0;
        self.hello = Some(hello);
        shared.effects.push(Effect::Opened { session: self.id, peer: self.peer, role: self.role });
        if gives_files {
            shared.effects.push(Effect::FilePeer { session: self.id, peer: self.peer });
        }
        shared.notices.push(Notice::Opened(self.id));
        match self.role {
            Role::Dialer => {
                self.begin_round(began_ms, true);
                let answer = self.comparison.answer_top(top, held(shared.feeds, &self.skip));
                if matches!(answer, Message::Done(_)) {
                    self.own_held = self.own_held.max(self.own_compared(shared.feeds));
                }
                self.send(answer, shared.effects);
            }
            Role::Listener => {
                if let Some(again) = self.again {
                    self.send(Message::Again(again.token), shared.effects);
                }
            }
        }
        // Between equals it has ended already.
        self.note_progress(shared)
    }
}

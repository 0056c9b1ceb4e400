//! What nodes have acknowledged, and so may never lose.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use mosaik_api::document::{PayloadState, Written};
use mosaik_lab::Node;

/// Answers to writes, kept to be held against what nodes hold later.
#[derive(Debug, Default)]
pub struct Acknowledged {
    /// Author, seq and id of each event.
    events: BTreeSet<(String, u64, String)>,
}

impl Acknowledged {
    /// Remembers what one write answered.
    pub fn keep(&mut self, written: &Written) {
        for tip in &written.events {
            self.events.insert((written.author.clone(), tip.seq, tip.id.clone()));
        }
    }

    /// Remembers all that a node holds, where one answer stood for all of it.
    pub fn keep_all(&mut self, held: &Held) {
        for (id, (author, seq)) in &held.events {
            self.events.insert((author.clone(), *seq, id.clone()));
        }
    }

    /// How many events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Checks that `node` holds each of them with its payload, and returns all that it holds.
    ///
    /// # Errors
    ///
    /// With the first few that it lacks; or if it doesn't answer.
    pub async fn are_held_by(&self, node: &Node) -> Result<Held> {
        let held = Held::by(node).await?;
        let lacking: Vec<_> = self
            .events
            .iter()
            .filter(|(author, seq, id)| held.events.get(id) != Some(&(author.clone(), *seq)))
            .collect();
        ensure!(
            lacking.is_empty(),
            "{} lacks {} of {} acknowledged events, the first: {:?}",
            node.name(),
            lacking.len(),
            self.events.len(),
            &lacking[..lacking.len().min(3)]
        );
        Ok(held)
    }
}

/// All events that a node holds with their payloads.
#[derive(Debug, Default, PartialEq)]
pub struct Held {
    /// Author and seq, by id.
    pub events: BTreeMap<String, (String, u64)>,
    /// How many of each kind.
    pub kinds: BTreeMap<String, u64>,
}

impl Held {
    /// Reads them page by page, as `events` does.
    ///
    /// # Errors
    ///
    /// If the node doesn't answer, or names an event twice.
    pub async fn by(node: &Node) -> Result<Self> {
        let client = node.client()?;
        let mut held = Self::default();
        let mut since = 0;
        loop {
            let page = client.events(since, None).await?;
            for event in page.events {
                ensure!(event.payload_state == PayloadState::Present, "{} lacks it", event.id);
                let place = (event.author, event.seq);
                let twice = held.events.insert(event.id.clone(), place).is_some();
                ensure!(!twice, "{} lists event {} twice", node.name(), event.id);
                *held.kinds.entry(event.kind).or_default() += 1;
            }
            if !page.more {
                return Ok(held);
            }
            since = page.next;
        }
    }
}

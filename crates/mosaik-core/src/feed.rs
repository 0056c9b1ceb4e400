//! Feeds: one author's events as a tree of branches, and what a storage must do to keep them.
//!
//! Invariants:
//! - A branch holds consecutive events and has exactly one tip, its last: what follows a tip extends
//!   its branch, what follows an earlier event begins a new one.
//! - Held events are closed downwards: who holds an event holds all below it. So of a verified run
//!   the held events come first, and one event tells whether all before it are held.
//! - Nobody judges between branches. Both stay, both fold.
//!
//! Source: Kleppmann, "Making CRDTs Byzantine fault tolerant", PaPoC 2022.

use crate::{
    codec::Writer,
    event::Event,
    hlc::Hlc,
    id::{AuthorId, EventId},
    kv::KvMut,
    limits::TIPS_MAX,
    run::VerifiedRun,
    trie::Item,
};

/// The number of a branch in one store. It never leaves the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchId(pub u32);

/// A held event, by its place and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tip {
    /// Place in the feed; 0 stands for before the first event.
    pub seq: u64,
    /// Name; zeros at seq 0.
    pub id: EventId,
}

impl Tip {
    /// Before the first event of any feed.
    pub const ROOT: Self = Self { seq: 0, id: EventId::ZERO };
}

impl From<&Event> for Tip {
    fn from(event: &Event) -> Self {
        Self { seq: event.seq, id: event.id }
    }
}

/// Consecutive events of one author that no other branch holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// Its number here.
    pub id: BranchId,
    /// Whose.
    pub author: AuthorId,
    /// The branch and seq of the event before its first; none where it begins at seq 1.
    pub parent: Option<(BranchId, u64)>,
    /// Its last event.
    pub tip: Tip,
}

impl Branch {
    /// Seq of its first event.
    pub fn first_seq(&self) -> u64 {
        self.parent.map_or(1, |(_, seq)| seq + 1)
    }

    /// Whether an event of this seq lies on it.
    pub fn covers(&self, seq: u64) -> bool {
        (self.first_seq()..=self.tip.seq).contains(&seq)
    }
}

/// A stretch of one branch, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The branch.
    pub branch: BranchId,
    /// Seq of the first event.
    pub from: u64,
    /// Seq of the last event.
    pub to: u64,
}

/// All branches of one author.
///
/// Nearly every feed has one branch, and a node may hold a million feeds: so one stands in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed(Branches);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Branches {
    One(Branch),
    Several(Vec<Branch>),
}

impl Default for Feed {
    fn default() -> Self {
        Self(Branches::Several(Vec::new()))
    }
}

impl From<Branch> for Feed {
    fn from(branch: Branch) -> Self {
        Self(Branches::One(branch))
    }
}

/// Where a run belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Every event is held.
    Held,
    /// The first `held` events are held, the next one follows the tip of `branch`.
    Extends {
        /// The branch that grows.
        branch: BranchId,
        /// Events of the run to skip.
        held: usize,
    },
    /// The first `held` events are held, the next one begins a branch.
    Forks {
        /// Branch and seq of the event before; none at seq 1.
        parent: Option<(BranchId, u64)>,
        /// Events of the run to skip.
        held: usize,
    },
    /// The event before the run is not held: ask with a locator.
    UnknownBase,
    /// It would begin one branch more than [`TIPS_MAX`]: decline the feed.
    Crowded,
}

impl Feed {
    /// The branches, oldest first.
    pub fn branches(&self) -> &[Branch] {
        match &self.0 {
            Branches::One(branch) => std::slice::from_ref(branch),
            Branches::Several(branches) => branches,
        }
    }

    /// The branch of this number.
    pub fn branch(&self, id: BranchId) -> Option<&Branch> {
        self.branches().iter().find(|branch| branch.id == id)
    }

    /// Takes up a branch that the storage holds, or has just begun.
    pub fn add(&mut self, branch: Branch) {
        match &mut self.0 {
            Branches::Several(branches) if branches.is_empty() => self.0 = Branches::One(branch),
            Branches::Several(branches) => branches.push(branch),
            Branches::One(first) => self.0 = Branches::Several(vec![first.clone(), branch]),
        }
    }

    /// Notes that a branch has grown to `tip`.
    pub fn grow(&mut self, id: BranchId, tip: Tip) {
        let branches = match &mut self.0 {
            Branches::One(branch) => std::slice::from_mut(branch),
            Branches::Several(branches) => branches,
        };
        if let Some(branch) = branches.iter_mut().find(|branch| branch.id == id) {
            branch.tip = tip;
        }
    }

    /// The tips, ascending by seq and id.
    pub fn tips(&self) -> Vec<Tip> {
        let mut tips: Vec<Tip> = self.branches().iter().map(|branch| branch.tip).collect();
        tips.sort_unstable();
        tips
    }

    /// The greatest tip; [`Tip::ROOT`] for an empty feed.
    pub fn greatest(&self) -> Tip {
        self.branches().iter().map(|branch| branch.tip).max().unwrap_or(Tip::ROOT)
    }

    /// The stretches that lead from the first event to the end of `to`, in order.
    pub fn path(&self, to: BranchId) -> Vec<Segment> {
        let mut path = Vec::new();
        let mut next = self.branch(to).map(|branch| (branch, branch.tip.seq));
        while let Some((branch, last)) = next {
            path.push(Segment { branch: branch.id, from: branch.first_seq(), to: last });
            next = branch.parent.and_then(|(id, seq)| Some((self.branch(id)?, seq)));
        }
        path.reverse();
        path
    }

    /// The branch that holds the event `at`, if one does. [`Tip::ROOT`] lies on none.
    ///
    /// # Errors
    ///
    /// The storage's own.
    pub fn find<L: Ledger>(&self, at: Tip, ledger: &L) -> Result<Option<BranchId>, L::Error> {
        if let Some(branch) = self.branches().iter().find(|branch| branch.tip == at) {
            return Ok(Some(branch.id));
        }
        for branch in self.branches().iter().filter(|branch| branch.covers(at.seq)) {
            if ledger.id_at(branch.id, at.seq)? == Some(at.id) {
                return Ok(Some(branch.id));
            }
        }
        Ok(None)
    }

    /// Decides where `run` belongs.
    ///
    /// # Errors
    ///
    /// The storage's own.
    pub fn place<L: Ledger>(&self, run: &VerifiedRun, ledger: &L) -> Result<Place, L::Error> {
        let events = run.events();
        if self.find(Tip::from(run.head()), ledger)?.is_some() {
            return Ok(Place::Held);
        }
        // Held events come first: halve until the first unknown one is found.
        let (mut held, mut unknown) = (0, events.len() - 1);
        while held < unknown {
            let middle = held + (unknown - held) / 2;
            if self.find(Tip::from(&events[middle]), ledger)?.is_some() {
                held = middle + 1;
            } else {
                unknown = middle;
            }
        }
        let (base_seq, base_id) = run.base();
        let before = match held {
            0 => Tip { seq: base_seq, id: base_id },
            held => Tip::from(&events[held - 1]),
        };
        let parent = if before == Tip::ROOT {
            None
        } else {
            match self.find(before, ledger)? {
                Some(branch) => Some((branch, before.seq)),
                None => return Ok(Place::UnknownBase),
            }
        };
        if let Some((id, _)) = parent
            && self.branch(id).is_some_and(|branch| branch.tip == before)
        {
            return Ok(Place::Extends { branch: id, held });
        }
        if self.branches().len() >= TIPS_MAX {
            return Ok(Place::Crowded);
        }
        Ok(Place::Forks { parent, held })
    }
}

impl Item for Feed {
    /// Author, number of tips, and each tip's seq and id.
    fn write_item(&self, author: &AuthorId, writer: &mut Writer) {
        write_item(author, &self.tips(), writer);
    }
}

/// Appends a frontier item.
pub fn write_item(author: &AuthorId, tips: &[Tip], writer: &mut Writer) {
    writer.raw(author.as_bytes()).len(tips.len());
    for tip in tips {
        writer.varint(tip.seq).raw(tip.id.as_bytes());
    }
}

/// How events came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Written on this node.
    Own,
    /// From a peer's session.
    Session,
    /// Inline in gossip.
    Gossip,
}

impl Way {
    /// The byte that stands for it on disk.
    pub fn as_u8(self) -> u8 {
        match self {
            Self::Own => 0,
            Self::Session => 1,
            Self::Gossip => 2,
        }
    }

    /// The way of this byte.
    pub fn from_u8(byte: u8) -> Option<Self> {
        [Self::Own, Self::Session, Self::Gossip].into_iter().find(|way| way.as_u8() == byte)
    }
}

/// An event whose payload is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Missing {
    /// Whose.
    pub author: AuthorId,
    /// Which branch here.
    pub branch: BranchId,
    /// Place.
    pub tip: Tip,
}

/// How much is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Events, on all branches.
    pub events: u64,
    /// Events whose payload is not here.
    pub missing: u64,
    /// Events that wait outside the view for their time.
    pub held_back: u64,
}

/// What keeps feeds and view: reads see the writes before them, and a caller commits them as one.
///
/// It decides nothing. Whoever writes has placed the run ([`Feed::place`]).
pub trait Ledger: KvMut {
    /// All branches, ascending by number.
    ///
    /// # Errors
    ///
    /// The storage's own, here and below.
    fn branches(&self) -> Result<Vec<Branch>, Self::Error>;

    /// Whether an error says only that some of what was stored can't be read any more; all else goes on.
    fn is_damage(_error: &Self::Error) -> bool {
        false
    }

    /// Begins a branch without events and gives it a number; `author` and `parent` as in [`Branch`].
    fn begin_branch(
        &mut self,
        author: AuthorId,
        parent: Option<(BranchId, u64)>,
    ) -> Result<BranchId, Self::Error>;

    /// Appends consecutive events, the last of them signed, to the end of `branch`. Events without
    /// payload go on the missing list. Makes one row of `arrivals`.
    fn append(
        &mut self,
        branch: BranchId,
        events: &[Event],
        signature: &[u8; 64],
        way: Way,
        received_ms: u64,
    ) -> Result<(), Self::Error>;

    /// The events of one branch from `from` to `to`, in order, cut after `bytes_max` of payload; at
    /// least one where `from` is on the branch.
    fn events(
        &self,
        branch: BranchId,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<Event>, Self::Error>;

    /// The id of one event.
    fn id_at(&self, branch: BranchId, seq: u64) -> Result<Option<EventId>, Self::Error>;

    /// The first signed event of a branch at `seq` or after it.
    fn signed_from(
        &self,
        branch: BranchId,
        seq: u64,
    ) -> Result<Option<(u64, [u8; 64])>, Self::Error>;

    /// The last signed event of a branch in `from..=to`.
    fn signed_up_to(
        &self,
        branch: BranchId,
        from: u64,
        to: u64,
    ) -> Result<Option<(u64, [u8; 64])>, Self::Error>;

    /// Fills the absent payload of one event, checked by the caller, and takes it off the list.
    fn fill(&mut self, branch: BranchId, seq: u64, payload: &[u8]) -> Result<(), Self::Error>;

    /// At most `max` missing payloads, of events after `after` in a fixed order.
    fn missing(&self, after: Option<&Missing>, max: usize) -> Result<Vec<Missing>, Self::Error>;

    /// Notes that an event waits outside the view until its time comes.
    fn hold_back(&mut self, hlc: Hlc, branch: BranchId, seq: u64) -> Result<(), Self::Error>;

    /// Takes off that note at most `max` events with a stamp of at most `until_ms`, and gives them.
    fn release(
        &mut self,
        until_ms: u64,
        max: usize,
    ) -> Result<Vec<(Hlc, BranchId, u64)>, Self::Error>;

    /// Whether an event is held back.
    fn is_held_back(&self, hlc: Hlc, branch: BranchId, seq: u64) -> Result<bool, Self::Error>;

    /// Totals.
    fn counts(&self) -> Result<Counts, Self::Error>;

    /// A named value of the node's own.
    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, Self::Error>;

    /// Sets a named value.
    fn set_meta(&mut self, name: &str, value: &[u8]) -> Result<(), Self::Error>;
}

//! What people write in a cluster.

use mosaik_core::{
    event::{Draft, Kind},
    hlc::{Hlc, SKEW_MAX_MS},
    meshlog::{MeshlogId, compose, foreign_draft, json::Json},
    record::RecordEvent,
    value::Value,
    view,
};
use mosaik_proto::carrier::Input;
use rand::RngExt;

use crate::cluster::{Cluster, EPOCH_MS};

impl Cluster {
    pub(crate) fn append(&mut self, index: usize) {
        if self.nodes[index].replica.is_none() {
            return;
        }
        let drafts = self.drafts(index);
        let node = &mut self.nodes[index];
        node.next_token += 1;
        let token = node.next_token;
        self.step(index, Some(Input::Append { token, drafts }));
    }

    fn drafts(&mut self, index: usize) -> Vec<Draft> {
        self.appended += 1;
        let count = if self.rng.random_bool(0.04) {
            self.rng.random_range(1..400)
        } else {
            self.rng.random_range(1..4)
        };
        (0..count).map(|i| self.draft(index, i)).collect()
    }

    fn draft(&mut self, index: usize, i: u64) -> Draft {
        let record = format!("r{}", self.rng.random_range(0..5));
        let event = match self.rng.random_range(0..8) {
            0 => RecordEvent::Create { record, form: "f".into() },
            1 => RecordEvent::Note { record, text: format!("note {} {i}", self.appended) },
            2 => RecordEvent::Archive { record, archived: self.rng.random_bool(0.5) },
            3 => {
                let field = format!("x{}", self.rng.random_range(0..3));
                let value = Value::Int(self.appended as i64);
                // Mostly its writer has looked at what is there.
                let over = if self.rng.random_bool(0.7) {
                    let seen = self.nodes[index].storage.snapshot();
                    view::over(&seen, &record, &field).expect("memory can be read")
                } else {
                    Vec::new()
                };
                RecordEvent::Set { record, field, value, over }
            }
            4 => RecordEvent::Attach {
                record,
                field: format!("x{}", self.rng.random_range(0..2)),
                blob: [self.rng.random_range(0..2); 32],
                size: self.appended,
                mime: "text/plain".into(),
                name: format!("file {} {i}", self.appended),
            },
            5 => RecordEvent::Profile { name: format!("name {} {i}", self.appended) },
            6 => return self.foreign(),
            _ => {
                let len = match self.rng.random_range(0..40) {
                    0 => 60_000,
                    1..10 => 3_000,
                    10..20 => 0,
                    _ => 10,
                };
                let kind = Kind::new("app.blob").expect("a kind");
                return Draft { kind, payload: vec![i as u8; len] };
            }
        };
        event.encode().expect("a small event")
    }

    /// An event of another system. There are few, so several nodes bring the same.
    fn foreign(&mut self) -> Draft {
        let nth = self.rng.random_range(1..40u64);
        let record = format!("r{}", nth % 5);
        let (kind, says) = match nth % 4 {
            0 => ("note.add", ("text", Json::text("seen"))),
            1 => ("record.create", ("form", Json::text("g"))),
            _ => ("field.set", ("value", Json::whole(nth))),
        };
        let field = ("field", Json::text(&format!("x{}", nth % 3)));
        let payload = Json::map([("record", Json::text(&record)), field, says]);
        // Now and then one that waits for its time.
        let is_ahead = nth == 1 && self.rng.random_bool(0.3);
        let ahead_ms = if is_ahead { SKEW_MAX_MS + 30_000 } else { nth * 5_000 };
        let hlc = Hlc::new(EPOCH_MS + ahead_ms, 0);
        let prev = (nth > 1).then_some(MeshlogId([nth as u8; 16]));
        let author = format!("m{}", nth % 3);
        let wire = compose(&author, nth, hlc, kind, &payload, prev).wire;
        foreign_draft(wire.as_bytes()).expect("a good event").0
    }
}

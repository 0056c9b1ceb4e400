//! What people write in a cluster.

use mosaik_core::{
    event::{Draft, Kind},
    record::RecordEvent,
    value::Value,
    view,
};
use mosaik_proto::carrier::Input;
use rand::RngExt;

use crate::cluster::Cluster;

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
        let event = match self.rng.random_range(0..7) {
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
}

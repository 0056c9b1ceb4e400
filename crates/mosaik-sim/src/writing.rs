//! What people write in a cluster.

use mosaik_core::{
    event::{Draft, Kind},
    record::RecordEvent,
    value::Value,
};
use mosaik_proto::carrier::Input;
use rand::RngExt;

use crate::cluster::Cluster;

impl Cluster {
    pub(crate) fn append(&mut self, index: usize) {
        let drafts = self.drafts();
        let node = &mut self.nodes[index];
        if node.replica.is_none() {
            return;
        }
        node.next_token += 1;
        let token = node.next_token;
        self.step(index, Some(Input::Append { token, drafts }));
    }

    fn drafts(&mut self) -> Vec<Draft> {
        self.appended += 1;
        let count = if self.rng.random_bool(0.1) {
            self.rng.random_range(1..400)
        } else {
            self.rng.random_range(1..4)
        };
        (0..count).map(|i| self.draft(i)).collect()
    }

    fn draft(&mut self, i: u64) -> Draft {
        let record = format!("r{}", self.rng.random_range(0..5));
        let event = match self.rng.random_range(0..5) {
            0 => RecordEvent::Create { record, form: "f".into() },
            1 => RecordEvent::Note { record, text: format!("note {} {i}", self.appended) },
            2 => RecordEvent::Archive { record, archived: self.rng.random_bool(0.5) },
            3 => {
                let field = format!("x{}", self.rng.random_range(0..3));
                let value = Value::Int(self.appended as i64);
                RecordEvent::Set { record, field, value, over: Vec::new() }
            }
            _ => {
                let len = [0, 10, 3_000, 60_000][self.rng.random_range(0..4)];
                let kind = Kind::new("app.blob").expect("a kind");
                return Draft { kind, payload: vec![i as u8; len] };
            }
        };
        event.encode().expect("a small event")
    }
}

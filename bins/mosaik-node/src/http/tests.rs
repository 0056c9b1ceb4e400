//! Requests over a real socket, answered from a real store.

mod owner;

use std::{collections::BTreeMap, os::unix::net::UnixStream, time::Duration};

use mosaik_api::{
    client::{Client, ClientError},
    document::{Peer, PeerState, Slot, State},
    failure::Code,
    request::{
        Condition, CreateRecord, EMIT_EVENTS_MAX, EmitEvent, EmitEvents, IMPORT_ROWS_MAX,
        ImportRow, ImportRows, SetFields,
    },
};
use serde_json::{Value as Json, json};

use self::owner::TestNode;
use super::*;

fn fields(json: Json) -> BTreeMap<String, Json> {
    serde_json::from_value(json).expect("an object")
}

fn create(record: &str, form: &str, values: Json) -> CreateRecord {
    CreateRecord {
        record: Some(record.into()),
        form: form.into(),
        fields: fields(values),
        if_absent: false,
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Code {
    match result {
        Err(ClientError::Refused(failure)) => failure.code,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test]
async fn a_record_that_was_written_is_read_as_it_was() {
    let node = TestNode::start().await;
    let client = &node.client;
    let values = json!({ "a": 1, "b": [1.5, null], "c": { "$bytes": "AQI=" } });
    let written = client.create(&create("R-1/x ?", "visit", values.clone())).await.expect("new");
    assert_eq!((written.record.as_deref(), written.events.len()), (Some("R-1/x ?"), 4));
    let set = SetFields { fields: fields(json!({ "a": 2 })) };
    client.set("R-1/x ?", &set).await.expect("there");
    let note = mosaik_api::request::AddNote { text: "seen".into() };
    client.note("R-1/x ?", &note).await.expect("there");
    client.archive("R-1/x ?", true).await.expect("there");

    let record = client.record("R-1/x ?").await.expect("there");
    assert_eq!(record.form.as_deref(), Some("visit"));
    assert_eq!(record.created_by.as_deref(), Some(written.author.as_str()));
    assert_eq!(record.fields["a"], json!(2));
    assert_eq!((&record.fields["b"], &record.fields["c"]), (&values["b"], &values["c"]));
    assert_eq!(record.notes[0].text, "seen");
    assert!(record.archived && record.conflicts.is_empty());

    assert!(client.records(None, None, false).await.expect("a list").records.is_empty());
    assert_eq!(client.records(Some("visit"), None, true).await.expect("a list").records.len(), 1);
    let status = client.status().await.expect("a status");
    assert_eq!((status.events, status.authors, status.branches), (7, 1, 1));
    assert_eq!(status.view_digest, client.view().await.expect("a view").digest);
    let frontier = client.frontier().await.expect("a frontier").frontier;
    assert_eq!(frontier[&written.author][0].seq, 7);
    let feeds = client.feeds().await.expect("feeds").feeds;
    assert!(feeds[0].own && feeds[0].events == 7);
    assert!(client.conflicts().await.expect("conflicts").conflicts.is_empty());
    node.stopped().await;
}

#[tokio::test]
async fn each_line_of_the_metrics_is_a_type_or_a_name_and_a_number() {
    let node = TestNode::start().await;
    let text = node.client.metrics().await.expect("metrics");
    let (types, numbers): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('#'));
    for line in &numbers {
        let (name, number) = line.split_once(' ').expect("a name and a number");
        assert!(name.starts_with("mosaik_") && number.parse::<f64>().is_ok(), "{line}");
    }
    // A summary is one type with a count and a sum.
    assert_eq!(numbers.len(), types.len() + 1, "{text}");
    assert!(numbers.contains(&"mosaik_events 0"), "{text}");
    node.stopped().await;
}

/// Who watches the slots is told what they are, and then each change once, until the node ends.
#[tokio::test]
async fn slots_are_followed_change_by_change() {
    let node = TestNode::start().await;
    let mut stream = node.client.follow_slots().await.expect("a stream");
    let first = stream.next().await.expect("a line").expect("the node runs");
    assert!(first.slots.is_empty());
    let slot: Slot = serde_json::from_value(json!({
        "slot": 3, "state": "live", "holder": "3f2a9c", "expires_ms": 5,
        "last_dial": { "at_ms": 4, "ended": "failed" },
    }))
    .expect("what is not said is not known");
    // What changes elsewhere is no change of a slot.
    node.show.send_modify(|shown| shown.doing = "something else".into());
    node.show.send_modify(|shown| shown.slots = vec![slot.clone()]);
    let next = stream.next().await.expect("a line").expect("the node runs");
    assert_eq!(next.slots, std::slice::from_ref(&slot));
    assert_eq!(node.client.slots().await.expect("slots").slots, [slot]);
    node.begin_to_stop();
    assert!(stream.next().await.expect("an end").is_none());
    node.stopped().await;
}

#[tokio::test]
async fn documents_have_the_fields_that_scripts_read() {
    let node = TestNode::start().await;
    node.client.create(&create("R", "f", json!({ "a": 1 }))).await.expect("new");
    let keys = |json: Json| -> Vec<String> {
        json.as_object().expect("an object").keys().cloned().collect()
    };
    let has = |json: Json, wanted: &[&str]| {
        assert_eq!(json["schema"], json!(1));
        let found = keys(json);
        assert!(wanted.iter().all(|key| found.iter().any(|f| f == key)), "{found:?}");
    };
    let status = serde_json::to_value(node.client.status().await.expect("a status"));
    has(
        status.expect("plain data"),
        &[
            "node",
            "name",
            "network",
            "data_dir",
            "state",
            "peers",
            "authors",
            "events",
            "branches",
            "conflicts",
            "held_back",
            "missing",
            "view_digest",
        ],
    );
    let record = serde_json::to_value(node.client.record("R").await.expect("a record"));
    has(
        record.expect("plain data"),
        &["record", "form", "created_by", "fields", "notes", "attachments", "conflicts"],
    );
    let identity = node.client.identity().await.expect("an identity");
    assert!(identity.ticket.starts_with("mpeer1"));
    node.stopped().await;
}

#[tokio::test]
async fn without_an_id_a_sortable_one_is_made() {
    let node = TestNode::start().await;
    let create = CreateRecord { form: "f".into(), ..CreateRecord::default() };
    let first = node.client.create(&create).await.expect("new").record.expect("an id");
    let second = node.client.create(&create).await.expect("new").record.expect("an id");
    assert_eq!((first.len(), second.len()), (26, 26));
    assert_ne!(first, second);
    node.stopped().await;
}

#[tokio::test]
async fn what_is_refused_has_its_code_and_writes_nothing() {
    let node = TestNode::start().await;
    let client = &node.client;
    client.create(&create("R", "f", json!({}))).await.expect("new");
    assert_eq!(code(client.create(&create("R", "f", json!({}))).await), Code::Exists);
    let again = CreateRecord { if_absent: true, ..create("R", "f", json!({ "a": 1 })) };
    assert!(client.create(&again).await.expect("fine").events.is_empty());
    let set = |values| SetFields { fields: fields(values) };
    assert_eq!(code(client.set("S", &set(json!({ "a": 1 }))).await), Code::NotFound);
    assert_eq!(code(client.record("S").await), Code::NotFound);
    for values in [
        json!({}),
        json!({ "": 1 }),
        json!({ "a": { "$byte": "" } }),
        json!({ "a": u64::MAX }),
        json!({ "a": "x".repeat(70_000) }),
        json!({ "f".repeat(129): 1 }),
    ] {
        assert_eq!(code(client.set("R", &set(values)).await), Code::Invalid);
    }
    for kind in ["record.create", "A", "", "event.x"] {
        let event = EmitEvent { kind: kind.into(), value: json!(1) };
        assert_eq!(code(client.emit(&event).await), Code::Invalid, "{kind}");
    }
    assert_eq!(code(client.add_peer("mpeer1qqq").await), Code::Invalid);
    assert_eq!(code(client.block("3f2a", true).await), Code::Invalid);
    assert_eq!(code(client.block(&"3f".repeat(32), true).await), Code::Degraded);
    assert_eq!(code(client.forget("3f2a").await), Code::Invalid);
    assert_eq!(code(client.forget(&"3f".repeat(32)).await), Code::Invalid);
    assert_eq!(code(client.ping("3f2a").await), Code::Invalid);
    let pinged = client.ping(&"3f".repeat(32)).await.expect("an answer of the node");
    assert!(!pinged.answered && pinged.reason.is_some_and(|reason| reason.contains("address")));
    assert_eq!(code(client.probe().await), Code::Failed);
    assert_eq!(code(client.probed().await), Code::NotFound);
    assert_eq!(client.status().await.expect("a status").events, 1);
    node.stopped().await;
}

#[tokio::test]
async fn a_batch_of_events_is_written_in_its_order_and_all_or_none() {
    let node = TestNode::start().await;
    let client = &node.client;
    let event = |kind: &str, value| EmitEvent { kind: kind.into(), value: json!(value) };
    let events = (0..EMIT_EVENTS_MAX).map(|value| event("app.x", value)).collect();
    let written = client.emit_all(&EmitEvents { events }).await.expect("taken");
    assert_eq!(written.events.len(), EMIT_EVENTS_MAX);
    let page = client.events(0, Some(1)).await.expect("a page");
    assert_eq!((&page.events[0].payload, &page.events[1].payload), (&json!(0), &json!(1)));

    let one_is_wrong = vec![event("app.x", 1), event("record.create", 2)];
    let too_many = (0..=EMIT_EVENTS_MAX).map(|value| event("app.x", value)).collect();
    for events in [one_is_wrong, Vec::new(), too_many] {
        assert_eq!(code(client.emit_all(&EmitEvents { events }).await), Code::Invalid);
    }
    let held = client.status().await.expect("a status").events;
    assert_eq!(held, EMIT_EVENTS_MAX as u64);
    node.stopped().await;
}

/// One request by hand: the status line, and the body.
fn raw(socket: &std::path::Path, request: &str) -> (String, Json) {
    use std::io::{Read, Write};
    let mut stream = UnixStream::connect(socket).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers and closes");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.lines().next().unwrap_or_default().to_owned();
    (status, serde_json::from_str(body).expect("a document"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_request_is_answered_by_an_error_document() {
    let node = TestNode::start().await;
    let post = |path: &str, body: &str| {
        let len = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{body}"
        )
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    for (request, status, says) in [
        (get("/api/v1/nothing"), "404", "not_found"),
        (get("/"), "404", "not_found"),
        (get("/api/v1/import"), "400", "invalid"),
        (get("/api/v1/events?since=x"), "400", "invalid"),
        (get("/api/v1/events?limit=-1"), "400", "invalid"),
        (get("/api/v1/events?sinse=1"), "400", "invalid"),
        (get("/api/v1/export?format=xml"), "400", "invalid"),
        (get("/api/v1/records/%ff"), "400", "invalid"),
        (post("/api/v1/records", "{"), "400", "invalid"),
        (
            post("/api/v1/records", "{\"form\":\"f\",\"fields\":{\"a\":99999999999999999999}}"),
            "400",
            "invalid",
        ),
        (post("/api/v1/records", "{\"form\":\"f\",\"field\":{}}"), "400", "invalid"),
        (post("/api/v1/records", "\u{1}"), "400", "invalid"),
    ] {
        let (line, document) = raw(&node.socket, &request);
        assert!(line.contains(status), "{request}: {line}");
        assert_eq!(document["schema"], json!(1), "{request}");
        assert_eq!(document["error"]["code"], json!(says), "{request}");
    }
    // All of it is sent, so that the answer isn't lost with the bytes that nobody reads.
    let too_long = post("/api/v1/records", &"x".repeat(BODY_LEN_MAX + 1));
    assert_eq!(raw(&node.socket, &too_long).1["error"]["code"], json!("invalid"));
    node.stopped().await;
}

#[tokio::test]
async fn who_follows_sees_old_events_and_then_each_new_one() {
    let node = TestNode::start().await;
    let client = &node.client;
    client.create(&create("A", "f", json!({ "a": 1 }))).await.expect("new");
    let mut stream = client.follow(0).await.expect("a stream");
    let mut kinds = Vec::new();
    for _ in 0..2 {
        kinds.push(stream.next().await.expect("alive").expect("an event").kind);
    }
    assert_eq!(kinds, ["record.create", "field.set"]);
    let event = EmitEvent { kind: "sensor".into(), value: json!({ "t": 21.5 }) };
    client.emit(&event).await.expect("appended");
    let seen = stream.next().await.expect("alive").expect("an event");
    assert_eq!(
        (seen.kind.as_str(), seen.payload, seen.way.as_str()),
        ("sensor", event.value, "own")
    );
    assert!(seen.last_of_arrival);

    let page = client.events(0, Some(1)).await.expect("a page");
    assert_eq!((page.events.len(), page.more), (2, true), "an arrival is given whole");
    let rest = client.events(page.next, None).await.expect("a page");
    assert_eq!((rest.events.len(), rest.more, rest.next), (1, false, seen.arrival));
    assert!(client.events(rest.next, None).await.expect("a page").events.is_empty());

    node.begin_to_stop();
    assert_eq!(stream.next().await.expect("a clean end"), None);
    node.stopped().await;
}

#[tokio::test]
async fn waiting_ends_when_the_condition_holds_or_the_time_is_over() {
    let node = TestNode::start().await;
    let client = &node.client;
    let soon = Some(Duration::from_secs(10));
    let none = Some(Duration::ZERO);
    client.wait(Condition::Ready, none).await.expect("it answers");

    let shows = |value: i64| Condition::Record {
        record: "R".into(),
        fields: fields(json!({ "a": value })),
    };
    let late = client.wait(shows(2), none).await;
    let Err(ClientError::Refused(failure)) = late else { panic!("not there yet") };
    assert_eq!(failure.code, Code::Timeout);
    assert!(failure.message.contains("not here"), "{failure}");
    let waiting = tokio::spawn({
        let (client, until) = (client.clone(), shows(2));
        async move { client.wait(until, soon).await }
    });
    client.create(&create("R", "f", json!({ "a": 1 }))).await.expect("new");
    let Err(ClientError::Refused(failure)) = client.wait(shows(2), none).await else {
        panic!("it shows 1")
    };
    assert!(failure.message.contains("a: 1"), "{failure}");
    client.set("R", &SetFields { fields: fields(json!({ "a": 2 })) }).await.expect("there");
    waiting.await.expect("no panic").expect("it shows 2");

    assert_eq!(code(client.wait(Condition::Peers(1), none).await), Code::Timeout);
    let peer = Peer {
        name: "team".into(),
        path: Some("direct".into()),
        rtt_ms: Some(38.2),
        ..Peer::new("3f2a9c".repeat(8), PeerState::Connected, "ticket")
    };
    node.show.send_modify(|shown| shown.peers.push(peer));
    let waited = client.wait(Condition::Peers(1), soon).await.expect("one is there");
    assert_eq!(waited.state, "1 peer: team (3f2a9c), direct, 38 ms");

    node.show.send_modify(|shown| shown.state = State::InSync);
    let not_compared = client.wait(Condition::Synced, Some(Duration::from_millis(50))).await;
    assert_eq!(code(not_compared), Code::Timeout, "an old comparison doesn't count");
    let stopped = tokio::spawn({
        let client = client.clone();
        async move { client.wait(Condition::Synced, None).await }
    });
    // The server finishes what it was asked before it stops: the wait is refused, not cut.
    tokio::task::yield_now().await;
    while !stopped.is_finished() {
        node.begin_to_stop();
        tokio::task::yield_now().await;
    }
    assert!(stopped.await.expect("no panic").is_err());
    node.stopped().await;
}

#[tokio::test]
async fn rows_become_records_once_and_bad_ones_are_named() {
    let node = TestNode::start().await;
    let client = &node.client;
    let row = |line: u64, record: &str, values: Json| ImportRow {
        line,
        record: record.into(),
        fields: fields(values),
    };
    let rows = vec![
        row(2, "a", json!({ "n": 1 })),
        row(3, "b", json!({ "n": { "$x": 1 } })),
        row(4, "", json!({ "n": 1 })),
        row(5, "c", json!({ "n": 1.5 })),
    ];
    let rows = ImportRows { form: "f".into(), rows };
    let first = client.import(&rows).await.expect("some are good");
    assert_eq!((first.created, first.refused.len()), (2, 2));
    assert_eq!(first.refused.iter().map(|row| row.line).collect::<Vec<_>>(), [3, 4]);
    let again = client.import(&rows).await.expect("some are good");
    assert_eq!((again.created, again.unchanged), (0, 2));
    assert_eq!(client.status().await.expect("a status").events, 4);
    let too_many = (0..=IMPORT_ROWS_MAX as u64).map(|n| row(n, "r", json!({}))).collect();
    let too_many = ImportRows { form: "f".into(), rows: too_many };
    assert_eq!(code(client.import(&too_many).await), Code::Invalid);
    node.stopped().await;
}

async fn exported(client: &Client, options: &[(&str, Option<&str>)]) -> String {
    let mut chunks = client.export(options).await.expect("an export");
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await.expect("not cut") {
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).expect("text")
}

#[tokio::test]
async fn an_export_is_a_function_of_the_view() {
    let node = TestNode::start().await;
    let client = &node.client;
    assert_eq!(exported(client, &[("format", Some("jsonl"))]).await, "");
    let geo = json!({ "$geo": { "lat": 12.97, "lon": 77.59 } });
    client.create(&create("b", "f", json!({ "x": "1,2", "loc": geo }))).await.expect("new");
    client.create(&create("a", "f", json!({ "x": 1.0, "y": true }))).await.expect("new");
    client.create(&create("c", "g", json!({ "z": { "$time": 0 } }))).await.expect("new");
    assert_eq!(
        exported(client, &[("format", Some("csv")), ("form", Some("f"))]).await,
        "record,loc,x,y\na,,1.0,true\nb,12.97 77.59,\"1,2\",\n"
    );
    assert_eq!(
        exported(client, &[("format", Some("jsonl"))]).await,
        "{\"form\":\"f\",\"record\":\"a\",\"x\":1.0,\"y\":true}\n\
         {\"form\":\"f\",\"loc\":{\"$geo\":{\"lat\":12.97,\"lon\":77.59}},\"record\":\"b\",\"x\":\"1,2\"}\n\
         {\"form\":\"g\",\"record\":\"c\",\"z\":{\"$time\":\"1970-01-01T00:00:00.000Z\"}}\n"
    );
    let taken = [("format", Some("csv")), ("form", Some("f")), ("id_column", Some("x"))];
    assert_eq!(code(client.export(&taken).await), Code::Invalid);
    client.archive("a", true).await.expect("there");
    let table = [("format", Some("csv")), ("form", Some("f"))];
    assert!(!exported(client, &table).await.contains("\na,"));
    let all = [("format", Some("csv")), ("form", Some("f")), ("archived", Some("true"))];
    assert!(exported(client, &all).await.contains("\na,"));
    node.stopped().await;
}

#[tokio::test]
async fn a_large_export_comes_whole_through_a_slow_reader() {
    let node = TestNode::start().await;
    let client = &node.client;
    let text = "x".repeat(30_000);
    for batch in 0..4 {
        let rows = (0..20).map(|n| ImportRow {
            line: n,
            record: format!("{batch}-{n:02}"),
            fields: fields(json!({ "t": text.as_str() })),
        });
        let rows = ImportRows { form: "f".into(), rows: rows.collect() };
        assert_eq!(client.import(&rows).await.expect("good").created, 20);
    }
    let all = exported(client, &[("format", Some("jsonl"))]).await;
    assert_eq!(all.lines().count(), 80);
    // A reader that goes away in the middle leaves the node as it was.
    drop(client.export(&[("format", Some("jsonl"))]).await.expect("an export"));
    assert_eq!(client.status().await.expect("alive").events, 160);
    node.stopped().await;
}

#[tokio::test]
async fn a_dead_sockets_place_is_taken_and_only_its_user_may_use_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("node.sock");
    drop(bind(&socket).expect("a free path"));
    assert!(socket.exists(), "a process that dies leaves it there");
    let _listener = bind(&socket).expect("the dead one's place");
    let mode = fs::metadata(&socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_long_work_that_comes_to_no_end_says_why() {
    let node = TestNode::start().await;
    let refused = node.client.compact().await;
    assert!(format!("{refused:?}").contains("the store is being read"), "{refused:?}");
    assert_eq!(code(refused), Code::Failed);
}

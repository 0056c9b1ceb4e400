//! What goes over radio, in Prometheus' text format; nothing without a radio.

use std::fmt::Write;

use mosaik_api::document::{Bridge, BridgeInterface, BridgeMeshlog, BridgeWaiting};

/// All of it.
pub(super) fn text(bridge: &Bridge) -> String {
    let mut text = String::new();
    if bridge.identity.is_some() {
        radio(bridge, &mut text);
    }
    if let Some(meshlog) = &bridge.meshlog {
        meshlogd(meshlog, &mut text);
    }
    text
}

/// One metric: each of its values with its labels.
fn metric(
    name: &str,
    kind: &str,
    values: impl IntoIterator<Item = (String, u64)>,
    text: &mut String,
) {
    let mut values = values.into_iter().peekable();
    if values.peek().is_none() {
        return;
    }
    // A String takes all that is written.
    let _ = writeln!(text, "# TYPE mosaik_{name} {kind}");
    for (labels, value) in values {
        let _ = writeln!(text, "mosaik_{name}{labels} {value}");
    }
}

fn radio(bridge: &Bridge, text: &mut String) {
    let all = &bridge.interfaces;
    let of = |name: &str| format!("{{interface=\"{}\"}}", escaped(name));
    let online = all.iter().map(|it| (of(&it.name), u64::from(it.online)));
    metric("radio_online", "gauge", online, text);
    let used = all.iter().map(|it| (of(&it.name), it.airtime_used_ms));
    metric("radio_airtime_used_ms", "gauge", used, text);
    let left = all.iter().filter_map(|it| Some((of(&it.name), it.airtime_left_ms?)));
    metric("radio_airtime_left_ms", "gauge", left, text);
    for (name, number) in [
        ("sent", (|it| it.broadcasts_sent) as fn(&BridgeInterface) -> u64),
        ("heard", |it| it.broadcasts_heard),
        ("refused", |it| it.broadcasts_refused),
    ] {
        let values = all.iter().map(|it| (of(&it.name), number(it)));
        metric(&format!("radio_broadcasts_{name}_total"), "counter", values, text);
    }
    let waiting = |of: fn(&BridgeWaiting) -> u64| {
        all.iter().flat_map(move |it| {
            let queued = &it.queued;
            let classes = [
                ("control", queued.control),
                ("news", queued.news),
                ("priority", queued.priority),
                ("history", queued.history),
                ("files", queued.files),
            ];
            let name = escaped(&it.name);
            classes.map(|(class, waiting)| {
                (format!("{{interface=\"{name}\",class=\"{class}\"}}"), of(&waiting))
            })
        })
    };
    metric("radio_queued_bytes", "gauge", waiting(|it| it.bytes), text);
    metric("radio_queued_events", "gauge", waiting(|it| it.events), text);
    let count = |is: fn(&mosaik_api::document::BridgePeer) -> bool| {
        [(String::new(), bridge.peers.iter().filter(|peer| is(peer)).count() as u64)]
    };
    metric("radio_peers", "gauge", count(|_| true), text);
    metric("radio_peers_linked", "gauge", count(|peer| peer.linked), text);
    metric("radio_peers_in_sync", "gauge", count(|peer| peer.in_sync), text);
}

fn meshlogd(it: &BridgeMeshlog, text: &mut String) {
    let linked = it.peers.iter().filter(|peer| peer.linked).count() as u64;
    let refused = it.refused.iter().map(|refusal| refusal.events).sum();
    let numbers = [
        ("peers_linked", "gauge", linked),
        ("authors", "gauge", it.authors),
        ("events_pending", "gauge", it.pending),
        ("events_verified_total", "counter", it.verified),
        ("events_unverified_total", "counter", it.unverified),
        ("events_mismatched_total", "counter", it.mismatched),
        ("events_refused_total", "counter", refused),
        ("events_sent_total", "counter", it.sent),
    ];
    for (name, kind, number) in numbers {
        metric(&format!("meshlog_{name}"), kind, [(String::new(), number)], text);
    }
}

/// A label's value as it may stand between quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use mosaik_api::document::BridgeQueue;

    use super::*;

    #[test]
    fn each_interface_is_told_by_name_and_each_class_too() {
        let interface = BridgeInterface {
            name: "pipe:say \"a\"".into(),
            online: true,
            bitrate: Some(3125),
            airtime_used_ms: 77,
            airtime_left_ms: None,
            queued: BridgeQueue {
                news: BridgeWaiting { events: 2, bytes: 518 },
                ..BridgeQueue::default()
            },
            broadcasts_sent: 1,
            broadcasts_heard: 9,
            broadcasts_refused: 0,
        };
        let identity = Some("00".repeat(16));
        let bridge = Bridge { identity, interfaces: vec![interface], ..Bridge::default() };
        let text = text(&bridge);
        let has = |line: &str| text.lines().any(|it| it == line);
        assert!(has(r#"mosaik_radio_online{interface="pipe:say \"a\""} 1"#), "{text}");
        assert!(has(r#"mosaik_radio_airtime_used_ms{interface="pipe:say \"a\""} 77"#), "{text}");
        let heard = r#"mosaik_radio_broadcasts_heard_total{interface="pipe:say \"a\""} 9"#;
        assert!(has(heard), "{text}");
        let news = r#"mosaik_radio_queued_bytes{interface="pipe:say \"a\"",class="news"} 518"#;
        assert!(has(news), "{text}");
        assert!(has("mosaik_radio_peers 0"), "{text}");
        // Without a limit nothing is left of one, and without meshlogd nothing is said of it.
        assert!(!text.contains("airtime_left") && !text.contains("meshlog"), "{text}");
        assert_eq!(super::text(&Bridge::default()), "");
    }
}

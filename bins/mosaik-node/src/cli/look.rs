//! The verbs that only read.

use mosaik_api::{
    SCHEMA,
    client::{Client, ClientError},
    document::{
        Event, Events, Feeds, PayloadState, Peer, PeerState, Peers, Record, RecordLine, Records,
        State, Status, Traffic,
    },
    failure::Code,
    time::format_ms,
};
use mosaik_core::key::Network;
use mosaik_store::Store;
use serde_json::Value as Json;

use super::{
    EventList, EventVerb, Failed, FeedVerb, FileFormat, Noun, Place, RecordList, RecordVerb,
    attachment::{self, size_text},
    bridge, connect,
    db::{self, Keeper},
    nothing_before_the_verb,
    output::{count, named, note, plain, print, print_bytes, print_json, print_table},
    slots,
};
use crate::{
    directory,
    export::{self, ExportError, Options},
    reads::Reads,
};

/// Answers a noun that only asks.
pub(super) async fn look(client: &Client, noun: Noun, json: bool) -> Result<(), Failed> {
    match noun {
        Noun::Status { check } => status(&client.status().await?, check, json),
        Noun::Id { ticket } => identity(client, ticket, json).await,
        Noun::Peer { .. } => peers(client.peers().await?, json),
        Noun::Slot { list, verb } => slots::slots(client, list, verb, json).await,
        Noun::Bridge { .. } => bridge::bridge(client, json).await,
        Noun::Frontier => frontier(client, json).await,
        Noun::Feed { verb } => {
            let mut feeds = client.feeds().await?;
            if let Some(FeedVerb::Show { author }) = verb {
                let ids = feeds.feeds.iter().map(|feed| feed.author.as_str());
                let author = one_that_begins("author", ids, &author)?;
                feeds.feeds.retain(|feed| feed.author == author);
            }
            print_feeds(&feeds, json)
        }
        Noun::Conflicts => conflicts(client, json).await,
        Noun::View { digest } => view(client, digest, json).await,
        Noun::Event { list, verb } => {
            if let Some(EventVerb::Show { author, seq, fetch }) = verb {
                nothing_before_the_verb(list == EventList::default())?;
                return event(client, &author, seq, fetch, json).await;
            }
            let list = match verb {
                Some(EventVerb::List(own)) => {
                    nothing_before_the_verb(list == EventList::default())?;
                    own
                }
                _ => list,
            };
            events(client, &list, json).await
        }
        Noun::Record { list, verb } => {
            let list = match verb {
                Some(RecordVerb::List(own)) => {
                    nothing_before_the_verb(list == RecordList::default())?;
                    own
                }
                _ => list,
            };
            records(client, &list, json).await
        }
        _ => Err(Failed::usage("this noun is not a question to a node")),
    }
}

fn status(status: &Status, check: bool, json: bool) -> Result<(), Failed> {
    if json {
        print_json(status)?;
    } else {
        let line = |name: &str, value: String| print(format!("{name:<12}{value}"));
        line("node", named(&status.name, &status.node))?;
        line("network", format!("{} ({})", status.network.fingerprint, status.network.kind))?;
        line("data dir", status.data_dir.clone())?;
        line("state", state_line(status.state, &status.doing))?;
        line("peers", format!("{} connected", status.peers))?;
        let held = format!(
            "{} by {} on {}",
            count(status.events, "event"),
            count(status.authors, "author"),
            if status.branches == 1 {
                "1 branch".to_owned()
            } else {
                format!("{} branches", status.branches)
            },
        );
        line("holds", held)?;
        line("conflicts", status.conflicts.to_string())?;
        line("outside", outside(status))?;
        line("view", status.view_digest.clone())?;
        for Traffic { purpose, sent, received } in &status.traffic {
            let (sent, received) = (size_text(*sent), size_text(*received));
            let told = format!("{sent} sent, {received} received");
            line(&plain(purpose), told)?;
        }
        if status.violations > 0 {
            let ended = count(status.violations, "session");
            line("violations", format!("{ended} ended because the protocol was broken"))?;
        }
        for notice in &status.notices {
            line("notice", plain(notice))?;
        }
    }
    if check && !status.failing.is_empty() {
        return Err(Failed::new(Code::Degraded, status.failing.join("; ")));
    }
    match &status.degraded {
        Some(why) => Err(Failed::new(Code::Degraded, format!("the node only serves reads: {why}"))),
        None => Ok(()),
    }
}

/// What a node is and does, in one line that says neither twice.
pub(super) fn state_line(state: State, doing: &str) -> String {
    let state = state.as_str().replace('_', " ");
    let doing = plain(doing);
    if doing.starts_with(&state) { doing } else { format!("{state}: {doing}") }
}

/// What is held and not in the view, or not held.
fn outside(status: &Status) -> String {
    let numbers = [
        (status.held_back, "held back"),
        (status.missing, "missing"),
        (status.unavailable, "unavailable"),
        (status.declined, "declined"),
        (status.crowded, "crowded"),
    ];
    let parts: Vec<_> =
        numbers.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

async fn identity(client: &Client, ticket: bool, json: bool) -> Result<(), Failed> {
    let identity = client.identity().await?;
    if json {
        return print_json(&identity);
    }
    if identity.addresses.is_empty() && identity.relays.is_empty() {
        note(
            "note: the ticket has no address yet, so only who finds this node otherwise can use it; \
             private addresses are in it with --lab only",
        );
    }
    if ticket {
        return print(identity.ticket);
    }
    print(format!("node      {}", identity.node))?;
    print(format!("name      {}", plain(&identity.name)))?;
    print(format!("author    {}", identity.author))?;
    print(format!("network   {} ({})", identity.network.fingerprint, identity.network.kind))?;
    print(format!("ticket    {}", identity.ticket))
}

fn peers(peers: Peers, json: bool) -> Result<(), Failed> {
    if json {
        return print_json(&peers);
    }
    if peers.peers.is_empty() {
        note("no peers are known yet");
        return Ok(());
    }
    let rows: Vec<_> = peers.peers.iter().map(peer_row).collect();
    print_table(["PEER", "STATE", "PATH", "RTT", "BEHIND", "AHEAD", "FOUND BY", "REASON"], &rows)
}

fn peer_row(peer: &Peer) -> [String; 8] {
    let number = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
    [
        named(&peer.name, &peer.id),
        peer.state.as_str().to_owned(),
        path_text(peer),
        rtt_text(peer),
        number(peer.events_behind),
        number(peer.events_ahead),
        plain(&peer.found_by),
        peer.reason.as_deref().map(plain).unwrap_or_default(),
    ]
}

/// Of a connected peer: what is no more is nobody's round trip.
fn rtt_text(peer: &Peer) -> String {
    let rtt_ms = peer.rtt_ms.filter(|_| peer.state == PeerState::Connected);
    rtt_ms.map(|rtt_ms| format!("{rtt_ms:.1} ms")).unwrap_or_default()
}

/// `direct 192.0.2.1:4242`.
pub(super) fn path_text(peer: &Peer) -> String {
    let parts = [peer.path.as_deref(), peer.address.as_deref()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Shows one peer.
pub(super) async fn peer(client: &Client, id: &str, json: bool) -> Result<(), Failed> {
    let mut peers = client.peers().await?;
    let id = one_that_begins("peer", peers.peers.iter().map(|peer| peer.id.as_str()), id)?;
    peers.peers.retain(|peer| peer.id == id);
    if json {
        return print_json(&peers);
    }
    for peer in &peers.peers {
        print(format!("id         {}", peer.id))?;
        print(format!("name       {}", plain(&peer.name)))?;
        print(format!("state      {}", peer.state.as_str()))?;
        if let Some(reason) = &peer.reason {
            print(format!("reason     {}", plain(reason)))?;
        }
        if peer.state == PeerState::Connected {
            print(format!("path       {}, {}", path_text(peer), rtt_text(peer)))?;
        }
        if let (Some(behind), Some(ahead)) = (peer.events_behind, peer.events_ahead) {
            let (behind, ahead) = (count(behind, "event"), count(ahead, "event"));
            print(format!("behind     {behind} that it has and this node has not"))?;
            print(format!("ahead      {ahead} that it has asked for and that are still to go"))?;
        }
        if let Some(protocol) = peer.protocol {
            let can = peer.capabilities.join(", ");
            print(format!("software   {}, protocol {protocol} ({can})", plain(&peer.software)))?;
        }
        print(format!("found by   {}", plain(&peer.found_by)))?;
        if peer.failures > 0 {
            print(format!("failures   {} in a row", count(u64::from(peer.failures), "dial")))?;
        }
        if let Some(ms) = peer.first_seen_ms {
            print(format!("first seen {}", instant(ms)))?;
        }
        if let Some(ms) = peer.last_seen_ms {
            print(format!("last seen  {}", instant(ms)))?;
        }
        for known in &peer.known_addresses {
            let (address, source) = (plain(&known.address), plain(&known.source));
            let expired = if known.expired { ", too long ago to be dialed" } else { "" };
            let seen = instant(known.seen_ms);
            print(format!("address    {address} ({source}, {seen}{expired})"))?;
        }
    }
    Ok(())
}

/// The one id that begins so.
///
/// # Errors
///
/// Not found if none does, usage if several do.
pub(super) fn one_that_begins<'a>(
    what: &str,
    ids: impl Iterator<Item = &'a str>,
    start: &str,
) -> Result<String, Failed> {
    let start = start.to_ascii_lowercase();
    let mut found = ids.filter(|id| !start.is_empty() && id.starts_with(&start));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id.to_owned()),
        (None, _) => Err(Failed::new(
            Code::NotFound,
            format!("no {what} that is known here has an id that begins with {start:?}"),
        )),
        (Some(_), Some(_)) => Err(Failed::usage(format!(
            "several {what}s have an id that begins with {start:?}; give more digits"
        ))),
    }
}

async fn frontier(client: &Client, json: bool) -> Result<(), Failed> {
    let frontier = client.frontier().await?;
    if json {
        return print_json(&frontier);
    }
    let rows: Vec<_> = frontier
        .frontier
        .iter()
        .flat_map(|(author, tips)| {
            tips.iter().map(move |tip| [author.clone(), tip.seq.to_string(), tip.id.clone()])
        })
        .collect();
    print_table(["AUTHOR", "SEQ", "ID"], &rows)
}

fn print_feeds(feeds: &Feeds, json: bool) -> Result<(), Failed> {
    if json {
        return print_json(feeds);
    }
    let rows: Vec<_> = feeds
        .feeds
        .iter()
        .map(|feed| {
            let tips: Vec<_> = feed.tips.iter().map(|tip| tip.seq.to_string()).collect();
            let remarks = [(feed.own, "own"), (feed.crowded, "crowded")];
            let remarks: Vec<_> = remarks.iter().filter(|(is, _)| *is).map(|(_, s)| *s).collect();
            [
                named(&feed.name, &feed.author),
                feed.events.to_string(),
                feed.branches.to_string(),
                tips.join(", "),
                remarks.join(", "),
            ]
        })
        .collect();
    print_table(["AUTHOR", "EVENTS", "BRANCHES", "NEWEST", ""], &rows)
}

async fn conflicts(client: &Client, json: bool) -> Result<(), Failed> {
    let conflicts = client.conflicts().await?;
    if json {
        return print_json(&conflicts);
    }
    if conflicts.conflicts.is_empty() {
        note("no conflicts");
    }
    for conflict in &conflicts.conflicts {
        let field = if conflict.field.is_empty() { "(form)" } else { &conflict.field };
        print(format!("{}.{}", plain(&conflict.record), plain(field)))?;
        let shown = std::iter::once(("kept", &conflict.shown));
        for (word, candidate) in shown.chain(conflict.others.iter().map(|other| ("over", other))) {
            let who = named(&candidate.author_name, &candidate.author);
            let when = instant(candidate.time_ms);
            print(format!("  {word}  {}  by {who}, {when}", text_of(&candidate.value)))?;
        }
    }
    Ok(())
}

async fn view(client: &Client, digest: bool, json: bool) -> Result<(), Failed> {
    let view = client.view().await?;
    if json {
        return print_json(&view);
    }
    if digest {
        return print(view.digest);
    }
    print(format!("digest     {} (fold {})", view.digest, view.fold))?;
    print(format!("records    {}", view.records))?;
    print(format!("conflicts  {}", view.conflicts))?;
    print(format!("held back  {}", view.held_back))?;
    print(format!("missing    {}", view.missing))?;
    print(format!("crowded    {}", view.crowded))
}

async fn events(client: &Client, list: &EventList, json: bool) -> Result<(), Failed> {
    if list.follow {
        let mut stream = client.follow(list.since).await?;
        while let Some(event) = stream.next().await? {
            if json {
                print(serde_json::to_string(&event).map_err(anyhow::Error::new)?)?;
            } else {
                print(event_line(&event))?;
            }
        }
        note("the node has stopped");
        return Ok(());
    }
    let mut all = Events { schema: SCHEMA, events: Vec::new(), next: list.since, more: true };
    while all.more {
        let page = client.events(all.next, None).await?;
        (all.next, all.more) = (page.next, page.more);
        if json {
            all.events.extend(page.events);
        } else {
            page.events.iter().try_for_each(|event| print(event_line(event)))?;
        }
    }
    if json { print_json(&all) } else { Ok(()) }
}

async fn event(
    client: &Client,
    author: &str,
    seq: u64,
    fetch: bool,
    json: bool,
) -> Result<(), Failed> {
    let feeds = client.feeds().await?.feeds;
    let author = one_that_begins("author", feeds.iter().map(|feed| feed.author.as_str()), author)?;
    let found = client.event(&author, seq, fetch).await?;
    if json {
        return print_json(&found);
    }
    for event in &found.events {
        print(event_line(event))?;
        if event.payload_state == PayloadState::Absent {
            note("its payload is not here; --fetch asks the peers for it");
        }
    }
    Ok(())
}

fn event_line(event: &Event) -> String {
    let author = named("", &event.author);
    format!(
        "{:>6}  {}  {author} {:>6}  {:<14} {}",
        event.arrival,
        instant(event.time_ms),
        event.seq,
        event.kind,
        plain(&event.payload.to_string()),
    )
}

async fn records(client: &Client, list: &RecordList, json: bool) -> Result<(), Failed> {
    let mut all: Vec<RecordLine> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = client.records(list.form.as_deref(), after.as_deref(), list.archived).await?;
        all.extend(page.records);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    if json {
        return print_json(&Records { schema: SCHEMA, records: all, next: None });
    }
    let rows: Vec<_> = all
        .iter()
        .map(|line| {
            let archived = if line.archived { "archived" } else { "" };
            let form = line.form.as_deref().unwrap_or_default();
            [plain(&line.record), plain(form), archived.to_owned()]
        })
        .collect();
    print_table(["RECORD", "FORM", ""], &rows)
}

/// Prints one record.
pub(super) fn print_record(record: &Record, json: bool) -> Result<(), Failed> {
    if json {
        return print_json(record);
    }
    print(format!("record   {}", plain(&record.record)))?;
    print(format!("form     {}", plain(record.form.as_deref().unwrap_or("(none)"))))?;
    if let Some(author) = &record.created_by {
        print(format!("created  by {}", named("", author)))?;
    }
    if record.archived {
        print("archived")?;
    }
    for (name, value) in &record.fields {
        print(format!("  {} = {}", plain(name), text_of(value)))?;
    }
    for remark in &record.notes {
        let who = named(&remark.author_name, &remark.author);
        print(format!("note     {} ({who}, {})", plain(&remark.text), instant(remark.time_ms)))?;
    }
    for file in &record.attachments {
        let (name, mime) = (plain(&file.name), plain(&file.mime));
        let field = plain(&file.field);
        print(format!("file     {field}: {name} ({mime}), {}", attachment::told(file)))?;
    }
    for conflict in &record.conflicts {
        let field = if conflict.field.is_empty() { "(form)" } else { &conflict.field };
        let others: Vec<_> = conflict.others.iter().map(|other| text_of(&other.value)).collect();
        print(format!("conflict {}: also {}", plain(field), others.join(", ")))?;
    }
    Ok(())
}

/// A value as a person reads it: text without quotes.
fn text_of(value: &Json) -> String {
    match value {
        Json::String(text) => plain(text),
        other => plain(&other.to_string()),
    }
}

pub(super) fn instant(ms: u64) -> String {
    i64::try_from(ms).map_or_else(|_| ms.to_string(), format_ms)
}

/// Writes an export to stdout: the running node's, or of the store itself where none runs.
pub(super) async fn export(
    place: &Place,
    format: FileFormat,
    form: Option<String>,
    id_column: String,
    archived: bool,
) -> Result<(), Failed> {
    let client = match db::keeper(place).await? {
        Keeper::Node(client) => client,
        Keeper::Here(directory, fingerprint) => {
            let format = match format {
                FileFormat::Csv => export::Format::Csv,
                FileFormat::Jsonl => export::Format::Jsonl,
            };
            let store = db::open(&directory, &fingerprint)?;
            return export_store(&store, &Options { format, form, id_column, archived });
        }
    };
    let format = match format {
        FileFormat::Csv => "csv",
        FileFormat::Jsonl => "jsonl",
    };
    let options = [
        ("format", Some(format)),
        ("form", form.as_deref()),
        ("id_column", Some(id_column.as_str())),
        ("archived", archived.then_some("true")),
    ];
    let mut chunks = client.export(&options).await?;
    loop {
        match chunks.next().await {
            Ok(Some(chunk)) => print_bytes(&chunk)?,
            Ok(None) => return Ok(()),
            Err(error @ ClientError::Broken(_)) => {
                let cut = format!("the export is cut: {:#}", anyhow::Error::new(error));
                return Err(Failed::new(Code::Failed, cut));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn export_store(store: &Store, options: &Options) -> Result<(), Failed> {
    let snapshot = Reads::new(store.readers()).snapshot().map_err(anyhow::Error::new)?;
    let out = std::io::BufWriter::new(std::io::stdout().lock());
    export::export(&snapshot, options, out).map_err(|error| match error {
        ExportError::Write(error) => Failed::from(error),
        ExportError::IdColumnTaken(_) | ExportError::FormColumnTaken => {
            Failed::usage(error.to_string())
        }
        error => anyhow::Error::new(error).into(),
    })
}

/// The only network that is known under the data directory.
pub(super) fn only_known(data_dir: &std::path::Path) -> Result<Network, Failed> {
    let mut known = directory::known_networks(data_dir);
    match known.len() {
        1 => Ok(known.remove(0).network),
        0 => Err(Failed::new(
            Code::NotFound,
            format!(
                "no network is known in {}; join one with `mosaik-node --network NAME`, or make a \
                 secret one with `mosaik-node network new`",
                data_dir.display()
            ),
        )),
        number => {
            let list: Vec<_> = known
                .iter()
                .map(|known| {
                    let label =
                        known.label.as_deref().map(|l| format!("  {l}")).unwrap_or_default();
                    format!("  {}{label}", connect::network_flag(known))
                })
                .collect();
            Err(Failed::usage(format!(
                "{number} networks are known in {}; say which one is meant:\n{}",
                data_dir.display(),
                list.join("\n")
            )))
        }
    }
}

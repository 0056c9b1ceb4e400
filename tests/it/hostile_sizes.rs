//! A peer of the network that sends too much of something: it costs a bounded amount of memory. What
//! breaks the protocol is hung up on with a reason, what is merely too much is declined or passed over.
//!
//! Everything invented comes for some seconds, as fast as the node takes it, and the test says how much
//! that was. The long profile sends counts instead, ten million authors for one (some minutes):
//! `MOSAIK_HOSTILE_AUTHORS=10000000 cargo test -p mosaik-tests --test it hostile_sizes -- --nocapture`.

mod memory;

use std::{
    env,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ed25519_dalek::SigningKey;
use iroh::EndpointAddr;
use mosaik_api::document::Status;
use mosaik_lab::{Cluster, Node};
use mosaik_tests::{Diary, cluster, play};

use self::memory::Memory;
use crate::{
    stranger::{STEP, Stranger, place_of},
    wire::{Entry, Keys, Run, bytes, varint},
};

/// What one peer may make a node hold above its idle self, in MiB.
///
/// All sessions together may have 16 MiB of frames here, and the claims of 65,536 authors take some
/// 35 MiB. Of what is given back the allocator keeps most for the next: 73 MiB were seen in all.
const PEAK_MIB: u64 = 96;
/// What may stay: no less, for the allocator keeps it. That nothing grows the second time shows.
const LEFT_MIB: u64 = 96;
/// What a second flood of a kind may leave beyond the first one.
const AGAIN_MIB: f64 = 16.0;
/// Authors of which runs come that nobody asked for: they are held, so how many there are must not
/// depend on the machine.
const NEW_AUTHORS: u64 = 5_000;
/// How long each flood lasts.
const FLOOD: Duration = Duration::from_secs(3);
/// Items of one page: as many as a frame may have.
const PAGE: u64 = 1024;

/// How much of something is sent.
#[derive(Debug, Clone, Copy)]
enum Amount {
    For(Duration),
    Count(u64),
}

impl Amount {
    fn read() -> Result<Self> {
        Ok(match env::var("MOSAIK_HOSTILE_AUTHORS") {
            Ok(text) => Self::Count(text.parse().context("MOSAIK_HOSTILE_AUTHORS is a number")?),
            Err(_) => Self::For(FLOOD),
        })
    }

    fn is_over(self, started: Instant, sent: u64) -> bool {
        match self {
            Self::For(time) => started.elapsed() >= time,
            Self::Count(count) => sent >= count,
        }
    }
}

/// An author that nobody has met, and a head of it that doesn't exist. They ascend.
fn invented(n: u64) -> [u8; 32] {
    let mut author = [0xa5; 32];
    author[..8].copy_from_slice(&n.to_be_bytes());
    author
}

#[tokio::test]
async fn a_peer_that_sends_too_much_of_anything_costs_a_bounded_amount_of_memory() {
    play(cluster(1).dht(0).relay(false), async |cluster: &mut Cluster| {
        let keys = Keys::of(cluster.network());
        let [n1] = &mut cluster.nodes[..] else { unreachable!("one node") };
        n1.start().await?;
        let place = place_of(n1).await?;
        // What any session makes it allocate is not what is asked about.
        drop(Stranger::open(&place, &keys).await?);
        let (diary, memory) = (Diary::begin(), Memory::of(n1)?);
        let amount = Amount::read()?;
        let silent = silence(&place, &keys).await?;

        let violations = lengths(&place, &keys).await?;
        let before = n1.wait_until("violations", STEP, |now| now.violations == violations).await?;
        memory.was_within(&diary, "4 GiB lengths", PEAK_MIB, LEFT_MIB).await?;

        let half = halves(&place, &keys).await?;
        memory.was_within(&diary, "frames that stay half", PEAK_MIB, LEFT_MIB).await?;
        drop(half);

        let mut left = Vec::new();
        for round in ["heads", "heads once more"] {
            let sent = heads(&place, &keys, amount).await?;
            let what = format!("{round} of {sent} invented authors");
            left.push(memory.was_within(&diary, &what, PEAK_MIB, LEFT_MIB).await?);
        }
        for round in ["a frontier", "another frontier"] {
            let sent = frontier(&place, &keys, amount).await?;
            let what = format!("{round} of {sent} invented authors");
            left.push(memory.was_within(&diary, &what, PEAK_MIB, LEFT_MIB).await?);
        }
        let grew = left.chunks(2).any(|rounds| rounds[1] > rounds[0] + AGAIN_MIB);
        ensure!(!grew, "what was given back is not used again: {left:?} MiB left");
        is_as_before(n1, &before).await?;

        branches(&place, &keys, n1).await?;
        memory.was_within(&diary, "1,000 branches", PEAK_MIB, LEFT_MIB).await?;

        let before = n1.status().await?;
        runs(&place, &keys).await?;
        let most = before.authors + NEW_AUTHORS;
        let held = n1.wait_until("all of them", STEP, |now| now.authors == most).await?;
        ensure!(held.violations == violations, "{} violations", held.violations);
        let what = format!("runs of {NEW_AUTHORS} authors that nobody asked for");
        memory.was_within(&diary, &what, PEAK_MIB, LEFT_MIB).await?;

        for mut member in silent {
            member.is_served().await.context("silence is no violation")?;
        }
        n1.run(&["record", "create", "R-1", "--form", "report"]).await?.ok()?;
        Ok(())
    })
    .await;
}

/// None of what was claimed is held.
async fn is_as_before(node: &Node, before: &Status) -> Result<()> {
    let now = node.status().await?;
    ensure!((now.events, now.authors) == (before.events, before.authors), "{now:?}");
    ensure!(now.violations == before.violations, "{} violations", now.violations);
    Ok(())
}

/// Lengths that no frame has, before the greeting and after it. How many were sent.
async fn lengths(place: &EndpointAddr, keys: &Keys) -> Result<u64> {
    let lengths = [u32::MAX, 1 << 31, (1 << 20) + 1, 0];
    for length in lengths {
        let header = length.to_be_bytes();
        let mut stranger = Stranger::dial(place).await?;
        stranger.send_raw(&header).await?;
        let mut member = Stranger::open(place, keys).await?;
        member.send_raw(&header).await?;
        for peer in [&mut stranger, &mut member] {
            let (code, text) = peer.closed().await?;
            let is_named = text.contains(&length.to_string());
            ensure!(code == 4 && is_named, "{length} is answered by {code} {text:?}");
        }
    }
    Ok(2 * lengths.len() as u64)
}

/// Sessions with a frame of 1 MiB that lacks its last byte: two more than there is room for, and each
/// as far as the node reads it.
async fn halves(place: &EndpointAddr, keys: &Keys) -> Result<Vec<Stranger>> {
    let mut halves = Vec::new();
    for _ in 0..18 {
        let mut member = Stranger::open(place, keys).await?;
        let body = vec![0; (1 << 20) - 2];
        let frame = [&(1_u32 << 20).to_be_bytes()[..], &[200], &body].concat();
        // Whoever isn't read, or is given up, can't write all of it.
        let _ = tokio::time::timeout(Duration::from_millis(100), member.send_raw(&frame)).await;
        halves.push(member);
    }
    Ok(halves)
}

/// Heads of authors that don't exist.
async fn heads(place: &EndpointAddr, keys: &Keys, amount: Amount) -> Result<u64> {
    let mut member = Stranger::open(place, keys).await?;
    let (started, mut sent) = (Instant::now(), 0);
    while !amount.is_over(started, sent) {
        let mut frames = Vec::new();
        for n in sent..sent + 500 {
            let author = invented(n);
            let body = [&author[..], &varint(1), &author].concat();
            frames.extend([&(body.len() as u32 + 1).to_be_bytes()[..], &[10], &body].concat());
        }
        member.send_raw(&frames).await.context("it is a claim, no violation")?;
        sent += 500;
    }
    member.is_served().await.context("too much is no violation")?;
    Ok(sent)
}

/// A frontier without end, page by page, each answered before the next one goes.
async fn frontier(place: &EndpointAddr, keys: &Keys, amount: Amount) -> Result<u64> {
    let mut member = Stranger::open(place, keys).await?;
    member.send(3, &[0xdd; 16]).await?;
    member.frame_of(3).await?;
    let (started, mut sent) = (Instant::now(), 0);
    while !amount.is_over(started, sent) {
        let mut page = [&[0][..], &varint(PAGE)].concat();
        for n in sent..sent + PAGE {
            let author = invented(n);
            page.extend([&author[..], &varint(1), &varint(1), &author].concat());
        }
        // Nothing is lacked, and more follow.
        page.extend([0, 1]);
        member.send(6, &page).await?;
        while !matches!(member.frame().await?, (6 | 7, _)) {}
        sent += PAGE;
    }
    Ok(sent)
}

/// A thousand branches of one author: 64 are held, then the author is declined.
async fn branches(place: &EndpointAddr, keys: &Keys, node: &Node) -> Result<()> {
    let key = SigningKey::from_bytes(&rand::random());
    let mut member = Stranger::open(place, keys).await?;
    let (before, violations) = {
        let now = node.status().await?;
        (now.branches, now.violations)
    };
    for n in 0..1000 {
        let entries = vec![Entry::new(1_790_000_000_000 + n, "branch")];
        let run = Run::signed(&key, keys, 1, [0; 32], entries);
        member.send(9, &[&[0][..], &bytes(&run.encode())].concat()).await?;
    }
    let declined = member.frame_of(12).await?;
    ensure!(declined == [key.verifying_key().as_bytes(), &[4][..]].concat(), "{declined:?}");
    member.is_served().await.context("too many branches are no violation")?;
    let now = node.status().await?;
    ensure!(now.branches == before + 64 && now.crowded == 1, "{now:?}");
    ensure!(now.violations == violations, "{} violations", now.violations);
    Ok(())
}

/// Runs in order, of authors that the node never asked for. It holds them from then on.
async fn runs(place: &EndpointAddr, keys: &Keys) -> Result<()> {
    let mut member = Stranger::open(place, keys).await?;
    for _ in 0..NEW_AUTHORS {
        let key = SigningKey::from_bytes(&rand::random());
        let run = Run::signed(&key, keys, 1, [0; 32], vec![Entry::new(1_790_000_000_000, "r")]);
        member.send(9, &[&[0][..], &bytes(&run.encode())].concat()).await?;
    }
    member.is_served().await
}

/// Sessions in which nothing is said while all the rest goes on: what they cost an hour long the
/// simulator shows.
async fn silence(place: &EndpointAddr, keys: &Keys) -> Result<Vec<Stranger>> {
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(Stranger::open(place, keys).await?);
    }
    Ok(silent)
}

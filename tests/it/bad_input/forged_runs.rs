//! Runs that nobody wrote so, from a peer that is in the network: none of their events comes in.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use ed25519_dalek::SigningKey;
use mosaik_lab::Cluster;
use mosaik_tests::{Diary, cluster, play};

use super::goes_on;
use crate::{
    stranger::{STEP, Stranger, place_of},
    wire::{Entry, Keys, Run, bytes, varint},
};

/// What the node does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Hangs up: nobody sends this by mistake.
    Violation,
    /// Drops it and asks for what would be below: the sender may know more.
    AsksForBase,
}

/// In a public network everybody can open a session; what counts is what the author signed.
#[tokio::test]
async fn forged_runs_bring_nothing_in_and_the_node_goes_on() {
    play(cluster(1).dht(0).relay(false), async |cluster: &mut Cluster| {
        let keys = Keys::of(cluster.network());
        let [n1] = &mut cluster.nodes[..] else { unreachable!("one node") };
        n1.start().await?;
        let place = place_of(n1).await?;
        let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;

        // The same peer with nothing forged is taken: so all that follows fails by its one flaw.
        let key = SigningKey::from_bytes(&rand::random());
        let entries = vec![Entry::new(now_ms, "good-1"), Entry::new(now_ms + 1, "good-2")];
        let good = Run::signed(&key, &keys, 1, [0; 32], entries);
        let mut member = Stranger::open(&place, &keys).await?;
        member.send(9, &compressed(0, &good.encode())).await?;
        let before = n1.wait_until("the good run", STEP, |status| status.authors == 2).await?;
        n1.run(&["record", "get", "good-2"]).await?.ok()?;
        drop(member);

        let author = n1.identity().await?.author;
        let victim = data_encoding::HEXLOWER.decode(author.as_bytes())?;
        let victim: [u8; 32] = victim.as_slice().try_into()?;
        let diary = Diary::begin();
        let mut status = goes_on(n1, &before).await?;
        for (name, run, head, verdict) in forged(&keys, &key, &good, victim, now_ms) {
            let mut member = Stranger::open(&place, &keys).await.context(name)?;
            if let Some(tip) = &head {
                // It claims to have it, and is asked for it.
                member.send(10, tip).await?;
                let want = member.frame_of(8).await.with_context(|| format!("{name}: no want"))?;
                ensure!(want[..32] == tip[..32], "{name}: another author is asked for");
            }
            member.send(9, &run).await?;
            match verdict {
                Verdict::Violation => {
                    let (code, text) = member.closed().await.context(name)?;
                    ensure!(code == 4 && !text.is_empty(), "{name} is told {code} {text:?}");
                    diary.note(format_args!("{name}: {text}"));
                }
                Verdict::AsksForBase => {
                    let want = member.frame_of(8).await.context(name)?;
                    // There is nothing below: gone.
                    let lack = [&want[..32], &tip_of(&want), &[2]].concat();
                    member.send(13, &lack).await?;
                    member.is_served().await.context(name)?;
                    diary.note(format_args!("{name}: its base is asked for"));
                }
            }
            status = goes_on(n1, &status).await.context(name)?;
        }
        let forged = n1.run(&["record", "get", "forged"]).await?;
        ensure!(forged.code == Some(4), "a forged record is there: {}", forged.stdout);

        // And the author whose feed was abused goes on as well.
        let more = vec![Entry::new(now_ms + 2, "good-3")];
        let more = Run::signed(&key, &keys, 3, good.head(&keys), more);
        let mut member = Stranger::open(&place, &keys).await?;
        member.send(9, &compressed(0, &more.encode())).await?;
        n1.wait_until("one more", STEP, |now| now.events == status.events + 1).await?;
        n1.run(&["record", "get", "good-3"]).await?.ok()?;
        Ok(())
    })
    .await;
}

type Forged = (&'static str, Vec<u8>, Option<Vec<u8>>, Verdict);

/// Each with one flaw: name, body of `Run`, tip of a `Have` before it, verdict.
fn forged(keys: &Keys, key: &SigningKey, good: &Run, victim: [u8; 32], now_ms: u64) -> Vec<Forged> {
    let next = |base: [u8; 32], start_seq| {
        let entries = vec![Entry::new(now_ms, "forged"), Entry::new(now_ms, "forged-too")];
        Run::signed(key, keys, start_seq, base, entries)
    };
    let run = next(good.head(keys), 3);
    let mut flipped = run.clone();
    flipped.signature[40] ^= 1;
    // The chain is made of hashes: what was changed in the middle shows at the head.
    let mut changed = run.clone();
    changed.entries[0] = Entry::new(now_ms, "forgex");
    let mut stamped = run.clone();
    stamped.entries[0].ms += 1;
    let mut swapped = run.clone();
    swapped.entries.swap(0, 1);
    let mut shortened = run.clone();
    shortened.entries.pop();
    let mut of_victim = run.clone();
    of_victim.author = victim;
    let mut signed_for_victim = of_victim.clone();
    signed_for_victim.sign(key, keys);
    let mut elsewhere = run.clone();
    elsewhere.sign(key, &Keys::of("another network"));
    let none = vec![0; 64];
    let mut null = run.clone();
    null.signature.copy_from_slice(&none);
    let rootless = next([0; 32], 3);
    let rooted = next([9; 32], 1);
    let mut cut = run.encode();
    cut.pop();
    let plain = run.encode();
    let long_start = run.encode_with_start(&[0x83, 0]);
    let behind = [&plain[..], &[0]].concat();
    let version = [&[2], &plain[1..]].concat();
    let unknown = next([9; 32], 6);
    // Held, but not at the seq before.
    let misplaced = next(good.ids(keys)[0], 3);

    let asked = |run: &Run| {
        let tip = [&run.author[..], &varint(run.head_seq()), &run.head(keys)].concat();
        Some(tip)
    };
    let violation = |name, run: &[u8]| (name, compressed(0, run), None, Verdict::Violation);
    vec![
        violation("a flipped bit in the signature", &flipped.encode()),
        ("the same, asked for", compressed(0, &flipped.encode()), asked(&run), Verdict::Violation),
        violation("no signature", &null.encode()),
        violation("a payload changed inside the chain", &changed.encode()),
        violation("a stamp changed inside the chain", &stamped.encode()),
        violation("two events swapped", &swapped.encode()),
        violation("the last event taken off", &shortened.encode()),
        violation("another author's name on it", &of_victim.encode()),
        violation("another author's name, signed by the forger", &signed_for_victim.encode()),
        violation("signed for another network", &elsewhere.encode()),
        violation("no base, but not the first", &rootless.encode()),
        violation("the first, but with a base", &rooted.encode()),
        violation("cut by a byte", &cut),
        violation("a long varint", &long_start),
        violation("a byte behind it", &behind),
        violation("a later version", &version),
        violation("nothing", &[]),
        ("an unknown compression", compressed(2, &plain), None, Verdict::Violation),
        ("no zstd where it is said", compressed(1, &plain), None, Verdict::Violation),
        ("a zstd bomb", compressed(1, &bomb()), None, Verdict::Violation),
        ("an unknown base", compressed(0, &unknown.encode()), None, Verdict::AsksForBase),
        (
            "an unknown base, asked for",
            compressed(0, &next([8; 32], 9).encode()),
            asked(&next([8; 32], 9)),
            Verdict::AsksForBase,
        ),
        (
            "a base that is held elsewhere",
            compressed(0, &misplaced.encode()),
            None,
            Verdict::AsksForBase,
        ),
    ]
}

fn compressed(how: u8, run: &[u8]) -> Vec<u8> {
    [&[how][..], &bytes(run)].concat()
}

/// A zstd frame (RFC 8878) of zeros that says it has 1 GiB: 8,192 blocks of 128 KiB, each one byte
/// and how often it comes.
fn bomb() -> Vec<u8> {
    const BLOCK_LEN: u32 = 128 << 10;
    // Magic; a descriptor with a content size of 8 bytes and no checksum; a window of 1 MiB.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0x50];
    frame.extend((8192 * u64::from(BLOCK_LEN)).to_le_bytes());
    for block in 0..8192 {
        let is_last = u32::from(block == 8191);
        let head = is_last | 1 << 1 | BLOCK_LEN << 3;
        frame.extend([&head.to_le_bytes()[..3], &[0]].concat());
    }
    frame
}

/// The tip of a `Want`, as an option: behind the author.
fn tip_of(want: &[u8]) -> Vec<u8> {
    if want[32] == 0 {
        return vec![0];
    }
    let seq_len = want[33..].iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    want[32..33 + seq_len + 32].to_vec()
}

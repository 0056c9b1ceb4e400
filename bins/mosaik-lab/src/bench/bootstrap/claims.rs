//! How soon others see that a slot was taken.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ed25519_dalek::SigningKey;
use mosaik_core::{key::Network, reach::Reach};
use mosaik_dht::{ChainClient, ChainConfig, ChainEvent};

use super::{RUNS, count, site::storage, slots::writes_at_or_below_stored, times};
use crate::{
    bench::{Run, figure::progress, place::NETWORK},
    dht::stub::{Behaviour, StubDht},
    wait,
};

/// How long anything may take before something is broken.
const BROKEN: Duration = Duration::from_secs(120);

/// From the decision to take a slot, which is the first put, to a fresh reader that finds its holder.
pub(super) async fn all(run: &mut Run) -> Result<()> {
    const EXPIRES_AFTER: Duration = Duration::from_secs(600);
    let [ignored, refused, overwritten, expiring] = Behaviour::kinds(EXPIRES_AFTER).map(storage);
    let mix = Behaviour::mix(EXPIRES_AFTER);
    for (name, storage) in [
        ("ignored", ignored),
        ("refused", refused),
        ("overwritten", overwritten),
        ("expiring", expiring),
        ("mix", mix),
    ] {
        let case = format!("claim seen, {name}");
        progress(format_args!("bootstrap: {case}"));
        let (mut took, mut below) = (Vec::new(), 0);
        for _ in 0..RUNS {
            let (seen_s, stub) = claim(storage.clone()).await?;
            took.push(seen_s);
            below += writes_at_or_below_stored(&stub.puts());
        }
        run.report.add_all(&times(&case, &took, None, 5.0));
        run.report.add(&count(&case, "puts_at_or_below_stored", below).at_most(0.0));
    }
    Ok(())
}

async fn claim(storage: Vec<Behaviour>) -> Result<(f64, StubDht)> {
    let stub = StubDht::start(storage).await?;
    let keys = Network::Public(NETWORK.to_owned()).keys();
    let config = |node: u8| ChainConfig {
        dht_bootstrap: stub.bootstrap().to_vec(),
        reach: Reach::Lab,
        ..ChainConfig::new(keys.clone(), SigningKey::from_bytes(&[node; 32]))
    };
    let (holder, _events) = ChainClient::spawn(config(1));
    holder.set_addresses(vec![], vec![([127, 0, 0, 1], 4001).into()]);
    let decided: Instant = wait::until("a put", BROKEN, async || {
        stub.puts().first().map(|put| put.at).ok_or_else(|| "none came".to_owned())
    })
    .await?;
    let (reader, mut events) = ChainClient::spawn(config(2));
    let found = async {
        while let Some(event) = events.recv().await {
            if matches!(event, ChainEvent::Found(_)) {
                return Ok(());
            }
        }
        anyhow::bail!("the reader ended")
    };
    tokio::time::timeout(BROKEN, found).await.context("nobody was found")??;
    drop(reader);
    Ok((decided.elapsed().as_secs_f64(), stub))
}

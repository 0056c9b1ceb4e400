//! `mosaik-lab logs N`: what one node prints.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    cli::Logs,
    print,
    running::{self, Lab},
};

/// How often a log is looked at for more: often enough for a person's eye.
const POLL: Duration = Duration::from_millis(100);

pub(crate) async fn logs(asked: Logs) -> Result<()> {
    let lab = Lab::find(&running::place()?, asked.dir.as_deref())?;
    let log = asked.node.checked_sub(1).and_then(|index| lab.logs.get(index));
    let log = log.with_context(|| {
        format!("the lab has no node {}; it has 1 to {}", asked.node, lab.logs.len())
    })?;
    let show = show(log, asked.follow);
    tokio::select! {
        shown = show => shown,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn show(log: &Path, follow: bool) -> Result<()> {
    let mut file = File::open(log).with_context(|| format!("cannot read {}", log.display()))?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        if read > 0 {
            match print::bytes(&buffer[..read]) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                printed => printed?,
            }
        } else if follow {
            tokio::time::sleep(POLL).await;
        } else {
            return Ok(());
        }
    }
}

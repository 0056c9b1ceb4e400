//! The memory of a process, as the kernel counts it.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use mosaik_lab::{Node, wait};
use mosaik_tests::Diary;
use tokio::{sync::watch, task::JoinHandle};

use crate::stranger::STEP;

/// How often it is looked at: what grows for shorter is small.
const LOOK_EVERY: Duration = Duration::from_millis(10);

const MIB: u64 = 1 << 20;

/// Bytes of its own that a process has in memory: neither its program nor its files.
fn of(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no RssAnon")?;
    Ok(kib.trim().parse::<u64>()? * 1024)
}

/// The memory of a node, watched from now on.
pub(super) struct Memory {
    pid: u32,
    /// Before anything was done to it.
    idle: u64,
    peak: watch::Sender<u64>,
    watching: JoinHandle<()>,
}

impl Memory {
    /// Begins with a node that has nothing to do.
    pub(super) fn of(node: &mut Node) -> Result<Self> {
        let pid = node.process().context("it runs")?.pid();
        let idle = of(pid)?;
        let peak = watch::Sender::new(idle);
        let seen = peak.clone();
        let watching = tokio::spawn(async move {
            loop {
                // A node that has ended fails the test elsewhere.
                let now = of(pid).unwrap_or_default();
                seen.send_modify(|peak| *peak = now.max(*peak));
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Ok(Self { pid, idle, peak, watching })
    }

    /// What it had more than when idle since the last call, at the most.
    pub(super) fn peak(&self) -> Result<u64> {
        let now = of(self.pid)?;
        Ok(self.peak.send_replace(now).max(now).saturating_sub(self.idle))
    }

    /// What was done cost at most `most_mib`, and leaves no more than `left_mib` behind. How many MiB
    /// it leaves.
    pub(super) async fn was_within(
        &self,
        diary: &Diary,
        what: &str,
        most_mib: u64,
        left_mib: u64,
    ) -> Result<f64> {
        let peak = self.peak()?;
        let waited_for = format!("the memory of {what} to be given back");
        let left = wait::until(&waited_for, STEP, || async {
            let more =
                of(self.pid).map_err(|error| format!("{error:#}"))?.saturating_sub(self.idle);
            if more <= left_mib * MIB { Ok(more) } else { Err(format!("{} MiB more", more / MIB)) }
        });
        let left = left.await?;
        let mib = |bytes: u64| bytes as f64 / MIB as f64;
        let (peak, left) = (mib(peak), mib(left));
        diary.note(format_args!("{what}: {peak:.1} MiB at the most, {left:.1} MiB left"));
        ensure!(peak <= most_mib as f64, "{what} cost {peak:.1} MiB, the limit is {most_mib}");
        Ok(left)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

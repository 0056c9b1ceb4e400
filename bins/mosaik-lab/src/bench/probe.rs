//! What the system knows of a process: its processor time and its memory.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};

/// How often memory is looked at: a look costs some 20 us, a peak of a catch-up lasts longer.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Steps a second in which Linux tells processor times, whatever its own clock does.
const TICKS_PER_S: f64 = 100.0;

/// Processor seconds that a process has used in all its threads, in steps of 10 ms.
pub(super) fn cpu_s(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The second field is a name in parentheses, which may itself hold spaces.
    let fields = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    let (user, system) = ticks().zip(ticks()).with_context(|| format!("{path} has no times"))?;
    Ok((user + system) / TICKS_PER_S)
}

/// The same to the nanosecond, without threads that have ended: for spans of some milliseconds.
pub(super) fn cpu_exact_s(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/task");
    let tasks = fs::read_dir(&path).with_context(|| format!("cannot read {path}"))?;
    let mut ns = 0_u64;
    for task in tasks.flatten() {
        // A thread may end between the two.
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
        let first = text.split_whitespace().next().and_then(|first| first.parse::<u64>().ok());
        ns += first.with_context(|| format!("{path} has no times"))?;
    }
    Ok(ns as f64 / 1e9)
}

/// Bytes of memory that are a process's own: neither files nor shared.
pub(super) fn rss_anon(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("{path} has no RssAnon"))? * 1024)
}

/// Looks at the memory of processes until it is asked for the greatest that it saw.
#[derive(Debug)]
pub(super) struct PeakWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl PeakWatch {
    pub(super) fn start(pids: Vec<u32>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut peak = 0;
            while !seen.load(Ordering::Relaxed) {
                let now = pids.iter().filter_map(|pid| rss_anon(*pid).ok()).max();
                peak = peak.max(now.unwrap_or(0));
                std::thread::sleep(LOOK_EVERY);
            }
            peak
        });
        Self { stop, thread: Some(thread) }
    }

    /// The most that one of them had at one moment.
    pub(super) fn peak(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or(0)
    }
}

impl Drop for PeakWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_uses_processor_and_memory() {
        let pid = std::process::id();
        let (begun, watch) = (cpu_s(pid).expect("this is Linux"), PeakWatch::start(vec![pid]));
        let mut held = vec![0_u8; 1 << 20];
        while cpu_s(pid).expect("this is Linux") < begun + 0.05 {
            held.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(3).wrapping_add(1));
        }
        assert!(watch.peak() > held.len() as u64);
    }
}

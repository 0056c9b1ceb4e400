//! A serial cable between two programs, as slow as it is told.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::line::Line;

/// Bytes that go over at once: short enough that the two directions take turns.
const CHUNK_LEN: usize = 64;

/// Two devices, each of which reads what the other is written; gone when it is dropped.
#[derive(Debug)]
pub struct Cable {
    ends: [Arc<Line>; 2],
    _tasks: JoinSet<()>,
}

impl Cable {
    /// Makes one on the runtime that this is called on. `bitrate` is for both directions together, as
    /// on a channel that carries one at a time, in bit/s; none for as fast as it goes.
    ///
    /// # Errors
    ///
    /// If the system gives no pseudo terminals.
    pub fn start(bitrate: Option<u32>) -> Result<Self> {
        let end = || Line::open().map(Arc::new).context("cannot make a pseudo terminal");
        let ends = [end()?, end()?];
        let free = Arc::new(Mutex::new(Instant::now()));
        let mut tasks = JoinSet::new();
        for [from, to] in [[0, 1], [1, 0]].map(|pair| pair.map(|end: usize| Arc::clone(&ends[end])))
        {
            let free = Arc::clone(&free);
            tasks.spawn(async move {
                let mut buffer = [0; CHUNK_LEN];
                while let Some(read) = from.read(&mut buffer).await {
                    if let Some(bitrate) = bitrate {
                        let bits = 8 * read as u32;
                        let mut free = free.lock().await;
                        *free = (*free).max(Instant::now())
                            + Duration::from_secs_f64(f64::from(bits) / f64::from(bitrate));
                        sleep_until(*free).await;
                    }
                    to.write(&buffer[..read]).await;
                }
            });
        }
        Ok(Self { ends, _tasks: tasks })
    }

    /// The device at an end, 0 or 1.
    pub fn device(&self, end: usize) -> &Path {
        self.ends[end].device()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::OpenOptions,
        io::{Read, Write},
    };

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_one_end_writes_the_other_reads_as_it_is() {
        let cable = Cable::start(None).expect("pseudo terminals");
        let open = |end| OpenOptions::new().read(true).write(true).open(cable.device(end));
        let (mut one, mut other) = (open(0).expect("a device"), open(1).expect("a device"));
        let all: Vec<u8> = (0..=255).collect();
        let sent = all.clone();
        let read = tokio::task::spawn_blocking(move || {
            one.write_all(&sent).expect("it is open");
            let mut read = vec![0; sent.len()];
            other.read_exact(&mut read).expect("it is open");
            read
        });
        assert_eq!(read.await.expect("it came"), all);
    }
}

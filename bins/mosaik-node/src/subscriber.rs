//! The program's log: what the settings say, changed while it runs.
//!
//! Our own crates log at the level that was asked for. Those of others warn of what is handled, such
//! as a peer that hangs up: their errors alone are logged, and more only for who debugs. Secrets and
//! bodies are nobody's to log.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::Context;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt::{self, writer::BoxMakeWriter},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use crate::{
    config::Config,
    directory::make_private,
    log::{Format, Level},
};

/// What the log file is called.
const FILE_NAME: &str = "mosaik-node.log";

/// What our crates' names begin with.
const OURS: &str = "mosaik";

/// The log of this process.
pub(crate) struct Log {
    filter: reload::Handle<Targets, Registry>,
    file: Option<(PathBuf, Current)>,
}

/// The file that is written to now.
#[derive(Clone)]
struct Current(Arc<RwLock<Arc<File>>>);

impl Current {
    fn get(&self) -> Arc<File> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Log {
    /// Begins to log. Once a process.
    ///
    /// # Errors
    ///
    /// The log's directory can't be made, or its file not be opened.
    pub(crate) fn begin(config: &Config) -> anyhow::Result<Self> {
        let file = match &config.log_dir {
            None => None,
            Some(directory) => {
                if !directory.is_dir() {
                    make_private(directory)?;
                }
                let path = directory.join(FILE_NAME);
                let file = Current(Arc::new(RwLock::new(Arc::new(open(&path)?))));
                Some((path, file))
            }
        };
        let (filter, handle) = reload::Layer::new(targets(config.log_level));
        let layer = fmt::layer().with_ansi(false);
        let writer = match &file {
            None => BoxMakeWriter::new(io::stderr),
            Some((_, file)) => {
                let file = file.clone();
                BoxMakeWriter::new(move || file.get())
            }
        };
        let layer = layer.with_writer(writer);
        let layer = match config.log_format {
            Format::Text => layer.boxed(),
            Format::Json => layer.json().boxed(),
        };
        tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
        Ok(Self { filter: handle, file })
    }

    /// Logs at another level from now on.
    pub(crate) fn set_level(&self, level: Level) -> anyhow::Result<()> {
        Ok(self.filter.reload(targets(level))?)
    }

    /// Opens the file anew, for whoever has moved the old one away.
    pub(crate) fn reopen(&self) -> anyhow::Result<()> {
        if let Some((path, file)) = &self.file {
            let new = Arc::new(open(path)?);
            *file.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        }
        Ok(())
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    let open = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    open.with_context(|| format!("cannot open the log {}", path.display()))
}

fn targets(level: Level) -> Targets {
    let (ours, others) = match level {
        Level::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        Level::Warn => (LevelFilter::WARN, LevelFilter::ERROR),
        Level::Info => (LevelFilter::INFO, LevelFilter::ERROR),
        Level::Debug => (LevelFilter::DEBUG, LevelFilter::WARN),
        Level::Trace => (LevelFilter::TRACE, LevelFilter::INFO),
    };
    Targets::new().with_default(others).with_target(OURS, ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_log_less_than_we_do() {
        let trace = targets(Level::Trace);
        assert!(trace.would_enable("mosaik_net::sync", &tracing::Level::TRACE));
        assert!(!trace.would_enable("iroh", &tracing::Level::DEBUG));
        let usual = targets(Level::Info);
        assert!(usual.would_enable("mosaik_node::owner", &tracing::Level::INFO));
        assert!(!usual.would_enable("iroh_gossip::net", &tracing::Level::WARN));
    }
}

//! A pseudo terminal: a serial line whose other end is this process.

use std::{
    io::ErrorKind,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, tcgetattr, tcsetattr},
};
use tokio::net::unix::pipe::{Receiver, Sender};

/// A line to whoever opens its device.
#[derive(Debug)]
pub(super) struct Line {
    // A terminal is no pipe, but is read and written like one.
    from: Receiver,
    to: Sender,
    device: PathBuf,
    /// The device, held open: so that one may close it and another come.
    _held: OwnedFd,
}

impl Line {
    /// Makes one, on the runtime that this is called on.
    pub(super) fn open() -> Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?.into_string()?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let held = rustix::fs::open(&*name, flags, Mode::empty())?;
        let mut settings = tcgetattr(&held)?;
        settings.make_raw();
        tcsetattr(&held, OptionalActions::Now, &settings)?;
        let flags = rustix::fs::fcntl_getfl(&master)?;
        rustix::fs::fcntl_setfl(&master, flags | OFlags::NONBLOCK)?;
        let to = Sender::from_owned_fd_unchecked(master.try_clone()?)?;
        let from = Receiver::from_owned_fd_unchecked(master)?;
        Ok(Self { from, to, device: name.into(), _held: held })
    }

    /// What whoever is at the other end opens.
    pub(super) fn device(&self) -> &Path {
        &self.device
    }

    /// Writes all of it. One that doesn't read is waited for.
    pub(super) async fn write(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.to.writable().await.is_err() {
                return;
            }
            match self.to.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    /// Reads what there is, or waits for more; none when the line is of no use any more.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            self.from.readable().await.ok()?;
            match self.from.try_read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read.ok(),
            }
        }
    }
}

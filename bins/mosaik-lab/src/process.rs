//! Children: one that stays, with its log, and one that ends by itself.
//!
//! Invariants:
//! - A child that stays is gone when its [`Process`] is dropped: killed and reaped, by its id.
//! - A signal goes to a child that wasn't reaped, so its id can't be another's by now.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use tokio::process::{Child, Command};

/// How long a killed child may take to be gone.
///
/// The kernel needs milliseconds; a child in the middle of a disk write needs the disk.
const REAP_TIMEOUT: Duration = Duration::from_secs(5);

/// How many lines of a log an error shows.
const TAIL_LINES: usize = 15;

/// Whom a terminal's Ctrl-C reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Group {
    /// The child as well. A test that is interrupted leaves nothing behind.
    #[default]
    Shared,
    /// This process only, which then stops the child in its own way.
    Own,
}

/// A child that runs until it is told to stop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with all its output appended to `log`.
    ///
    /// # Errors
    ///
    /// If the log can't be written or the program can't be started.
    pub fn spawn(mut command: Command, log: &Path, group: Group) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        if group == Group::Own {
            command.process_group(0);
        }
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.context("a new child has an id")?;
        Ok(Self { child, pid, log: log.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its log, for an error.
    pub fn log_tail(&self) -> String {
        log_tail(&self.log)
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    ///
    /// If the system can't tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends a signal: `STOP` freezes it, `CONT` lets it go on.
    ///
    /// # Errors
    ///
    /// If it has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("process {} has ended already ({status})", self.pid());
        }
        kill_process(self.pid, signal).with_context(|| format!("cannot signal {}", self.pid()))
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// If it still runs after `deadline`.
    pub async fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        match tokio::time::timeout(deadline, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!(
                "process {} still runs after {} s; its log ends:\n{}",
                self.pid(),
                deadline.as_secs_f32(),
                self.log_tail()
            ),
        }
    }

    /// Asks it to stop with SIGTERM, and waits.
    ///
    /// # Errors
    ///
    /// If it is still there after `deadline`; it is then killed.
    pub async fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        let ended = self.wait(deadline).await;
        if ended.is_err() {
            self.kill().await?;
        }
        ended
    }

    /// Kills it with SIGKILL: it gets no chance to say or save anything.
    ///
    /// # Errors
    ///
    /// If it can't be killed.
    pub async fn kill(&mut self) -> Result<()> {
        if self.ended()?.is_none() {
            self.signal(Signal::KILL)?;
            self.wait(REAP_TIMEOUT).await?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.signal(Signal::KILL).is_err() {
            return;
        }
        // Gone before its directory is removed or its port used again.
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < REAP_TIMEOUT {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The last lines of a log, for an error.
pub(crate) fn log_tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// What a child that ended by itself said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What was run, for messages.
    pub command: String,
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Its standard output, if it ended with code 0.
    ///
    /// # Errors
    ///
    /// The command, its code and what it said, if not.
    pub fn ok(self) -> Result<String> {
        self.exited(0)
    }

    /// Its standard output, if it ended with this code.
    ///
    /// # Errors
    ///
    /// The command, its code and what it said, if not.
    pub fn exited(self, code: i32) -> Result<String> {
        ensure!(
            self.code == Some(code),
            "{} ended with {}, not {code}\nstdout: {}\nstderr: {}",
            self.command,
            self.code.map_or("a signal".into(), |code| code.to_string()),
            self.stdout.trim_end(),
            self.stderr.trim_end()
        );
        Ok(self.stdout)
    }

    /// Its standard output as one JSON document, if it ended with code 0.
    ///
    /// # Errors
    ///
    /// As [`Self::ok`], and if it isn't such a document.
    pub fn json<T: DeserializeOwned>(self) -> Result<T> {
        let command = self.command.clone();
        let text = self.ok()?;
        serde_json::from_str(&text).with_context(|| format!("{command} answered {text:?}"))
    }
}

/// Runs `command` to its end, with `input` on its standard input.
///
/// # Errors
///
/// If it can't be started, or doesn't end within `deadline`; it is then killed. Not for its exit
/// code: see [`Output::ok`].
pub async fn run(mut command: Command, input: &[u8], deadline: Duration) -> Result<Output> {
    let name = shown(&command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // One that doesn't read its input may close it: how it ends is what counts.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stdin, input).await;
        }
    };
    let both = async { tokio::join!(feed, child.wait_with_output()).1 };
    let Ok(output) = tokio::time::timeout(deadline, both).await else {
        bail!("{name} still runs after {} s", deadline.as_secs_f32());
    };
    let output = output?;
    Ok(Output {
        command: name,
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).context("the output is not UTF-8")?,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A command as a person would type it, by the program's name alone.
fn shown(command: &Command) -> String {
    let command = command.as_std();
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn spawned(script: &str) -> (tempfile::TempDir, Process) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let process = Process::spawn(shell(script), &dir.path().join("log"), Group::Shared);
        (dir, process.expect("there is a shell"))
    }

    fn is_there(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[tokio::test]
    async fn both_outputs_of_a_child_are_in_its_log() {
        let (_dir, mut process) = spawned("echo out; echo err >&2; exit 3");
        assert_eq!(process.wait(LONG).await.expect("it ends").code(), Some(3));
        assert_eq!(process.log_tail(), "out\nerr");
    }

    #[tokio::test]
    async fn a_dropped_process_is_killed_and_reaped() {
        let (_dir, process) = spawned("exec sleep 600");
        let pid = process.pid();
        assert!(is_there(pid));
        drop(process);
        assert!(!is_there(pid));
    }

    #[tokio::test]
    async fn a_frozen_process_is_killed_on_drop_too() {
        let (_dir, mut process) = spawned("exec sleep 600");
        process.signal(Signal::STOP).expect("it runs");
        let pid = process.pid();
        drop(process);
        assert!(!is_there(pid));
    }

    #[tokio::test]
    async fn terminate_waits_for_a_child_that_cleans_up() {
        let (_dir, mut process) =
            spawned("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done");
        crate::wait::until("its trap", LONG, || {
            let tail = process.log_tail();
            async move { if tail == "up" { Ok(()) } else { Err(tail) } }
        })
        .await
        .expect("it starts");
        assert_eq!(process.terminate(LONG).await.expect("it stops").code(), Some(0));
        assert_eq!(process.log_tail(), "up\nbye");
    }

    #[tokio::test]
    async fn a_child_that_ignores_sigterm_is_killed_and_that_is_an_error() {
        let (_dir, mut process) = spawned("trap '' TERM; echo up; while :; do sleep 0.05; done");
        crate::wait::until("its trap", LONG, || {
            let tail = process.log_tail();
            async move { if tail == "up" { Ok(()) } else { Err(tail) } }
        })
        .await
        .expect("it starts");
        let ended = process.terminate(Duration::from_millis(200)).await;
        assert!(ended.is_err_and(|error| error.to_string().contains("still runs after 0.2 s")));
        assert!(!is_there(process.pid()));
    }

    #[tokio::test]
    async fn a_signal_to_a_child_that_ended_is_an_error() {
        let (_dir, mut process) = spawned("exit 0");
        process.wait(LONG).await.expect("it ends");
        assert!(process.signal(Signal::TERM).is_err());
        process.kill().await.expect("nothing is left to kill");
    }

    #[tokio::test]
    async fn run_gives_input_and_returns_both_outputs_and_the_code() {
        let output = run(shell("cat; echo err >&2; exit 4"), b"hello", LONG).await;
        let output = output.expect("it ends");
        assert_eq!((output.code, &*output.stdout, &*output.stderr), (Some(4), "hello", "err\n"));
        let refused = output.clone().ok().expect_err("its code is not 0").to_string();
        assert!(refused.starts_with("sh -c cat; echo err"), "{refused}");
        assert_eq!(output.exited(4).expect("that is its code"), "hello");
    }

    #[tokio::test]
    async fn run_kills_what_does_not_end_in_time() {
        let ran = run(shell("exec sleep 600"), b"", Duration::from_millis(100)).await;
        assert!(ran.is_err_and(|error| error.to_string().contains("still runs after 0.1 s")));
    }

    #[tokio::test]
    async fn output_that_is_json_is_read() {
        let output = run(shell("echo '{\"a\": 1}'"), b"", LONG).await.expect("it ends");
        let value: serde_json::Value = output.json().expect("it is JSON");
        assert_eq!(value["a"], 1);
    }
}

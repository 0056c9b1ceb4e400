//! One node: its directory, its command line, its verbs and its socket.
//!
//! ```text
//! <lab>/n1        what --data-dir names
//! <lab>/n1.log    all that its process printed, over all its starts
//! <lab>/n1.run    its runtime directory: sockets whose path would be too long
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use mosaik_api::{
    client::Client,
    document::{Frontier, Identity, Peers, Slots, Status, View},
};
use rustix::process::Signal;
use tokio::process::Command;

use crate::{
    process::{self, Group, Output, Process},
    wait,
};

/// How long a node may take to listen on its socket.
///
/// It takes milliseconds, more after a crash; a machine that builds at the same time is slow.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a node may take to stop: it says goodbye and closes its endpoint, which can take some
/// 18 s where relays were lost.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a verb may take unless said otherwise.
pub const VERB_TIMEOUT: Duration = Duration::from_secs(60);

/// What a node's own settings are called in the environment; none is inherited from a person's
/// shell, or two runs would not be alike.
const FOREIGN_ENV: [&str; 7] = [
    "BOOT_NODE",
    "LOG_DIR",
    "LOG_LEVEL",
    "NETWORK_SYNC_INTERVAL",
    "NETWORK_SYNC_JITTER",
    "STATE_DIRECTORY",
    "STORAGE_DIR",
];

/// One node of a cluster. It need not run.
#[derive(Debug)]
pub struct Node {
    name: String,
    binary: PathBuf,
    data_dir: PathBuf,
    log: PathBuf,
    runtime_dir: PathBuf,
    group: Group,
    /// Words before its program's name, as of a program that runs it in another network namespace.
    pub through: Vec<String>,
    /// What its process is started with, after `--data-dir`.
    pub arguments: Vec<String>,
    /// What its process and its verbs find in the environment.
    pub env: Vec<(String, String)>,
    process: Option<Process>,
}

impl Node {
    /// A node with its directories under `lab`, started by nothing yet.
    ///
    /// # Errors
    ///
    /// If a directory can't be made.
    pub fn new(lab: &Path, name: &str, binary: &Path, group: Group) -> Result<Self> {
        let node = Self {
            name: name.to_owned(),
            binary: binary.to_owned(),
            data_dir: lab.join(name),
            log: lab.join(format!("{name}.log")),
            runtime_dir: lab.join(format!("{name}.run")),
            group,
            through: Vec::new(),
            arguments: Vec::new(),
            env: Vec::new(),
            process: None,
        };
        for directory in [&node.data_dir, &node.runtime_dir] {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        Ok(node)
    }

    /// What the lab calls it, and what it calls itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What `--data-dir` names.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Where its process prints.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its process, if one was started and not stopped; it may have ended by itself.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// Whether its process runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.ended(), Ok(None)))
    }

    /// Starts its process and waits until it listens on its socket.
    ///
    /// # Errors
    ///
    /// If it ends instead, with the end of its log, or doesn't listen in time.
    pub async fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.ready().await
    }

    /// Starts its process and doesn't wait.
    ///
    /// # Errors
    ///
    /// If it can't be started, or one runs already.
    pub fn launch(&mut self) -> Result<()> {
        if self.is_running() {
            bail!("{} runs already", self.name);
        }
        let mut command = self.command();
        command.args(&self.arguments);
        self.process = Some(Process::spawn(command, &self.log, self.group)?);
        Ok(())
    }

    /// Waits until it listens on its socket.
    ///
    /// # Errors
    ///
    /// If its process ends instead, with the end of its log, or doesn't listen in time.
    pub async fn ready(&mut self) -> Result<()> {
        let Some(process) = &mut self.process else { bail!("{} was not started", self.name) };
        let pid = process.pid();
        let (data_dir, runtime_dir) = (&self.data_dir, &self.runtime_dir);
        // Another node may answer on a socket of this directory: its own pid says that it is ours.
        let listens = wait::until("its socket", START_TIMEOUT, || async move {
            let socket =
                find_socket(data_dir, runtime_dir).map_err(|error| format!("{error:#}"))?;
            let status = Client::new(socket).status().await.map_err(|error| error.to_string())?;
            if status.pid == pid { Ok(()) } else { Err(format!("process {} answers", status.pid)) }
        });
        let waited = tokio::select! {
            waited = listens => waited.map_err(|error| anyhow!("{error:#}")),
            ended = process.wait(Duration::MAX) => Err(anyhow!("it ended ({})", ended?)),
        };
        waited.with_context(|| {
            format!("{} did not start; its log ends:\n{}", self.name, process::log_tail(&self.log))
        })
    }

    /// Stops it as a service manager would: SIGTERM, and wait.
    ///
    /// # Errors
    ///
    /// If it isn't gone in time (it is killed then), or says by its exit code that something failed.
    pub async fn stop(&mut self) -> Result<()> {
        self.stopping().await
    }

    /// What [`Self::stop`] does, to be awaited beside others.
    pub(crate) fn stopping(&mut self) -> impl Future<Output = Result<()>> + Send + use<> {
        let (name, process) = (self.name.clone(), self.process.take());
        async move {
            let Some(mut process) = process else { return Ok(()) };
            let status = process.terminate(STOP_TIMEOUT).await.context(name.clone())?;
            if !status.success() {
                bail!("{name} stopped with {status}; its log ends:\n{}", process.log_tail());
            }
            Ok(())
        }
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    ///
    /// If it doesn't run.
    pub async fn kill(&mut self) -> Result<()> {
        self.killing().await
    }

    /// What [`Self::kill`] does, to be awaited beside others.
    pub(crate) fn killing(&mut self) -> impl Future<Output = Result<()>> + Send + use<> {
        let (name, process) = (self.name.clone(), self.process.take());
        async move {
            let Some(mut process) = process else { bail!("{name} does not run") };
            if let Some(status) = process.ended()? {
                bail!("{name} had ended before it was killed ({status})");
            }
            process.kill().await
        }
    }

    /// Freezes it: its sockets stay open and nothing answers.
    ///
    /// # Errors
    ///
    /// If it doesn't run.
    pub fn freeze(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    ///
    /// If it doesn't run.
    pub fn thaw(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        let Some(process) = &mut self.process else { bail!("{} does not run", self.name) };
        process.signal(signal)
    }

    /// The program with this node's directory and environment; arguments are to be added.
    pub fn command(&self) -> Command {
        let mut command = match self.through.split_first() {
            None => Command::new(&self.binary),
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words).arg(&self.binary);
                command
            }
        };
        for name in std::env::vars_os().map(|(name, _)| name) {
            if name.to_string_lossy().starts_with("MOSAIK_") {
                command.env_remove(name);
            }
        }
        for name in FOREIGN_ENV {
            command.env_remove(name);
        }
        // Nor is a settings file of this machine's.
        command.env("MOSAIK_CONFIG", "/dev/null");
        command.env("XDG_RUNTIME_DIR", &self.runtime_dir);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.arg("--data-dir").arg(&self.data_dir);
        command
    }

    /// Runs a verb, as `["status", "--json"]`.
    ///
    /// # Errors
    ///
    /// If it doesn't end in time. Not for its exit code: see [`Output::ok`].
    pub async fn run<S: AsRef<str>>(&self, verb: &[S]) -> Result<Output> {
        self.run_with(verb, b"", VERB_TIMEOUT).await
    }

    /// Runs a verb with `input` on its standard input and its own deadline.
    ///
    /// # Errors
    ///
    /// If it doesn't end in time. Not for its exit code: see [`Output::ok`].
    pub async fn run_with<S: AsRef<str>>(
        &self,
        verb: &[S],
        input: &[u8],
        deadline: Duration,
    ) -> Result<Output> {
        let mut command = self.command();
        command.args(verb.iter().map(AsRef::as_ref));
        process::run(command, input, deadline).await.with_context(|| self.name.clone())
    }

    /// Its socket.
    ///
    /// # Errors
    ///
    /// If there is none, or there are several.
    pub fn socket(&self) -> Result<PathBuf> {
        find_socket(&self.data_dir, &self.runtime_dir)
    }

    /// A client of it.
    ///
    /// # Errors
    ///
    /// If it has no socket.
    pub fn client(&self) -> Result<Client> {
        self.socket().map(Client::new).with_context(|| self.name.clone())
    }

    /// Its status.
    ///
    /// # Errors
    ///
    /// If it doesn't answer.
    pub async fn status(&self) -> Result<Status> {
        self.client()?.status().await.with_context(|| self.name.clone())
    }

    /// Who it is.
    ///
    /// # Errors
    ///
    /// If it doesn't answer.
    pub async fn identity(&self) -> Result<Identity> {
        self.client()?.identity().await.with_context(|| self.name.clone())
    }

    /// The peers that it knows.
    ///
    /// # Errors
    ///
    /// If it doesn't answer.
    pub async fn peers(&self) -> Result<Peers> {
        self.client()?.peers().await.with_context(|| self.name.clone())
    }

    /// The slots as it saw them last.
    ///
    /// # Errors
    ///
    /// If it doesn't answer.
    pub async fn slots(&self) -> Result<Slots> {
        self.client()?.slots().await.with_context(|| self.name.clone())
    }

    /// What it holds.
    ///
    /// # Errors
    ///
    /// If it doesn't answer.
    pub async fn frontier(&self) -> Result<Frontier> {
        self.client()?.frontier().await.with_context(|| self.name.clone())
    }

    /// Its view.
    ///
    /// # Errors
    ///
    /// If it doesn't answer.
    pub async fn view(&self) -> Result<View> {
        self.client()?.view().await.with_context(|| self.name.clone())
    }

    /// Waits until its status meets `condition`, and returns that status.
    ///
    /// # Errors
    ///
    /// After `deadline`: `what`, and its state then.
    pub async fn wait_until(
        &self,
        what: &str,
        deadline: Duration,
        condition: impl Fn(&Status) -> bool,
    ) -> Result<Status> {
        let condition = &condition;
        wait::until(&format!("{} to have {what}", self.name), deadline, || async move {
            let status = self.status().await.map_err(|error| format!("{error:#}"))?;
            if condition(&status) { Ok(status) } else { Err(brief(&status)) }
        })
        .await
    }
}

/// A status in one line.
pub fn brief(status: &Status) -> String {
    format!(
        "{} {}: {}, {} peers, {} events of {} authors, {} missing, {} held back, view {}",
        status.name,
        status.node.get(..6).unwrap_or(&status.node),
        status.state.as_str(),
        status.peers,
        status.events,
        status.authors,
        status.missing,
        status.held_back,
        status.view_digest.get(..16).unwrap_or(&status.view_digest),
    )
}

/// The one socket of a node: in its network's directory, named by 16 hex digits, or in its runtime
/// directory where that path would be too long.
fn find_socket(data_dir: &Path, runtime_dir: &Path) -> Result<PathBuf> {
    let mut found: Vec<_> = entries(data_dir)?
        .into_iter()
        .filter(|path| is_network(path))
        .map(|path| path.join("node.sock"))
        .filter(|path| path.exists())
        .collect();
    if found.is_empty() {
        found = entries(&runtime_dir.join("mosaik-node"))?;
        found.retain(|path| path.extension().is_some_and(|extension| extension == "sock"));
    }
    match found.as_slice() {
        [] => bail!("no socket in {}", data_dir.display()),
        [_] => Ok(found.remove(0)),
        several => bail!("{} sockets in {}", several.len(), data_dir.display()),
    }
}

fn is_network(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.len() == 16 && name.iter().all(u8::is_ascii_hexdigit)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", directory.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    #[test]
    fn the_socket_is_found_in_the_one_network_directory() {
        let lab = lab();
        let node = Node::new(lab.path(), "n1", Path::new("sh"), Group::Shared).expect("a new node");
        assert!(node.socket().is_err_and(|error| error.to_string().starts_with("no socket in")));
        let network = node.data_dir().join("0123456789abcdef");
        fs::create_dir(&network).expect("it is ours");
        fs::create_dir(node.data_dir().join("not-a-network")).expect("it is ours");
        fs::write(network.join("node.sock"), "").expect("it is ours");
        assert_eq!(node.socket().expect("there is one"), network.join("node.sock"));
    }

    #[test]
    fn a_socket_in_the_runtime_directory_is_found_too() {
        let lab = lab();
        let node = Node::new(lab.path(), "n1", Path::new("sh"), Group::Shared).expect("a new node");
        let runtime = lab.path().join("n1.run/mosaik-node");
        fs::create_dir(&runtime).expect("it is ours");
        for name in ["ab.node", "ab.sock"] {
            fs::write(runtime.join(name), "").expect("it is ours");
        }
        assert_eq!(node.socket().expect("there is one"), runtime.join("ab.sock"));
    }

    /// The error of a node that refuses its settings must show what it said.
    #[tokio::test]
    async fn a_node_that_ends_at_once_is_an_error_with_the_end_of_its_log() {
        let lab = lab();
        // A program that is on every machine and knows no --data-dir.
        let mut node =
            Node::new(lab.path(), "n1", Path::new("ls"), Group::Shared).expect("a new node");
        let error = format!("{:#}", node.start().await.expect_err("it ends"));
        assert!(error.contains("exit status: 2"), "{error}");
        assert!(error.contains("data-dir"), "{error}");
        assert!(!node.is_running());
    }

    #[tokio::test]
    async fn a_verb_gets_the_data_directory_first_and_its_output_is_returned() {
        let lab = lab();
        let node = Node::new(lab.path(), "n1", Path::new("echo"), Group::Shared).expect("a node");
        let said = node.run(&["status", "--json"]).await.expect("it ends").ok().expect("code 0");
        assert_eq!(said, format!("--data-dir {} status --json\n", node.data_dir().display()));
    }
}

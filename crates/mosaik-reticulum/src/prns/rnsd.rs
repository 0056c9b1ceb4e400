//! The `rnsd` of this machine: where it listens, as its own configuration says, and a connection to
//! it that comes back.
//!
//! What the configuration says is found as rns finds it: `/etc/reticulum`, `~/.config/reticulum`,
//! `~/.reticulum`, the first that has a file `config`; where none has one, the defaults hold.

use std::{
    env, fmt, fs,
    io::{self, Read},
    net::{Ipv4Addr, SocketAddr},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddr, UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use personal_rns::{
    interfaces::{
        ConnectionState, ConnectionView, EffectiveInterfacePolicy, InterfaceDescriptor,
        InterfaceId, InterfaceKind, InterfaceVitals, ReportsStatus, StatusView,
        shared_instance as contract,
    },
    manifold::{
        interface_seam::{Interface, InterfaceSeam},
        reconnect::ReconnectPolicy,
        tokio::TokioInterfaceStatus,
    },
    shared_instance::SharedInstanceClient,
};
use tokio::net::{TcpStream, UnixStream};

use super::tap::Lent;

/// Bytes of a configuration that are read: more is none.
const CONFIG_LEN_MAX: u64 = 1 << 20;

/// How long a connection to this machine itself may take, in milliseconds.
const CONNECT_TIMEOUT_MS: u64 = 500;

/// How long a daemon may have taken connections already before it sends to those who made them, in
/// milliseconds. rns 1.5.7 gives each client the flag that its socket has at that time, and sets that flag a
/// moment after the socket listens: who was faster hears nothing, for as long as it is connected.
const READY_MS: u64 = 500;

/// Where an `rnsd` listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rnsd {
    listens: Listens,
    /// How it is started.
    command: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Listens {
    /// The abstract Unix socket `rns/<name>`.
    Unix { name: String },
    /// A port of 127.0.0.1.
    Tcp { port: u16 },
}

/// Why an `rnsd` can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RnsdError {
    /// The directory that was named has no readable file `config`.
    #[error("cannot read {}: start rnsd once with rnsd --config {}, or name its directory", path.display(), path.parent().unwrap_or(Path::new(".")).display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It says that there is nothing to be a client of.
    #[error("{} says share_instance = No: set it to Yes and restart rnsd", path.display())]
    NotShared {
        /// The file.
        path: PathBuf,
    },
    /// A value of it is not what must stand there.
    #[error("{} has {key} = {value}, which rns doesn't take either", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Which.
        key: &'static str,
        /// What stands there.
        value: String,
    },
    /// Nobody listens there.
    #[error("no rnsd listens on {at}: start it with {command}")]
    NotRunning {
        /// Where.
        at: String,
        /// The command that starts it.
        command: String,
    },
}

impl Rnsd {
    /// The `rnsd` with this configuration directory; none for the one that rns would take.
    pub(super) fn of(directory: Option<&Path>) -> Result<Self, RnsdError> {
        let command = match directory {
            Some(directory) => format!("rnsd --config {}", directory.display()),
            None => "rnsd".to_owned(),
        };
        let path = match directory {
            Some(directory) => directory.join("config"),
            None => match usual() {
                Some(path) => path,
                None => return Ok(Self { listens: Listens::default(), command }),
            },
        };
        let text =
            read(&path).map_err(|source| RnsdError::Config { path: path.clone(), source })?;
        Ok(Self { listens: Listens::read(&text, &path)?, command })
    }

    /// Checks that somebody listens there now.
    pub(super) fn probe(&self) -> Result<(), RnsdError> {
        self.listens.reach().map_err(|_| RnsdError::NotRunning {
            at: self.listens.to_string(),
            command: self.command.clone(),
        })
    }

    /// The interface to it.
    pub(super) fn interface(self) -> RnsdInterface {
        let tag = self.listens.to_string().into_bytes();
        let id = InterfaceId::from_channel_tag(InterfaceKind::LocalClient, &tag);
        let mut policy = contract::configured_policy(Default::default());
        // As in the reference: the daemon has held back already what comes too fast. Three announces within a
        // second would keep who isn't known yet waiting for 20 s.
        policy.common.ingress_control.enabled = false;
        RnsdInterface {
            listens: self.listens,
            id,
            tag,
            policy,
            status: TokioInterfaceStatus::new(id, ConnectionState::Initializing),
        }
    }
}

impl Default for Listens {
    fn default() -> Self {
        Self::Unix { name: contract::DEFAULT_SOCKET_PATH.to_owned() }
    }
}

impl Listens {
    /// Connects, and hangs up.
    fn reach(&self) -> io::Result<()> {
        match self {
            Self::Unix { name } => unix(name).map(drop),
            Self::Tcp { port } => {
                let timeout = Duration::from_millis(CONNECT_TIMEOUT_MS);
                std::net::TcpStream::connect_timeout(&local(*port), timeout).map(drop)
            }
        }
    }

    /// Reads what `[reticulum]` says; of all else nothing matters here.
    fn read(text: &str, path: &Path) -> Result<Self, RnsdError> {
        let bad = |key, value: &str| RnsdError::Value {
            path: path.to_owned(),
            key,
            value: value.to_owned(),
        };
        let (mut tcp, mut name, mut port) = (false, None, contract::DEFAULT_LOCAL_PORT);
        for (key, value) in section(text, "reticulum") {
            match key {
                "share_instance" => match value.to_ascii_lowercase().as_str() {
                    "yes" | "true" | "on" | "1" => {}
                    "no" | "false" | "off" | "0" => {
                        return Err(RnsdError::NotShared { path: path.to_owned() });
                    }
                    _ => return Err(bad("share_instance", value)),
                },
                "shared_instance_type" => tcp = value.eq_ignore_ascii_case("tcp"),
                "instance_name" => name = Some(value.to_owned()),
                "shared_instance_port" => {
                    port = value.parse().map_err(|_| bad("shared_instance_port", value))?;
                }
                _ => {}
            }
        }
        match (tcp, name) {
            (true, _) => Ok(Self::Tcp { port }),
            (false, None) => Ok(Self::default()),
            (false, Some(name)) if UnixAddr::from_abstract_name(abstract_name(&name)).is_ok() => {
                Ok(Self::Unix { name })
            }
            (false, Some(name)) => Err(bad("instance_name", &name)),
        }
    }
}

impl fmt::Display for Listens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { name } => write!(f, "the abstract socket @rns/{name}"),
            Self::Tcp { port } => write!(f, "{}", local(*port)),
        }
    }
}

/// The keys and values of one section, in the order they stand there. Subsections are none of it.
fn section<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let mut inside = false;
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).map(str::trim)
                == Some(name);
            return None;
        }
        let (key, value) = line.split_once('=').filter(|_| inside && !line.starts_with('#'))?;
        let value = value.trim();
        let quoted = |quote| value.strip_prefix(quote).and_then(|rest| rest.split(quote).next());
        let bare = || value.split('#').next().unwrap_or_default().trim_end();
        Some((key.trim(), quoted('"').or_else(|| quoted('\'')).unwrap_or_else(bare)))
    })
}

fn usual() -> Option<PathBuf> {
    let home = env::var_os("HOME").map(PathBuf::from);
    let of_home = |part: &str| home.as_ref().map(|home| home.join(part).join("config"));
    [
        Some(PathBuf::from("/etc/reticulum/config")),
        of_home(".config/reticulum"),
        of_home(".reticulum"),
    ]
    .into_iter()
    .flatten()
    .find(|path| path.is_file())
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(CONFIG_LEN_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn abstract_name(name: &str) -> String {
    format!("rns/{name}")
}

fn unix(name: &str) -> io::Result<StdUnixStream> {
    StdUnixStream::connect_addr(&UnixAddr::from_abstract_name(abstract_name(name))?)
}

/// The interface of a client: connects again whenever the `rnsd` is gone and back.
pub(super) struct RnsdInterface {
    listens: Listens,
    id: InterfaceId,
    tag: Vec<u8>,
    policy: EffectiveInterfacePolicy,
    status: TokioInterfaceStatus,
}

impl Interface for RnsdInterface {
    const HW_MTU: usize = contract::HW_MTU_CAP;
    const KIND: InterfaceKind = InterfaceKind::LocalClient;

    fn channel_tag(&self) -> &[u8] {
        &self.tag
    }

    fn descriptor(&self) -> InterfaceDescriptor {
        contract::descriptor(self.id, self.policy)
    }

    async fn run<S: InterfaceSeam>(self, mut seam: S) {
        let mut pause = ReconnectPolicy::STANDARD.schedule();
        loop {
            if self.listens.reach().is_ok() {
                tokio::time::sleep(Duration::from_millis(READY_MS)).await;
            }
            let began = tokio::time::Instant::now();
            match &self.listens {
                Listens::Unix { name } => {
                    let connected = unix(name).and_then(|stream| {
                        stream.set_nonblocking(true)?;
                        UnixStream::from_std(stream)
                    });
                    if let Ok(stream) = connected {
                        self.serve(stream, &mut seam).await;
                    }
                }
                Listens::Tcp { port } => {
                    let connecting = TcpStream::connect(local(*port));
                    let timeout = Duration::from_millis(CONNECT_TIMEOUT_MS);
                    if let Ok(Ok(stream)) = tokio::time::timeout(timeout, connecting).await {
                        let _ = stream.set_nodelay(true);
                        self.serve(stream, &mut seam).await;
                    }
                }
            }
            self.status.set_connection(ConnectionState::Disconnected);
            pause.record_connection_lifetime(began.elapsed());
            tokio::time::sleep(pause.next_delay(|bytes| seam.fill_entropy(bytes))).await;
        }
    }
}

impl RnsdInterface {
    async fn serve<S, Stream>(&self, stream: Stream, seam: &mut S)
    where
        S: InterfaceSeam,
        Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        // What waited for the connection that is gone belongs to links that are gone with it.
        while seam.try_next_outbound().is_some() {}
        self.status.set_connection(ConnectionState::Connected);
        SharedInstanceClient::with_policy(self.tag.clone(), stream, self.policy)
            .run(Lent(seam))
            .await;
    }
}

impl ReportsStatus for RnsdInterface {
    fn status_view(&self) -> Option<StatusView> {
        let status = self.status.clone();
        Some(std::sync::Arc::new(move || vec![InterfaceVitals::of(&status)]))
    }

    fn connection_view(&self) -> Option<ConnectionView> {
        Some(ConnectionView::of(self.status.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listens(text: &str) -> Result<Listens, RnsdError> {
        Listens::read(text, Path::new("/c/config"))
    }

    #[test]
    fn an_empty_configuration_means_the_socket_of_that_name() {
        assert_eq!(listens("").expect("defaults"), Listens::Unix { name: "default".into() });
    }

    #[test]
    fn only_what_the_section_of_reticulum_says_counts() {
        let text = "[reticulum]\n  share_instance = Yes\n  # instance_name = not\n\
                    instance_name = \"field # 7\" # why\n[interfaces]\n  [[x]]\n    instance_name = no\n";
        assert_eq!(listens(text).expect("read"), Listens::Unix { name: "field # 7".into() });
        let text =
            "[ reticulum ]\nshared_instance_type = tcp # not unix\nshared_instance_port=40000\n";
        assert_eq!(listens(text).expect("read"), Listens::Tcp { port: 40_000 });
    }

    #[test]
    fn what_can_not_be_used_is_said_with_the_file() {
        let said = |text: &str| listens(text).expect_err(text).to_string();
        assert!(
            said("[reticulum]\nshare_instance = No").starts_with("/c/config says share_instance")
        );
        assert!(said("[reticulum]\nshared_instance_port = x").contains("shared_instance_port = x"));
        let long = format!("[reticulum]\ninstance_name = {}", "n".repeat(200));
        assert!(said(&long).contains("instance_name = nnn"));
    }

    #[test]
    fn where_none_runs_the_command_that_starts_it_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let said = Rnsd::of(Some(dir.path())).expect_err("no file").to_string();
        assert!(said.contains("rnsd --config"), "{said}");
        let name = format!("mosaik-test-{}", std::process::id());
        let text = format!("[reticulum]\ninstance_name = {name}\n");
        fs::write(dir.path().join("config"), text).expect("a file");
        let rnsd = Rnsd::of(Some(dir.path())).expect("it can be read");
        let said = rnsd.probe().expect_err("nobody listens").to_string();
        let expected = format!(
            "no rnsd listens on the abstract socket @rns/{name}: start it with rnsd --config {}",
            dir.path().display()
        );
        assert_eq!(said, expected);
    }
}

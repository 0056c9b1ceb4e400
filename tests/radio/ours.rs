//! Our stack in a test, with all that it told.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use mosaik_proto::carrier::Role;
use mosaik_reticulum::{
    Via,
    prns::{Prns, PrnsConfig, Way},
    stack::{Interface, Link, Order, Outcome, Peer, Report, Service},
};
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, timeout_at},
};

use super::python::SOON;

/// Bytes of a Resource that our stack takes in these tests.
pub(crate) const RESOURCE_LEN_MAX: usize = 200_000;

pub(crate) struct Ours {
    pub(crate) prns: Prns,
    reports: Receiver<Report>,
    seen: Vec<Report>,
    ways: u16,
}

impl Ours {
    /// Starts a stack with its identity in `directory`.
    pub(crate) fn start(directory: &Path, ways: &[&str]) -> Result<Self> {
        Self::start_with(directory, ways, None)
    }

    /// The same, with the configuration directory of an `rnsd`.
    pub(crate) fn start_with(
        directory: &Path,
        ways: &[&str],
        rns_config: Option<&Path>,
    ) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let count = u16::try_from(ways.len())?;
        let ways = ways.iter().map(|way| way.parse::<Via>().map(Way::from));
        let ways: Result<Vec<_>, _> = ways.collect();
        let (prns, reports) = Prns::start(PrnsConfig {
            identity: directory.join("rns.key"),
            ways: ways?,
            rns_config: rns_config.map(Path::to_owned),
            meshlog: true,
            broadcasts: true,
            resource_len_max: RESOURCE_LEN_MAX,
        })?;
        Ok(Self { prns, reports, seen: Vec::new(), ways: count })
    }

    pub(crate) fn peer(&self) -> Peer {
        self.prns.identity().peer()
    }

    pub(crate) fn announce(&self, service: Service, app_data: &[u8]) {
        for interface in (0..self.ways).map(Interface) {
            self.prns.carry(Order::Announce { service, interface, app_data: app_data.to_vec() });
        }
    }

    /// Waits for the first report that is looked for, and takes it.
    pub(crate) async fn expect<T>(
        &mut self,
        what: &str,
        is: impl Fn(&Report) -> Option<T>,
    ) -> Result<T> {
        self.expect_within(SOON, what, is).await
    }

    pub(crate) async fn expect_within<T>(
        &mut self,
        limit: Duration,
        what: &str,
        is: impl Fn(&Report) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        let mut looked = 0;
        loop {
            for index in looked..self.seen.len() {
                if let Some(found) = is(&self.seen[index]) {
                    self.seen.remove(index);
                    return Ok(found);
                }
            }
            looked = self.seen.len();
            let Ok(report) = timeout_at(deadline, self.reports.recv()).await else {
                bail!("{limit:?} without {what}; our stack told {}", short(&self.seen));
            };
            self.seen.push(report.context("our stack has ended")?);
        }
    }

    /// Whether something was told that nobody has taken yet.
    pub(crate) fn told(&self, is: impl Fn(&Report) -> bool) -> bool {
        self.seen.iter().any(is)
    }

    pub(crate) async fn online(&mut self, wanted: bool) -> Result<()> {
        self.expect_within(SOON, &format!("an interface with online = {wanted}"), |report| {
            matches!(report, Report::Interface { online, .. } if *online == wanted).then_some(())
        })
        .await
    }

    /// Opens a link, and waits until it is up.
    pub(crate) async fn open(&mut self, service: Service, peer: Peer) -> Result<Link> {
        self.prns.carry(Order::Open { service, peer });
        self.expect("a link of ours", |report| match report {
            Report::Up { link, role: Role::Dialer, peer: Some(up), .. } if *up == peer => {
                Some(Ok(*link))
            }
            Report::Unreachable { reason, .. } => Some(Err(anyhow::anyhow!("{reason}"))),
            _ => None,
        })
        .await?
    }

    /// Waits for an inbound link.
    pub(crate) async fn accept(&mut self, wanted: Service) -> Result<Link> {
        self.expect("an inbound link", |report| match report {
            Report::Up { link, role: Role::Listener, service, .. } if *service == wanted => {
                Some(*link)
            }
            _ => None,
        })
        .await
    }

    pub(crate) fn send(&self, link: Link, token: u64, bytes: &[u8]) {
        self.prns.carry(Order::Send { link, token, bytes: bytes.to_vec() });
    }

    /// Waits for what became of something that was sent.
    pub(crate) async fn outcome(&mut self, limit: Duration, wanted: u64) -> Result<Outcome> {
        self.expect_within(limit, &format!("what became of {wanted}"), |report| match report {
            Report::Sent { token, outcome, .. } if *token == wanted => Some(outcome.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn received(&mut self, limit: Duration, on: Link) -> Result<Vec<u8>> {
        self.expect_within(limit, "bytes on a link", |report| match report {
            Report::Received { link, bytes } if *link == on => Some(bytes.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn down(&mut self, wanted: Link) -> Result<String> {
        self.expect("the end of a link", |report| match report {
            Report::Down { link, reason } if *link == wanted => Some(reason.clone()),
            _ => None,
        })
        .await
    }
}

/// Reports for a person: without what is long.
fn short(seen: &[Report]) -> String {
    let lines = seen.iter().map(|report| format!("{report:?}").chars().take(200).collect());
    lines.collect::<Vec<String>>().join("\n")
}

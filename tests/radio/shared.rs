//! As a client of a real `rnsd`.

use std::path::Path;

use anyhow::{Result, ensure};
use mosaik_lab::{process::Process, radio::Air, wait};
use mosaik_reticulum::stack::{Link, Order, Outcome, Service};
use serde_json::json;

use super::{
    links::{name, of},
    ours::Ours,
    pair::{free_port, hear_python, heard_by_python},
    play,
    python::{ALONE, Python, SOON, bytes, configure, hex, rnsd, tcp_client, tcp_server},
    venv::Venv,
};

pub(crate) fn over_tcp(venv: Venv) -> Result<()> {
    play(async {
        let (bus, control) = (free_port()?, free_port()?);
        let shares = format!(
            "enable_transport = Yes\nshare_instance = Yes\nshared_instance_type = tcp\n\
             shared_instance_port = {bus}\ninstance_control_port = {control}"
        );
        client(&venv, &shares).await
    })
}

pub(crate) fn over_the_abstract_socket(venv: Venv) -> Result<()> {
    play(async {
        let shares = format!(
            "enable_transport = Yes\nshare_instance = Yes\ninstance_name = mosaik-test-{}",
            std::process::id()
        );
        client(&venv, &shares).await
    })
}

/// Waits until our stack finds the `rnsd`.
pub(crate) async fn join(directory: &Path, config: &Path) -> Result<Ours> {
    let mut ours = wait::until("an rnsd that listens", SOON, async || {
        Ours::start_with(directory, &["rnsd"], Some(config)).map_err(|error| error.to_string())
    })
    .await?;
    ours.online(true).await?;
    Ok(ours)
}

/// Starts an `rnsd` with a radio at spreading factor 8 that others on this machine may use, and waits until
/// one can: a node that finds none says so and ends. The directory is its configuration's, and gives it
/// its name. `forwards` says whether it is a transport node: `Yes` or `No`.
pub(crate) async fn share(
    venv: &Venv,
    config: &Path,
    (air, radio): (&Air, usize),
    forwards: &str,
) -> Result<Process> {
    let name = config.display().to_string().replace('/', "-");
    let shares =
        format!("enable_transport = {forwards}\nshare_instance = Yes\ninstance_name = {name}");
    configure(config, &shares, &air.interface(radio, 8))?;
    let daemon = rnsd(venv, config)?;
    let probe = join(&config.join("probe"), config).await?;
    probe.prns.close().await;
    let is_on = async || if air.is_on(radio) { Ok(()) } else { Err("it is off".to_owned()) };
    wait::until(&format!("radio {radio} to be on"), 3 * SOON, is_on).await?;
    Ok(daemon)
}

async fn client(venv: &Venv, shares: &str) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let [config, ends, state] = ["rnsd", "python", "ours"].map(|name| directory.path().join(name));
    let port = free_port()?;
    configure(&config, shares, &tcp_server(port))?;
    configure(&ends, ALONE, &tcp_client(port))?;

    // Where none runs, the command that starts it is named.
    let Err(error) = Ours::start_with(&state, &["rnsd"], Some(&config)) else {
        anyhow::bail!("our stack found an rnsd that doesn't run");
    };
    let told = format!("start it with rnsd --config {}", config.display());
    ensure!(error.to_string().contains(&told), "{error}");

    let daemon = rnsd(venv, &config)?;
    let mut ours = join(&state, &config).await?;
    let mut python = Python::start(venv, &ends).await?;
    python.serve(Service::Feed, false).await?;
    let link = meet(&mut ours, &mut python, b"first").await?;

    // It goes, and its links with it, at once; it comes back, and all goes on.
    restart(daemon).await?;
    let reason = ours.down(link).await?;
    ensure!(reason == "the interface's connection is lost", "{reason}");
    ours.online(false).await?;
    let _daemon = rnsd(venv, &config)?;
    ours.online(true).await?;
    meet(&mut ours, &mut python, b"second").await?;
    Ok(())
}

async fn restart(mut daemon: Process) -> Result<()> {
    daemon.kill().await
}

/// Announces, a link, packets and Resources, both ways.
async fn meet(ours: &mut Ours, python: &mut Python, said: &[u8]) -> Result<Link> {
    heard_by_python(ours, python, Service::Feed, said).await?;
    hear_python(ours, python, Service::Feed, said).await?;
    let link = ours.open(Service::Feed, python.peer).await?;
    exchange(ours, python, link, &[&b"packet"[..], &[7; 5_000]]).await?;
    Ok(link)
}

/// Packets or Resources both ways. What is lost is sent again.
pub(crate) async fn exchange(
    ours: &mut Ours,
    python: &mut Python,
    link: Link,
    contents: &[&[u8]],
) -> Result<()> {
    for (token, content) in contents.iter().enumerate() {
        let token = token as u64;
        ours.send(link, token, content);
        let kind = if content.len() > 431 { "resource" } else { "packet" };
        let came = python.expect(kind, of(&name(link))).await?;
        ensure!(bytes(&came["bytes"])? == *content, "another {kind} came");
        let outcome = ours.outcome(SOON, token).await?;
        ensure!(outcome != Outcome::Failed(String::new()), "{outcome:?}");
        let bytes = hex(content);
        let order = json!({"do": kind, "link": name(link), "token": token, "bytes": bytes});
        python.order(order).await?;
        ensure!(ours.received(SOON, link).await? == *content, "another {kind} came");
    }
    Ok(())
}

/// Closes a link from here.
pub(crate) async fn close(ours: &mut Ours, link: Link) -> Result<()> {
    ours.prns.carry(Order::Close { link });
    ours.down(link).await.map(drop)
}

//! The ways into Reticulum that the other tests don't take.

use anyhow::{Context, Result};
use mosaik_lab::radio::Cable;
use mosaik_reticulum::stack::Service;
use mosaik_tests::repository;
use tempfile::TempDir;

use super::{
    ours::Ours,
    pair::{free_port, hear_python, heard_by_python},
    play,
    python::{ALONE, Python, configure, tcp_server},
    shared::{close, exchange},
    venv::Venv,
};

/// Announces, a link, packets and Resources, both ways.
async fn meet(venv: &Venv, directory: &TempDir, way: &str, interface: &str) -> Result<()> {
    let python = directory.path().join("python");
    configure(&python, ALONE, interface)?;
    let mut python = Python::start(venv, &python).await?;
    let mut ours = Ours::start(&directory.path().join("ours"), &[way])?;
    ours.online(true).await?;
    python.serve(Service::Feed, false).await?;
    hear_python(&mut ours, &mut python, Service::Feed, b"python").await?;
    heard_by_python(&ours, &mut python, Service::Feed, b"ours").await?;
    let link = ours.open(Service::Feed, python.peer).await?;
    exchange(&mut ours, &mut python, link, &[&b"packet"[..], &[7; 5_000]]).await?;
    close(&mut ours, link).await
}

pub(crate) fn udp(venv: Venv) -> Result<()> {
    play(async {
        let (here, there) = (free_port()?, free_port()?);
        let way = format!("udp://127.0.0.1:{here},127.0.0.1:{there}");
        let interface = format!(
            "[[udp]]\ntype = UDPInterface\nenabled = Yes\nlisten_ip = 127.0.0.1\nlisten_port = {there}\n\
             forward_ip = 127.0.0.1\nforward_port = {here}"
        );
        meet(&venv, &tempfile::tempdir()?, &way, &interface).await
    })
}

/// Two modems that are a cable: what both write are KISS frames, settings of the modem among them.
pub(crate) fn kiss(venv: Venv) -> Result<()> {
    play(async {
        let cable = Cable::start(None)?;
        let way = format!("kiss:{}@115200", cable.device(0).display());
        let interface = format!(
            "[[tnc]]\ntype = KISSInterface\nenabled = Yes\nport = {}\nspeed = 115200\nflow_control = No",
            cable.device(1).display()
        );
        meet(&venv, &tempfile::tempdir()?, &way, &interface).await
    })
}

/// A program that passes its input on to a TCP server interface, whose frames are the same.
pub(crate) fn pipe(venv: Venv) -> Result<()> {
    play(async {
        let port = free_port()?;
        let (program, script) = (venv.program("python"), repository().join("tests/radio/pass.py"));
        let program = program.to_str().context("its path is text")?;
        let way = format!("pipe:{program} {} {port}", script.display());
        meet(&venv, &tempfile::tempdir()?, &way, &tcp_server(port)).await
    })
}

//! Announces.

use anyhow::{Result, ensure};
use mosaik_reticulum::stack::{APP_DATA_MAX, Interface, Service};

use super::{
    ours::Ours,
    pair::{Pair, free_port, hear_python, heard, heard_by_python},
    play,
    python::{ALONE, Python, TRANSPORT, configure, tcp_client, tcp_server},
    venv::Venv,
};

/// Both destinations, both ways, whoever listens.
pub(crate) fn both_ways(venv: Venv) -> Result<()> {
    play(async {
        for mut pair in [Pair::we_listen(&venv).await?, Pair::python_listens(&venv).await?] {
            let Pair { ours, python, .. } = &mut pair;
            for (service, said) in [(Service::Feed, &b"\x01\x00\xff"[..]), (Service::Meshlog, b"")]
            {
                python.serve(service, true).await?;
                let (hops, interface) = hear_python(ours, python, service, said).await?;
                ensure!((hops, interface) == (1, Interface(0)), "{hops} hops by {interface:?}");
                heard_by_python(ours, python, service, said).await?;
            }
        }
        Ok(())
    })
}

/// A transport node repeats an announce of the greatest length that we make, and ours hears it.
pub(crate) fn one_hop(venv: Venv) -> Result<()> {
    play(async {
        let directory = tempfile::tempdir()?;
        let port = free_port()?;
        let middle = directory.path().join("middle");
        configure(&middle, TRANSPORT, &tcp_server(port))?;
        let _middle = Python::start(&venv, &middle).await?;
        let end = directory.path().join("end");
        configure(&end, ALONE, &tcp_client(port))?;
        let mut python = Python::start(&venv, &end).await?;
        let way = format!("tcp://127.0.0.1:{port}");
        let mut ours = Ours::start(&directory.path().join("ours"), &[&way])?;
        let mut other = Ours::start(&directory.path().join("other"), &[&way])?;
        ours.online(true).await?;
        other.online(true).await?;

        let said = [0xA5; APP_DATA_MAX];
        heard_by_python(&ours, &mut python, Service::Feed, &said).await?;
        let (hops, _) = heard(&mut other, ours.peer(), Service::Feed, &said).await?;
        ensure!(hops == 2, "{hops} hops over one transport node");
        python.serve(Service::Feed, false).await?;
        let (hops, _) = hear_python(&mut ours, &mut python, Service::Feed, &said).await?;
        ensure!(hops == 2, "{hops} hops over one transport node");

        // One byte more is not announced at all, and what follows is.
        ours.announce(Service::Feed, &[1; APP_DATA_MAX + 1]);
        heard_by_python(&ours, &mut python, Service::Feed, b"short").await?;
        Ok(())
    })
}

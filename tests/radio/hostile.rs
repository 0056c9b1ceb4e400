//! A peer that means harm: raw frames to our stack, by TCP.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mosaik_reticulum::{
    Via,
    airtime::{Ceiling, Channel},
    prns::{Prns, PrnsConfig, Way},
    stack::{Interface, Order, Report, Service},
};
use mosaik_tests::Diary;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc::Receiver,
    time::{Instant, timeout, timeout_at},
};

use super::{pair::free_port, play, python::SOON, venv::Venv};

/// The frames' delimiter, and what stands before an escaped byte.
const FLAG: u8 = 0x7E;
const ESCAPE: u8 = 0x7D;

/// A link request, an announce and a link request's answer, by the two lowest bits of the first byte.
const ANNOUNCE: u8 = 1;
const LINK_REQUEST: u8 = 2;
const PROOF: u8 = 3;

fn announce(app_data: &[u8]) -> Order {
    let (service, interface) = (Service::Feed, Interface(0));
    Order::Announce { service, interface, app_data: app_data.to_vec() }
}

fn framed(packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![FLAG];
    for byte in packet {
        match *byte {
            FLAG | ESCAPE => frame.extend([ESCAPE, *byte ^ 0x20]),
            byte => frame.push(byte),
        }
    }
    frame.push(FLAG);
    frame
}

/// What our stack sends, packet by packet.
struct Frames {
    from: OwnedReadHalf,
    packet: Vec<u8>,
    escaped: bool,
    read: Vec<u8>,
}

impl Frames {
    async fn next(&mut self) -> Result<Vec<u8>> {
        loop {
            while !self.read.is_empty() {
                match self.read.remove(0) {
                    FLAG if self.packet.is_empty() => {}
                    FLAG => return Ok(std::mem::take(&mut self.packet)),
                    ESCAPE => self.escaped = true,
                    byte => {
                        let flip = if std::mem::take(&mut self.escaped) { 0x20 } else { 0 };
                        self.packet.push(byte ^ flip);
                    }
                }
            }
            let mut buffer = [0; 4096];
            let read = self.from.read(&mut buffer).await?;
            ensure!(read > 0, "our stack has hung up");
            self.read.extend_from_slice(&buffer[..read]);
        }
    }
}

/// Our stack, and a raw connection to it that has heard its announce.
struct Attack {
    prns: Prns,
    reports: Receiver<Report>,
    to: OwnedWriteHalf,
    frames: Frames,
    /// The destination that was announced.
    destination: [u8; 16],
    random: StdRng,
    _directory: tempfile::TempDir,
}

async fn begin(ceiling: Option<Ceiling>) -> Result<Attack> {
    let directory = tempfile::tempdir()?;
    let port = free_port()?;
    let via: Via = format!("tcp-listen://127.0.0.1:{port}").parse()?;
    let (prns, reports) = Prns::start(PrnsConfig {
        identity: directory.path().join("rns.key"),
        ways: vec![Way { via, ceiling }],
        rns_config: None,
        meshlog: false,
        broadcasts: true,
        resource_len_max: 1000,
    })?;
    let (from, to) = TcpStream::connect(("127.0.0.1", port)).await?.into_split();
    let mut frames = Frames { from, packet: Vec::new(), escaped: false, read: Vec::new() };
    let deadline = Instant::now() + SOON;
    let destination = loop {
        // The connection may not be in the stack yet.
        prns.carry(announce(b"here"));
        match timeout(Duration::from_secs(1), frames.next()).await {
            Ok(packet) => {
                let packet = packet?;
                if packet[0] & 3 == ANNOUNCE {
                    break packet[2..18].try_into()?;
                }
            }
            Err(_) => ensure!(Instant::now() < deadline, "no announce came"),
        }
    };
    let random = StdRng::seed_from_u64(1);
    Ok(Attack { prns, reports, to, frames, destination, random, _directory: directory })
}

impl Attack {
    /// A request for a link, as anybody can make it.
    async fn request_link(&mut self) -> Result<()> {
        let mut packet = vec![LINK_REQUEST, 0];
        packet.extend(self.destination);
        packet.push(0);
        // Any 32 bytes are an X25519 key, and not every 32 bytes an Ed25519 key: that one is only
        // looked at where a link is used.
        packet.extend((0..64).map(|_| self.random.random::<u8>()));
        Ok(self.to.write_all(&framed(&packet)).await?)
    }
}

/// However many ask, what goes out stays below the ceiling, and room is left for what is ours.
pub(crate) fn a_flood_of_requests_stays_below_the_ceiling(_: Venv) -> Result<()> {
    // So that a packet of 118 bytes, the answer to a request, takes 354 ms: half of 36 s is there.
    let ceiling = Ceiling { channel: Channel::Bits(2_667), an_hour_ms: 36_000 };
    play(async {
        let diary = Diary::begin();
        let mut attack = begin(Some(ceiling)).await?;
        for _ in 0..500 {
            attack.request_link().await?;
        }
        // What was asked first is answered first, so an announce of ours comes after the answers.
        attack.prns.carry(announce(&[7; 20]));
        let (mut answers, mut bytes) = (0, 0);
        let deadline = Instant::now() + SOON;
        loop {
            let next = timeout_at(deadline, attack.frames.next()).await;
            let packet = next.context("our announce never came")??;
            bytes += packet.len();
            match packet[0] & 3 {
                PROOF => answers += 1,
                ANNOUNCE if packet.ends_with(&[7; 20]) => break,
                _ => {}
            }
        }
        diary.note(format!("{answers} answers to 500 requests, {bytes} bytes"));
        // A quarter of 36 s is left for what is ours: 9 s, and 354 ms an answer.
        ensure!((15..=26).contains(&answers), "{answers} answers");
        attack.prns.close().await;
        Ok(())
    })
}

/// Nothing that comes over a line ends the stack, or makes it take more room than it should.
pub(crate) fn what_makes_no_sense_does_no_harm(_: Venv) -> Result<()> {
    play(async {
        let mut attack = begin(None).await?;
        for round in 0..2_000_usize {
            let len = attack.random.random_range(0..600);
            let mut packet: Vec<u8> = (0..len).map(|_| attack.random.random()).collect();
            // Half of it with a header that says something, to our destination.
            if round % 2 == 0 && packet.len() > 19 {
                packet[0] &= 0x0F;
                packet[1] = 0;
                packet[2..18].copy_from_slice(&attack.destination);
            }
            attack.to.write_all(&framed(&packet)).await?;
        }
        // One frame that never ends.
        attack.to.write_all(&vec![1; 4 << 20]).await?;
        attack.to.write_all(&[FLAG]).await?;
        attack.prns.carry(announce(&[9; 20]));
        let heard = async {
            loop {
                if attack.frames.next().await?.ends_with(&[9; 20]) {
                    return Ok::<_, anyhow::Error>(());
                }
            }
        };
        timeout(SOON, heard).await.context("our stack says nothing any more")??;
        while let Ok(report) = attack.reports.try_recv() {
            let harmless = matches!(report, Report::Interface { .. });
            ensure!(harmless, "nonsense became {report:?}");
        }
        attack.prns.close().await;
        Ok(())
    })
}

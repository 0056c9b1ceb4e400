//! Virtual RNodes: pseudo terminals that rns's RNodeInterface takes for the device, and one channel
//! that they share.
//!
//! Invariants:
//! - The channel carries one packet at a time, and each for as long as it would be on the air: whoever
//!   wants to send waits until it is free. No two collide, and every radio hears every other.
//! - Which of those that wait goes next, and which packet is lost on the way to whom, is drawn with a
//!   seed.
//! - A radio hears only what is sent with its own modulation.
//!
//! What it can't show: hidden nodes, collisions, capture. The simulator has those.

mod air;
mod cable;
mod kiss;
mod ledger;
mod line;

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::Instant,
};

pub use self::{
    air::Modulation,
    cable::Cable,
    ledger::{Kind, Sum, Transmission, by_kind},
};
use self::{
    kiss::{Decoder, Modem, Wanted},
    line::Line,
};

/// How a channel is.
#[derive(Debug, Clone, Copy)]
pub struct Channel {
    /// How many radios share it.
    pub radios: usize,
    /// How many of 1000 packets don't reach a radio that they should.
    pub loss_per_mille: u32,
    /// What is drawn begins here.
    pub seed: u64,
    /// So many times as fast as the air: for tests of what the stack does with time on its side.
    pub speed: u32,
}

/// A running channel; it ends when it is dropped.
#[derive(Debug)]
pub struct Air {
    radios: Vec<Arc<Radio>>,
    sent: Arc<Mutex<Vec<Transmission>>>,
    _tasks: JoinSet<()>,
}

/// A radio: its line to the host, and how the host has set it.
#[derive(Debug)]
struct Radio {
    line: Line,
    modem: Mutex<Modem>,
}

impl Channel {
    /// Starts it, on the runtime that this is called on.
    ///
    /// # Errors
    ///
    /// If the system gives no pseudo terminals.
    pub fn start(self) -> Result<Air> {
        let mut tasks = JoinSet::new();
        let (wanted, packets) = unbounded_channel();
        let mut radios = Vec::new();
        for index in 0..self.radios {
            let line = Line::open().context("cannot make a pseudo terminal")?;
            let radio = Arc::new(Radio { line, modem: Mutex::default() });
            tasks.spawn(listen(Arc::clone(&radio), index, wanted.clone()));
            radios.push(radio);
        }
        let sent = Arc::new(Mutex::new(Vec::new()));
        tasks.spawn(self.carry(radios.clone(), packets, Arc::clone(&sent)));
        Ok(Air { radios, sent, _tasks: tasks })
    }

    /// Carries packets for as long as somebody may want to send.
    async fn carry(
        self,
        radios: Vec<Arc<Radio>>,
        mut packets: UnboundedReceiver<(usize, Vec<u8>)>,
        sent: Arc<Mutex<Vec<Transmission>>>,
    ) {
        let began = Instant::now();
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut queues = vec![VecDeque::new(); radios.len()];
        loop {
            if queues.iter().all(VecDeque::is_empty) {
                let Some((radio, packet)) = packets.recv().await else { return };
                queues[radio].push_back(packet);
            }
            while let Ok((radio, packet)) = packets.try_recv() {
                queues[radio].push_back(packet);
            }
            let waiting: Vec<_> = (0..radios.len()).filter(|i| !queues[*i].is_empty()).collect();
            let radio = waiting[random.random_range(0..waiting.len())];
            let Some(packet) = queues[radio].pop_front() else { continue };
            let modulation = radios[radio].modem().modulation;
            let air = modulation.packet(packet.len());
            let at = began.elapsed() * self.speed;
            tokio::time::sleep(air / self.speed).await;
            let mut lost = 0;
            for (index, other) in radios.iter().enumerate() {
                let modem = other.modem();
                if index == radio || !modem.on || modem.modulation != modulation {
                    continue;
                }
                if random.random_range(0..1000) < self.loss_per_mille {
                    lost += 1;
                } else {
                    other.line.write(&kiss::heard(&packet)).await;
                }
            }
            let transmission = Transmission { radio, at, air, packet, lost };
            sent.lock().unwrap_or_else(PoisonError::into_inner).push(transmission);
            radios[radio].line.write(&kiss::ready()).await;
        }
    }
}

impl Air {
    /// The device of a radio: what `port` of an RNodeInterface takes.
    ///
    /// # Panics
    ///
    /// If there is no such radio.
    pub fn device(&self, radio: usize) -> &Path {
        self.radios[radio].line.device()
    }

    /// Whether a radio's host has switched it on: rnsd takes some seconds, and what it is given before it
    /// drops.
    ///
    /// # Panics
    ///
    /// If there is no such radio.
    pub fn is_on(&self, radio: usize) -> bool {
        self.radios[radio].modem().on
    }

    /// Sets a radio and switches it on, as an RNode in TNC mode does by itself: it is a KISS modem then,
    /// and its host says nothing of modulation.
    ///
    /// # Panics
    ///
    /// If there is no such radio.
    pub fn switch_on(&self, radio: usize, modulation: Modulation) {
        let mut modem = self.radios[radio].modem.lock().unwrap_or_else(PoisonError::into_inner);
        *modem = Modem { modulation, on: true };
    }

    /// An interface of an rns configuration on that device, at spreading factor `factor`.
    pub fn interface(&self, radio: usize, factor: u8) -> String {
        format!(
            "[[radio]]\ntype = RNodeInterface\nenabled = Yes\nport = {}\nfrequency = 867200000\n\
             bandwidth = 125000\ntxpower = 7\nspreadingfactor = {factor}\ncodingrate = 5\n",
            self.device(radio).display()
        )
    }

    /// All that was sent up to now.
    pub fn sent(&self) -> Vec<Transmission> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Radio {
    fn modem(&self) -> Modem {
        *self.modem.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves one host.
async fn listen(radio: Arc<Radio>, index: usize, wanted: UnboundedSender<(usize, Vec<u8>)>) {
    let mut decoder = Decoder::default();
    let mut buffer = [0; 1024];
    while let Some(read) = radio.line.read(&mut buffer).await {
        for byte in &buffer[..read] {
            let Some(frame) = decoder.take(*byte) else { continue };
            let asked = radio.modem.lock().unwrap_or_else(PoisonError::into_inner).take(&frame);
            match asked {
                Wanted::Packet(packet) => {
                    let _ = wanted.send((index, packet));
                }
                Wanted::Answer(answer) => radio.line.write(&answer).await,
                Wanted::Nothing => {}
            }
        }
    }
}

/// How long the air is used for these, as a share of `time`.
pub fn share<'a>(sent: impl IntoIterator<Item = &'a Transmission>, time: Duration) -> f64 {
    let air: Duration = sent.into_iter().map(|sent| sent.air).sum();
    air.as_secs_f64() / time.as_secs_f64()
}

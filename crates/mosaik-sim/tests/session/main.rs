//! What a session promises: two real replicas on one wire, or one of them and a peer that says what
//! the test wants.

mod asked;
mod clocks;
mod comparing;
mod declines;
mod files;
mod foreign;
mod full;
mod greeting;
mod newcomer;
mod peers;
mod probes;
mod runs;
mod silence;
mod transcript;
mod wire;

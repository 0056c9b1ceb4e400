//! Tests of the whole, in one binary: the repository's own rules, and real processes.

mod attachments;
mod bad_input;
mod bootstrap;
mod clocks;
mod closed_network;
mod fuzz;
mod hostile_sizes;
mod meshlog;
mod relay;
mod repository;
mod stranger;
mod whole_path;
mod wire;

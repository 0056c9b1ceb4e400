//! Many replicas on simulated time from one seed.

pub mod disk;

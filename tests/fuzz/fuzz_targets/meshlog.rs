#![no_main]

#[macro_use]
mod target;

fuzz!(meshlog);

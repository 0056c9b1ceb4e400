//! Tests of the whole, in one binary: the repository's own rules, and real processes.

mod bad_input;
mod fuzz;
mod repository;
mod whole_path;

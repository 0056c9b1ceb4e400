//! Tests on networks of their own: hosts as network namespaces, made and taken down by each test.
//!
//! That takes root and two tools. Where one of them is missing the tests are listed as ignored, with
//! the reason: nothing of this touches the machine's own addresses, routes or firewall.

mod disturbed;
mod internet;
mod lan;
mod nat;
mod pair;
mod space;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

#[expect(clippy::print_stderr, reason = "nothing captures what is said before the tests")]
fn main() -> ExitCode {
    let missing = space::missing();
    if missing.is_none()
        && let Err(error) = space::sweep()
    {
        eprintln!("what other runs have left behind stays: {error:#}");
    }
    let trial = |name: &str, test: fn() -> Result<(), Failed>| {
        let trial = Trial::test(name, test);
        match missing {
            Some(reason) => trial.with_ignored_flag(true).with_kind(reason),
            None => trial,
        }
    };
    let trials = vec![
        trial("lan::two_hosts_without_internet_find_each_other", lan::pair),
        trial("lan::lan_only_sends_nothing_to_the_internet", lan::only),
        trial("nat::nodes_meet_through_every_pair_of_nats", nat::matrix),
        trial("disturbed::nodes_come_back_when_the_network_does", disturbed::all_at_once),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

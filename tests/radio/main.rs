//! Our Reticulum stack against the reference implementation: Python's rns, `rnsd` and meshlogd.
//!
//! Where there is no Python, or nothing to install its packages from, the tests are listed as
//! ignored, with the reason. What takes minutes is in `long`. Everything goes over 127.0.0.1, abstract
//! sockets and pseudo terminals.

mod announces;
mod bridge;
mod broadcast;
mod duty;
mod hostile;
mod islands;
mod links;
mod long;
mod lora;
mod meshlog;
mod ours;
mod pair;
mod python;
mod resources;
mod shared;
mod venv;
mod ways;
mod whole;

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

use self::venv::{Missing, Venv};

/// Tests at a time: they wait for timers and for each other's Python to start, and seldom compute.
const AT_A_TIME: usize = 6;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_A_TIME);
    let venv = Venv::find();
    let trial = |name: &str, test: fn(Venv) -> Result<()>| match &venv {
        Ok(venv) => {
            let venv = venv.clone();
            Trial::test(name, move || test(venv).map_err(|error| failed(&error)))
        }
        Err(Missing(reason)) => {
            Trial::test(name, || Ok(())).with_ignored_flag(true).with_kind(*reason)
        }
    };
    let trials = vec![
        trial("announces::are_heard_both_ways_with_their_app_data", announces::both_ways),
        trial("announces::pass_a_transport_node_at_their_greatest_length", announces::one_hop),
        trial("links::that_we_open_carry_both_ways_and_either_end_closes_them", links::ours_opens),
        trial(
            "links::that_python_opens_carry_both_ways_and_either_end_closes_them",
            links::python_opens,
        ),
        trial("links::prove_packets_of_meshlog_and_none_of_feeds", links::proofs),
        trial("links::carry_again_after_a_silence", links::idle),
        trial("links::to_a_peer_that_was_never_heard_are_answered", links::unreachable),
        trial("resources::of_all_lengths_pass_both_ways_over_tcp", resources::over_tcp),
        trial(
            "resources::of_all_lengths_pass_both_ways_over_a_serial_line",
            resources::over_serial,
        ),
        trial("resources::from_nobody_known_or_too_long_are_refused", resources::are_bounded),
        trial("resources::that_are_sent_as_soon_as_a_link_is_up_arrive", resources::at_once),
        trial("shared::an_rnsd_over_tcp_carries_us_and_comes_back", shared::over_tcp),
        trial(
            "shared::an_rnsd_over_the_abstract_socket_carries_us_and_comes_back",
            shared::over_the_abstract_socket,
        ),
        trial("resources::between_two_of_us_pass_as_soon_as_the_link_is_up", resources::ours),
        trial("meshlog::a_daemon_links_with_us_and_sends_its_events", meshlog::daemon),
        trial("bridge::nodes_and_daemons_hold_the_same_each_once", bridge::all_hold_the_same),
        trial("bridge::a_daemon_and_a_node_meet_over_lora", bridge::over_lora),
        trial(
            "bridge::what_is_wrong_is_refused_and_shown",
            bridge::what_is_wrong_is_refused_and_shown,
        ),
        trial("ways::udp_carries_us", ways::udp),
        trial("ways::a_kiss_modem_carries_us", ways::kiss),
        trial("ways::a_program_carries_us", ways::pipe),
        trial(
            "hostile::a_flood_of_requests_stays_below_the_ceiling",
            hostile::a_flood_of_requests_stays_below_the_ceiling,
        ),
        trial(
            "hostile::what_makes_no_sense_does_no_harm",
            hostile::what_makes_no_sense_does_no_harm,
        ),
        trial(
            "duty::a_flood_makes_nobody_send_more_than_its_share",
            duty::a_flood_makes_nobody_send_more_than_its_share,
        ),
        trial("lora::everything_passes_virtual_rnodes", lora::without_loss),
        trial(
            "islands::a_record_leaves_by_radio_and_its_photo_waits",
            islands::a_record_leaves_by_radio_and_its_photo_waits,
        ),
        trial("broadcast::an_rnsd_passes_them_on", broadcast::an_rnsd_passes_them_on),
        trial("lora::everything_passes_where_a_tenth_is_lost", lora::with_a_tenth_lost),
    ];
    let alone = |name: &str, test: fn() -> Result<()>| {
        Trial::test(name, move || test().map_err(|error| failed(&error)))
    };
    // These need no Python.
    let islands = [
        alone("islands::a_record_leaves_the_island_and_its_photo_waits", || {
            play(islands::a_record_leaves_the_island_and_its_photo_waits())
        }),
        alone("islands::a_photo_that_is_asked_for_comes_over_radio", || {
            play(islands::a_photo_that_is_asked_for_comes_over_radio())
        }),
        alone("islands::a_bridge_fetches_what_is_asked_for_over_radio", || {
            play(islands::a_bridge_fetches_what_is_asked_for_over_radio())
        }),
        alone("islands::two_on_a_line_hold_the_same", || {
            play(islands::two_on_a_line_hold_the_same())
        }),
        alone("broadcast::a_record_reaches_two_nodes_by_one_packet", || {
            play(broadcast::a_record_reaches_two_nodes_by_one_packet())
        }),
    ];
    // These take minutes, and are asked for.
    let long = std::env::var_os(long::ASKED_BY).map(|_| {
        [
            trial("long::five_on_one_channel_agree", long::five_on_one_channel_agree),
            trial(
                "long::a_slow_link_is_silent_and_carries_again",
                long::a_slow_link_is_silent_and_carries_again,
            ),
            trial(
                "long::a_fast_link_is_silent_and_carries_again",
                long::a_fast_link_is_silent_and_carries_again,
            ),
        ]
    });
    let trials = trials.into_iter().chain(islands).chain(long.into_iter().flatten()).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn failed(error: &anyhow::Error) -> Failed {
    format!("{error:#}").into()
}

/// Plays a story on a runtime of its own.
fn play(story: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(story)
}

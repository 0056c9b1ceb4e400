//! What is promised of meeting through the slots alone: cases of `mosaik-lab bench bootstrap` are
//! played once. Times have ten times the room here; counts are exact.

use std::time::Duration;

use anyhow::Result;
use mosaik_lab::{
    bench::{
        bootstrap::{
            fifteen_dead, flooded, forged, holders_killed, one_live, peer_cache, sixteen_dead,
            together,
        },
        figure::Figure,
        place::Place,
    },
    binary::node_binary,
    lock::Lock,
};
use mosaik_tests::Diary;

/// How long to wait for clusters of other tests.
const TURN_MAX: Duration = Duration::from_secs(20 * 60);

/// Plays while no other cluster runs on this machine, and holds each figure against its target.
async fn promised(play: impl AsyncFnOnce(&Place) -> Result<Vec<Figure>>) {
    // It may be built for minutes; others go on meanwhile.
    let built = tokio::task::spawn_blocking(node_binary).await.expect("it doesn't panic");
    built.expect("there is a node to run");
    let _turn = Lock::take(TURN_MAX).await.expect("others end");
    let place = Place::new(None).expect("a temporary directory");
    let diary = Diary::begin();
    let figures = play(&place).await.unwrap_or_else(|error| panic!("{error:#}"));
    for figure in &figures {
        diary.note(figure);
    }
    assert!(figures.iter().any(Figure::has_target), "nothing is promised: {figures:?}");
    let missed: Vec<String> = figures.iter().filter_map(|figure| figure.check().err()).collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_finds_the_one_node_in_sixteen_slots() {
    promised(async |place| one_live(place, 1).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_finds_the_one_node_among_fifteen_dead_ones() {
    promised(async |place| fifteen_dead(place, 1).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_forged_slots_keep_nobody_from_joining_by_a_ticket() {
    promised(async |place| forged(place, 1).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_have_met_need_no_dht_to_meet_again() {
    promised(async |place| peer_cache(place, 1).await).await;
}

/// Of the hundreds that a hostile member made up none is dialed before its turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_dead_peers_and_fifteen_dead_slots_keep_nobody_from_the_one_live_node() {
    promised(async |place| flooded(place, 1).await).await;
}

/// A hundred nodes in this process, and smaller crowds before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crowds_that_start_at_once_are_linked_and_share_the_slots_out() {
    promised(async |place| together(place).await).await;
}

/// Two that come to sixteen leases of dead ones, and a newcomer when all holders are killed. Both is
/// mostly waiting, so it is done at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_meet_on_a_chain_of_dead_ones_and_when_all_holders_are_killed() {
    promised(async |place| {
        let (mut figures, killed) = tokio::try_join!(
            Box::pin(sixteen_dead(place, 1)),
            Box::pin(holders_killed(place, 1)),
        )?;
        figures.extend(killed);
        Ok(figures)
    })
    .await;
}

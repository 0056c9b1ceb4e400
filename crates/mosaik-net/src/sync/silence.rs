//! When a peer has been silent for too long.

use iroh::endpoint::Connection;
use tokio::time::{Duration, MissedTickBehavior, interval};

/// How often it is looked, and how many looks in a row find nothing: twice the transport's own limit.
const LOOK_EVERY: Duration = Duration::from_secs(4);
const LOOKS: u32 = 4;

/// Returns when nothing has come for [`LOOKS`] times [`LOOK_EVERY`] of this process's own time; each end
/// says every 2 s that it is there.
///
/// The transport waits for at least three of the round trips that it has measured. A process that stood
/// still for a minute has measured one of a minute, and would hold on to a dead connection for longer
/// still. Here a stop counts as one look, however long it was: what came meanwhile is read before the
/// next.
pub(super) async fn silence(connection: &Connection) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut received = 0;
    let mut in_vain = 0;
    while in_vain < LOOKS {
        looks.tick().await;
        let now = connection.stats().udp_rx.datagrams;
        in_vain = if now == received { in_vain + 1 } else { 0 };
        received = now;
    }
}

//! Which addresses are worth publishing, and in which order.
//!
//! Invariant: nothing leaves here that a record can't carry or that [`Reach`] holds back.

use std::net::SocketAddr;

use mosaik_core::reach::{Reach, is_public};

/// Relays and addresses in one record together.
///
/// Eight: with a lease and four neighbours they still fit 1,000 bytes, and a dial races them all.
pub const ADDRESSES_MAX: usize = 8;

/// Bytes of a relay's URL: one DNS string, and one below its limit, which older tools cut at.
pub const RELAY_LEN_MAX: usize = 254;

/// Whether a relay may be published and dialed: a URL that a TXT record can carry, and that `reach`
/// lets through.
pub fn allows_relay(reach: Reach, url: &str) -> bool {
    is_publishable(url) && reach.allows_relay(url)
}

/// Takes what may be published, best first: relays, public v6, public v4, others; at most
/// [`ADDRESSES_MAX`] in all, each once.
pub fn choose(
    reach: Reach,
    relays: &[String],
    addresses: &[SocketAddr],
) -> (Vec<String>, Vec<SocketAddr>) {
    let mut chosen_relays: Vec<String> = Vec::new();
    for relay in relays.iter().filter(|relay| allows_relay(reach, relay)) {
        if chosen_relays.len() < ADDRESSES_MAX && !chosen_relays.contains(relay) {
            chosen_relays.push(relay.clone());
        }
    }
    let mut chosen: Vec<SocketAddr> = Vec::new();
    for address in addresses.iter().map(plain).filter(|address| reach.allows(address)) {
        if !chosen.contains(&address) {
            chosen.push(address);
        }
    }
    // Stable: within a class the caller's order stands.
    chosen.sort_by_key(|address| match (is_public(address.ip()), address) {
        (true, SocketAddr::V6(_)) => 0,
        (true, SocketAddr::V4(_)) => 1,
        (false, _) => 2,
    });
    chosen.truncate(ADDRESSES_MAX - chosen_relays.len());
    (chosen_relays, chosen)
}

/// The address without scope and flow label, a v4 address in v4 form.
pub(crate) fn plain(address: &SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether a relay's URL can stand in a TXT record: printable, below the limit, without `=`, which
/// older tools cut at.
pub(crate) fn is_publishable(url: &str) -> bool {
    url.len() <= RELAY_LEN_MAX && url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_relay_that_no_record_can_carry_is_not_published() {
        for url in ["https://relay.example.org/?a=b", "https://relay.example.org/ a"] {
            assert!(!allows_relay(Reach::Lab, url), "{url}");
        }
        assert!(!allows_relay(Reach::Lab, &format!("https://{}/", "a".repeat(250))));
        assert!(allows_relay(Reach::Public, "https://relay.example.org./"));
    }

    #[test]
    fn the_best_addresses_come_first_and_eight_are_the_most() {
        let relays = ["https://relay.example.org./".to_owned(), "https://10.0.0.1/".to_owned()];
        let mut addresses =
            vec![address("10.0.0.1:1"), address("203.0.113.7:1"), address("[2001:db8::7]:1")];
        let (chosen_relays, chosen) = choose(Reach::Lan, &relays, &addresses);
        assert_eq!(chosen_relays, relays);
        assert_eq!(chosen, [addresses[2], addresses[1], addresses[0]]);
        addresses.extend((0..40).map(|i| address(&format!("203.0.113.{i}:1"))));
        let (chosen_relays, chosen) = choose(Reach::Public, &relays, &addresses);
        assert_eq!((chosen_relays.len(), chosen.len()), (1, 7));
        assert_eq!(chosen[0], addresses[2]);
        assert!(!chosen.contains(&addresses[0]));
    }

    #[test]
    fn forty_local_addresses_leave_nothing_to_publish() {
        let addresses: Vec<SocketAddr> =
            (1..=40).map(|i| address(&format!("192.168.1.{i}:4242"))).collect();
        assert_eq!(choose(Reach::Public, &[], &addresses), (vec![], vec![]));
    }
}

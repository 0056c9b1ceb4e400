//! Which addresses are worth publishing and dialing, and in which order.
//!
//! Invariants:
//! - What [`Reach::PublicOnly`] lets through is neither private, loopback nor link-local, in
//!   whatever form it is written: a stranger's record can't make us probe our own network.
//! - Nothing lets through what no socket can be dialed at: port 0, unspecified, multicast.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Relays and addresses in one record together.
///
/// Eight: with a lease and four neighbours they still fit 1,000 bytes, and a dial races them all.
pub const ADDRESSES_MAX: usize = 8;

/// Bytes of a relay's URL: one DNS string, and one below its limit, which older tools cut at.
pub const RELAY_LEN_MAX: usize = 254;

/// How far addresses that are published and dialed may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// Public addresses alone. The default.
    #[default]
    PublicOnly,
    /// Private and link-local ones as well: the nodes share a local network.
    Lan,
    /// Loopback too: all nodes run on one machine, as in a lab.
    Lab,
}

impl Reach {
    /// Whether `address` may be published and dialed.
    pub fn allows(self, address: &SocketAddr) -> bool {
        address.port() != 0 && self.allows_ip(address.ip())
    }

    /// Whether a relay may be published and dialed: an http(s) URL that a TXT record can carry,
    /// and, where its host is an address, one that may be dialed.
    pub fn allows_relay(self, url: &str) -> bool {
        if !is_publishable(url) {
            return false;
        }
        let Some(host) = host(url) else { return false };
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.eq_ignore_ascii_case("localhost") || host.ends_with(".localhost") {
            return self == Self::Lab;
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        bare.parse::<IpAddr>().map_or(true, |ip| self.allows_ip(ip))
    }

    /// Takes what may be published, best first: relays, public v6, public v4, others; at most
    /// [`ADDRESSES_MAX`] in all, each once.
    pub fn choose(
        self,
        relays: &[String],
        addresses: &[SocketAddr],
    ) -> (Vec<String>, Vec<SocketAddr>) {
        let mut chosen_relays: Vec<String> = Vec::new();
        for relay in relays.iter().filter(|relay| self.allows_relay(relay)) {
            if chosen_relays.len() < ADDRESSES_MAX && !chosen_relays.contains(relay) {
                chosen_relays.push(relay.clone());
            }
        }
        let mut chosen: Vec<SocketAddr> = Vec::new();
        for address in addresses.iter().map(plain).filter(|address| self.allows(address)) {
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

    fn allows_ip(self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let dialable = match ip {
            IpAddr::V4(ip) => !ip.is_multicast() && ip.octets()[0] != 0 && ip.octets()[0] < 240,
            // A link-local v6 address means nothing without its interface, which isn't published.
            IpAddr::V6(ip) => {
                !ip.is_multicast() && !ip.is_unspecified() && !ip.is_unicast_link_local()
            }
        };
        dialable
            && match self {
                Self::PublicOnly => is_public(ip),
                Self::Lan => !ip.is_loopback(),
                Self::Lab => true,
            }
    }
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

/// The host of an http(s) URL without user, brackets kept.
fn host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    if authority.contains('@') {
        return None;
    }
    let host = match authority.strip_prefix('[') {
        Some(v6) => &authority[..v6.find(']')? + 2],
        None => authority.split(':').next()?,
    };
    (!host.is_empty()).then_some(host)
}

fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    // RFC 6598: between a carrier and its customers, as private as RFC 1918.
    let carrier = a == 100 && (64..128).contains(&b);
    !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || carrier)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    // RFC 6052, RFC 3056: a v4 address in disguise is judged as what it leads to.
    let segments = ip.segments();
    let embedded = match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => Some((high, low)),
        _ => None,
    };
    if let Some((high, low)) = embedded {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified())
        // ::/96, the old v4-compatible form, and fec0::/10, the old site-local one.
        && segments[..6] != [0; 6]
        && segments[0] & 0xffc0 != 0xfec0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn private_loopback_and_link_local_addresses_need_their_setting() {
        for (text, lan, lab) in [
            ("10.0.0.1:1", true, true),
            ("172.16.0.1:1", true, true),
            ("192.168.1.1:1", true, true),
            ("100.64.0.1:1", true, true),
            ("169.254.1.1:1", true, true),
            ("[fd00::1]:1", true, true),
            ("[::ffff:10.0.0.1]:1", true, true),
            ("[64:ff9b::10.0.0.1]:1", true, true),
            ("[2002:a00:1::1]:1", true, true),
            ("127.0.0.1:1", false, true),
            ("[::1]:1", false, true),
            ("[::ffff:127.0.0.1]:1", false, true),
            ("[fe80::1]:1", false, false),
            ("0.0.0.0:1", false, false),
            ("[::]:1", false, false),
            ("224.0.0.1:1", false, false),
            ("255.255.255.255:1", false, false),
            ("[ff02::1]:1", false, false),
            ("203.0.113.7:0", false, false),
        ] {
            assert!(!Reach::PublicOnly.allows(&address(text)), "{text}");
            assert_eq!(Reach::Lan.allows(&address(text)), lan, "{text}");
            assert_eq!(Reach::Lab.allows(&address(text)), lab, "{text}");
        }
        for text in ["203.0.113.7:4242", "[2001:db8::7]:1", "8.8.8.8:53"] {
            assert!(Reach::PublicOnly.allows(&address(text)), "{text}");
        }
    }

    #[test]
    fn a_relay_at_a_private_address_is_treated_like_that_address() {
        for (url, public, lan, lab) in [
            ("https://relay.example.org./", true, true, true),
            ("http://relay.example.org:8080/", true, true, true),
            ("https://10.0.0.1/", false, true, true),
            ("http://127.0.0.1:3340/", false, false, true),
            ("http://localhost:3340/", false, false, true),
            ("https://[::1]:3340/", false, false, true),
            ("https://user@relay.example.org/", false, false, false),
            ("ftp://relay.example.org/", false, false, false),
            ("https://", false, false, false),
            ("https://[", false, false, false),
            ("https://relay.example.org/?a=b", false, false, false),
            ("https://relay.example.org/ a", false, false, false),
        ] {
            assert_eq!(Reach::PublicOnly.allows_relay(url), public, "{url}");
            assert_eq!(Reach::Lan.allows_relay(url), lan, "{url}");
            assert_eq!(Reach::Lab.allows_relay(url), lab, "{url}");
        }
        assert!(!Reach::Lab.allows_relay(&format!("https://{}/", "a".repeat(250))));
    }

    #[test]
    fn the_best_addresses_come_first_and_eight_are_the_most() {
        let relays = ["https://relay.example.org./".to_owned(), "https://10.0.0.1/".to_owned()];
        let mut addresses =
            vec![address("10.0.0.1:1"), address("203.0.113.7:1"), address("[2001:db8::7]:1")];
        let (chosen_relays, chosen) = Reach::Lan.choose(&relays, &addresses);
        assert_eq!(chosen_relays, relays);
        assert_eq!(chosen, [addresses[2], addresses[1], addresses[0]]);
        addresses.extend((0..40).map(|i| address(&format!("203.0.113.{i}:1"))));
        let (chosen_relays, chosen) = Reach::PublicOnly.choose(&relays, &addresses);
        assert_eq!((chosen_relays.len(), chosen.len()), (1, 7));
        assert_eq!(chosen[0], addresses[2]);
        assert!(!chosen.contains(&addresses[0]));
    }

    #[test]
    fn forty_local_addresses_leave_nothing_to_publish() {
        let addresses: Vec<SocketAddr> =
            (1..=40).map(|i| address(&format!("192.168.1.{i}:4242"))).collect();
        assert_eq!(Reach::PublicOnly.choose(&[], &addresses), (vec![], vec![]));
    }
}

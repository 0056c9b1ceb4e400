//! Which addresses may be dialed and told.
//!
//! Invariant: what [`Reach::Public`] lets through is neither private, loopback nor link-local, in
//! whatever form it is written: a stranger's word can't make this node probe its own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How far addresses that are dialed and told may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// Public addresses alone.
    #[default]
    Public,
    /// Private and link-local ones as well: the nodes share a local network.
    Lan,
    /// Private and link-local ones alone: nothing goes out to the internet.
    LanOnly,
    /// Loopback too: all nodes run on one machine.
    Lab,
}

impl Reach {
    /// Whether `address` may be dialed and told.
    pub fn allows(self, address: &SocketAddr) -> bool {
        address.port() != 0 && self.allows_ip(address.ip().to_canonical())
    }

    /// Whether a relay's URL may be dialed: http or https, and where its host is an address or
    /// `localhost`, one that may be dialed.
    pub fn allows_relay(self, url: &str) -> bool {
        let Some(host) = host(url) else { return false };
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.eq_ignore_ascii_case("localhost")
            || host.to_ascii_lowercase().ends_with(".localhost")
        {
            return self == Self::Lab;
        }
        match host.parse::<IpAddr>() {
            Ok(ip) => self.allows_ip(ip.to_canonical()),
            // Where a name leads is known only when it is too late.
            Err(_) => self != Self::LanOnly,
        }
    }

    fn allows_ip(self, ip: IpAddr) -> bool {
        let dialable = match ip {
            IpAddr::V4(ip) => !ip.is_multicast() && ip.octets()[0] != 0 && ip.octets()[0] < 240,
            // A link-local v6 address means nothing without its interface, which isn't told.
            IpAddr::V6(ip) => {
                !ip.is_multicast() && !ip.is_unspecified() && !ip.is_unicast_link_local()
            }
        };
        dialable
            && match self {
                Self::Public => is_public(ip),
                Self::Lan => !ip.is_loopback(),
                Self::LanOnly => !ip.is_loopback() && !is_public(ip),
                Self::Lab => true,
            }
    }
}

/// The host of an http(s) URL without user, brackets taken off.
fn host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    if authority.contains('@') {
        return None;
    }
    let host = match authority.strip_prefix('[') {
        Some(v6) => &v6[..v6.find(']')?],
        None => authority.split(':').next()?,
    };
    (!host.is_empty()).then_some(host)
}

/// Whether an address, in its canonical form, is one of the public internet.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

/// What counts as one neighbourhood of the public internet: a v4 /24, or a v6 /48.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subnet {
    /// The first three bytes.
    V4([u8; 3]),
    /// The first six bytes.
    V6([u8; 6]),
}

impl Subnet {
    /// Of a public address; nothing of others.
    pub fn of(ip: IpAddr) -> Option<Self> {
        let ip = ip.to_canonical();
        is_public(ip).then(|| match ip {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                Self::V6([a, b, c, d, e, f])
            }
        })
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    // RFC 6598: between a carrier and its customers, as private as RFC 1918.
    let carrier = a == 100 && (64..128).contains(&b);
    !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || carrier)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    // RFC 6052, RFC 3056: a v4 address in disguise is judged as what it leads to.
    if let [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] = segments {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
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

    const ALL: [Reach; 4] = [Reach::Public, Reach::Lan, Reach::LanOnly, Reach::Lab];

    #[test]
    fn private_and_loopback_addresses_need_their_setting() {
        for (text, public, lan, lan_only, lab) in [
            ("203.0.113.7:4242", true, true, false, true),
            ("[2001:db8::7]:1", true, true, false, true),
            ("10.0.0.1:1", false, true, true, true),
            ("100.64.0.1:1", false, true, true, true),
            ("169.254.1.1:1", false, true, true, true),
            ("[fd00::1]:1", false, true, true, true),
            ("[::ffff:10.0.0.1]:1", false, true, true, true),
            ("[64:ff9b::10.0.0.1]:1", false, true, true, true),
            ("127.0.0.1:1", false, false, false, true),
            ("[::1]:1", false, false, false, true),
            ("[::ffff:127.0.0.1]:1", false, false, false, true),
            ("[fe80::1]:1", false, false, false, false),
            ("0.0.0.0:1", false, false, false, false),
            ("224.0.0.1:1", false, false, false, false),
            ("[ff02::1]:1", false, false, false, false),
            ("203.0.113.7:0", false, false, false, false),
        ] {
            let address: SocketAddr = text.parse().expect("an address");
            let seen = ALL.map(|reach| reach.allows(&address));
            assert_eq!(seen, [public, lan, lan_only, lab], "{text}");
        }
    }

    #[test]
    fn a_relay_at_a_private_address_is_treated_like_that_address() {
        for (url, public, lan, lan_only, lab) in [
            ("https://relay.example.org./", true, true, false, true),
            ("https://10.0.0.1/", false, true, true, true),
            ("http://127.0.0.1:3340/", false, false, false, true),
            ("http://LOCALHOST:3340/", false, false, false, true),
            ("https://[::1]:3340/", false, false, false, true),
            ("https://user@relay.example.org/", false, false, false, false),
            ("ftp://relay.example.org/", false, false, false, false),
            ("https://", false, false, false, false),
            ("https://[", false, false, false, false),
        ] {
            let seen = ALL.map(|reach| reach.allows_relay(url));
            assert_eq!(seen, [public, lan, lan_only, lab], "{url}");
        }
    }
}

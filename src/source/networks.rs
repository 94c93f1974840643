//! Networks that an operator trusts, by address: `10.0.0.0/8`, `2001:db8::1`, or `unix` for every Unix socket.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Some networks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Networks(Vec<Network>);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
enum Network {
    /// Whoever may connect to the Unix socket.
    Unix,
    /// Addresses that begin with these bits.
    Ip(IpAddr, u32),
}

impl Networks {
    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `address` is in one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| matches!(*network, Network::Ip(first, len) if is_within(address, first, len)))
    }

    /// Whether who connects to a Unix socket is in one of them.
    pub fn contain_unix(&self) -> bool {
        self.0.contains(&Network::Unix)
    }
}

fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (address.to_bits().into(), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

fn is_within(address: IpAddr, first: IpAddr, len: u32) -> bool {
    let ((address, width), (first, first_width)) = (bits(address), bits(first));
    width == first_width && (address ^ first).checked_shr(width - len).unwrap_or(0) == 0
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is no network: give one such as `10.0.0.0/8`, `2001:db8::1` or `unix`");
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let (address, len) = text.split_once('/').map_or((text, None), |(address, len)| (address, Some(len)));
        let first: IpAddr = address.parse().map_err(|_| wrong())?;
        if first != first.to_canonical() {
            return Err(format!("`{text}` is an IPv4 network in IPv6 form: write it as IPv4"));
        }
        let (bits, width) = bits(first);
        let len = match len {
            None => width,
            Some(len) => len.parse().ok().filter(|&len| len <= width).ok_or_else(wrong)?,
        };
        if bits.trailing_zeros().min(width) < width - len {
            return Err(format!("`{text}` has bits set behind its first {len}: is one address meant, or a network?"));
        }
        Ok(Self::Ip(first, len))
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix => f.write_str("unix"),
            Self::Ip(first, len) if *len == bits(*first).1 => first.fmt(f),
            Self::Ip(first, len) => write!(f, "{first}/{len}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Networks {
        Networks(list.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn an_address_is_in_its_network_alone() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.0.2.0/25", "192.0.2.127", "192.0.2.128"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("127.0.0.1", "::ffff:127.0.0.1", "::1"),
            ("0.0.0.0/0", "203.0.113.9", "::"),
            ("::/0", "2001:db8::1", "0.0.0.0"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::"),
        ] {
            let [inside, outside] = [inside, outside].map(|address| address.parse().unwrap());
            let networks = networks(&[network]);
            assert!(networks.contain(inside), "{inside:?} in {network}");
            assert!(!networks.contain(outside), "{outside:?} in {network}");
            assert!(!networks.contain_unix(), "{network} is no Unix socket");
        }
        assert!(
            networks(&["::1", "unix"]).contain_unix() && !networks(&["unix"]).contain(IpAddr::from([127, 0, 0, 1]))
        );
    }

    #[test]
    fn networks_are_written_as_they_were_read() {
        for text in ["10.0.0.0/8", "127.0.0.1", "unix", "::/0", "2001:db8::/32", "::1"] {
            assert_eq!(String::from(text.parse::<Network>().unwrap()), text);
        }
        for wrong in ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10/8", "localhost", "::/129", "::ffff:10.0.0.1"] {
            let err = wrong.parse::<Network>().unwrap_err();
            assert!(err.contains(&format!("`{wrong}`")), "{err}");
        }
    }
}

//! What is told of a client is text, and comes back when it is told again.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::source::smtp::xclient;

fn xtext(text: &str) -> String {
    text.bytes()
        .map(|octet| if octet.is_ascii_alphanumeric() { char::from(octet).into() } else { format!("+{octet:02X}") })
        .collect()
}

fuzz_target!(|octets: &[u8]| {
    let Some((address, helo, user)) = xclient(octets) else { return };
    let mut again = String::new();
    match address {
        Some(IpAddr::V4(address)) => again += &format!(" ADDR={address}"),
        Some(IpAddr::V6(address)) => again += &format!(" ADDR=IPV6:{address}"),
        None => again += " ADDR=[UNAVAILABLE]",
    }
    for (attribute, value) in [("HELO", &helo), ("LOGIN", &user)] {
        if let Some(value) = value {
            assert!(!value.chars().any(char::is_control));
            again += &format!(" {attribute}={}", xtext(value));
        }
    }
    assert_eq!(xclient(again.as_bytes()), Some((address, helo, user)));
});

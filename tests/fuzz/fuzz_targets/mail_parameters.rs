//! Parameters and file names: bounded, printable, and the same whichever of the fields has them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::{filename, is_line};

fuzz_target!(|octets: &[u8]| {
    let octets: Vec<u8> = octets.iter().copied().filter(|octet| !matches!(octet, b'\r' | b'\n')).collect();
    let name = filename(&[b"attachment; ", &octets[..]].concat(), b"application/pdf");
    assert!(name.as_ref().is_none_or(|name| is_line(name) && !name.is_empty()));
    filename(b"attachment", &[b"application/pdf; ", &octets[..]].concat());
    filename(&octets, &octets);
});

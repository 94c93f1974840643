//! Header blocks: CRLF and LF mean the same, and what is behind the empty line means nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::check;
use postrider_fuzz::message::summarise_header;

fuzz_target!(|octets: &[u8]| {
    let summary = summarise_header(octets);
    check(&summary);
    let octets: Vec<u8> = octets.iter().copied().filter(|octet| *octet != b'\r').collect();
    let with_lf = [&octets[..], b"\n\nSubject: behind\n"].concat();
    let mut with_crlf = Vec::with_capacity(with_lf.len() * 2);
    for octet in &with_lf {
        if *octet == b'\n' {
            with_crlf.push(b'\r');
        }
        with_crlf.push(*octet);
    }
    // Fields that are cut at their longest are cut elsewhere when their line ends are longer.
    if octets.len() < 50_000 {
        assert_eq!(summarise_header(&with_lf), summarise_header(&with_crlf));
    }
});

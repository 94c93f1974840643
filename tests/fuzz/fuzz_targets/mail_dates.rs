//! Dates: what comes out is a real time in RFC 3339, which is read as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::message::summarise_header;

fuzz_target!(|octets: &[u8]| {
    let octets: Vec<u8> = octets.iter().copied().filter(|octet| !matches!(octet, b'\r' | b'\n')).collect();
    let date = |value: &[u8]| summarise_header(&[b"Date: ", value, b"\r\n"].concat()).date;
    if let Some(found) = date(&octets) {
        let again = date(found.as_bytes()).expect("RFC 3339 is read");
        // `Z` says that the sender's zone is unknown only where it was not written.
        let time = |text: &str| text.parse::<jiff::Timestamp>().expect("a real time");
        assert_eq!(time(&again), time(&found));
    }
});

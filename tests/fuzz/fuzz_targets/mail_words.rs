//! Encoded words: folding between words changes nothing, and what has no word in it stays what it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::is_line;
use postrider_fuzz::message::decode_header_text;

fuzz_target!(|octets: &[u8]| {
    let decoded = decode_header_text(octets);
    assert!(is_line(&decoded) && decoded.len() <= octets.len() * 3);
    if let Ok(text) = std::str::from_utf8(octets)
        && !text.contains("=?")
        && !text.contains(|c: char| c.is_control() || c == '\u{feff}')
        && octets.len() < 100_000
    {
        assert_eq!(decoded, text.trim());
    }
});

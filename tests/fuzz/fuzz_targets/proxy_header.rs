//! A header is read to its end and not beyond: what follows changes nothing, and nothing of it is missing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::source::smtp::proxy_header;

fuzz_target!(|octets: &[u8]| {
    let found = proxy_header(octets);
    if let Some((len, address)) = found {
        assert!((15..=536).contains(&len) && len <= octets.len());
        assert_eq!(proxy_header(&[&octets[..len], b"\r\nEHLO x\r\n"].concat()), found);
        for shorter in [len - 1, len / 2, 1] {
            assert_eq!(proxy_header(&octets[..shorter]), None);
        }
        assert!(address.is_none_or(|address| address.ip() == address.ip().to_canonical()));
    }
});

//! SEARCH and ESEARCH: each number is found, and the set is one that can be written and read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::protocol::{Response, UidSet};
use postrider_fuzz::responses;

fuzz_target!(|octets: &[u8]| {
    for begin in ["* SEARCH ", "* ESEARCH "] {
        for response in responses(begin, octets, "") {
            let Response::Search(result) = response else { continue };
            let set = result.found;
            assert!(!result.is_broken || set.is_empty());
            assert!(!set.contains(0));
            if !set.is_empty() {
                assert_eq!(UidSet::parse(&set.to_string(), set.ranges_len()), Some(set));
            }
        }
    }
    // Plain numbers have but one reading.
    if octets.iter().all(|octet| octet.is_ascii_digit() || *octet == b' ')
        && let Ok(text) = std::str::from_utf8(octets)
    {
        let numbers: Result<UidSet, _> = text.split_ascii_whitespace().map(str::parse).collect();
        let found = match responses("* SEARCH ", octets, "").into_iter().next() {
            Some(Response::Search(result)) if !result.is_broken => Some(result.found),
            _ => None,
        };
        assert_eq!(found, numbers.ok());
    }
});

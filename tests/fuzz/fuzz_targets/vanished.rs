//! VANISHED, and sets of UIDs by themselves.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::protocol::{Response, UidSet};
use postrider_fuzz::responses;

fuzz_target!(|octets: &[u8]| {
    for begin in ["* VANISHED ", "* VANISHED (EARLIER) "] {
        for response in responses(begin, octets, "") {
            let Response::Vanished { uids, .. } = response else { continue };
            assert!(!uids.is_empty() && !uids.contains(0));
            assert_eq!(UidSet::parse(&uids.to_string(), uids.ranges_len()), Some(uids));
        }
    }
    let mut halves =
        octets.splitn(2, |octet| *octet == b' ').map(|half| UidSet::parse(&String::from_utf8_lossy(half), 1000));
    if let (Some(Some(left)), Some(Some(right))) = (halves.next(), halves.next()) {
        let (both, only_left, only_right) =
            (left.intersection(&right), left.difference(&right), right.difference(&left));
        let mut all = left.clone();
        all.extend(&right);
        let parts = u64::from(both.len()) + u64::from(only_left.len()) + u64::from(only_right.len());
        assert_eq!(u64::from(all.len()), parts);
        assert!(both.first().is_none_or(|uid| left.contains(uid) && right.contains(uid)));
        assert!(only_left.last().is_none_or(|uid| left.contains(uid) && !right.contains(uid)));
    }
});

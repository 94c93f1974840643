//! STATUS.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::protocol::Response;
use postrider_fuzz::responses;

fuzz_target!(|octets: &[u8]| {
    for (begin, end) in [("* STATUS ", ""), ("* STATUS \"a b\" (", ")")] {
        for response in responses(begin, octets, end) {
            let Response::MailboxStatus(status) = response else { continue };
            assert_ne!(status.items.uid_next, Some(0));
            assert_ne!(status.items.uid_validity, Some(0));
        }
    }
});

//! LIST, and the names of mailboxes in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::protocol::{Response, mailbox_name};
use postrider_fuzz::responses;

fuzz_target!(|octets: &[u8]| {
    for begin in ["* LIST ", "* LIST (\\HasChildren) \"/\" "] {
        for response in responses(begin, octets, "") {
            let Response::Listed(listed) = response else { continue };
            assert!(listed.attributes.len() <= 64);
            for raw_name in std::iter::once(&listed.raw_name).chain(&listed.old_raw_name) {
                let name = mailbox_name::decode(raw_name);
                let sent = mailbox_name::to_wire(&name);
                assert!(sent.bytes().all(|octet| (b' '..=b'~').contains(&octet)));
                // What is sent for a name comes back as that name.
                let listed = responses("* LIST () NIL ", sent.as_bytes(), "");
                let Some(Response::Listed(listed)) = listed.first() else { panic!("{sent} does not come back") };
                assert_eq!(mailbox_name::decode(&listed.raw_name), name);
            }
        }
    }
});

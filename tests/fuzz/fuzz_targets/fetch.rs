//! FETCH: whatever stands in the list, the message is one, and what is stored comes from the octets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::protocol::Response;
use postrider_fuzz::responses;

fuzz_target!(|octets: &[u8]| {
    for (end, is_whole) in [(")", true), ("", false)] {
        let responses = responses("* 1 FETCH (", octets, end);
        let Some(Response::Fetch(1, _)) = responses.first() else { panic!("a message must stay one") };
        for response in responses {
            let Response::Fetch(_, message) = response else { continue };
            assert_ne!(message.uid, Some(0));
            assert!(message.flags.is_none_or(|flags| flags.len() <= 1000));
            assert!(message.labels.is_none_or(|labels| labels.len() <= 1000));
            let sections: usize = message.sections.iter().map(|(_, octets)| octets.len()).sum();
            assert!(message.sections.len() <= 100 && sections <= octets.len());
            assert!(message.sections.iter().all(|(path, _)| !path.contains(&0)));
            assert!(message.header.is_none_or(|header| header.len() <= octets.len()));
            assert!(is_whole || octets.contains(&b')') || message.is_broken_off);
        }
    }
});

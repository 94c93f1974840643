//! Whole messages: whatever comes in, the summary is bounded and printable, and less of it is asked for less.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::check;
use postrider_fuzz::event::Content;
use postrider_fuzz::message::summarise;

fuzz_target!(|octets: &[u8]| {
    let whole = summarise(octets, Content::Text);
    check(&whole);
    for content in [Content::None, Content::Envelope, Content::Preview] {
        let less = summarise(octets, content);
        check(&less);
        assert_eq!((&less.subject, &less.from, &less.date), (&whole.subject, &whole.from, &whole.date));
        assert!(less.text.is_none() && less.defects.iter().all(|defect| whole.defects.contains(defect)));
    }
    if let [half, ..] = octets.chunks(octets.len() / 2 + 1).collect::<Vec<_>>()[..] {
        check(&summarise(half, Content::Text));
    }
});

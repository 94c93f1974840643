//! HTML, whole and cut: text and preview are bounded and printable, and no markup that was read is in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::is_line;
use postrider_fuzz::message::{TextPart, preview, text};

fuzz_target!(|octets: &[u8]| {
    let part = TextPart { subtype: "html", charset: None, encoding: "8bit", flowed: false, del_sp: false };
    for octets in [octets, &octets[..octets.len() / 2]] {
        let shown = preview(&part, octets).unwrap_or_default();
        assert!(is_line(&shown) && shown.chars().count() <= 200);
        let text = text(&part, octets).unwrap_or_default();
        assert!(text.len() <= 64 * 1024 && !text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')));
    }
});

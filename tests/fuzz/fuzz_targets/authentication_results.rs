//! Authentication-Results.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::authentication_results::parse;

fuzz_target!(|octets: &[u8]| {
    for begin in ["", "mx; dmarc=", "mx; spf=pass smtp."] {
        let Some(parsed) = parse(&[begin.as_bytes(), octets].concat()) else { continue };
        assert!(!parsed.authserv_id.is_empty() && parsed.results.len() <= 32);
        for result in &parsed.results {
            assert!(result.properties.len() <= 16 && result.comments.len() <= 16);
            let texts = result.properties.iter().flat_map(|(name, value)| [name, value]).chain(&result.comments);
            // A replacement character has three octets where there was one.
            assert!(texts.chain([&result.method, &result.result]).all(|text| text.len() <= 3 * 512));
            assert!(!result.method.is_empty() && !result.method.contains(['=', ';']));
        }
    }
    let behind = [b"mx; dmarc=fail policy.dmarc=reject; ", octets].concat();
    let behind = parse(&behind).expect("it begins as it should");
    let first = behind.results.first().expect("the first result");
    assert_eq!((first.method.as_str(), first.result.as_str()), ("dmarc", "fail"));
    assert_eq!(first.property("policy.dmarc"), Some("reject"));
});

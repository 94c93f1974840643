//! An address is one: what it names holds no control characters, and quoted anew it names the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::source::smtp::path;

fuzz_target!(|argument: &str| {
    let Some((path_of, rest)) = path(argument) else { return };
    assert!(rest.is_empty() || rest.starts_with(' '));
    let Some((local, domain)) = path_of else {
        assert!(argument.starts_with("<>"));
        return;
    };
    assert!(!local.chars().any(char::is_control));
    let Some(domain) = domain else {
        assert!(local.eq_ignore_ascii_case("postmaster"));
        return;
    };
    assert!(!domain.contains(' ') && !domain.chars().any(char::is_control));
    assert!(domain.starts_with('[') || !domain.contains(['@', '<', '>', '"']));
    let quoted = local.replace('\\', "\\\\").replace('"', "\\\"");
    let again = format!("<\"{quoted}\"@{domain}>{rest}");
    if again.len() <= 500 {
        assert_eq!(path(&again), Some((Some((local, Some(domain))), rest)));
    }
});

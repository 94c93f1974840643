//! Address lists: bounded and printable; a list of what was read is read as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::check;
use postrider_fuzz::message::summarise_header;

fuzz_target!(|octets: &[u8]| {
    let octets: Vec<u8> = octets.iter().copied().filter(|octet| !matches!(octet, b'\r' | b'\n')).collect();
    let summary = summarise_header(&[b"To: ", &octets[..], b"\r\n"].concat());
    check(&summary);
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"@.-+_".contains(&byte));
    let addresses: Vec<&str> = summary.to.iter().map(|one| one.address.as_str()).collect();
    if addresses.iter().all(|address| plain(address) && address.contains('@')) {
        let again = summarise_header(format!("To: {}\r\n", addresses.join(", ")).as_bytes());
        assert_eq!(again.to.iter().map(|one| one.address.as_str()).collect::<Vec<_>>(), addresses);
    }
});

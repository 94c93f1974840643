//! However the octets are cut, the responses are the same, and together they are the octets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::frames;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece_len, octets) = input;
    let (whole, error) = frames(octets, octets.len());
    assert_eq!(frames(octets, usize::from(piece_len)), (whole.clone(), error));
    let joined = whole.concat();
    assert!(octets.starts_with(&joined));
    assert!(whole.iter().all(|frame| frame.ends_with(b"\n")));
});

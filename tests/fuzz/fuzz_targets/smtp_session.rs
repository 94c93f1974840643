//! However a dialogue is cut, and however its messages are taken out, the replies and the messages are the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::source::smtp::{Setup, dialogue};

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (setup, piece_len, octets) = input;
    let setup = Setup(setup);
    let whole = dialogue(setup, &[octets], usize::MAX);
    let pieces: Vec<&[u8]> = octets.chunks(usize::from(piece_len).max(1)).collect();
    assert_eq!(dialogue(setup, &pieces, usize::MAX), whole);
    assert_eq!(dialogue(setup, &pieces, usize::from(setup.0) + 1), whole);

    // Whatever was sent, each line of a reply is one, and says nothing that the client could have put there.
    assert!(whole.replies.ends_with(b"\r\n"));
    for line in whole.replies.strip_suffix(b"\r\n").unwrap_or_default().split(|&octet| octet == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // A challenge repeats what the client made up, in base64.
        assert!(line.len() >= 4 && (line.len() <= 510 || line.starts_with(b"334 ")));
        assert!(line[..3].iter().all(u8::is_ascii_digit) && matches!(line[3], b' ' | b'-'));
        assert!(line.iter().all(|octet| matches!(octet, b' '..=b'~')));
    }
});

//! A message in chunks is its chunks, whatever octets they hold and however they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::source::smtp::{MESSAGE_BYTES_MAX, Setup, dialogue};

fuzz_target!(|input: (u8, Vec<&[u8]>)| {
    let (piece_len, chunks) = input;
    let message = chunks.concat();
    // Small chunks are a nuisance at some time.
    if chunks.is_empty() || chunks.len() > 90 || message.len() > MESSAGE_BYTES_MAX {
        return;
    }
    let mut wire = b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\n".to_vec();
    for (number, chunk) in chunks.iter().enumerate() {
        let last = if number + 1 == chunks.len() { " LAST" } else { "" };
        wire.extend(format!("BDAT {}{last}\r\n", chunk.len()).into_bytes());
        wire.extend_from_slice(chunk);
    }
    wire.extend_from_slice(b"NOOP\r\n");
    let pieces: Vec<&[u8]> = wire.chunks(usize::from(piece_len).max(1)).collect();
    // Each message is committed.
    let seen = dialogue(Setup(5 << 3), &pieces, 50);
    assert_eq!(seen.messages, [(1, message)]);
    assert!(!seen.is_over && seen.replies.ends_with(b"250 2.0.0 Ok\r\n"), "in step");
});

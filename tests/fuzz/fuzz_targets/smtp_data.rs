//! However the text is cut, it becomes the same; and only CRLF `.` CRLF is its end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::source::smtp::text;

const END: &[u8] = b"\r\n.\r\n";

fuzz_target!(|input: (u8, &[u8])| {
    let (piece_len, octets) = input;
    let pieces: Vec<&[u8]> = octets.chunks(usize::from(piece_len).max(1)).collect();
    for bytes_max in [20, 1 << 20] {
        let (cut, whole) = (text(&pieces, bytes_max), text(&[octets], bytes_max));
        // What goes on without end is hung up on: what was read of it by then says nothing.
        let is_endless = matches!(&whole, Some((Err("endless"), _)));
        assert!(cut == whole || is_endless && matches!(&cut, Some((Err("endless"), _))), "{cut:?} {whole:?}");
    }
    // The text begins as if behind CRLF.
    let wire = [b"\r\n", octets].concat();
    let end = wire.windows(END.len()).position(|window| window == END);
    match text(&[octets], 1 << 20) {
        None => assert_eq!(end, None),
        Some((message, rest)) => {
            let end = end.expect("only this ends it");
            assert_eq!(rest, wire[end + END.len()..]);
            let sent = wire.get(2..end + 2).unwrap_or_default();
            let stuffed = [b"\r\n", sent].concat().windows(3).filter(|window| window == b"\r\n.").count();
            assert_eq!(message.expect("it fits").len(), sent.len() - stuffed);
        }
    }
});

//! What ends a line in mail that keeps to nothing: LF, CRLF, or, as a progress bar has it, CR alone.

use memchr::memchr2;

/// The lines without their ends. Whatever ends one, none has a CR or LF in it.
pub fn lines(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let (line, after) = rest.split_at_checked(end).filter(|_| !rest.is_empty())?;
        rest = after.strip_prefix(b"\r\n").or_else(|| after.get(1..)).unwrap_or_default();
        Some(line)
    })
}

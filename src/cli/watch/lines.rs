//! Lines of a stream, however the network cuts it.

/// A line that is longer is dropped: an event is a few kilobytes, with its text at most some hundred.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Collects bytes into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The line that is not complete yet.
    partial: Vec<u8>,
    /// It became too long: the rest of it is dropped as well.
    skips: bool,
}

impl Lines {
    /// Adds bytes; gives the lines that they complete, without their ends.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut complete = Vec::new();
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (head, tail) = bytes.split_at(end);
            self.extend(head);
            let mut line = std::mem::take(&mut self.partial);
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if !std::mem::take(&mut self.skips) {
                complete.push(line);
            }
            bytes = tail.get(1..).unwrap_or_default();
        }
        self.extend(bytes);
        complete
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.skips |= self.partial.len() + bytes.len() > LINE_BYTES_MAX;
        if self.skips {
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_without_end_costs_no_more_than_the_limit() {
        let mut lines = Lines::default();
        for _ in 0..64 {
            assert!(lines.push(&vec![b'x'; 1 << 17]).is_empty());
            assert!(lines.partial.capacity() <= 2 * LINE_BYTES_MAX);
        }
        assert_eq!(lines.push(b"rest\nnext\r\n"), [b"next".to_vec()]);
    }

    proptest! {
        #[test]
        fn lines_survive_any_cut(lines in prop::collection::vec("[a-z{}\"]{0,9}", 0..9), cuts in prop::collection::vec(1..7_usize, 0..40)) {
            let mut wire = lines.join("\n");
            if !lines.is_empty() {
                wire.push('\n');
            }
            let (mut collector, mut rest, mut found) = (Lines::default(), wire.as_bytes(), Vec::new());
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                found.extend(collector.push(head));
                rest = tail;
            }
            found.extend(collector.push(rest));
            prop_assert_eq!(found, lines.into_iter().map(String::into_bytes).collect::<Vec<_>>());
        }
    }
}

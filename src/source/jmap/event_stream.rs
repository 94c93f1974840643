//! The server's event stream, read piece by piece (WHATWG HTML §9.2.6). Pure.
//!
//! Of the crates that read such streams none limits what a server may make them hold, which is half of this file's
//! work.

/// Longest line, and longest data of one event. A change of state has less than a kilobyte for each account.
const BYTES_MAX: usize = 64 * 1024;

/// One event of the stream.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct StreamEvent {
    /// Its type; `message` where the server named none.
    pub name: String,
    pub data: String,
}

/// A server that sends more than is sensible.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Takes bytes, gives events.
#[derive(Debug, Default)]
pub(super) struct EventStream {
    line: Vec<u8>,
    /// The last byte was CR: a LF that follows belongs to it.
    after_return: bool,
    name: String,
    data: String,
}

impl EventStream {
    /// Reads on. The events are those that were completed.
    ///
    /// # Errors
    /// When a line or an event is longer than it may be; the stream is of no more use then.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Vec<StreamEvent>, TooLong> {
        let mut events = Vec::new();
        for &byte in bytes {
            let ends_line = byte == b'\r' || (byte == b'\n' && !self.after_return);
            let belongs_to_return = byte == b'\n' && self.after_return;
            self.after_return = byte == b'\r';
            if ends_line {
                events.extend(self.end_line()?);
            } else if !belongs_to_return {
                if self.line.len() >= BYTES_MAX {
                    return Err(TooLong);
                }
                self.line.push(byte);
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Result<Option<StreamEvent>, TooLong> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let line = line.strip_prefix('\u{feff}').unwrap_or(&line);
        if line.is_empty() {
            let (name, mut data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            if data.pop().is_none() {
                return Ok(None); // Without data it is no event.
            }
            let name = if name.is_empty() { "message".to_owned() } else { name };
            return Ok(Some(StreamEvent { name, data }));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.data.len().saturating_add(value.len()) > BYTES_MAX {
                    return Err(TooLong);
                }
                self.data.push_str(value);
                self.data.push('\n');
            }
            // Comments, which begin with the colon, `id` and `retry`: a lost stream is followed by asking what
            // changed, not by resuming.
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn event(name: &str, data: &str) -> StreamEvent {
        StreamEvent { name: name.into(), data: data.into() }
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        let text =
            ": hi\r\nevent: state\ndata: {\ndata:}\nid: 7\n\n\nevent: ping\rdata: 1\r\revent: none\n\ndata\n\ndata: x";
        let events = EventStream::default().read(text.as_bytes()).unwrap();
        assert_eq!(events, [event("state", "{\n}"), event("ping", "1"), event("message", "")]);
    }

    #[test]
    fn nothing_grows_without_end() {
        assert_eq!(EventStream::default().read(&vec![b'a'; BYTES_MAX + 1]), Err(TooLong));
        let lines = "data: 0123456789\n".repeat(BYTES_MAX / 10);
        assert_eq!(EventStream::default().read(lines.as_bytes()), Err(TooLong));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_events(
            lines in proptest::collection::vec("(data|event|id|x)?:? ?[ -~]{0,8}(\r\n|\n|\r)(\r\n|\n)?", 0..20),
            cut in any::<Index>(),
        ) {
            let text = lines.concat().into_bytes();
            let whole = EventStream::default().read(&text).unwrap();
            let (head, tail) = text.split_at(cut.index(text.len() + 1));
            let mut stream = EventStream::default();
            let mut pieces = stream.read(head).unwrap();
            pieces.extend(stream.read(tail).unwrap());
            prop_assert_eq!(pieces, whole);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _events_or_not = EventStream::default().read(&bytes).is_ok();
        }
    }
}

//! What a line of the stream is: an event, something that the server says of the stream, or nothing.

use std::time::Duration;

use postrider::event::EventId;
use serde_json::Value;

/// One line.
#[derive(Debug, PartialEq)]
pub(super) enum Record {
    /// An event. As JSON rather than as our own type: a newer server has kinds and fields that we do not know.
    Event(EventId, Value),
    /// The stream begins behind this event.
    Hello(Option<EventId>),
    /// The server will close the stream; come back after this time.
    Bye(Option<Duration>),
    /// A heartbeat, or something that a newer server says.
    Nothing,
}

impl Record {
    pub(super) fn parse(line: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<Value>(line) else { return Self::Nothing };
        let id = |key: &str| value.get(key).and_then(Value::as_str).and_then(|id| id.parse().ok());
        if let Some(id) = id("id") {
            return Self::Event(id, value);
        }
        match value.get("control").and_then(Value::as_str) {
            Some("hello") => Self::Hello(id("last_event_id")),
            Some("bye") => Self::Bye(value.get("retry_ms").and_then(Value::as_u64).map(Duration::from_millis)),
            _ => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "urn:uuid:0199d2a0-0000-7000-8000-000000000001";

    #[test]
    fn events_have_an_identifier_and_all_else_is_not_printed() {
        let id: EventId = ID.parse().unwrap();
        let event = format!(r#"{{"id":"{ID}","kind":"FromTheFuture","new":[1]}}"#);
        assert!(matches!(Record::parse(event.as_bytes()), Record::Event(found, _) if found == id));
        let hello = format!(r#"{{"control":"hello","last_event_id":"{ID}"}}"#);
        assert_eq!(Record::parse(hello.as_bytes()), Record::Hello(Some(id)));
        assert_eq!(Record::parse(br#"{"control":"hello"}"#), Record::Hello(None));
        let bye = br#"{"control":"bye","reason":"shutdown","retry_ms":1500}"#;
        assert_eq!(Record::parse(bye), Record::Bye(Some(Duration::from_millis(1500))));
        for other in ["", " ", "{}", "[]", "{\"id\":7}", "{\"id\":\"x\"}", "{\"control\":\"new\"}", "\u{0}", "{"] {
            assert_eq!(Record::parse(other.as_bytes()), Record::Nothing, "{other}");
        }
    }
}

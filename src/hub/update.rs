//! One event on its way to many subscribers: encoded once for each wire format, however many there are.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::event_log::Committed;

/// How an event looks on the wire of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Server-Sent Events (WHATWG HTML §9.2).
    Sse,
    /// One JSON object a line.
    Lines,
    /// A part of `multipart/x-mixed-replace` with the head of the next one.
    Multipart,
    /// Server-Sent Events as Mercure has them.
    Mercure,
}

impl Format {
    /// Parts end with this. JSON on one line cannot contain it, since it begins with a line break.
    ///
    /// The head of the *next* part is sent along: browsers show a part when they see what follows it, so that with a
    /// delimiter before each part they are one part late.
    pub const NEXT_PART: &'static str = "\r\n--postrider\r\nContent-Type: application/json\r\n\r\n";
}

/// An event with its encodings, made when the first subscriber needs them.
#[derive(Debug)]
pub struct Update {
    /// The event.
    pub event: Arc<Committed>,
    sse: OnceLock<Bytes>,
    line: OnceLock<Bytes>,
    part: OnceLock<Bytes>,
    mercure: OnceLock<Bytes>,
}

impl Update {
    /// An update of which nothing is encoded yet.
    pub fn new(event: Arc<Committed>) -> Self {
        Self { event, sse: OnceLock::new(), line: OnceLock::new(), part: OnceLock::new(), mercure: OnceLock::new() }
    }

    /// The event in a format.
    pub fn encoded(&self, format: Format) -> &Bytes {
        match format {
            Format::Sse => self.sse.get_or_init(|| sse(&self.event)),
            Format::Lines => self.line.get_or_init(|| join(&[&self.event.json, b"\n"])),
            Format::Mercure => self.mercure.get_or_init(|| super::mercure::encode(&self.event)),
            Format::Multipart => self.part.get_or_init(|| join(&[&self.event.json, Format::NEXT_PART.as_bytes()])),
        }
    }
}

/// Names cannot contain line breaks: publishing refuses them.
fn sse(event: &Committed) -> Bytes {
    debug_assert!(!event.name.contains(['\r', '\n']));
    let id = event.id.to_string();
    join(&[b"event: ", event.name.as_bytes(), b"\nid: ", id.as_bytes(), b"\ndata: ", &event.json, b"\n\n"])
}

fn join(pieces: &[&[u8]]) -> Bytes {
    pieces.concat().into()
}

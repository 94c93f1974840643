//! An event as a Mercure client gets it: what was published as it was published, anything else as its JSON.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::event::EventKind;
use crate::event_log::Committed;

/// What a publisher said.
#[derive(Deserialize)]
struct Published<'a> {
    kind: EventKind,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default, rename = "type")]
    update_type: Option<String>,
    #[serde(default)]
    retry: Option<u64>,
}

/// One Server-Sent Event, its fields in the order of the reference hub. Only what a publisher gave a type has an `event`
/// field: a browser's `onmessage` gets all else.
pub(super) fn encode(event: &Committed) -> Bytes {
    let whole = || String::from_utf8_lossy(&event.json).into_owned();
    let published = serde_json::from_slice::<Published<'_>>(&event.json).ok();
    let published = published.filter(|published| published.kind == EventKind::Published);
    let (data, name, retry) = match published {
        None => (whole(), None, None),
        Some(Published { data, update_type, retry, .. }) => {
            let raw = data.map(RawValue::get).unwrap_or_default();
            // Text is what was sent, not a JSON string of it.
            (serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned()), update_type, retry)
        }
    };
    let mut text = String::with_capacity(data.len() + 96);
    if let Some(name) = name {
        text.extend(["event: ", &name, "\n"]);
    }
    if let Some(retry) = retry {
        text.extend(["retry: ", &retry.to_string(), "\n"]);
    }
    text.extend(["id: ", &event.id.to_string(), "\n"]);
    // Each of the three line ends of the format begins another field (WHATWG HTML §9.2.6).
    for line in data.replace("\r\n", "\n").split(['\n', '\r']) {
        text.extend(["data: ", line, "\n"]);
    }
    text.push('\n');
    text.into()
}

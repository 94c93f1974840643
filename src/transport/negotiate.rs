//! Which transport a request asks for: an upgrade first, then `transport=`, then `Accept`.

use axum::http::{HeaderMap, Method, StatusCode, header};

use super::query::Query;
use crate::http::Problem;
use crate::hub::Format;

/// How a subscriber is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    WebSocket,
    /// An endless answer: SSE, NDJSON or multipart.
    Stream(Format),
    /// One answer, when there is something or the wait is over.
    LongPoll,
    /// One answer at once.
    Poll,
}

/// Media types that are understood; the first wins where a client likes several the same.
const TYPES: [(&str, Transport); 4] = [
    ("text/event-stream", Transport::Stream(Format::Sse)),
    ("application/x-ndjson", Transport::Stream(Format::Lines)),
    ("application/json", Transport::Poll),
    ("multipart/x-mixed-replace", Transport::Stream(Format::Multipart)),
];

/// Decides.
pub(super) fn transport(method: &Method, headers: &HeaderMap, query: &Query) -> Result<Transport, Problem> {
    let upgrade = headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    // WebSocket over HTTP/2 is an extended CONNECT (RFC 8441 §4).
    let wanted = if upgrade || method == Method::CONNECT { Some(Transport::WebSocket) } else { query.transport };
    let transport = match wanted {
        Some(transport) => transport,
        None => accepted(headers).ok_or_else(not_acceptable)?,
    };
    if transport == Transport::WebSocket && !upgrade && method != Method::CONNECT {
        let detail = "`transport=websocket` needs a WebSocket handshake: connect with ws:// or wss://";
        return Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade-required", detail));
    }
    Ok(match (transport, query.wait) {
        (Transport::Poll, Some(wait)) if !wait.is_zero() && query.transport.is_none() => Transport::LongPoll,
        (transport, _) => transport,
    })
}

fn not_acceptable() -> Problem {
    let types = TYPES.map(|(media_type, _)| media_type).join(", ");
    let detail = format!("`Accept` names nothing that is offered: {types}; or use `transport=`");
    Problem::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", detail)
}

/// The best of what `Accept` names (RFC 9110 §12.5.1); SSE for clients that take anything. Where several are liked the
/// same, what is named beats what only falls under a wildcard.
fn accepted(headers: &HeaderMap) -> Option<Transport> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<_> = values.flat_map(|value| value.split(',')).filter_map(media_range).collect();
    if ranges.is_empty() {
        return Some(Transport::Stream(Format::Sse));
    }
    let mut best: Option<((u16, u8), Transport)> = None;
    for (media_type, transport) in TYPES {
        // The closest range decides how much the type is liked, also that it is not.
        let closest =
            ranges.iter().filter_map(|(range, quality)| Some((closeness(range, media_type)?, *quality))).max();
        let Some((closeness, quality)) = closest.filter(|(_, quality)| *quality > 0) else { continue };
        if best.is_none_or(|(liked, _)| (quality, closeness) > liked) {
            best = Some(((quality, closeness), transport));
        }
    }
    best.map(|(_, transport)| transport)
}

/// One member of `Accept`: the range in lower case, and how much it is liked in thousandths. None for an empty one.
fn media_range(member: &str) -> Option<(String, u16)> {
    let member = member.trim().to_ascii_lowercase();
    let mut parts = member.split(';').map(str::trim);
    let range = parts.next().filter(|range| !range.is_empty())?.to_owned();
    Some((range, parts.find_map(|part| part.strip_prefix("q=")).map_or(1000, thousandths)))
}

/// How closely a range names a type: by name, by its first half, or as one of all; none when it does not.
fn closeness(range: &str, media_type: &str) -> Option<u8> {
    let half = || range.strip_suffix("/*").is_some_and(|kind| media_type.split('/').next() == Some(kind));
    match range {
        "*/*" => Some(0),
        _ if range == media_type => Some(2),
        _ if half() => Some(1),
        _ => None,
    }
}

/// A quality of 0 to 1, times 1,000; what is not a quality counts as 1.
fn thousandths(quality: &str) -> u16 {
    let quality = quality.parse::<f32>().unwrap_or(1.0).clamp(0.0, 1.0);
    // From 0 to 1,000 by the clamp.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000")]
    let thousandths = (quality * 1000.0) as u16;
    thousandths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: Option<&str>, query: &str) -> Option<Transport> {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(header::ACCEPT, accept.parse().unwrap());
        }
        let query = Query::parse(query, &HeaderMap::new()).unwrap();
        transport(&Method::GET, &headers, &query).ok()
    }

    #[test]
    fn accept_decides_and_the_query_overrides() {
        use Transport::{LongPoll, Poll, Stream};
        for (accept, query, wanted) in [
            (Some("text/event-stream"), "", Some(Stream(Format::Sse))),
            (None, "", Some(Stream(Format::Sse))),
            (Some("*/*"), "", Some(Stream(Format::Sse))),
            (Some("application/x-ndjson"), "", Some(Stream(Format::Lines))),
            (Some("application/json"), "", Some(Poll)),
            (Some("application/json"), "wait=30", Some(LongPoll)),
            (Some("application/json"), "wait=0", Some(Poll)),
            (Some("application/json, */*"), "", Some(Poll)),
            (Some("text/html,application/json;q=0.9,text/event-stream;q=0.8"), "", Some(Poll)),
            (Some("multipart/x-mixed-replace"), "", Some(Stream(Format::Multipart))),
            (Some("text/html"), "", None),
            (Some("text/event-stream;q=0"), "", None),
            (Some("text/event-stream;q=0, */*"), "", Some(Stream(Format::Lines))),
            (Some("application/json;q=0.5, application/*;q=0.9"), "", Some(Stream(Format::Lines))),
            (Some("Text/Event-Stream;Q=0.1, Application/JSON"), "", Some(Poll)),
            (Some("te/*"), "", None),
            (Some(""), "", Some(Stream(Format::Sse))),
            (Some("text/html"), "transport=long-poll", Some(LongPoll)),
            (Some("text/event-stream"), "transport=stream", Some(Stream(Format::Lines))),
            (Some("application/json"), "transport=poll&wait=30", Some(Poll)),
            (None, "transport=websocket", None),
        ] {
            assert_eq!(chosen(accept, query), wanted, "{accept:?} {query}");
        }
    }

    #[test]
    fn an_upgrade_is_a_websocket() {
        let mut headers = HeaderMap::new();
        headers.insert(header::UPGRADE, "WebSocket".parse().unwrap());
        let query = Query::parse("", &HeaderMap::new()).unwrap();
        assert_eq!(transport(&Method::GET, &headers, &query).unwrap(), Transport::WebSocket);
    }
}

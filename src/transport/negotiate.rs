//! Which transport a request asks for: `transport=` first, then an upgrade, then `Accept`.

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

/// The best of what `Accept` names (RFC 9110 §12.5.1); SSE for clients that take anything.
fn accepted(headers: &HeaderMap) -> Option<Transport> {
    let mut best: Option<(u16, usize)> = None;
    let mut named = false;
    for range in
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','))
    {
        named = true;
        let mut parts = range.split(';').map(str::trim);
        let media_range = parts.next().unwrap_or_default();
        let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1000, thousandths);
        for (rank, (media_type, _)) in TYPES.iter().enumerate() {
            let whole_type = media_range.strip_suffix("/*").is_some_and(|kind| media_type.starts_with(kind));
            let matched = media_range.eq_ignore_ascii_case(media_type) || media_range == "*/*" || whole_type;
            // What is named beats what only falls under a wildcard: hence the lower rank of equal quality wins last.
            let exact = usize::from(media_range.contains('*')) * TYPES.len() + rank;
            if matched && quality > 0 && best.is_none_or(|(q, r)| quality > q || (quality == q && exact < r)) {
                best = Some((quality, exact));
            }
        }
    }
    if !named {
        return Some(Transport::Stream(Format::Sse));
    }
    best.and_then(|(_, rank)| TYPES.get(rank % TYPES.len())).map(|(_, transport)| *transport)
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

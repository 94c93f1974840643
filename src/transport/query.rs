//! What a subscriber's URL says: topics, where to begin, how long to wait.

use std::time::Duration;

use axum::http::HeaderMap;
use url::form_urlencoded;

use super::negotiate::Transport;
use crate::event::TopicMatcher;
use crate::http::Problem;
use crate::hub::{Format, Resume};

/// Topics that one subscriber may ask for.
const TOPICS_MAX: usize = 100;
/// Events in one answer to a poll, where the client does not say.
const LIMIT: usize = 100;
/// The most that a client may say.
const LIMIT_MAX: usize = 1000;

/// The parsed query of `GET /events`.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) topics: Vec<TopicMatcher>,
    pub(super) resume: Option<Resume>,
    pub(super) wait: Option<Duration>,
    pub(super) transport: Option<Transport>,
    pub(super) limit: usize,
}

impl Query {
    /// Parses the query; a `Last-Event-ID` header wins over `last_event_id`, since it is what a browser adds when it
    /// comes back to a URL that is older.
    pub(super) fn parse(query: &str, headers: &HeaderMap) -> Result<Self, Problem> {
        let mut parsed = Self { limit: LIMIT, ..Self::default() };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "topic" => parsed.topics.push(matcher(&value)?),
                "last_event_id" => parsed.resume = Some(resume(&value)?),
                "wait" => parsed.wait = Some(wait(&value)?),
                "transport" => parsed.transport = Some(transport(&value)?),
                "limit" => parsed.limit = limit(&value)?,
                // Other names are left alone: pages add their own against caches.
                _ => {}
            }
        }
        if parsed.topics.len() > TOPICS_MAX {
            let detail = format!("at most {TOPICS_MAX} topics can be asked for at once; use a URI template");
            return Err(Problem::bad_request("too-many-topics", detail));
        }
        if let Some(id) = headers.get("last-event-id") {
            // An empty one is what a browser has before its first event.
            let id = id.to_str().unwrap_or("not ASCII");
            if !id.is_empty() {
                parsed.resume = Some(resume(id)?);
            }
        }
        Ok(parsed)
    }
}

/// Parses what a subscriber asks for.
pub(super) fn matcher(text: &str) -> Result<TopicMatcher, Problem> {
    TopicMatcher::parse(text).map_err(|err| Problem::bad_request("topic-invalid", format!("`topic`: {err}")))
}

fn resume(text: &str) -> Result<Resume, Problem> {
    if text == "earliest" {
        return Ok(Resume::Earliest);
    }
    let id = text.parse().map_err(|err| Problem::bad_request("event-id-invalid", format!("`last_event_id`: {err}")))?;
    Ok(Resume::After(id))
}

fn wait(text: &str) -> Result<Duration, Problem> {
    let detail = "`wait` is a number of seconds, as in `wait=30`";
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| Problem::bad_request("wait-invalid", detail))
}

fn limit(text: &str) -> Result<usize, Problem> {
    let detail = format!("`limit` is a number from 1 to {LIMIT_MAX}");
    let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| Problem::bad_request("limit-invalid", detail))
}

fn transport(text: &str) -> Result<Transport, Problem> {
    match text {
        "sse" => Ok(Transport::Stream(Format::Sse)),
        "stream" => Ok(Transport::Stream(Format::Lines)),
        "multipart" => Ok(Transport::Stream(Format::Multipart)),
        "websocket" => Ok(Transport::WebSocket),
        "long-poll" => Ok(Transport::LongPoll),
        "poll" => Ok(Transport::Poll),
        _ => {
            let detail = "`transport` is one of sse, websocket, stream, multipart, long-poll, poll";
            Err(Problem::bad_request("transport-invalid", detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Query, Problem> {
        Query::parse(query, &HeaderMap::new())
    }

    #[test]
    fn topics_repeat_and_are_decoded() {
        let query = parse("topic=mail%2Falice%2F%7Bmailbox%7D&topic=*&cache-buster=1").unwrap();
        assert_eq!(query.topics.iter().map(TopicMatcher::as_str).collect::<Vec<_>>(), ["mail/alice/{mailbox}", "*"]);
        assert_eq!((query.resume, query.wait, query.limit), (None, None, LIMIT));
    }

    #[test]
    fn the_header_wins_and_an_empty_one_says_nothing() {
        let mut headers = HeaderMap::new();
        headers.insert("last-event-id", "".parse().unwrap());
        assert_eq!(Query::parse("last_event_id=earliest", &headers).unwrap().resume, Some(Resume::Earliest));
        headers.insert("last-event-id", "urn:uuid:0199d2a0-0000-7000-8000-000000000001".parse().unwrap());
        assert!(matches!(Query::parse("last_event_id=earliest", &headers).unwrap().resume, Some(Resume::After(_))));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, name) in [
            ("topic=", "`topic`: a topic must not be empty"),
            ("topic=%00", "control characters"),
            ("topic=a%7Bb", "URI template"),
            ("last_event_id=17", "`last_event_id`: not an event ID"),
            ("wait=soon", "number of seconds"),
            ("wait=-1", "number of seconds"),
            ("limit=0", "from 1 to 1000"),
            ("transport=carrier-pigeon", "one of sse"),
        ] {
            let problem = parse(query).unwrap_err();
            assert!(problem.detail().contains(name), "{query}: {}", problem.detail());
        }
        assert!(parse(&"topic=a&".repeat(101)).unwrap_err().detail().contains("at most 100"));
    }
}

//! What the query of a request to the hub says, in either dialect.

use std::sync::LazyLock;

use axum::http::HeaderMap;
use percent_encoding::percent_decode;
use regex::Regex;

use super::Dialect;
use crate::event::{MatcherError, TopicMatcher};
use crate::http::Problem;
use crate::hub::Resume;

/// Matchers of one subscriber.
const MATCHERS_MAX: usize = 100;
/// The longest matcher, in bytes.
const MATCHER_BYTES_MAX: usize = TopicMatcher::URL_PATTERN_BYTES_MAX;

/// Characters that are not seen, and can make one text look like another.
static UNSEEN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"[\p{Cc}\p{Cf}]").ok());

/// Whether a text has control or format characters.
pub(super) fn has_unseen(text: &str) -> bool {
    // Should the expression be refused some day, so is every text.
    UNSEEN.as_ref().is_none_or(|unseen| unseen.is_match(text))
}

/// Names and values in their order.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Decodes a query or a form.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Problem> {
        let decode = |part: &[u8]| {
            let spaced: Vec<u8> = part.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
            percent_decode(&spaced).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| {
                Problem::bad_request(
                    "parameter-invalid",
                    "a parameter is not UTF-8; encode it as UTF-8, then by percent",
                )
            })
        };
        let pairs = text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            Ok((decode(halves.next().unwrap_or_default())?, decode(halves.next().unwrap_or_default())?))
        });
        Ok(Self(decoded.collect::<Result<_, Problem>>()?))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The last value of a name.
    pub(super) fn last(&self, name: &str) -> Option<&str> {
        self.iter().filter(|(own, _)| *own == name).last().map(|(_, value)| value)
    }

    /// What is subscribed to, and in which dialect that is said.
    pub(super) fn wanted(&self, legacy: bool, hub: &url::Url) -> Result<(Vec<TopicMatcher>, Dialect), Problem> {
        let is_match = |name: &str| name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("match"));
        let current = self.iter().any(|(name, _)| is_match(name));
        let topics = self.iter().any(|(name, _)| name == "topic");
        if topics && (current || !legacy) {
            let detail = if current {
                "`topic` and `match…` are of two dialects; use one of them"
            } else {
                "`topic` is of a dialect that is switched off here; use `match` or `match_urlpattern`"
            };
            return Err(Problem::bad_request("parameter-invalid", detail));
        }
        let mut wanted = Vec::new();
        for (name, value) in self.iter() {
            let matcher = match name {
                "topic" => TopicMatcher::parse(value),
                "match" | "match_exact" => seen(value).and_then(TopicMatcher::parse_exact),
                "match_urlpattern" => seen(value).and_then(|value| TopicMatcher::parse_url_pattern(value, hub)),
                _ if is_match(name) => {
                    let detail = "matchers are `match`, `match_exact` and `match_urlpattern`, in lower case";
                    return Err(Problem::bad_request("parameter-invalid", detail));
                }
                _ => continue,
            };
            let matcher = matcher.map_err(|err| Problem::bad_request("matcher-invalid", format!("`{name}`: {err}")))?;
            wanted.push(matcher);
            if wanted.len() > MATCHERS_MAX {
                let detail = format!("at most {MATCHERS_MAX} topics can be asked for at once; use a pattern");
                return Err(Problem::bad_request("too-many-topics", detail));
            }
        }
        if wanted.is_empty() {
            let detail = "say what to subscribe to: `match=TOPIC`, `match_urlpattern=PATTERN`, or in the older dialect \
                          `topic=TOPIC`; each may be repeated";
            return Err(Problem::bad_request("topic-missing", detail));
        }
        Ok((wanted, if current { Dialect::Current } else { Dialect::Legacy }))
    }

    /// Where to begin; none where the request does not say. An ID that cannot be one of ours is one that is not known.
    pub(super) fn resume(&self, headers: &HeaderMap, dialect: Dialect) -> Option<Resume> {
        // An empty header is what a browser has before its first event.
        let header = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("not ASCII"));
        let own = match dialect {
            Dialect::Legacy => self.last("lastEventID").or_else(|| self.last("Last-Event-ID")),
            Dialect::Current => self.last("last_event_id"),
        };
        let id = header.filter(|id| !id.is_empty()).or(own)?;
        Some(id.parse().map_or(Resume::Earliest, Resume::After))
    }
}

fn seen(value: &str) -> Result<&str, MatcherError> {
    if value.len() > MATCHER_BYTES_MAX {
        return Err(MatcherError::Topic(crate::event::TopicError::TooLong));
    }
    if has_unseen(value) { Err(MatcherError::Topic(crate::event::TopicError::Control)) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(query: &str, legacy: bool) -> Result<(Vec<String>, Dialect), String> {
        let hub = url::Url::parse("https://hub.example/.well-known/mercure").unwrap();
        let parameters = Parameters::parse(query.as_bytes()).map_err(|err| err.detail().to_owned())?;
        let (wanted, dialect) = parameters.wanted(legacy, &hub).map_err(|err| err.detail().to_owned())?;
        Ok((wanted.iter().map(|matcher| matcher.as_str().to_owned()).collect(), dialect))
    }

    #[test]
    fn parameters_tell_the_dialect() {
        let (topics, dialect) = wanted("topic=a%7Bb%7D&topic=*&x=y&topic=c+d", true).unwrap();
        assert_eq!((topics, dialect), (vec!["a{b}".into(), "*".into(), "c d".into()], Dialect::Legacy));
        let (topics, dialect) = wanted("match=a%7B&match_exact=b&match_urlpattern=%2Fx%2F:y", true).unwrap();
        assert_eq!((topics, dialect), (vec!["a{".into(), "b".into(), "/x/:y".into()], Dialect::Current));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, legacy, word) in [
            ("", true, "say what to subscribe to"),
            ("topic=a", false, "switched off"),
            ("topic=a&match=b", true, "two dialects"),
            ("Match=a", true, "in lower case"),
            ("match=a&match_regexp=b", true, "in lower case"),
            ("MATCHER=a", true, "in lower case"),
            ("match=a%0Ab", true, "control"),
            ("match=a%7Fb", true, "control"),
            ("match=a%E2%80%8Eb", true, "control"),
            ("match=%FF", true, "UTF-8"),
            ("match=", true, "empty"),
            ("match_urlpattern=%2F(", true, "URL pattern"),
            ("topic=", true, "empty"),
        ] {
            let refused = wanted(query, legacy).unwrap_err();
            assert!(refused.contains(word), "{query}: {refused}");
        }
        assert!(wanted(&"match=a&".repeat(101), true).unwrap_err().contains("at most 100"));
        assert!(wanted(&format!("match_urlpattern=/{}", "a".repeat(4096)), true).is_err());
        assert!(wanted(&format!("match_urlpattern=/{}", "a".repeat(4000)), true).is_ok());
    }
}

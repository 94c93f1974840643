//! What an access token of the current Mercure draft allows: its `authorization_details` (RFC 9396).

use serde_json::{Map, Value};
use url::Url;

use super::claims::wrong;
use super::{MercureClaims, TokenError};
use crate::event::TopicMatcher;

/// The details that are about a Mercure hub.
pub const DETAIL_TYPE: &str = "https://mercure.rocks/authorization-detail";
const CLAIM: &str = "authorization_details";
/// Matchers of one token; eight kilobytes have no room for many more.
const MATCHERS_MAX: usize = 200;

/// The rights in a token's details. Details of other types are others' business.
pub(super) fn details(payload: &Map<String, Value>, hub: &Url) -> Result<MercureClaims, TokenError> {
    let mut claims = MercureClaims::default();
    let details = match payload.get(CLAIM) {
        None => return Ok(claims),
        Some(Value::Array(details)) => details,
        Some(_) => return Err(wrong(CLAIM, "a list of objects")),
    };
    for detail in details {
        let Value::Object(detail) = detail else { return Err(wrong(CLAIM, "a list of objects")) };
        match detail.get("type") {
            Some(Value::String(kind)) if kind == DETAIL_TYPE => add(&mut claims, detail, hub)?,
            Some(Value::String(_)) => {}
            _ => return Err(wrong("authorization_details.type", "a string")),
        }
    }
    if claims.subscribe.len() + claims.publish.len() > MATCHERS_MAX {
        return Err(wrong("authorization_details.topics", &format!("at most {MATCHERS_MAX} matchers in all")));
    }
    Ok(claims)
}

fn add(claims: &mut MercureClaims, detail: &Map<String, Value>, hub: &Url) -> Result<(), TokenError> {
    let list = |name: &str| match detail.get(name) {
        Some(Value::Array(items)) => Ok(items),
        _ => Err(wrong(&format!("authorization_details.{name}"), "a list")),
    };
    let mut actions = Vec::new();
    for action in list("actions")? {
        actions.push(action.as_str().ok_or_else(|| wrong("authorization_details.actions", "a list of strings"))?);
    }
    let topics = list("topics")?.iter().map(|topic| matcher(topic, hub)).collect::<Result<Vec<_>, _>>()?;
    // Actions that are not known are for hubs that can do more.
    if actions.contains(&"subscribe") {
        claims.subscribe.extend(topics.iter().cloned());
        claims.payload = claims.payload.take().or_else(|| detail.get("payload").cloned());
    }
    if actions.contains(&"publish") {
        claims.publish.extend(topics);
    }
    Ok(())
}

fn matcher(topic: &Value, hub: &Url) -> Result<TopicMatcher, TokenError> {
    let expected = || wrong("authorization_details.topics", "a list of {\"match\": …, \"match_type\": …}");
    let text = topic.get("match").and_then(Value::as_str).ok_or_else(expected)?;
    let parsed = match topic.get("match_type").map(Value::as_str) {
        None | Some(Some("exact")) => TopicMatcher::parse_exact(text),
        Some(Some("urlpattern")) => TopicMatcher::parse_url_pattern(text, hub),
        Some(_) => return Err(wrong("authorization_details.topics.match_type", "`exact` or `urlpattern`")),
    };
    parsed.map_err(|err| TokenError::BadClaims(format!("`authorization_details` is refused: {err}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::Topic;

    fn read(details: &Value) -> Result<MercureClaims, TokenError> {
        let Value::Object(payload) = json!({ CLAIM: details }) else { unreachable!("an object") };
        super::details(&payload, &Url::parse("https://hub.example/.well-known/mercure").unwrap())
    }

    #[test]
    fn rights_are_read_and_one_wrong_detail_voids_all() {
        let good = json!({ "type": DETAIL_TYPE, "actions": ["subscribe", "dance"], "payload": {"a": 1},
            "topics": [{"match": "a{b}"}, {"match": "/books/:id", "match_type": "urlpattern"}] });
        let claims = read(&json!([{ "type": "payment" }, good])).unwrap();
        assert_eq!((claims.publish.len(), claims.payload), (0, Some(json!({"a": 1}))));
        let sees = |topic: &str| claims.subscribe.iter().any(|m| m.matches(&Topic::parse(topic).unwrap()));
        assert!(sees("a{b}") && sees("https://hub.example/books/1") && sees("/books/1"));
        assert!(!sees("ab") && !sees("https://other.example/books/1"));
        for wrong in [
            json!({ "type": DETAIL_TYPE }),
            json!({ "type": DETAIL_TYPE, "actions": "subscribe", "topics": [] }),
            json!({ "type": DETAIL_TYPE, "actions": [7], "topics": [] }),
            json!({ "type": DETAIL_TYPE, "actions": [], "topics": ["*"] }),
            json!({ "type": DETAIL_TYPE, "actions": [], "topics": [{"match": "a", "match_type": "regexp"}] }),
            json!({ "type": DETAIL_TYPE, "actions": [], "topics": [{"match": "a", "match_type": null}] }),
            json!({ "type": DETAIL_TYPE, "actions": [], "topics": [{"match": "/(", "match_type": "urlpattern"}] }),
            json!({ "actions": [] }),
            json!(7),
        ] {
            assert!(matches!(read(&json!([good, wrong])), Err(TokenError::BadClaims(_))), "{wrong}");
        }
    }
}

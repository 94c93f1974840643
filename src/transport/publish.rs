//! `POST /events`: publishes an update, as JSON or as a form.

use axum::Json;
use axum::extract::{Request, State};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::Transports;
use super::mercure::HUB_PATH;
use crate::auth::Authority;
use crate::event::{Draft, EventKind, Origin, Topic};
use crate::event_log::Append;
use crate::http::{Problem, media_type, parse_object, read_body, unsupported_media_type};

/// The longest body of a publisher's request.
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Topics of one update.
const TOPICS_MAX: usize = 20;
/// The longest name of a type of update, in bytes.
const TYPE_BYTES_MAX: usize = 100;
/// Names that streams use for their own records.
const RESERVED_TYPES: [&str; 4] = ["hello", "bye", "error", "open"];

/// What a publisher sends.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Update {
    #[serde(default, alias = "topic")]
    pub(super) topics: Topics,
    #[serde(default)]
    pub(super) data: Option<Value>,
    #[serde(default)]
    pub(super) r#type: Option<String>,
    #[serde(default)]
    pub(super) private: Option<bool>,
    #[serde(default)]
    pub(super) retry: Option<u64>,
}

/// One topic or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Topics {
    One(String),
    Several(Vec<String>),
}

impl Default for Topics {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

/// Checks the update, commits it, and answers with its ID. Subscribers get it behind the answer's back.
pub(super) async fn publish(State(transports): State<Transports>, request: Request) -> Result<Json<Value>, Problem> {
    let authority = transports.gate.writer(request.headers()).await?;
    if authority.is_anonymous() {
        return Err(Problem::unauthorized());
    }
    let id = commit(&transports, &authority, parse(request).await?).await?;
    Ok(Json(json!({ "id": id })))
}

/// Checks that the update may be published, and commits it; answers with its ID.
pub(super) async fn commit(transports: &Transports, authority: &Authority, update: Update) -> Result<String, Problem> {
    let mut draft = draft(update)?;
    if let Some(reserved) = draft.topics.iter().find(|topic| is_the_hub_s(topic, &transports.hub_url)) {
        let detail = format!("the topic `{reserved}` is the hub's own; choose one that does not begin with its path");
        return Err(Problem::bad_request("topic-reserved", detail));
    }
    if !authority.may_publish(&draft.topics) {
        return Err(Problem::forbidden(
            "the token does not allow publishing on all of these topics; its `mercure.publish` claim must match each",
        ));
    }
    // What is about somebody's mail is seen by those who may, whoever publishes it.
    draft.private |= draft.topics.iter().any(|topic| topic.as_str().starts_with("mail/"));
    if !draft.private && !transports.hub.config().public {
        return Err(Problem::forbidden(
            "public updates are switched off; set `hub.public = true`, or publish it as a private one",
        ));
    }
    let appended = transports.event_log.append(Append::event(draft)).await?;
    Ok(appended.first().map(|appended| appended.id.to_string()).unwrap_or_default())
}

/// Whether a topic lies below the hub's path, on whatever host and however it is written: what is there tells of
/// subscriptions, and nobody but the hub may.
fn is_the_hub_s(topic: &Topic, hub: &Url) -> bool {
    let Ok(mut url) = hub.join(topic.as_str()) else { return false };
    // Dots that were encoded are dots once they are decoded.
    let decoded = percent_decode_str(url.path()).decode_utf8_lossy().into_owned();
    url.set_path(&decoded);
    url.path().strip_prefix(HUB_PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Reads the body.
async fn parse(request: Request) -> Result<Update, Problem> {
    let media_type = media_type(request.headers());
    if !["application/json", "application/x-www-form-urlencoded"].contains(&media_type.as_str()) {
        return Err(unsupported_media_type("application/json` or `application/x-www-form-urlencoded"));
    }
    let body = read_body(request, BODY_BYTES_MAX).await?;
    if media_type == "application/json" {
        parse_object(&body)
            .map_err(|err| Problem::bad_request("json-invalid", format!("the update is not right: {err}")))
    } else {
        form(&body)
    }
}

fn form(body: &[u8]) -> Result<Update, Problem> {
    let (mut update, mut topics) = (Update::default(), Vec::new());
    for (name, value) in form_urlencoded::parse(body) {
        match &*name {
            "topic" => topics.push(value.into_owned()),
            "data" => update.data = Some(Value::String(value.into_owned())),
            "type" => update.r#type = Some(value.into_owned()),
            "private" => update.private = Some(private(&value)?),
            other => {
                let detail = format!("unknown field `{other}`; there are `topic`, `data`, `type` and `private`");
                return Err(Problem::bad_request("field-unknown", detail));
            }
        }
    }
    update.topics = Topics::Several(topics);
    Ok(update)
}

/// In Mercure's forms the field's presence means yes.
fn private(value: &str) -> Result<bool, Problem> {
    match value {
        "" | "on" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Problem::bad_request("private-invalid", "`private` is `true` or `false`")),
    }
}

fn draft(update: Update) -> Result<Draft, Problem> {
    let names = match update.topics {
        Topics::One(name) => vec![name],
        Topics::Several(names) => names,
    };
    if names.is_empty() || names.len() > TOPICS_MAX {
        let detail = format!("an update needs 1 to {TOPICS_MAX} topics, in `topics` (JSON) or `topic` (form)");
        return Err(Problem::bad_request("topic-missing", detail));
    }
    let mut topics = Vec::with_capacity(names.len());
    for name in names {
        let topic = Topic::parse(&name).map_err(|err| Problem::bad_request("topic-invalid", err.to_string()))?;
        if !topics.contains(&topic) {
            topics.push(topic);
        }
    }
    if let Some(name) = &update.r#type {
        let usable = !name.is_empty() && name.len() <= TYPE_BYTES_MAX && !name.chars().any(char::is_control);
        if !usable || RESERVED_TYPES.contains(&name.as_str()) {
            let detail = format!(
                "`type` has 1 to {TYPE_BYTES_MAX} bytes, no control characters, and is none of {RESERVED_TYPES:?}"
            );
            return Err(Problem::bad_request("type-invalid", detail));
        }
    }
    Ok(Draft {
        private: update.private.unwrap_or(true),
        data: update.data,
        update_type: update.r#type,
        retry: update.retry,
        ..Draft::new(EventKind::Published, Origin::Http, topics)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_json_say_the_same() {
        let from_form = draft(form(b"topic=a&topic=b&data=hi&type=note&private=true").unwrap()).unwrap();
        let json = br#"{"topics":["a","b"],"data":"hi","type":"note"}"#;
        let from_json = draft(serde_json::from_slice(json).unwrap()).unwrap();
        assert_eq!(from_form, from_json);
        let one = draft(serde_json::from_slice(br#"{"topic":"a"}"#).unwrap()).unwrap();
        assert!(one.private && one.topics.len() == 1);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, word) in [
            ("data=x", "1 to 20 topics"),
            ("topic=*", "stands for all"),
            ("topic=a%0Ab", "control"),
            ("topic=a&type=hello", "`type`"),
            ("topic=a&type=x%0Ay", "`type`"),
            ("topic=a&private=perhaps", "`private`"),
            ("topic=a&datum=x", "unknown field `datum`"),
        ] {
            let problem = form(body.as_bytes()).and_then(draft).unwrap_err();
            assert!(problem.detail().contains(word), "{body}: {}", problem.detail());
        }
    }
}

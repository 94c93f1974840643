//! `POST /.well-known/mercure`: publishes an update.

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::parameters::{Parameters, has_unseen};
use super::{refused, who};
use crate::http::{Problem, media_type, read_body, unsupported_media_type};
use crate::transport::Transports;
use crate::transport::publish::{Topics, Update, commit};

/// As the reference hub has it.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// The type of updates that tell of subscriptions.
const RESERVED_TYPE: &str = "mercure";

pub(super) async fn publish(State(transports): State<Transports>, request: Request) -> Response {
    answer(&transports, request).await.unwrap_or_else(|problem| refused(&transports, problem))
}

async fn answer(transports: &Transports, request: Request) -> Result<Response, Problem> {
    let parameters = Parameters::parse(request.uri().query().unwrap_or_default().as_bytes())?;
    let authority = who(transports, request.headers(), &parameters).await?;
    if authority.is_anonymous() {
        return Err(Problem::unauthorized());
    }
    transports.gate.check_origin(&authority, request.headers())?;
    if media_type(request.headers()) != "application/x-www-form-urlencoded" {
        return Err(unsupported_media_type("application/x-www-form-urlencoded"));
    }
    let body = read_body(request, BODY_BYTES_MAX).await?;
    let update = update(&Parameters::parse(&body)?)?;
    let id = commit(transports, &authority, update).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], id).into_response())
}

/// Fields that are not known are left alone. The ID is checked and not used: it says where in the log an event is, and
/// that only the log can know.
fn update(fields: &Parameters) -> Result<Update, Problem> {
    let (mut update, mut topics) = (Update { private: Some(false), ..Update::default() }, Vec::new());
    for (name, value) in fields.iter() {
        match name {
            "topic" => topics.push(value.to_owned()),
            "data" => update.data = Some(Value::String(value.to_owned())),
            "private" => update.private = Some(true),
            "type" if value == RESERVED_TYPE => {
                let detail = "the `type` `mercure` is the hub's own, for updates about subscriptions";
                return Err(Problem::bad_request("type-invalid", detail));
            }
            // An empty one says nothing.
            "type" | "retry" if value.is_empty() => {}
            "type" => update.r#type = Some(value.to_owned()),
            "retry" => update.retry = Some(retry(value)?),
            "id" if value.starts_with('#') || value == "earliest" || has_unseen(value) => {
                let detail = "an `id` does not begin with `#`, is not `earliest`, and has no control characters";
                return Err(Problem::bad_request("id-invalid", detail));
            }
            _ => {}
        }
    }
    update.topics = Topics::Several(topics);
    Ok(update)
}

fn retry(value: &str) -> Result<u64, Problem> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = value.parse().ok().filter(|_| digits);
    parsed.ok_or_else(|| Problem::bad_request("retry-invalid", "`retry` is a number of milliseconds, in digits"))
}

//! Reading a request's body: so long at most, and in so much time.

use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, Version, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::Problem;

/// The longest time for a body to arrive: 2 MiB at 70 KB/s. Without one, whoever sends a byte a minute holds a
/// connection.
const ARRIVAL_MAX: Duration = Duration::from_secs(30);

/// Reads the body of a request, at most `bytes_max`.
///
/// # Errors
/// 413 for one that is longer, 408 for one that takes too long, 400 for one that breaks off.
pub async fn read_body(request: Request, bytes_max: usize) -> Result<Bytes, Problem> {
    let version = request.version();
    // hyper closes a connection on which a body was left unread: HTTP/1 clients must know, lest they use it again.
    let refused = |problem: Problem| if version < Version::HTTP_2 { problem.closing() } else { problem };
    read(request, bytes_max).await.map_err(refused)
}

async fn read(request: Request, bytes_max: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("the body has more than {bytes_max} bytes; send less at once");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail)
    };
    let body = request.into_body();
    // Where its length is announced, none of it needs to be read.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    match timeout(ARRIVAL_MAX, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(err)) if err.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::bad_request("body-broken", "the body broke off; send it again")),
        Err(_) => {
            let detail = format!("the body did not arrive within {} s; send it again", ARRIVAL_MAX.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body-slow", detail))
        }
    }
}

/// Reads a JSON object. serde by itself also takes a list, and its items for the fields in their order.
///
/// # Errors
/// When it is not JSON, not an object, or has not the fields of `T`.
pub fn parse_object<T: DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    if json.trim_ascii_start().starts_with(b"[") {
        return Err(serde::de::Error::custom("expected an object, found a list"));
    }
    serde_json::from_slice(json)
}

/// What the body claims to be, in lower case and without parameters; empty where it does not say.
pub fn media_type(headers: &HeaderMap) -> String {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The answer to a body of another kind than is understood.
pub fn unsupported_media_type(wanted: &str) -> Problem {
    let detail = format!("send it with `Content-Type: {wanted}`");
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", detail)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures::{StreamExt, stream};

    use super::*;

    async fn refusal(body: Body) -> String {
        let problem = read_body(Request::new(body), 10).await.unwrap_err();
        problem.detail().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_so_many_bytes_and_so_much_time() {
        assert_eq!(read_body(Request::new(Body::from("0123456789")), 10).await.unwrap(), "0123456789");
        assert!(refusal(Body::from("0123456789a")).await.contains("more than 10 bytes"));
        let pieces = stream::iter(["01234", "56789", "a"].map(Ok::<_, std::io::Error>));
        assert!(refusal(Body::from_stream(pieces)).await.contains("more than 10 bytes"));
        let begun = stream::iter([Ok::<_, std::io::Error>("0")]);
        assert!(refusal(Body::from_stream(begun.chain(stream::pending()))).await.contains("within 30 s"));
        let broken = stream::iter([Ok("0"), Err(std::io::Error::other("reset"))]);
        assert!(refusal(Body::from_stream(broken)).await.contains("broke off"));
    }
}

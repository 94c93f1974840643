//! `GET /attachments/ID`: an attachment that was kept, for who has the link from an event.
//!
//! What is handed out came from anybody: it is saved and not shown, is never taken for another type than it is told to
//! be, and if it is shown all the same it may run nothing and ask for nothing.

use std::fs::File;
use std::io::{self, Read};

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::form_urlencoded;

use super::Api;
use crate::attachments::{Kept, LinkError};
use crate::http::{Problem, matches_tag};

/// What is read and sent at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Types that a browser shows without running anything; all others are octets.
const HARMLESS: [&str; 9] = [
    "application/pdf",
    "audio/mpeg",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
    "text/calendar",
    "text/plain",
    "video/mp4",
];
/// What a file name in a header need not have encoded (RFC 8187 §3.2.1).
const ATTR_CHAR: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) async fn fetch(
    State(api): State<Api>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (mut expires, mut signature) = (String::new(), String::new());
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*name {
            "expires" => expires = value.into_owned(),
            "signature" => signature = value.into_owned(),
            // Mail programs and chats add their own to every link.
            _ => {}
        }
    }
    let attachments = api.attachments.clone();
    let fetched = tokio::task::spawn_blocking(move || attachments.fetch(&id, &expires, &signature)).await;
    let kept = fetched.unwrap_or(Err(LinkError::Unreadable)).map_err(problem)?;
    // The name is never used for anything else.
    let tag = format!("\"{}\"", kept.id);
    let answer_headers = headers_of(&kept, &tag);
    if headers.get(header::IF_NONE_MATCH).is_some_and(|tags| matches_tag(tags, &tag)) {
        return Ok((StatusCode::NOT_MODIFIED, answer_headers).into_response());
    }
    let length = [(header::CONTENT_LENGTH, HeaderValue::from(kept.len))];
    Ok((answer_headers, length, Body::from_stream(chunks(kept.file, kept.len))).into_response())
}

fn problem(err: LinkError) -> Problem {
    let (status, name) = match err {
        LinkError::Gone => (StatusCode::GONE, "attachment-gone"),
        LinkError::Invalid => (StatusCode::FORBIDDEN, "link-invalid"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "attachment-unreadable"),
    };
    Problem::new(status, name, err.to_string())
}

fn headers_of(kept: &Kept, tag: &str) -> HeaderMap {
    let own = kept.header.content_type.as_str();
    let kind = HARMLESS.into_iter().find(|harmless| *harmless == own).unwrap_or("application/octet-stream");
    let name = kept.header.filename.as_deref().unwrap_or("attachment");
    let disposition = format!("attachment; filename*=UTF-8''{}", utf8_percent_encode(name, ATTR_CHAR));
    let fixed = [
        (header::CONTENT_TYPE, kind),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "private, max-age=3600, immutable"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-site"),
    ];
    let mut headers: HeaderMap =
        fixed.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect();
    // Both are ASCII without control characters.
    headers.extend(HeaderValue::try_from(disposition).ok().map(|value| (header::CONTENT_DISPOSITION, value)));
    headers.extend(HeaderValue::try_from(tag).ok().map(|value| (header::ETAG, value)));
    headers
}

/// The file in pieces, each of which is read when the one before has gone.
fn chunks(file: File, len: u64) -> impl futures::Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((file, len), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = vec![0; CHUNK_BYTES.min(usize::try_from(left).unwrap_or(CHUNK_BYTES))];
            file.read_exact(&mut chunk)?;
            Ok::<_, io::Error>((chunk, file))
        });
        let (chunk, file) = read.await??;
        let left = left.saturating_sub(chunk.len() as u64);
        Ok(Some((Bytes::from(chunk), (file, left))))
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::attachments::{AttachmentId, Header};

    fn headers(filename: Option<&str>, content_type: &str) -> HeaderMap {
        let header = Header {
            account: "alice".parse().unwrap(),
            topic: String::new(),
            filename: filename.map(str::to_owned),
            content_type: content_type.to_owned(),
            expires: Timestamp::UNIX_EPOCH,
        };
        let id = AttachmentId::parse("0199d2a0000070008000000000000001").unwrap();
        headers_of(&Kept { id, header, len: 0, file: tempfile::tempfile().unwrap() }, "\"t\"")
    }

    #[test]
    fn nothing_that_runs_is_called_by_its_name() {
        for own in ["text/html", "image/svg+xml", "application/xhtml+xml", "text/javascript", "x", "image/png; a=b"] {
            assert_eq!(headers(None, own)[header::CONTENT_TYPE], "application/octet-stream", "{own}");
        }
        assert_eq!(headers(None, "image/png")[header::CONTENT_TYPE], "image/png");
    }

    #[test]
    fn a_file_name_cannot_end_the_header() {
        let told = headers(Some("Grüße\"; x=\r\nSet-Cookie: a.html"), "text/html");
        assert_eq!(
            told[header::CONTENT_DISPOSITION],
            "attachment; filename*=UTF-8''Gr%C3%BC%C3%9Fe%22%3B%20x%3D%0D%0ASet-Cookie%3A%20a.html"
        );
        assert!(!told.contains_key(header::SET_COOKIE));
    }
}

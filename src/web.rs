//! The page: static files, embedded in the binary.
//!
//! There is no build step and nothing is loaded from elsewhere: what is in `src/web/` is what browsers get. The page
//! shows text from strangers, so the headers leave it no way to run or load anything that is not one of these files.

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::http::{entity_tag, matches_tag};

/// A file of the page.
#[derive(Debug, Clone, Copy)]
struct Asset {
    path: &'static str,
    content_type: &'static str,
    body: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// Each file under its own name, except for the page itself.
macro_rules! assets {
    ($($path:literal, $content_type:ident, $file:literal;)*) => {
        &[$(Asset { path: $path, content_type: $content_type, body: include_str!(concat!("web/", $file)) }),*]
    };
}

const ASSETS: &[Asset] = assets! {
    "/", HTML, "index.html";
    "/account-list.js", SCRIPT, "account-list.js";
    "/app.js", SCRIPT, "app.js";
    "/connection-state.js", SCRIPT, "connection-state.js";
    "/dom.js", SCRIPT, "dom.js";
    "/event-list.js", SCRIPT, "event-list.js";
    "/event-row.js", SCRIPT, "event-row.js";
    "/event-stream.js", SCRIPT, "event-stream.js";
    "/event-text.js", SCRIPT, "event-text.js";
    "/http.js", SCRIPT, "http.js";
    "/icon.svg", IMAGE, "icon.svg";
    "/session.js", SCRIPT, "session.js";
    "/sign-in-form.js", SCRIPT, "sign-in-form.js";
    "/style.css", STYLE, "style.css";
    "/subscription.js", SCRIPT, "subscription.js";
    "/time.js", SCRIPT, "time.js";
    "/unseen.js", SCRIPT, "unseen.js";
};

/// What the page may do (Content Security Policy Level 3). Trusted Types make `innerHTML` and its kin throw, so that
/// no later change can turn a mail's text into markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// `/` and what the page loads.
pub fn router() -> Router {
    ASSETS.iter().fold(Router::new(), |router, asset| {
        let tag = entity_tag(asset.body.as_bytes());
        router.route(asset.path, get(async move |headers: HeaderMap| answer(asset, &tag, &headers)))
    })
}

fn answer(asset: &Asset, tag: &str, request: &HeaderMap) -> Response {
    let unchanged = request.get(header::IF_NONE_MATCH).is_some_and(|tags| matches_tag(tags, tag));
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, asset.content_type)], asset.body).into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn fetch(path: &str, tag: Option<&HeaderValue>) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        if let Some(tag) = tag {
            request.headers_mut().insert(header::IF_NONE_MATCH, tag.clone());
        }
        let response = router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    /// What follows each `before`, up to the next quotation mark.
    fn quoted<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
        text.split(before).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
    }

    #[tokio::test]
    async fn all_that_the_page_loads_is_served_and_nothing_else_is() {
        let (status, headers, page) = fetch("/", None).await;
        assert_eq!((status, headers.get("content-type").unwrap().to_str().unwrap()), (StatusCode::OK, HTML));
        let mut reached: BTreeSet<String> = BTreeSet::from(["/".to_owned()]);
        let mut wanted: Vec<String> =
            [quoted(&page, " src=\""), quoted(&page, " href=\"")].concat().into_iter().map(str::to_owned).collect();
        assert!(wanted.iter().any(|name| name == "app.js"), "{wanted:?}");
        while let Some(name) = wanted.pop() {
            let path = format!("/{}", name.trim_start_matches("./"));
            if !reached.insert(path.clone()) {
                continue;
            }
            let (status, headers, body) = fetch(&path, None).await;
            let content_type = match path.rsplit('.').next().unwrap() {
                "js" => SCRIPT,
                "css" => STYLE,
                "svg" => IMAGE,
                other => panic!("no content type is known for `{other}`"),
            };
            assert_eq!(status, StatusCode::OK, "{path}");
            assert_eq!(headers.get("content-type").unwrap().to_str().unwrap(), content_type, "{path}");
            if content_type == SCRIPT {
                wanted.extend(quoted(&body, " from \"").into_iter().map(str::to_owned));
            }
        }
        let served: BTreeSet<String> = ASSETS.iter().map(|asset| asset.path.to_owned()).collect();
        assert_eq!(served, reached);
    }

    #[tokio::test]
    async fn every_file_comes_with_the_headers_that_fence_it_in() {
        for asset in ASSETS {
            let (_, headers, _) = fetch(asset.path, None).await;
            let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
            let policy = text("content-security-policy");
            assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{}", asset.path);
            assert_eq!(text("x-content-type-options"), "nosniff", "{}", asset.path);
            assert_eq!(text("referrer-policy"), "no-referrer", "{}", asset.path);
            assert_eq!(text("cross-origin-opener-policy"), "same-origin", "{}", asset.path);
            assert_eq!(text("cache-control"), "no-cache", "{}", asset.path);
        }
    }

    #[tokio::test]
    async fn what_a_browser_has_already_is_not_sent_again() {
        let (_, first, _) = fetch("/app.js", None).await;
        let (status, again, body) = fetch("/app.js", first.get("etag")).await;
        assert_eq!((status, body.as_str()), (StatusCode::NOT_MODIFIED, ""));
        assert_eq!(again.get("etag"), first.get("etag"));
        assert!(again.contains_key("content-security-policy"), "a 304 replaces the headers that were kept");
        let (status, ..) = fetch("/style.css", first.get("etag")).await;
        assert_eq!(status, StatusCode::OK, "the tag of another file");
    }

    /// The policy would stop these at the reader's; here they are stopped before.
    #[test]
    fn nothing_is_inline_and_nothing_makes_markup_of_text() {
        for asset in ASSETS {
            let forbidden: &[&str] = match asset.content_type {
                SCRIPT => &["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"],
                HTML => {
                    &["<style", " style=", " onclick=", " onload=", "<script>", "javascript:", "http://", "https://"]
                }
                STYLE => &["@import", "url("],
                _ => &["<script", " on", "href"],
            };
            for word in forbidden {
                assert!(!asset.body.contains(word), "{} contains `{word}`", asset.path);
            }
        }
    }
}

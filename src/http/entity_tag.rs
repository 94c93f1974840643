//! Conditional requests: what a client has already is not sent again.

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::HeaderValue;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// A strong entity tag: the same for the same bytes, whatever the version is called.
pub fn entity_tag(body: &[u8]) -> String {
    let hash = digest(&SHA256, body);
    format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(hash.as_ref().get(..16).unwrap_or_default()))
}

/// Whether `If-None-Match` names the tag (RFC 9110 §13.1.2); weak ones count, since the comparison is weak.
pub fn matches_tag(tags: &HeaderValue, tag: &str) -> bool {
    let tags = tags.to_str().unwrap_or_default();
    tags.split(',').map(|one| one.trim().trim_start_matches("W/")).any(|one| one == tag || one == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_of_the_tags_counts_whole_or_weak() {
        for (tags, matches) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
            ("", false),
        ] {
            assert_eq!(matches_tag(&HeaderValue::from_static(tags), "\"a\""), matches, "{tags}");
        }
    }
}

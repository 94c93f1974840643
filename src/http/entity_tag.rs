//! Conditional requests: what a client has already is not sent again.

use axum::http::HeaderValue;

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

//! Answers to requests that no route takes: problems like all others, not empty pages.

use axum::http::{Method, StatusCode, Uri};

use super::Problem;

/// There is nothing at this path.
pub async fn not_found(uri: Uri) -> Problem {
    let detail = format!(
        "there is nothing at `{}`; `/events` is for subscribers and publishers, `/api/…` for administration, `/` is the \
         page",
        uri.path().chars().take(100).collect::<String>()
    );
    Problem::new(StatusCode::NOT_FOUND, "not-found", detail)
}

/// There is something, but not for this method; the router adds `Allow`.
pub async fn method_not_allowed(method: Method) -> Problem {
    let detail = format!("`{method}` is not for this path; the header `Allow` names what is");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
}

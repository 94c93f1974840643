//! One place for the name under which a client reached us.

use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

/// Middleware: HTTP/2 has the host in `:authority` and mostly no `Host` (RFC 9113 §8.3.1). What compares origins must
/// find it all the same, or every write of our own page would count as another site's.
pub async fn host(mut request: Request, next: Next) -> Response {
    if !request.headers().contains_key(header::HOST)
        && let Some(Ok(host)) = request.uri().authority().map(|authority| HeaderValue::try_from(authority.as_str()))
    {
        request.headers_mut().insert(header::HOST, host);
    }
    next.run(request).await
}

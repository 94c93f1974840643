//! Bodies that nobody read: a refusal comes before the body, and must arrive all the same.
//!
//! When an answer is given while a body is still on its way, hyper resets the HTTP/2 stream or closes the HTTP/1
//! connection behind the answer. Some clients then see the reset and not the answer: curl 7.88 reported one in forty
//! refusals as a framing error. So the rest of a short body is read and dropped before the answer goes out.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Frame, SizeHint};
use tokio::time::timeout;

/// What is read past at most: whoever sends more is cut off.
const DROPPED_BYTES_MAX: usize = 64 * 1024;
/// The longest wait for it: a refusal holds nobody's connection.
const DROPPED_WITHIN: Duration = Duration::from_secs(1);

/// A body that its reader may leave behind.
#[derive(Clone)]
struct Shared(Arc<Mutex<Body>>);

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}

/// Middleware: reads past what the handler left of the body.
pub async fn read_past_body(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let shared = Shared(Arc::new(Mutex::new(body)));
    let response = next.run(Request::from_parts(parts, Body::new(shared.clone()))).await;
    // An announced length that is over the limit is not worth the wait for its beginning.
    if !shared.is_end_stream() && shared.size_hint().lower() <= DROPPED_BYTES_MAX as u64 {
        // Too long, too slow or broken off: the answer goes out in any case.
        drop(timeout(DROPPED_WITHIN, Limited::new(shared, DROPPED_BYTES_MAX).collect()).await);
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::middleware::from_fn;
    use futures::{StreamExt, stream};
    use tower::ServiceExt;

    use super::*;

    async fn refused(body: Body) -> StatusCode {
        let router = Router::new()
            .fallback(|request: Request| async move {
                drop(request);
                StatusCode::FORBIDDEN
            })
            .layer(from_fn(read_past_body));
        router.oneshot(Request::new(body)).await.unwrap().status()
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_body_is_read_to_its_end_and_no_other_is_waited_for() {
        let (ended, mut seen) = tokio::sync::oneshot::channel::<()>();
        let pieces = stream::iter(["01", "23"].map(Ok::<_, std::io::Error>));
        let end = stream::once(async move { ended.send(()).map(|()| "4").map_err(|()| std::io::Error::other("gone")) });
        assert_eq!(refused(Body::from_stream(pieces.chain(end))).await, StatusCode::FORBIDDEN);
        assert!(seen.try_recv().is_ok(), "the body was read past");
        let endless = stream::iter([Ok::<_, std::io::Error>("0")]).chain(stream::pending());
        assert_eq!(refused(Body::from_stream(endless)).await, StatusCode::FORBIDDEN);
        let broken = stream::iter([Ok("0"), Err(std::io::Error::other("reset"))]);
        assert_eq!(refused(Body::from_stream(broken)).await, StatusCode::FORBIDDEN);
    }
}

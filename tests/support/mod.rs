//! What the tests share: real servers and clients, each started by the test that needs it and ended with it.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod server;
pub mod stream;

use std::future::Future;
use std::time::Duration;

/// How long anything may take before a test fails. Generous: what is slow on a busy machine is not wrong.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for `future`, and says what was awaited if it takes too long.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}

/// Asks again and again until `question` has an answer.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut question: impl FnMut() -> F) -> T {
    within(what, async {
        loop {
            if let Some(answer) = question().await {
                return answer;
            }
            tokio::task::yield_now().await;
            tokio::time::interval_at(tokio::time::Instant::now() + Duration::from_millis(20), PATIENCE).tick().await;
        }
    })
    .await
}

//! What the tests share: real servers and clients, each started by the test that needs it and ended with it.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy takes only functions marked as tests for tests"
)]

pub mod abuse;
pub mod browser;
pub mod check;
pub mod courier;
pub mod cyrus;
pub mod dovecot;
pub mod dovecot_push;
pub mod gateway;
pub mod honest;
pub mod imap_model;
pub mod jmap_front;
pub mod lmtp;
pub mod mail_client;
pub mod mail_host;
pub mod mail_server;
pub mod misbehaving_imap;
pub mod name_server;
pub mod observed;
pub mod oidc;
pub mod owner;
pub mod problem;
pub mod process_group;
pub mod proxy;
pub mod raw_imap;
pub mod scripted_imap;
pub mod server;
pub mod signer;
pub mod small_volume;
pub mod smart_host;
pub mod smtp_client;
pub mod stream;
pub mod unpacked;
pub mod volume;
pub mod watching;

use std::future::Future;
use std::time::Duration;

/// How long anything may take before a test fails. Generous: what is slow on a busy machine is not wrong.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Waits for `future`, and says what was awaited if it takes too long.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let in_time = tokio::time::timeout(PATIENCE, future).await;
    in_time.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain for {what}"))
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

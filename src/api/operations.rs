//! Health for supervisors and proxies, metrics for Prometheus. Numbers only: these need no token.

use std::fmt::Write;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::Api;

/// The process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// The event log can be read.
pub(super) async fn readyz(State(api): State<Api>) -> impl IntoResponse {
    match api.event_log.checkpoint("readyz").await {
        Ok(_) => (StatusCode::OK, "ready\n"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the event log cannot be read\n"),
    }
}

/// Prometheus' text format.
pub(super) async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    let mut states = std::collections::BTreeMap::<String, usize>::new();
    for account in api.registry.list() {
        let state = serde_json::to_value(account.state).ok().and_then(|state| state.as_str().map(str::to_owned));
        *states.entry(state.unwrap_or_default()).or_default() += 1;
    }
    let mut text = format!(
        "# HELP postrider_subscribers Subscribers at this moment.\n# TYPE postrider_subscribers gauge\n\
         postrider_subscribers {}\n\
         # HELP postrider_events_total Events ever committed to the log.\n# TYPE postrider_events_total counter\n\
         postrider_events_total {}\n\
         # HELP postrider_accounts Accounts by state.\n# TYPE postrider_accounts gauge\n",
        api.hub.subscribers(),
        api.event_log.head().0,
    );
    for (state, count) in states {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "postrider_accounts{{state=\"{state}\"}} {count}").is_ok();
    }
    for (name, help, value) in crate::source::imap::metrics() {
        let _infallible = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}").is_ok();
    }
    api.metrics.write(&mut text);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

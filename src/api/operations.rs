//! Health for supervisors and proxies, metrics for Prometheus. Numbers only: these need no token.

use std::collections::BTreeMap;
use std::fmt;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Api;
use crate::event_log::EventLog;
use crate::http::Problem;
use crate::hub::Hub;
use crate::metrics::CONTENT_TYPE;
use crate::registry::Registry;

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

/// What was counted, as text.
pub(super) async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    let text = api.metrics.encoded().map_err(|_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics", "the numbers cannot be written; please report this")
    })?;
    Ok::<_, Problem>(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}

/// What stands elsewhere, and is looked up whenever somebody asks.
#[derive(Debug)]
pub(super) struct Standing {
    registry: Registry,
    event_log: EventLog,
    hub: Hub,
}

impl Standing {
    pub(super) fn of(api: &Api) -> Self {
        Self { registry: api.registry.clone(), event_log: api.event_log.clone(), hub: api.hub.clone() }
    }
}

impl Collector for Standing {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let subscribers = ConstGauge::new(self.hub.subscribers() as u64);
        let told = encoder.encode_descriptor("subscribers", "Subscribers at this moment.", None, MetricType::Gauge)?;
        subscribers.encode(told)?;
        let events = ConstCounter::new(self.event_log.head().0.count());
        let told =
            encoder.encode_descriptor("events", "Events ever committed to the log.", None, MetricType::Counter)?;
        events.encode(told)?;
        let mut states = BTreeMap::<String, u64>::new();
        for account in self.registry.list() {
            let state = serde_json::to_value(account.state).ok().and_then(|state| state.as_str().map(str::to_owned));
            *states.entry(state.unwrap_or_default()).or_default() += 1;
        }
        let mut told = encoder.encode_descriptor("accounts", "Accounts by state.", None, MetricType::Gauge)?;
        for (state, count) in states {
            ConstGauge::new(count).encode(told.encode_family(&[("state", state)])?)?;
        }
        Ok(())
    }
}

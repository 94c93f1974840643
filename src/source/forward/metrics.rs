//! What the forwarder counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;

use crate::event_log::EventLog;
use crate::metrics::{Metrics, Results};

/// No message waits.
const NONE: i64 = i64::MAX;

/// What became of attempts, and since when the oldest message waits.
#[derive(Debug, Clone)]
pub(super) struct ForwardMetrics {
    results: Results,
    oldest_ms: Arc<AtomicI64>,
}

impl ForwardMetrics {
    /// Numbers that `metrics` tells; how much waits is asked of `event_log`.
    pub(super) fn registered(metrics: &Metrics, event_log: EventLog) -> Self {
        let counted = Self { results: Results::default(), oldest_ms: Arc::new(AtomicI64::new(NONE)) };
        metrics.register_results("forward_attempts", "Attempts to forward a message, by result", &counted.results);
        metrics.register_collector(Queue { event_log, oldest_ms: Arc::clone(&counted.oldest_ms) });
        counted
    }

    /// Counts an attempt.
    pub(super) fn count(&self, result: &'static str) {
        self.results.count(result);
    }

    /// Since when the oldest waits.
    pub(super) fn oldest(&self, since: Option<Timestamp>) {
        self.oldest_ms.store(since.map_or(NONE, Timestamp::as_millisecond), Ordering::Relaxed);
    }
}

/// What waits at the moment in which somebody asks.
#[derive(Debug)]
struct Queue {
    event_log: EventLog,
    oldest_ms: Arc<AtomicI64>,
}

impl Collector for Queue {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let totals = self.event_log.outbox_totals();
        let since = self.oldest_ms.load(Ordering::Relaxed);
        let age_ms = Timestamp::now().as_millisecond().saturating_sub(since).max(0);
        let age = if totals.recipients == 0 { 0 } else { age_ms.unsigned_abs() / 1000 };
        for (name, help, value) in [
            ("forward_queue_recipients", "Recipients to whom a message waits to be forwarded", totals.recipients),
            ("forward_queue_octets", "Octets of the messages that wait to be forwarded", totals.bytes),
            ("forward_queue_oldest_seconds", "How long the oldest of them has waited", age),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

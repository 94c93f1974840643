//! What postrider has done, in numbers. Whoever does something owns its counters and registers them here under their
//! names; `/metrics` tells all of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

pub use prometheus_client::metrics::counter::Counter;

/// What [`Metrics::encoded`] is written in.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A counter for each thing that may become of something.
#[derive(Debug, Clone, Default)]
pub struct Results(Family<[(&'static str, &'static str); 1], Counter>);

impl Results {
    /// Counts one; `result` is a word of the program's own, never a peer's.
    pub fn count(&self, result: &'static str) {
        self.0.get_or_create(&[("result", result)]).inc();
    }
}

/// All counters. Cheap to clone; clones share.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { registry: Arc::new(Mutex::new(Registry::with_prefix("postrider"))) }
    }
}

impl Metrics {
    /// Tells each counter as `postrider_NAME_total`: its name, what it counts, without a full stop, and itself.
    pub fn register(&self, counters: &[(&str, &str, &Counter)]) {
        let mut registry = self.lock();
        for &(name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
    }

    /// Tells `results` as `postrider_NAME_total{result="…"}`.
    pub fn register_results(&self, name: &str, help: &str, results: &Results) {
        self.lock().register(name, help, results.0.clone());
    }

    /// Tells what `collector` finds whenever it is asked.
    pub fn register_collector(&self, collector: impl Collector) {
        self.lock().register_collector(Box::new(collector));
    }

    /// All of them in the text format of `OpenMetrics`, which Prometheus reads.
    ///
    /// # Errors
    /// Only when a collector fails.
    pub fn encoded(&self) -> Result<String, std::fmt::Error> {
        let mut told = String::new();
        text::encode(&mut told, &self.lock())?;
        Ok(told)
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // What a panicking holder left is a registry with one counter more or less.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_told() {
        let (metrics, octets, pushes) = (Metrics::default(), Counter::default(), Results::default());
        metrics.register(&[("octets", "Octets", &octets)]);
        metrics.register_results("pushes", "Pushes", &pushes);
        octets.inc_by(3);
        pushes.clone().count("stored");
        pushes.count("stored");
        let told = "# HELP postrider_octets Octets.\n# TYPE postrider_octets counter\npostrider_octets_total 3\n\
                    # HELP postrider_pushes Pushes.\n# TYPE postrider_pushes counter\n\
                    postrider_pushes_total{result=\"stored\"} 2\n# EOF\n";
        assert_eq!(metrics.clone().encoded().unwrap(), told);
    }
}

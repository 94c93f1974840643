//! What postrider has done, in numbers: whoever does something counts it here, and `/metrics` tells it.
//!
//! Apart from both, so that those who count and those who tell need not know each other.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Something that is counted, by what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counter {
    /// The name in Prometheus' format; ends in `_total`.
    pub name: &'static str,
    /// What it counts, for people.
    pub help: &'static str,
}

/// Numbers that only rise. Cheap to clone; clones share.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    counts: Arc<Mutex<BTreeMap<Counter, BTreeMap<&'static str, u64>>>>,
}

impl Metrics {
    /// Counts one; `result` is a word of the program's own, never a peer's.
    pub fn count(&self, counter: Counter, result: &'static str) {
        let mut counts = self.lock();
        let count = counts.entry(counter).or_default().entry(result).or_default();
        *count = count.saturating_add(1);
    }

    /// Appends all of them in Prometheus' text format.
    pub fn write(&self, text: &mut String) {
        for (Counter { name, help }, results) in self.lock().iter() {
            // Writing to a string cannot fail.
            let mut infallible = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter").is_ok();
            for (result, count) in results {
                infallible &= writeln!(text, "{name}{{result=\"{result}\"}} {count}").is_ok();
            }
            debug_assert!(infallible, "a string takes what is written");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Counter, BTreeMap<&'static str, u64>>> {
        // A number is replaced whole, so that what a panicking holder left is still true.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_told() {
        let (metrics, mut text) = (Metrics::default(), String::new());
        let pushes = Counter { name: "pushes_total", help: "Pushes." };
        metrics.count(pushes, "stored");
        metrics.clone().count(pushes, "stored");
        metrics.count(pushes, "refused");
        metrics.write(&mut text);
        let told = "# HELP pushes_total Pushes.\n# TYPE pushes_total counter\n\
                    pushes_total{result=\"refused\"} 1\npushes_total{result=\"stored\"} 2\n";
        assert_eq!(text, told);
    }
}

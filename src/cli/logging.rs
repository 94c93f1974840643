//! Diagnostics on standard error: for people or for machines.

use std::io::{self, IsTerminal};

use postrider::config::{LogConfig, LogFormat};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, reload};

/// Libraries whose `trace` writes down what crosses the wire: mail, passwords and tokens never go into diagnostics,
/// whatever the filter says.
const WIRE_CRATES: [&str; 7] = ["h2", "hyper", "hyper_util", "lettre", "reqwest", "rustls", "tungstenite"];

/// Changes what is said, while the program runs.
pub struct Filter {
    verbose: u8,
    set: Box<dyn Fn(EnvFilter) + Send>,
}

impl Filter {
    /// Takes the filter of a configuration that was read again.
    pub fn reload(&self, config: &LogConfig) {
        (self.set)(filter(config, self.verbose));
    }
}

/// Starts diagnostics as configured; `-v` is stronger than the configured filter.
pub fn start(config: &LogConfig, verbose: u8) -> Filter {
    let (layer, handle) = reload::Layer::new(filter(config, verbose));
    let output = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && colours_wanted());
    let unwired = filter_fn(|metadata| !is_wire(metadata));
    let registry = tracing_subscriber::registry().with(layer);
    let started = match config.format {
        LogFormat::Text => registry.with(output.with_filter(unwired)).try_init(),
        LogFormat::Json => registry.with(output.json().with_filter(unwired)).try_init(),
    };
    // Only a second start fails, and then the first one's settings hold.
    debug_assert!(started.is_ok(), "diagnostics start once");
    let set = move |filter| {
        // The subscriber lives as long as the program.
        let _gone = handle.reload(filter).is_err();
    };
    Filter { verbose, set: Box::new(set) }
}

fn filter(config: &LogConfig, verbose: u8) -> EnvFilter {
    match verbose {
        // It was checked with the configuration.
        0 => config.env_filter().unwrap_or_else(|_| EnvFilter::new("info")),
        1 => EnvFilter::new("info,postrider=debug"),
        _ => EnvFilter::new("debug,postrider=trace"),
    }
}

/// A library that says at `error`, at each attempt, what the watcher says once: that a certificate is not trusted.
const NOISY_CRATE: &str = "rustls_platform_verifier";

/// Whether a library says what crosses the wire, or what was said already.
fn is_wire(metadata: &Metadata<'_>) -> bool {
    let name = metadata.target().split("::").next().unwrap_or_default();
    (*metadata.level() == Level::TRACE && WIRE_CRATES.contains(&name)) || name == NOISY_CRATE
}

/// Starts diagnostics of a command that talks to a server: warnings only, since its result is on standard output.
pub fn start_quiet(verbose: u8) {
    drop(start(&LogConfig { filter: "warn".to_owned(), format: LogFormat::Text }, verbose));
}

/// Whether a terminal should get colours: <https://no-color.org>, and terminals that cannot.
pub fn colours_wanted() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

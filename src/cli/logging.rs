//! Diagnostics on standard error: for people or for machines.

use std::io::{self, IsTerminal};

use postrider::config::{LogConfig, LogFormat};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Starts diagnostics as configured; `-v` is stronger than the configured filter.
pub fn start(config: &LogConfig, verbose: u8) {
    let filter = match verbose {
        // It was checked with the configuration.
        0 => config.env_filter().unwrap_or_else(|_| EnvFilter::new("info")),
        1 => EnvFilter::new("info,postrider=debug"),
        _ => EnvFilter::new("debug,postrider=trace"),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && colours_wanted());
    let started = match config.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // Only a second start fails, and then the first one's settings hold.
    debug_assert!(started.is_ok(), "diagnostics start once");
}

/// Starts diagnostics of a command that talks to a server: warnings only, since its result is on standard output.
pub fn start_quiet(verbose: u8) {
    start(&LogConfig { filter: "warn".to_owned(), format: LogFormat::Text }, verbose);
}

/// Whether a terminal should get colours: <https://no-color.org>, and terminals that cannot.
pub fn colours_wanted() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

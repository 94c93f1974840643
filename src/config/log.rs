//! `[log]`: diagnostics on standard error.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// `[log]`: what is said on standard error, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// What is said: a level (`error`, `warn`, `info`, `debug`, `trace`), or levels by module, as
    /// `info,postrider::source=debug`. Default: `"info"`.
    pub filter: String,
    /// How it is written: `"text"` or `"json"`. Default: `"text"`.
    pub format: LogFormat,
}

/// How diagnostics are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why the section cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`log.filter` must be a level or levels by module, as `info,postrider::source=debug`: {0}")]
pub struct LogConfigError(tracing_subscriber::filter::ParseError);

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::default() }
    }
}

impl LogConfig {
    /// The filter for the subscriber.
    ///
    /// # Errors
    /// When the text is not one.
    pub fn env_filter(&self) -> Result<EnvFilter, LogConfigError> {
        // An empty one would silence errors too; who wants that says `off`.
        let builder = EnvFilter::builder().with_default_directive(LevelFilter::ERROR.into());
        builder.parse(&self.filter).map_err(LogConfigError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_silenced_by_name_only() {
        let level = |filter: &str| {
            let config = LogConfig { filter: filter.to_owned(), ..LogConfig::default() };
            config.env_filter().unwrap().max_level_hint()
        };
        assert_eq!(level(""), Some(LevelFilter::ERROR));
        assert_eq!(level("off"), Some(LevelFilter::OFF));
        assert_eq!(level("postrider::source=debug"), Some(LevelFilter::DEBUG));
    }
}

//! `[attachments]`: how much is kept, and for how long. Whose attachments are kept is each account's setting.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[attachments]`: the attachments of accounts with `attachments = true`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AttachmentsConfig {
    /// How long they are kept, and their links count. Default: `"7d"`.
    #[serde(with = "humantime_serde")]
    pub keep: Duration,
    /// The largest that is kept, in octets. Default: 26214400 (25 MiB).
    pub attachment_bytes_max: NonZeroUsize,
    /// All of one account, in octets; each counts for 4096 more than its file has. Default: 268435456 (256 MiB).
    pub account_bytes_max: NonZeroUsize,
    /// All of all accounts, in octets, counted like that. Default: 1073741824 (1 GiB).
    pub bytes_max: NonZeroUsize,
}

impl Default for AttachmentsConfig {
    fn default() -> Self {
        Self {
            keep: Duration::from_hours(7 * 24),
            attachment_bytes_max: mebibytes(25),
            account_bytes_max: mebibytes(256),
            bytes_max: mebibytes(1024),
        }
    }
}

/// For constants: adding to one needs no unwrapping.
const fn mebibytes(number: usize) -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(number * 1024 * 1024 - 1)
}

/// Why the section cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachmentsConfigError {
    /// Links that never count, or for ever.
    #[error("`attachments.keep` must be from 1 s to 366 days")]
    Keep,
    /// One bound is beyond the next.
    #[error("`attachments.{0}` is more than `attachments.{1}`, so that it would never be reached")]
    Bounds(&'static str, &'static str),
}

impl AttachmentsConfig {
    /// Checks what a type cannot say.
    ///
    /// # Errors
    /// See [`AttachmentsConfigError`].
    pub fn check(&self) -> Result<(), AttachmentsConfigError> {
        if !(Duration::from_secs(1)..=Duration::from_hours(366 * 24)).contains(&self.keep) {
            return Err(AttachmentsConfigError::Keep);
        }
        if self.attachment_bytes_max > self.account_bytes_max {
            return Err(AttachmentsConfigError::Bounds("attachment_bytes_max", "account_bytes_max"));
        }
        if self.account_bytes_max > self.bytes_max {
            return Err(AttachmentsConfigError::Bounds("account_bytes_max", "bytes_max"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_contain_each_other() {
        let check = |text| toml::from_str::<AttachmentsConfig>(text).unwrap().check();
        assert_eq!(check(""), Ok(()));
        let default = AttachmentsConfig::default();
        assert_eq!(default.attachment_bytes_max.get(), 26_214_400);
        assert_eq!((default.account_bytes_max.get(), default.bytes_max.get()), (268_435_456, 1_073_741_824));
        assert_eq!(check("keep = '0s'"), Err(AttachmentsConfigError::Keep));
        assert!(matches!(check("bytes_max = 1"), Err(AttachmentsConfigError::Bounds("account_bytes_max", _))));
        assert!(matches!(
            check("account_bytes_max = 1"),
            Err(AttachmentsConfigError::Bounds("attachment_bytes_max", _))
        ));
    }
}

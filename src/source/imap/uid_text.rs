//! Sets of UIDs in stored positions, written as IMAP writes them.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

use super::protocol::UidSet;

/// What is stored is our own, yet a damaged file must not take all memory.
const RANGES_MAX: usize = 1_000_000;

pub(super) fn serialize<S: Serializer>(set: &UidSet, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(set)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UidSet, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(UidSet::new());
    }
    UidSet::parse(&text, RANGES_MAX).ok_or_else(|| D::Error::custom("not a set of UIDs"))
}

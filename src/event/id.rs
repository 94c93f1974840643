//! Event IDs: UUIDv7 in URN form, rising in the order of the log.
//!
//! One generator, owned by the log's writer, makes them, so that ordering by ID is ordering by position even when
//! the clock steps back; an ID that retention has removed can still be placed among those that are left.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// The place of an event in the log, as subscribers see it: `urn:uuid:` and a UUIDv7 (RFC 9562 §5.7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

/// Why a text is not an event ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an event ID: expected `urn:uuid:` and a UUID, as an event's `id` has it, or `earliest`")]
pub struct EventIdError;

impl EventId {
    const PREFIX: &'static str = "urn:uuid:";

    /// The 16 octets, in the order in which IDs compare.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// From the octets of [`EventId::as_bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.0.as_hyphenated())
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, EventIdError> {
        let hyphenated = text.strip_prefix(Self::PREFIX).filter(|rest| rest.len() == 36).ok_or(EventIdError)?;
        Uuid::try_parse(hyphenated).map(Self).map_err(|_| EventIdError)
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Makes IDs that only rise, whatever the clock does.
#[derive(Debug)]
pub struct EventIdGenerator {
    /// Milliseconds since 1970 and the 12-bit counter, as one number: the 60 leading bits of the last ID.
    last: u64,
}

impl EventIdGenerator {
    const COUNTER_BITS: u32 = 12;

    /// Goes on after `newest`, the newest ID in the log.
    pub fn after(newest: Option<EventId>) -> Self {
        let last = newest.map_or(0, |id| {
            let bits = id.0.as_u128();
            // 48 bits of time, 4 of version, 12 of counter (RFC 9562 §5.7, §6.2 method 1).
            let millis = u64::try_from(bits >> 80).unwrap_or(u64::MAX);
            let counter = u64::try_from((bits >> 64) & 0xfff).unwrap_or(0);
            (millis << Self::COUNTER_BITS) | counter
        });
        Self { last }
    }

    /// The next ID at `now`; `random` fills the bits that no order depends on.
    pub fn next(&mut self, now: Timestamp, random: u64) -> EventId {
        let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
        let lead = (millis << Self::COUNTER_BITS).max(self.last + 1);
        self.last = lead;
        let (time, counter) = (lead >> Self::COUNTER_BITS, lead & 0xfff);
        let bits = (u128::from(time) << 80)
            | (0x7 << 76)
            | (u128::from(counter) << 64)
            | (0b10 << 62)
            | u128::from(random >> 2);
        EventId(Uuid::from_u128(bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_within_a_millisecond_and_when_the_clock_steps_back() {
        let late: Timestamp = "2026-11-20T12:00:00.123Z".parse().unwrap();
        let early: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
        let mut generator = EventIdGenerator::after(None);
        let mut ids: Vec<EventId> = (0..5000).map(|n| generator.next(late, u64::MAX - n)).collect();
        ids.push(generator.next(early, 0));
        let mut resumed = EventIdGenerator::after(ids.last().copied());
        ids.push(resumed.next(early, 0));
        assert!(ids.is_sorted_by(|a, b| a < b));
        assert!(ids.iter().all(|id| id.0.get_version_num() == 7 && id.0.get_variant() == uuid::Variant::RFC4122));
    }

    #[test]
    fn only_the_urn_form_is_an_id() {
        let text = "urn:uuid:0199d2a0-0000-7000-8000-000000000001";
        assert_eq!(text.parse::<EventId>().unwrap().to_string(), text);
        for wrong in [
            "",
            "earliest",
            "urn:uuid:",
            "0199d2a0-0000-7000-8000-000000000001",
            "urn:uuid:0199d2a0000070008000000000000001",
        ] {
            assert_eq!(wrong.parse::<EventId>(), Err(EventIdError), "{wrong}");
        }
    }
}

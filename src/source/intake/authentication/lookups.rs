//! What one message may look up, and what is remembered of it for the next.
//!
//! A message makes its receiver ask questions, of servers that its sender chooses: SPF, signatures and seals each name
//! some. So there is a bound on how many, a time after which nothing new is asked, and a bound on what is remembered.
//! The crate asks its caches before it asks the network, which makes them the place for all three. Names that are not
//! there are remembered one layer below, by the resolver.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mail_auth::spf::{Directive, Macro, Mechanism, Spf};
use mail_auth::{DnsError, Error, MX, RecordSet, ResolverCache, Txt};

/// Records of one kind that are remembered; a mail server that is in use has a few hundred.
const RECORDS_MAX: usize = 4096;
/// A record that takes more memory is asked for again each time: only who wants to fill the memory has such.
const RECORD_BYTES_MAX: usize = 16 * 1024;
/// Addresses or hosts of one name, likewise.
const HOSTS_MAX: usize = 64;

/// What was found, for all messages.
#[derive(Debug)]
pub(super) struct Records {
    txt: Remembered<Box<str>, Txt>,
    mx: Remembered<Box<str>, RecordSet<MX>>,
    ipv4: Remembered<Box<str>, RecordSet<Ipv4Addr>>,
    ipv6: Remembered<Box<str>, RecordSet<Ipv6Addr>>,
    ptr: Remembered<IpAddr, RecordSet<Box<str>>>,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            txt: Remembered::new(RECORDS_MAX),
            mx: Remembered::new(RECORDS_MAX),
            ipv4: Remembered::new(RECORDS_MAX),
            ipv6: Remembered::new(RECORDS_MAX),
            ptr: Remembered::new(RECORDS_MAX),
        }
    }
}

impl Records {
    /// Remembers a TXT record, so that a test needs no name server.
    #[cfg(test)]
    pub(super) fn put_txt(&self, name: &str, record: Txt) {
        let until = Instant::now() + std::time::Duration::from_hours(1);
        self.txt.insert(name.into(), record, until);
    }

    /// Forgets one.
    #[cfg(test)]
    pub(super) fn forget_txt(&self, name: &str) {
        self.txt.remove(name);
    }
}

/// A map that forgets: what has expired, and, when it is full, what nobody has asked for lately. Two generations do
/// that without a list of who was asked when: what is asked for moves into the young one, and the old one goes as a
/// whole when the young one is half of all.
struct Remembered<K, V> {
    half_max: usize,
    generations: Mutex<[HashMap<K, (V, Instant)>; 2]>,
}

impl<K, V> std::fmt::Debug for Remembered<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remembered").finish_non_exhaustive()
    }
}

impl<K: Hash + Eq, V: Clone> Remembered<K, V> {
    fn new(max: usize) -> Self {
        Self { half_max: max / 2, generations: Mutex::default() }
    }

    fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let mut generations = self.lock();
        let [young, old] = &mut *generations;
        if let Some((value, until)) = young.get(key) {
            return (Instant::now() < *until).then(|| value.clone());
        }
        let (key, (value, until)) = old.remove_entry(key)?;
        (Instant::now() < until).then(|| {
            self.put(&mut generations, key, value.clone(), until);
            value
        })
    }

    fn insert(&self, key: K, value: V, until: Instant) {
        self.put(&mut self.lock(), key, value, until);
    }

    fn put(&self, generations: &mut [HashMap<K, (V, Instant)>; 2], key: K, value: V, until: Instant) {
        let [young, old] = generations;
        if young.len() >= self.half_max {
            *old = std::mem::take(young);
        }
        young.insert(key, (value, until));
    }

    fn remove<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let mut generations = self.lock();
        generations.iter_mut().find_map(|generation| generation.remove(key)).map(|(value, _)| value)
    }

    fn lock(&self) -> MutexGuard<'_, [HashMap<K, (V, Instant)>; 2]> {
        // Whatever a panicking holder left is a cache all the same.
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was cut off from a message's questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// There were too many.
    Count,
    /// The time was over.
    Time,
}

/// The questions of one message, or of one part of its verification.
#[derive(Debug)]
pub(super) struct Lookups<'a> {
    records: &'a Records,
    left: AtomicUsize,
    /// After this nothing new is asked.
    until: Instant,
    cut: AtomicU8,
}

impl<'a> Lookups<'a> {
    /// At most `max` questions that `records` cannot answer, all begun before `until`.
    pub(super) fn new(records: &'a Records, max: usize, until: Instant) -> Self {
        Self { records, left: AtomicUsize::new(max), until, cut: AtomicU8::new(0) }
    }

    /// Whether a question was not asked. What was found is then no answer: an address that was not looked up looks like
    /// one that does not exist.
    pub(super) fn cut(&self) -> Option<Cut> {
        match self.cut.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Cut::Count),
            _ => Some(Cut::Time),
        }
    }

    /// Whether one more question may be asked, which is thereby counted.
    fn may_ask(&self) -> bool {
        if Instant::now() >= self.until {
            self.cut.store(2, Ordering::Relaxed);
            return false;
        }
        let one_less = |left: usize| left.checked_sub(1);
        let counted = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok();
        if !counted {
            self.cut.store(1, Ordering::Relaxed);
        }
        counted
    }

    /// The remembered answer, or, when nothing more may be asked, one that says so; none means: ask.
    fn answer<V>(&self, remembered: Option<V>, refused: impl FnOnce() -> V) -> Option<V> {
        remembered.or_else(|| (!self.may_ask()).then(refused))
    }
}

impl ResolverCache<Box<str>, Txt> for Lookups<'_> {
    fn get<Q: Hash + Eq + ?Sized>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
    {
        let refused = || Txt::Error(Error::Dns(DnsError::Resolver("not asked: too much, or too late".to_owned())));
        self.answer(self.records.txt.get(name), refused)
    }

    fn remove<Q: Hash + Eq + ?Sized>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
    {
        self.records.txt.remove(name)
    }

    fn insert(&self, name: Box<str>, record: Txt, until: Instant) {
        if bytes_of(&record) <= RECORD_BYTES_MAX {
            self.records.txt.insert(name, record, until);
        }
    }
}

/// The other kinds have no answer that says "not asked": [`Lookups::cut`] does.
macro_rules! record_sets {
    ($($records:ident: $key:ty => $value:ty),+) => {
        $(impl ResolverCache<$key, RecordSet<$value>> for Lookups<'_> {
            fn get<Q: Hash + Eq + ?Sized>(&self, name: &Q) -> Option<RecordSet<$value>>
            where
                $key: Borrow<Q>,
            {
                let nothing = || RecordSet { rrset: [].into(), dnssec_status: mail_auth::DnssecStatus::default() };
                self.answer(self.records.$records.get(name), nothing)
            }

            fn remove<Q: Hash + Eq + ?Sized>(&self, name: &Q) -> Option<RecordSet<$value>>
            where
                $key: Borrow<Q>,
            {
                self.records.$records.remove(name)
            }

            fn insert(&self, name: $key, records: RecordSet<$value>, until: Instant) {
                // An empty set would count as a name that exists.
                if (1..=HOSTS_MAX).contains(&records.rrset.len()) {
                    self.records.$records.insert(name, records, until);
                }
            }
        })+
    };
}

record_sets!(mx: Box<str> => MX, ipv4: Box<str> => Ipv4Addr, ipv6: Box<str> => Ipv6Addr, ptr: IpAddr => Box<str>);

/// About how much memory a record takes. The resolver takes answers of up to 64 KB, and a parsed one takes several times
/// as much.
fn bytes_of(record: &Txt) -> usize {
    match record {
        Txt::Spf(spf) => bytes_of_spf(spf),
        Txt::SpfMacro(text) => bytes_of_macro(text),
        Txt::DomainKey(key) => key.p.public_key_bits() / 8,
        Txt::Dmarc(dmarc) => dmarc.rua.iter().chain(&dmarc.ruf).map(|uri| size_of_val(uri) + uri.uri.len()).sum(),
        Txt::Error(_) => 0,
        // Not asked for here.
        _ => usize::MAX,
    }
}

fn bytes_of_spf(spf: &Spf) -> usize {
    let macros = [&spf.exp, &spf.redirect].into_iter().flatten().map(bytes_of_macro);
    let directives = spf.directives.iter().map(|directive| {
        let text = match &directive.mechanism {
            Mechanism::Include { macro_string }
            | Mechanism::A { macro_string, .. }
            | Mechanism::Mx { macro_string, .. }
            | Mechanism::Ptr { macro_string }
            | Mechanism::Exists { macro_string } => bytes_of_macro(macro_string),
            Mechanism::All | Mechanism::Ip4 { .. } | Mechanism::Ip6 { .. } => 0,
        };
        size_of::<Directive>() + text
    });
    macros.chain(directives).sum::<usize>() + spf.ra.as_ref().map_or(0, |ra| ra.len())
}

fn bytes_of_macro(text: &Macro) -> usize {
    match text {
        Macro::Literal(octets) => octets.len(),
        // The parser makes no lists in lists.
        Macro::List(parts) => {
            let literal = |part: &Macro| if let Macro::Literal(octets) = part { octets.len() } else { 0 };
            parts.iter().map(|part| size_of::<Macro>() + literal(part)).sum()
        }
        Macro::Variable { .. } | Macro::None => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mail_auth::common::parse::TxtRecordParser;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    fn set(address: [u8; 4]) -> RecordSet<Ipv4Addr> {
        RecordSet { rrset: [Ipv4Addr::from(address)].into(), dnssec_status: mail_auth::DnssecStatus::default() }
    }

    fn address_of(lookups: &Lookups<'_>, name: &str) -> Option<usize> {
        let found: Option<RecordSet<Ipv4Addr>> = lookups.get(name);
        found.map(|found| found.rrset.len())
    }

    #[test]
    fn a_message_has_so_many_questions() {
        let records = Records::default();
        let lookups = Lookups::new(&records, 2, soon());
        lookups.insert("known.".into(), set([192, 0, 2, 1]), soon());
        assert_eq!(address_of(&lookups, "a."), None, "ask");
        assert_eq!((address_of(&lookups, "known."), lookups.cut()), (Some(1), None), "what is known costs nothing");
        assert_eq!(address_of(&lookups, "b."), None);
        assert_eq!((address_of(&lookups, "c."), lookups.cut()), (Some(0), Some(Cut::Count)));
        let text: Option<Txt> = lookups.get("d.");
        assert!(matches!(text, Some(Txt::Error(Error::Dns(DnsError::Resolver(_))))), "a temporary error");
        assert_eq!(address_of(&lookups, "known."), Some(1));
    }

    #[test]
    fn nothing_is_asked_when_the_time_is_over() {
        let records = Records::default();
        let lookups = Lookups::new(&records, 10, Instant::now());
        assert_eq!((address_of(&lookups, "a."), lookups.cut()), (Some(0), Some(Cut::Time)));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_expires() {
        let remembered = Remembered::new(8);
        for number in 0..1000 {
            remembered.insert(number, number, soon());
            assert_eq!(remembered.get(&0), Some(0), "what is asked for stays");
            let generations = remembered.lock();
            assert!(generations.iter().map(HashMap::len).sum::<usize>() <= 8);
        }
        assert_eq!(remembered.get(&5), None, "what nobody asks for goes");
        remembered.insert(5, 5, Instant::now());
        assert_eq!(remembered.get(&5), None, "expired");
        assert_eq!((remembered.remove(&0), remembered.get(&0)), (Some(0), None));
    }

    #[test]
    fn huge_records_are_not_remembered() {
        let records = Records::default();
        let lookups = Lookups::new(&records, 10, soon());
        let put = |name: &str, record: Txt| {
            lookups.insert(name.into(), record, soon());
            records.txt.get(name).is_some()
        };
        let spf = |text: String| Txt::Spf(Spf::parse(text.as_bytes()).unwrap().into());
        assert!(put("small.", spf("v=spf1 ip4:192.0.2.0/24 include:_spf.example.org -all".to_owned())));
        assert!(!put("many.", spf(format!("v=spf1{} -all", " ip4:192.0.2.1".repeat(4000)))));
        assert!(!put("long.", spf(format!("v=spf1 exists:{}%{{i}}.a.example -all", "x.".repeat(20_000)))));
        let crowd = RecordSet { rrset: vec![Ipv4Addr::LOCALHOST; 1000].into(), ..set([0; 4]) };
        lookups.insert("crowd.".into(), crowd, soon());
        lookups.insert("nobody.".into(), RecordSet { rrset: [].into(), ..set([0; 4]) }, soon());
        assert!(records.ipv4.get("crowd.").is_none() && records.ipv4.get("nobody.").is_none());
    }
}

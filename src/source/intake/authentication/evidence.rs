//! What of a message is needed to verify it: its header, and hashes of its text.
//!
//! Gathering it takes as long as the message is large, and no network. What is gathered is small, so that it can wait
//! for name servers while the message itself does not. The bounds are those within which the crate takes linear time.

use std::collections::BTreeSet;
use std::ops::Range;

use mail_auth::AuthenticatedMessage;
use mail_auth::common::crypto::{Algorithm, HashAlgorithm};
use mail_auth::common::headers::Header;
use mail_auth::dkim::{Canonicalization, Signature};
use memchr::memmem;

use crate::message::authentication::SIGNATURES_MAX;
use crate::message::sole_from;

/// A header that is larger is not verified: real ones have 5 to 20 KiB.
const HEADER_BYTES_MAX: usize = 256 * 1024;
/// The same of its fields.
const FIELDS_MAX: usize = 1000;
/// The same of the fields that one signature covers. Each is searched for in the header.
const SIGNED_FIELDS_MAX: usize = 200;

/// What of one message is needed.
#[derive(Debug)]
pub(super) struct Evidence {
    /// The header with the empty line behind it.
    header: Box<[u8]>,
    /// One for each way in which the signatures hash the text: at most four.
    hashes: Vec<(Canonicalization, HashAlgorithm, Vec<u8>)>,
}

/// The header is too large, or there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unverifiable;

/// A header that is verified.
#[derive(Debug)]
pub(super) struct Readable<'x> {
    /// With the signatures that are verified.
    pub message: AuthenticatedMessage<'x>,
    /// The domains of signatures that are void whatever they sign.
    pub void: Vec<String>,
}

impl Evidence {
    /// Reads all of `message`.
    pub(super) fn gather(message: &[u8]) -> Result<Self, Unverifiable> {
        let header = message.get(header_of(message)).unwrap_or_default();
        let read = read(header)?;
        let body = message.get(read.message.body_offset()..).unwrap_or_default();
        let hash = |(canonicalization, algorithm, length, _): &(Canonicalization, HashAlgorithm, u64, _)| {
            let hash = algorithm.hash(canonicalization.canonical_body(body, *length));
            (*canonicalization, *algorithm, hash.as_ref().to_vec())
        };
        let hashes = read.message.body_hashes.iter().map(hash).collect();
        Ok(Self { header: header.into(), hashes })
    }

    /// The header as it is verified.
    pub(super) fn read(&self) -> Result<Readable<'_>, Unverifiable> {
        let mut read = read(&self.header)?;
        for (canonicalization, algorithm, _, hash) in &mut read.message.body_hashes {
            let same =
                |(c, a, _): &&(Canonicalization, HashAlgorithm, Vec<u8>)| c == canonicalization && a == algorithm;
            if let Some((_, _, gathered)) = self.hashes.iter().find(same) {
                hash.clone_from(gathered);
            }
        }
        Ok(read)
    }
}

/// Up to and with the first empty line.
fn header_of(message: &[u8]) -> Range<usize> {
    let crlf = memmem::find(message, b"\r\n\r\n").map(|at| at + 4);
    let lf = memmem::find(message.get(..crlf.unwrap_or(message.len())).unwrap_or_default(), b"\n\n").map(|at| at + 2);
    0..lf.or(crlf).unwrap_or(message.len())
}

fn read(header: &[u8]) -> Result<Readable<'_>, Unverifiable> {
    if header.len() > HEADER_BYTES_MAX {
        return Err(Unverifiable);
    }
    // It parses what is there and is strict about `l=`, by which text can be added to what was signed.
    let mut message = AuthenticatedMessage::parse(header).ok_or(Unverifiable)?;
    if message.headers.len() > FIELDS_MAX || !are_the_senders(&message.from, header) {
        return Err(Unverifiable);
    }
    let signatures = std::mem::take(&mut message.dkim_headers);
    let (kept, void) = signatures.into_iter().take(SIGNATURES_MAX).partition(is_sound);
    message.dkim_headers = kept;
    message.errors.truncate(SIGNATURES_MAX);
    for signature in &mut message.dkim_headers {
        // Reports of failures (RFC 6651) are not sent, so their address need not be looked up.
        signature.header.r = false;
    }
    let void: Vec<Header<'_, Signature>> = void;
    Ok(Readable { message, void: void.into_iter().map(|signature| signature.header.d).collect() })
}

/// Whether `senders`, of whom something is found out, are those whom the event names. A header that the two parsers read
/// differently, or with more than one `From` or none, says of nobody that they wrote it.
fn are_the_senders(senders: &[String], header: &[u8]) -> bool {
    let domain = |address: &str| address.rsplit_once('@').map(|(_, domain)| domain.to_ascii_lowercase());
    let verified: BTreeSet<_> = senders.iter().map(|address| domain(address)).collect();
    let shown = sole_from(header).unwrap_or_default();
    let shown: BTreeSet<_> = shown.iter().map(|shown| domain(&shown.address)).collect();
    !shown.is_empty() && shown == verified && !shown.contains(&None)
}

/// What the standards ask of a signature and the crate does not: a version (RFC 6376 §3.5), that it signs `From`
/// (§5.4, without which it says nothing of who wrote), and no SHA-1 (RFC 8301 §3.1).
fn is_sound(signature: &Header<'_, Signature>) -> bool {
    let signature = &signature.header;
    let signs_from = signature.h.iter().any(|field| field.trim().eq_ignore_ascii_case("from"));
    signature.v == 1 && signs_from && signature.a != Algorithm::RsaSha1 && signature.h.len() <= SIGNED_FIELDS_MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signature(tags: &str) -> String {
        format!("DKIM-Signature: {tags}; d=a.example; s=s; b=AAAA; bh=AAAA\r\n")
    }

    fn kept_and_void(header: &str) -> (usize, usize) {
        let evidence = Evidence::gather(format!("{header}From: a@a.example\r\n\r\ntext\r\n").as_bytes()).unwrap();
        let read = evidence.read().unwrap();
        (read.message.dkim_headers.len(), read.void.len())
    }

    #[test]
    fn who_is_verified_is_who_is_shown() {
        let is_read = |header: &str| {
            let evidence = Evidence::gather(format!("{header}\r\n\r\ntext\r\n").as_bytes());
            evidence.is_ok_and(|evidence| evidence.read().is_ok())
        };
        assert!(is_read("Subject: x\r\nFrom: \"Ada, L.\" <ada@A.example>"));
        assert!(is_read("From: ada@a.example,\r\n bob@b.example"));
        for header in [
            "Fr om: x@evil.example\r\ngarbage\r\nFrom: boss@bank.example",
            "garbage\r\nFrom: boss@bank.example",
            "From: x@evil.example\r\nFrom: boss@bank.example",
            "Subject: x",
            "From: nobody",
        ] {
            assert!(!is_read(header), "{header}");
        }
    }

    #[test]
    fn signatures_that_the_standards_void_are_not_verified() {
        assert_eq!(kept_and_void(&signature("v=1; a=rsa-sha256; h=To:From")), (1, 0));
        for void in ["v=1; a=rsa-sha256; h=To:Subject", "v=1; a=rsa-sha1; h=From", "a=rsa-sha256; h=From"] {
            assert_eq!(kept_and_void(&signature(void)), (0, 1), "{void}");
        }
        let all_names = format!("v=1; a=rsa-sha256; h=From{}", ":a".repeat(SIGNED_FIELDS_MAX));
        assert_eq!(kept_and_void(&signature(&all_names)), (0, 1));
    }

    #[test]
    fn of_many_signatures_the_topmost_are_verified() {
        assert_eq!(kept_and_void(&signature("v=1; a=rsa-sha256; h=From").repeat(100)), (SIGNATURES_MAX, 0));
        assert_eq!(kept_and_void(&signature("v=1; a=rsa-sha256; h=To").repeat(100)), (0, SIGNATURES_MAX));
    }

    #[test]
    fn text_is_hashed_as_a_whole_however_the_header_ends() {
        let hash = |message: &str| {
            let evidence = Evidence::gather(message.as_bytes()).unwrap();
            let read = evidence.read().unwrap();
            read.message.body_hashes.first().map(|(.., hash)| hash.clone())
        };
        let head = format!("{}From: a@a.example\r\n", signature("v=1; a=rsa-sha256; c=relaxed/relaxed; h=From"));
        let expected = hash(&format!("{head}\r\ntext \r\n\r\n"));
        assert!(expected.is_some());
        assert_eq!(hash(&format!("{head}\r\ntext\r\n")), expected, "relaxed: blanks at the ends do not count");
        assert_ne!(hash(&format!("{head}\r\nTEXT\r\n")), expected);
        assert!(hash(&format!("{}\ntext\n", head.replace("\r\n", "\n"))).is_some());
    }

    #[test]
    fn headers_without_measure_are_not_verified() {
        let from = "From: a@a.example\r\n";
        let fields = format!("{from}{}", "X: y\r\n".repeat(FIELDS_MAX));
        let long = format!("{from}X: {}\r\n", "y".repeat(HEADER_BYTES_MAX));
        for header in [fields, long, String::new()] {
            let gathered = Evidence::gather(format!("{header}\r\ntext").as_bytes());
            assert!(gathered.is_err());
        }
        assert!(Evidence::gather(b"").is_err() && Evidence::gather(from.as_bytes()).is_ok());
    }

    proptest! {
        /// The crate's parsers, which strangers' headers go through.
        #[test]
        fn no_header_panics(
            fields in prop::collection::vec(("(DKIM-Signature|ARC-Seal|ARC-Message-Signature|ARC-Authentication-Results|\
                From|DKIM2-Signature|Message-Instance):", "[a-z=;:/@,.<>\"()0-9+ \t]{0,60}"), 0..6),
            octets in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let header = fields.iter().map(|(name, value)| format!("{name}{value}\r\n")).collect::<Vec<_>>().concat();
            for message in [header.as_bytes(), &octets, &[header.as_bytes(), &octets].concat()] {
                drop(Evidence::gather(message).map(|evidence| drop(evidence.read())));
            }
        }
    }
}

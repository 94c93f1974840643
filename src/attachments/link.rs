//! Links to attachments: capabilities, so that an image in a page needs no token. Pure.
//!
//! A link names one file, which is one part of one message of one account, and the time until which it counts. The
//! signature is of both; it says nothing of, and gives nothing of, anybody's token.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

use super::AttachmentId;

/// What stands between the server and the name of a file.
const PATH: &str = "/attachments/";

/// Makes links, and knows its own.
#[derive(Debug)]
pub struct Links {
    base_url: String,
    key: hmac::Key,
}

/// Why there is nothing behind a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// It was not made here, or was altered.
    #[error("the link is not one of this server's; take it from an event as it is, all of it")]
    Invalid,
    /// It counted once.
    #[error("the attachment is not kept any more; `attachments.keep` says for how long it is")]
    Gone,
    /// It should be there.
    #[error("the attachment cannot be read; see postrider's log")]
    Unreadable,
}

impl Links {
    /// Links that begin with `base_url`, signed with `key`.
    pub(super) fn new(base_url: &str, key: hmac::Key) -> Self {
        Self { base_url: base_url.trim_end_matches('/').to_owned(), key }
    }

    /// The link to a file, for as long as it is kept.
    pub(super) fn link(&self, id: AttachmentId, expires: Timestamp) -> String {
        let expires = expires.as_second();
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, &signed(id, expires)));
        format!("{}{PATH}{id}?expires={expires}&signature={signature}", self.base_url)
    }

    /// The file that a link names. What was not signed is told nothing, not even whether there is such a file.
    pub(super) fn check(
        &self,
        id: &str,
        expires: &str,
        signature: &str,
        now: Timestamp,
    ) -> Result<AttachmentId, LinkError> {
        let id = AttachmentId::parse(id).ok_or(LinkError::Invalid)?;
        let expires: i64 = expires.parse().map_err(|_| LinkError::Invalid)?;
        let tag = URL_SAFE_NO_PAD.decode(signature).map_err(|_| LinkError::Invalid)?;
        hmac::verify(&self.key, &signed(id, expires), &tag).map_err(|_| LinkError::Invalid)?;
        if expires <= now.as_second() { Err(LinkError::Gone) } else { Ok(id) }
    }
}

/// The files that an event may link to, whatever else it says; the server may have had another name then.
pub(super) fn links_in(json: &[u8]) -> impl Iterator<Item = AttachmentId> {
    memchr::memmem::find_iter(json, PATH).filter_map(|at| {
        let name = json.get(at + PATH.len()..)?.get(..AttachmentId::LEN)?;
        AttachmentId::parse(str::from_utf8(name).ok()?)
    })
}

fn signed(id: AttachmentId, expires: i64) -> Vec<u8> {
    format!("{id} {expires}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_is_opened_and_only_in_its_time() {
        let links = |key: &[u8]| Links::new("https://push.example.org/", hmac::Key::new(hmac::HMAC_SHA256, key));
        let (own, id, at) = (links(b"key"), AttachmentId::new(), |seconds| Timestamp::from_second(seconds).unwrap());
        let link = own.link(id, at(1000));
        let rest = link.strip_prefix("https://push.example.org/attachments/").unwrap();
        let (name, query) = rest.split_once("?expires=1000&signature=").unwrap();
        assert_eq!((name, own.check(name, "1000", query, at(999))), (id.to_string().as_str(), Ok(id)));
        assert_eq!(own.check(name, "1000", query, at(1000)), Err(LinkError::Gone));
        let other = AttachmentId::new().to_string();
        let upper = name.to_uppercase();
        for (name, expires, signature) in [
            (name, "1001", query),
            (&*other, "1000", query),
            (&upper, "1000", query),
            (name, "1000", ""),
            (name, "1000", &query[1..]),
            (name, "+1000x", query),
            ("../token.key", "1000", query),
            ("", "1000", query),
        ] {
            assert_eq!(own.check(name, expires, signature, at(0)), Err(LinkError::Invalid), "{name} {expires}");
        }
        assert_eq!(links(b"another").check(name, "1000", query, at(0)), Err(LinkError::Invalid));
    }
}

//! What a server can do, as far as the watcher makes use of it. A few bits, kept for as long as the connection lives:
//! the list of capabilities itself takes a kilobyte.

use super::protocol::Capabilities;

/// The extensions that a server offers and that may be used with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a capability of its own, present or not")]
pub(super) struct Offers {
    /// RFC 2177.
    pub idle: bool,
    /// RFC 5465.
    pub notify: bool,
    /// RFC 7162.
    pub condstore: bool,
    /// RFC 7162.
    pub qresync: bool,
    /// RFC 4731: ranges instead of numbers.
    pub esearch: bool,
    /// RFC 5819.
    pub list_status: bool,
    /// RFC 5258: `RETURN` in LIST.
    pub list_extended: bool,
    /// RFC 6154.
    pub special_use: bool,
    /// RFC 8474.
    pub object_id: bool,
    /// RFC 8970.
    pub preview: bool,
    /// Gmail's own.
    pub gmail: bool,
    /// RFC 6851.
    pub r#move: bool,
    /// RFC 4315.
    pub uid_plus: bool,
    /// RFC 5464.
    pub metadata: bool,
}

impl Offers {
    /// What a list of capabilities means. `IMAP4rev2` includes what were extensions before (RFC 9051 appendix E).
    pub(super) fn of(capabilities: &Capabilities) -> Self {
        let rev2 = capabilities.has("IMAP4REV2");
        let qresync = capabilities.has("QRESYNC");
        Self {
            idle: rev2 || capabilities.has("IDLE"),
            notify: capabilities.has("NOTIFY"),
            // Yahoo has a modification sequence of its own under another name, which is not this one.
            condstore: qresync || capabilities.has("CONDSTORE"),
            qresync,
            esearch: rev2 || capabilities.has("ESEARCH"),
            list_status: rev2 || capabilities.has("LIST-STATUS"),
            list_extended: rev2 || capabilities.has("LIST-EXTENDED"),
            special_use: rev2 || capabilities.has("SPECIAL-USE"),
            object_id: capabilities.has("OBJECTID"),
            preview: capabilities.has("PREVIEW"),
            gmail: capabilities.has("X-GM-EXT-1"),
            r#move: rev2 || capabilities.has("MOVE"),
            uid_plus: rev2 || capabilities.has("UIDPLUS"),
            metadata: capabilities.has("METADATA"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_revision_brings_what_were_extensions() {
        let offers = |list: &[&str]| Offers::of(&Capabilities(list.iter().map(|&name| name.into()).collect()));
        assert!(offers(&["IMAP4REV2"]).idle && !offers(&["IMAP4REV2"]).condstore);
        assert!(offers(&["IMAP4REV1", "QRESYNC"]).condstore);
        assert_eq!(offers(&["XYMHIGHESTMODSEQ"]), Offers::default());
    }
}

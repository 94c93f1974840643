//! What postrider finds out about a message beyond its fields: what is wrong with it, how it is protected, and whether it
//! is a report or an invitation. The names are part of the JSON contract: they may be added to, never changed.

use serde::{Deserialize, Serialize};

/// What is wrong with a message. None of it keeps the message from being announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Defect {
    /// A line of a header is no field (RFC 5322 §2.2); it was skipped.
    HeaderWithoutColon,
    /// A header begins with a blank, as if it continued something (RFC 5322 §2.2.3).
    HeaderIndented,
    /// No empty line ends a header.
    HeaderNotEnded,
    /// A field is longer than 102,400 octets; the rest of it was ignored.
    HeaderTooLong,
    /// A field that may be there once (RFC 5322 §3.6) is there again; the first counts.
    DuplicateHeader,
    /// Octets in a header that are not UTF-8 (RFC 6532 §3); they were read as windows-1252.
    #[serde(rename = "raw_8bit_header")]
    Raw8BitHeader,
    /// What begins like an encoded word does not end like one (RFC 2047 §2); it is shown as it is.
    EncodedWordInvalid,
    /// Something in `From`, `Reply-To`, `To` or `Cc` is no address (RFC 5322 §3.4).
    AddressInvalid,
    /// `Date` is there and says no date.
    DateInvalid,
    /// `Message-ID` is there and is not of the form `<left@right>` (RFC 5322 §3.6.4).
    MessageIdInvalid,
    /// `Content-Type` is not of the form `type/subtype` (RFC 2045 §5.1); taken for plain text.
    ContentTypeInvalid,
    /// `Content-Transfer-Encoding` names no encoding that is known (RFC 2045 §6); the content is taken as it is.
    EncodingUnknown,
    /// Digits are missing in base64, or something else is between them.
    Base64Invalid,
    /// `=` without hexadecimal digits, or octets that quoted-printable does not allow.
    QuotedPrintableInvalid,
    /// A charset that nobody knows; UTF-8 and then windows-1252 were tried.
    UnknownCharset,
    /// A text that is not in the charset that it claims, or has none and is not ASCII.
    WrongCharset,
    /// A multipart does not say what divides its parts; where they could be told apart, they were.
    BoundaryMissing,
    /// A multipart has no part: nothing in it is what it says divides its parts.
    BoundaryNotFound,
    /// A multipart does not end: the message was cut, or its program is wrong.
    MultipartNotClosed,
    /// More than 50 multiparts within each other; what is deeper was not read.
    TooDeep,
    /// More than 1,000 parts; the rest was not read.
    TooManyParts,
    /// NUL octets.
    NulOctets,
    /// CR or LF alone, where the other lines end with CRLF.
    BareLineEnds,
}

impl Defect {
    /// Whether something of the message is missing in its summary because of it.
    pub fn loses(self) -> bool {
        matches!(
            self,
            Self::HeaderTooLong | Self::BoundaryMissing | Self::BoundaryNotFound | Self::TooDeep | Self::TooManyParts
        )
    }
}

/// How a message is signed or encrypted, as it says; postrider has no keys to check it with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Security {
    /// S/MIME signature (RFC 8551 §3.5).
    SmimeSigned,
    /// S/MIME encryption (RFC 8551 §3.3).
    SmimeEncrypted,
    /// PGP signature (RFC 3156 §5), or one in the text.
    PgpSigned,
    /// PGP encryption (RFC 3156 §4), or in the text.
    PgpEncrypted,
}

/// What became of a message that was sent earlier, as a program tells it (RFC 6522).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// What kind of report it is.
    pub kind: ReportKind,
    /// `abuse`, `fraud`, …: only of a feedback report (RFC 5965 §3.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feedback_type: Option<String>,
    /// The Message-ID of the message that it is about, with angle brackets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_message_id: Option<String>,
    /// Whom that message was for, and what became of it there; at most 20.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<ReportedRecipient>,
}

/// The kinds of reports; each has the name of its media type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ReportKind {
    /// Mail was delivered late, or not at all, or as asked for (RFC 3464).
    #[default]
    DeliveryStatus,
    /// Mail was read or deleted (RFC 8098).
    DispositionNotification,
    /// Somebody complains of mail (RFC 5965).
    FeedbackReport,
}

/// One recipient in a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportedRecipient {
    /// The address.
    pub address: String,
    /// `failed`, `delayed`, `delivered`, `relayed`, `expanded` (RFC 3464 §2.3.3), or of a notification `displayed`,
    /// `deleted`, … (RFC 8098 §3.2.6).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The enhanced status code, such as `5.1.1` (RFC 3463).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// What the refusing server said, at most 300 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diagnostic: Option<String>,
}

/// An invitation, or an answer to one (RFC 5546).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Calendar {
    /// `request`, `reply`, `cancel`, `publish`, … (RFC 5546 §1.4), in lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// What the first event or task is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// When it begins: `2026-11-20T12:00:00Z`; without `Z` in `time_zone`; of an event that takes whole days,
    /// `2026-11-20`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// The sender's name of the time zone of `start`, such as `Europe/Berlin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in somebody's filter rules must not change.
    #[test]
    fn names_are_those_of_the_contract() {
        let names = |values: &[Defect]| serde_json::to_string(values).unwrap();
        assert_eq!(
            names(&[Defect::Raw8BitHeader, Defect::Base64Invalid, Defect::NulOctets, Defect::HeaderWithoutColon]),
            r#"["raw_8bit_header","base64_invalid","nul_octets","header_without_colon"]"#
        );
        let security = serde_json::to_string(&[Security::SmimeSigned, Security::PgpEncrypted]).unwrap();
        assert_eq!(security, r#"["smime-signed","pgp-encrypted"]"#);
        assert_eq!(serde_json::to_string(&Report::default()).unwrap(), r#"{"kind":"delivery-status"}"#);
    }
}

//! What may be spoken on a listener, and what differs between them.

use serde::{Deserialize, Serialize};

use crate::event::Origin;

/// What a listener speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// SMTP (RFC 5321).
    #[default]
    Smtp,
    /// Submission (RFC 6409): SMTP for programs that send mail, which log in first.
    Submission,
    /// LMTP (RFC 2033): a mail server hands over mail for final delivery, and hears of each recipient.
    Lmtp,
}

impl Role {
    /// `SMTP`, `LMTP` or `submission`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Smtp => "SMTP",
            Self::Submission => "submission",
            Self::Lmtp => "LMTP",
        }
    }

    /// What events say of where mail came from.
    pub(in crate::source::smtp) fn origin(self) -> Origin {
        match self {
            Self::Smtp | Self::Submission => Origin::Smtp,
            Self::Lmtp => Origin::Lmtp,
        }
    }

    /// Whether each recipient's delivery has a reply of its own.
    pub(in crate::source::smtp) fn replies_for_each(self) -> bool {
        self == Self::Lmtp
    }

    /// The name in the greeting.
    pub(super) fn protocol(self) -> &'static str {
        match self {
            Self::Smtp | Self::Submission => "ESMTP",
            Self::Lmtp => "LMTP",
        }
    }
}

//! Why a request brought no mail, and how its sender is told in the one way that it understands.
//!
//! A provider decides by the status alone whether to post the message again. What is said to it is wrong if it repeats
//! for days what can never be taken, and worse if it throws away what could be taken in a minute.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::replay::Stale;
use crate::http::Problem;

/// Why nothing was taken.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It will not be taken another time either.
    Permanent(Problem),
    /// It may be taken later.
    Temporary(Problem),
    /// It was not shown who sent it. That may be our own configuration, so a provider should try again.
    Unproven(Problem),
}

/// What counts in the metrics.
impl Refusal {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Permanent(_) => "refused",
            Self::Temporary(_) => "failed",
            Self::Unproven(_) => "unauthorized",
        }
    }
}

/// Who posts, and what it understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// A program with a token, which reads the answer.
    Program,
    /// Repeats for 8 hours, whatever the status, except for 406.
    Mailgun,
    /// Repeats for 3 days what gets a 5xx, and drops what gets a 4xx.
    Sendgrid,
    /// Repeats for 10 hours, whatever the status, except for 403.
    Postmark,
}

impl Sender {
    pub(super) fn told(self, refusal: Refusal) -> Response {
        match (self, refusal) {
            (Self::Mailgun, Refusal::Permanent(problem)) => problem.with_status(StatusCode::NOT_ACCEPTABLE),
            (Self::Postmark, Refusal::Permanent(problem)) => problem.with_status(StatusCode::FORBIDDEN),
            // Its 4xx would be the end of the message.
            (Self::Sendgrid, Refusal::Unproven(problem)) => problem.with_status(StatusCode::SERVICE_UNAVAILABLE),
            (_, Refusal::Permanent(problem) | Refusal::Temporary(problem) | Refusal::Unproven(problem)) => problem,
        }
        .into_response()
    }
}

/// Why a good signature does not count.
impl From<Stale> for Refusal {
    fn from(stale: Stale) -> Self {
        match stale {
            Stale::Time => {
                let detail = "the signature is too old, or of the future; is the clock of this machine right? See \
                          `mail_over_http.signature_age_max`";
                Self::Unproven(Problem::new(StatusCode::UNAUTHORIZED, "signature-stale", detail))
            }
            Stale::Used => {
                let detail = "the signature was used before; each brings one message";
                Self::Permanent(Problem::new(StatusCode::CONFLICT, "signature-used", detail))
            }
            // Whether the other request brings the mail is not known yet, and if it does not, this one has to come again.
            Stale::InUse => {
                let detail = "the same signature is being used; post it again in a while";
                Self::Temporary(Problem::unavailable("signature-in-use", detail, 60))
            }
            Stale::Full => {
                Self::Temporary(Problem::unavailable("busy", "too much mail at once; post it again in a while", 60))
            }
        }
    }
}

/// A provider that may not post.
pub(super) fn off(provider: &str, setting: &str) -> Problem {
    let detail = format!("{provider} may not post mail here; set `mail_over_http.{setting}`, see the README");
    Problem::new(StatusCode::NOT_FOUND, "provider-off", detail)
}

/// A body that could not be read: too large is for ever, everything else may be the network.
impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        if problem.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Self::Permanent(problem)
        } else {
            Self::Temporary(problem)
        }
    }
}

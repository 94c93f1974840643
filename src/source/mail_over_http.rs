//! Mail over HTTP: for programs that have a token and no port 25, and for providers that receive mail and post it.
//!
//! `raw` takes a message as it is; `mailgun`, `sendgrid` and `postmark` take what these providers post, and check that
//! it was them. All of them end in `receiver`, and so in the intake, as mail by SMTP does: the same recipients, the
//! same events, the same promise that a 2xx means "on disk". Where a provider gives fields instead of the message,
//! `rebuilt` makes a message of them, so that nothing behind knows the difference.

mod config;
mod form;
mod mailgun;
mod postmark;
mod raw;
mod rebuilt;
mod receiver;
mod refusal;
mod replay;
mod sendgrid;

pub use config::{MailOverHttpConfig, MailOverHttpConfigError, SecretError, Secrets};
pub use receiver::{Limits, Receiver};

use axum::Router;
use axum::routing::post;

/// `/api/mail` and, below it, one path for each provider.
pub fn router(receiver: Receiver) -> Router {
    Router::new()
        .route("/api/mail", post(raw::receive))
        .route("/api/mail/mailgun", post(mailgun::receive))
        // Mailgun posts the message itself to whatever ends so.
        .route("/api/mail/mailgun/mime", post(mailgun::receive))
        .route("/api/mail/sendgrid", post(sendgrid::receive))
        .route("/api/mail/postmark", post(postmark::receive))
        .with_state(receiver)
}

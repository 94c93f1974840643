//! The mail receiver: takes mail by SMTP, submission and LMTP for the configured accounts and turns each message into events (RFC 5321).
//!
//! From the inside out: `parameter`, `command`, `line` and `data` parse, `collector` and `holding` keep;
//! `session` is the dialogue, a state machine without I/O; `sasl` is what is said at a login, `users` who may, `logins`
//! finds out whether it is them, and `lockout` keeps those off that guess; `connection` gives the session a socket, `tls`
//! and `channel` its encryption, and a clock; [`serve`] accepts connections and ends them. `proxy_header` and `xclient` say
//! whom a proxy brings; `limits`, `places`, `rate` and `patience` bound what anybody takes. What a message becomes is
//! `intake`'s: what is answered with 250 is committed to the event log, in one append for all recipients.

mod budget;
mod channel;
mod collector;
mod command;
mod config;
mod connection;
mod data;
mod deadline;
mod holding;
mod limits;
mod line;
mod listener;
mod lockout;
mod logins;
mod metrics;
mod parameter;
mod patience;
mod places;
mod proxy_header;
mod rate;
mod receiver;
mod sasl;
mod session;
mod tls;
mod users;
mod xclient;
mod xtext;

pub use config::{ListenerConfig, Mode, SmtpConfig, SmtpConfigError, SocketAddress, TlsMode};
pub use limits::{Limits, ListenerSettings};
pub use listener::{BindError, Listener};
pub use receiver::{Receiver, serve};
pub use session::Role;
pub use tls::{ServerTls, TlsError, TlsFiles};
pub use users::{UserConfig, UserError, Users};

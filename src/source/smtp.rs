//! The SMTP receiver: takes mail for the configured accounts and turns each message into events (RFC 5321).
//!
//! From the inside out: `path`, `parameter`, `command`, `line` and `data` parse, `collector` and `holding` keep;
//! `session` is the dialogue, a state machine without I/O; `sasl` is what is said at a login, `users` who may, `logins`
//! finds out whether it is them, and `lockout` keeps those off that guess; `connection` gives the session a socket, `tls`
//! and `channel` its encryption, a clock and the event log; [`serve`] accepts connections and ends them. The receiver keeps no mail and relays none: what it answers with 250
//! is committed to the event log, in one append for all recipients.

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

pub use config::{ListenerConfig, Mode, SmtpConfig, SmtpConfigError, SocketAddress, TlsMode};
pub use limits::{Limits, ListenerSettings};
pub use listener::{BindError, Listener};
pub use receiver::{Receiver, serve};
pub use session::Role;
pub use tls::{ServerTls, TlsError, TlsFiles};
pub use users::{UserConfig, UserError, Users};

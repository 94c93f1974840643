//! The receiver's protocol, of which everything is the real thing, and of its surroundings what it needs.

pub mod intake;
#[path = "../../../../src/source/networks.rs"]
#[allow(dead_code, reason = "the rest is for the configuration")]
pub mod networks;

#[path = "../../../../src/source/smtp"]
#[allow(dead_code, reason = "what the connection needs of it")]
pub mod smtp {
    mod collector;
    mod command;
    mod data;
    mod line;
    mod parameter;
    mod proxy_header;
    mod session;
    mod xclient;

    /// What the session knows of the configuration.
    mod config {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum TlsMode {
            None,
            Starttls,
            Implicit,
        }
    }

    /// The bounds that the session keeps itself.
    mod limits {
        #[derive(Debug)]
        pub struct Limits {
            pub message_bytes_max: usize,
            pub recipients_max: usize,
        }
    }

    /// TLS itself is the connection's business.
    mod tls {
        #[derive(Debug)]
        pub struct ServerTls;
    }

    #[path = "../../../tests/fuzz/src/source/harness.rs"]
    mod harness;
    pub use harness::{MESSAGE_BYTES_MAX, Seen, Setup, dialogue, path, proxy_header, text, xclient};
}

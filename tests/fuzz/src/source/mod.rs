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
    mod sasl;
    mod session;
    mod xclient;
    mod xtext;

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

    /// How fast is too fast is the connection's business.
    mod rate {
        #[derive(Debug)]
        pub struct MessageRate;
    }

    /// Everybody is known, and the password is the caller's business.
    mod users {
        use std::num::NonZeroU32;
        use std::sync::Arc;

        use crate::scram::Verifier;
        use crate::source::intake::Destination;

        #[derive(Debug, PartialEq, Eq)]
        pub struct Identity {
            pub name: String,
        }

        impl Identity {
            pub fn may_write_to(&self, _to: &Destination) -> bool {
                !self.name.starts_with('b')
            }
        }

        #[derive(Debug)]
        pub struct Users;

        impl Users {
            pub fn take_passwords(&self) -> bool {
                true
            }

            pub fn take_tokens(&self) -> bool {
                true
            }

            pub fn nonce(&self) -> Option<String> {
                Some("fresh".to_owned())
            }

            pub fn verifier(&self, name: &str) -> Verifier {
                Verifier { salt: name.as_bytes().to_vec(), iterations: NonZeroU32::MIN }
            }

            pub fn identity(&self, name: &str) -> Option<Arc<Identity>> {
                Some(Arc::new(Identity { name: name.to_owned() }))
            }
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

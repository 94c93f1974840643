//! SCRAM-SHA-256 (RFC 5802, RFC 7677): logs in without showing the password to the server, and makes the server prove
//! that it knows it too. Pure: takes the server's messages, answers with ours. What both sides compute is in `crate::scram`.
//!
//! There is no channel binding, so that the header is always `n,,`.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use crate::scram::{self, SaltedPassword, hmac_sha256};

/// `n,,` in base64: what the final message says of channel binding.
const NO_BINDING: &str = "biws";
/// More iterations than this would be work that a server gives us to do, not protection: about half a second.
const ITERATIONS_MAX: u32 = 1_000_000;
/// Longest nonce, salt and message that are taken from a server.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Why the exchange failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScramError {
    /// User name or password have characters that SASLprep (RFC 4013) does not allow.
    #[error("the user name or password has characters that SCRAM cannot carry; set `mechanism = \"plain\"`")]
    Unprepared,
    /// A message that is not one of SCRAM's.
    #[error("the server's part of SCRAM-SHA-256 is not as RFC 5802 has it: {0}")]
    Malformed(&'static str),
    /// The server wants more work than is good.
    #[error("the server asks for {0} iterations of SCRAM-SHA-256, more than {max}", max = ITERATIONS_MAX)]
    TooCostly(u32),
    /// The server ended it.
    #[error("the server ended SCRAM-SHA-256: {0}")]
    Refused(String),
    /// The server does not know the password: it is not who it says it is.
    #[error("the server did not prove that it knows the password; somebody may be in its place")]
    NotProven,
}

/// One login, between its messages.
pub(super) struct Scram {
    password: Zeroizing<String>,
    nonce: String,
    first_bare: String,
    expected: Option<hmac::Tag>,
    is_proven: bool,
}

impl Scram {
    /// Begins with a nonce that was never used before: printable ASCII without a comma.
    ///
    /// # Errors
    /// [`ScramError::Unprepared`].
    pub(super) fn new(username: &str, password: &str, nonce: String) -> Result<Self, ScramError> {
        let username = prepared(username)?;
        let password = prepared(password)?;
        let name = scram::escaped(&username);
        let first_bare = format!("n={name},r={nonce}");
        Ok(Self { password, nonce, first_bare, expected: None, is_proven: false })
    }

    /// The client's first message.
    pub(super) fn first(&self) -> String {
        format!("n,,{}", self.first_bare)
    }

    /// Takes a message of the server, and answers it: its first with the proof, its last with nothing. Costs the
    /// iterations that the server asks for, so that it does not belong on a thread that others wait for.
    ///
    /// # Errors
    /// See [`ScramError`].
    pub(super) fn answer(&mut self, message: &str) -> Result<Zeroizing<String>, ScramError> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(ScramError::Malformed("a message is too long"));
        }
        match &self.expected {
            None => self.prove(message),
            Some(expected) => {
                if let Some(error) = message.strip_prefix("e=") {
                    return Err(ScramError::Refused(error.chars().filter(|c| !c.is_control()).take(80).collect()));
                }
                let verifier = message.split(',').next().and_then(|field| field.strip_prefix("v="));
                let verifier = verifier.and_then(|text| BASE64.decode(text).ok()).ok_or(ScramError::NotProven)?;
                constant_time::verify_slices_are_equal(&verifier, expected.as_ref())
                    .map_err(|_| ScramError::NotProven)?;
                self.is_proven = true;
                Ok(Zeroizing::default())
            }
        }
    }

    /// Whether the server has shown that it knows the password: without that its OK counts for nothing.
    pub(super) fn is_proven(&self) -> bool {
        self.is_proven
    }

    fn prove(&mut self, message: &str) -> Result<Zeroizing<String>, ScramError> {
        let first = ServerFirst::parse(message, &self.nonce)?;
        let salted = SaltedPassword::derive(&self.password, &first.salt, first.iterations);
        self.password = Zeroizing::default();

        let without_proof = format!("c={NO_BINDING},r={}", first.nonce);
        let signed = format!("{},{message},{without_proof}", self.first_bare);
        let proof = salted.client_key().proof(&signed);
        self.expected = Some(hmac_sha256(salted.server_key().as_ref(), signed.as_bytes()));
        Ok(Zeroizing::new(format!("{without_proof},p={}", BASE64.encode(proof.as_slice()))))
    }
}

/// `r=…,s=…,i=…`
struct ServerFirst<'m> {
    nonce: &'m str,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

impl<'m> ServerFirst<'m> {
    fn parse(message: &'m str, own_nonce: &str) -> Result<Self, ScramError> {
        // `m=` in front announces an extension that must be understood (RFC 5802 §5.1): none is.
        let mut fields = message.split(',');
        let mut field = |name, missing| {
            fields.next().and_then(|field| field.strip_prefix(name)).ok_or(ScramError::Malformed(missing))
        };
        let nonce: &str = field("r=", "no nonce")?;
        let salt = field("s=", "no salt")?;
        let iterations = field("i=", "no iteration count")?;
        // The server's own part makes the exchange its own too: without one it could be a replay.
        if !nonce.starts_with(own_nonce) || nonce.len() == own_nonce.len() {
            return Err(ScramError::Malformed("the nonce is not ours with the server's behind it"));
        }
        let salt = BASE64.decode(salt).map_err(|_| ScramError::Malformed("the salt is not base64"))?;
        let iterations: NonZeroU32 =
            iterations.parse().map_err(|_| ScramError::Malformed("the iteration count is not a number"))?;
        if iterations.get() > ITERATIONS_MAX {
            return Err(ScramError::TooCostly(iterations.get()));
        }
        Ok(Self { nonce, salt, iterations })
    }
}

/// Whether SCRAM can carry these: SASLprep knows the characters of Unicode 3.2 only.
pub(super) fn can_carry(username: &str, password: &str) -> bool {
    prepared(username).is_ok() && prepared(password).is_ok()
}

fn prepared(text: &str) -> Result<Zeroizing<String>, ScramError> {
    scram::prepared(text).ok_or(ScramError::Unprepared)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn scram() -> Scram {
        Scram::new("user", "pencil", NONCE.to_owned()).unwrap()
    }

    #[test]
    fn exchange_is_that_of_rfc_7677() {
        let mut scram = scram();
        assert_eq!(scram.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        assert_eq!(
            scram.answer(SERVER_FIRST).unwrap().as_str(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(!scram.is_proven());
        assert_eq!(scram.answer(SERVER_FINAL).unwrap().as_str(), "");
        assert!(scram.is_proven());
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_found_out() {
        for wrong in ["v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=", "v=", "", "v=AAAA", "x=y"] {
            let mut scram = scram();
            scram.answer(SERVER_FIRST).unwrap();
            assert_eq!(scram.answer(wrong).err(), Some(ScramError::NotProven), "{wrong}");
            assert!(!scram.is_proven());
        }
        let mut scram = scram();
        scram.answer(SERVER_FIRST).unwrap();
        assert_eq!(scram.answer("e=other-error").err(), Some(ScramError::Refused("other-error".to_owned())));
    }

    #[test]
    fn what_a_hostile_server_may_try_is_refused() {
        let refused = |message: &str| scram().answer(message).err().unwrap();
        let salt = "s=W22ZaJ0SNY7soEsUEjb6gQ==";
        assert_eq!(refused(&format!("r={NONCE}x,{salt},i=1000001")), ScramError::TooCostly(1_000_001));
        for malformed in [
            format!("r={NONCE},{salt},i=4096"),
            format!("r=other,{salt},i=4096"),
            format!("r={NONCE}x,{salt},i=0"),
            format!("r={NONCE}x,{salt},i=99999999999"),
            format!("r={NONCE}x,s=?,i=4096"),
            format!("m=ext,r={NONCE}x,{salt},i=4096"),
            format!("r={NONCE}{},{salt},i=1", "x".repeat(5000)),
            String::new(),
        ] {
            assert!(matches!(refused(&malformed), ScramError::Malformed(_)), "{malformed}");
        }
    }

    #[test]
    fn names_are_prepared_and_escaped() {
        let first = |name| Scram::new(name, "x", "n".to_owned()).unwrap().first();
        assert_eq!(first("a=b,c"), "n,,n=a=3Db=2Cc,r=n");
        // RFC 4013 §3: a soft hyphen is nothing, a compatibility character is what it stands for.
        assert_eq!(first("I\u{ad}X"), "n,,n=IX,r=n");
        assert_eq!(first("\u{2168}"), "n,,n=IX,r=n");
        assert!(!can_carry("user", "a\u{7}b") && !can_carry("", "x") && !can_carry("u", "\u{1f512}"));
        assert!(can_carry("jürgen@example.org", "schlüssel"));
    }

    proptest! {
        /// Whatever the server says, it is answered or refused.
        #[test]
        fn no_message_makes_it_fail_otherwise(messages in proptest::collection::vec("(r=rOprNGfwEbeRWgbNEkqO)?[ -~]{0,40}(,s=[A-Za-z+/=]{0,8})?(,i=[0-9]{0,3})?", 0..4)) {
            let mut scram = scram();
            for message in messages {
                if scram.answer(&message).is_err() {
                    break;
                }
            }
            prop_assert!(!scram.is_proven());
        }
    }
}

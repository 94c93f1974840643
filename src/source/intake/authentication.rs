//! Who really sent a message, and what the accounts that it is for make of it.
//!
//! What is known of a sender is found out here (`verifier`, over DNS) or by a mail server that is trusted (its
//! `Authentication-Results`); what is done about it is each account's choice (`verdict`). Mail of clients that have
//! logged in is nobody's question: they are known.

mod config;
#[cfg(feature = "mail-auth")]
mod evidence;
#[cfg(feature = "mail-auth")]
mod lookups;
mod metrics;
mod probe;
mod verdict;
#[cfg(feature = "mail-auth")]
mod verifier;
#[cfg(not(feature = "mail-auth"))]
#[path = "authentication/no_verifier.rs"]
mod verifier;

use std::collections::HashMap;
use std::io;
use std::sync::{PoisonError, RwLock};

use tracing::{debug, warn};

use super::delivery::Mail;
use super::parsing::Parsing;
use super::spool::Whole;
use super::{Client, Path, Peer};
use crate::event::{AccountName, Authentication};
use crate::message::authentication::trusted;
use crate::metrics::Metrics;
use crate::registry::Account;
use metrics::AuthenticationMetrics;
use verdict::SenderPolicy;
use verifier::{Sender, Verifier};

pub use config::{MessageAuthenticationConfig, MessageAuthenticationConfigError, NameServer};
pub use probe::{ProbeError, probe_name_servers};
pub(crate) use verdict::{Refusal, Verdict, refused_for_all};
pub use verifier::{NameServerError, ResolverError};

/// How it is found out who sent the mail that comes by one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Examine {
    /// Not at all: it is known, or nobody can tell.
    Nothing,
    /// From what a trusted server has written into the header.
    Header,
    /// By SPF, DKIM, DMARC and ARC.
    Sender,
    /// The same without SPF: the client is a mail server that hands on what it has received.
    Signatures,
}

impl Examine {
    /// For a client of a listener that has the setting `verify`, and that hands over mail for final delivery or not.
    pub(crate) fn of(client: &Client, verify: Option<bool>, is_final_delivery: bool) -> Self {
        match verify {
            _ if client.user.is_some() => Self::Nothing,
            Some(true) if is_final_delivery => Self::Signatures,
            Some(true) => Self::Sender,
            // Whoever can reach such a listener from elsewhere could write the header of a trusted server.
            None if !is_final_delivery && client.peer == Peer::Remote => {
                if cfg!(feature = "mail-auth") {
                    Self::Sender
                } else {
                    Self::Nothing
                }
            }
            None | Some(false) => Self::Header,
        }
    }
}

/// Finds out who sent what.
#[derive(Debug, Default)]
pub struct Authenticator {
    trusted_authserv_ids: Vec<String>,
    verifier: Option<Verifier>,
    /// Of accounts that do not take everything.
    policies: RwLock<HashMap<AccountName, SenderPolicy>>,
    metrics: AuthenticationMetrics,
}

impl Authenticator {
    /// With what `config` says, for mail to `accounts`; `metrics` tells what was found.
    ///
    /// # Errors
    /// [`ResolverError`] where the configuration asks for verification by name. Else mail is taken all the same, and
    /// nothing is known of it.
    pub fn new(
        config: &MessageAuthenticationConfig,
        accounts: &[Account],
        metrics: &Metrics,
    ) -> Result<Self, ResolverError> {
        let verifier = match Verifier::new(config) {
            Ok(verifier) => Some(verifier),
            Err(err) if config.verify == Some(true) => return Err(err),
            Err(err) => {
                warn!(error = %err, "mail from elsewhere cannot be verified");
                None
            }
        };
        Ok(Self {
            trusted_authserv_ids: config.trusted_authserv_ids.clone(),
            verifier,
            policies: RwLock::new(policies_of(accounts)),
            metrics: AuthenticationMetrics::registered(metrics),
        })
    }

    /// Does for mail from now on what `accounts` want.
    pub(super) fn replace_policies(&self, accounts: &[Account]) {
        // Whatever a panicking holder left is replaced as a whole.
        *self.policies.write().unwrap_or_else(PoisonError::into_inner) = policies_of(accounts);
    }

    /// What is known of the sender of `mail`, whose octets are `octets`; and the octets again, which do not stay in memory
    /// while name servers are waited for.
    ///
    /// # Errors
    /// The message could not be read from its file.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn examine(
        &self,
        mail: &Mail,
        octets: Whole,
        parsing: &Parsing,
    ) -> io::Result<(Whole, Option<Authentication>)> {
        let (octets, found) = match mail.examine {
            Examine::Nothing => return Ok((octets, None)),
            Examine::Header if self.trusted_authserv_ids.is_empty() => return Ok((octets, None)),
            Examine::Header => {
                let found = trusted(&octets, &self.trusted_authserv_ids);
                (octets, found)
            }
            Examine::Sender | Examine::Signatures => {
                // On the heap, since an idle session would have to hold the place for it otherwise: ten times its own.
                let found = Box::pin(self.verify(mail, octets, parsing)).await;
                (mail.message.whole().await?, found)
            }
        };
        self.metrics.count(&found);
        debug!(
            queue_id = %mail.queue_id,
            source = ?found.source,
            spf = found.spf.map(tracing::field::display),
            dkim = found.dkim.len(),
            dmarc = found.dmarc.map(tracing::field::display),
            arc = found.arc.map(tracing::field::display),
            "sender examined"
        );
        Ok((octets, Some(found)))
    }

    async fn verify(&self, mail: &Mail, octets: Whole, parsing: &Parsing) -> Authentication {
        let Client { address, helo, .. } = &mail.client;
        let sender = Sender {
            address: address.filter(|_| mail.examine == Examine::Sender),
            helo: helo.as_deref().unwrap_or_default(),
            mail_from: mail.from.as_ref().map(Path::as_str).unwrap_or_default(),
        };
        verifier::verify(self.verifier.as_ref(), parsing, octets, sender).await
    }

    /// What each recipient of `mail` wants done with it, in their order.
    pub(super) fn verdicts(&self, mail: &Mail, found: Option<&Authentication>) -> Vec<Verdict> {
        let policies = self.policies.read().unwrap_or_else(PoisonError::into_inner);
        if policies.is_empty() {
            return vec![Verdict::Accept; mail.recipients.len()];
        }
        let has_logged_in = mail.client.user.is_some();
        let verdict = |account: &AccountName| {
            policies.get(account).map_or(Verdict::Accept, |policy| policy.verdict(found, has_logged_in))
        };
        mail.recipients.iter().map(|recipient| verdict(&recipient.destination.account)).collect()
    }

    /// Counts what was done about a message.
    pub(super) fn count(&self, verdict: Verdict) {
        self.metrics.verdicts.count(match verdict {
            Verdict::Accept => return,
            Verdict::Mark => "marked",
            Verdict::Refuse(Refusal::NotChecked) => "deferred",
            Verdict::Refuse(_) => "refused",
        });
    }
}

/// Those of accounts that do not take everything.
fn policies_of(accounts: &[Account]) -> HashMap<AccountName, SenderPolicy> {
    let policy = |account: &Account| {
        let policy = SenderPolicy { dmarc_fail: account.dmarc_fail, require: account.require };
        (policy != SenderPolicy::default()).then(|| (account.name.clone(), policy))
    };
    accounts.iter().filter_map(policy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_verified_and_what_is_near_is_not() {
        let of = |peer, verify, is_final_delivery| Examine::of(&Client::at(None, peer), verify, is_final_delivery);
        let stranger = if cfg!(feature = "mail-auth") { Examine::Sender } else { Examine::Nothing };
        assert_eq!(of(Peer::Remote, None, false), stranger);
        assert_eq!(of(Peer::Loopback, None, false), Examine::Header);
        for peer in [Peer::Remote, Peer::Loopback] {
            assert_eq!(of(peer, None, true), Examine::Header, "a mail server hands over what it has verified");
            assert_eq!(of(peer, Some(false), false), Examine::Header);
            assert_eq!(of(peer, Some(true), false), Examine::Sender);
            assert_eq!(of(peer, Some(true), true), Examine::Signatures);
            let known = Client { user: Some("alice".to_owned()), ..Client::at(None, peer) };
            for verify in [None, Some(true), Some(false)] {
                assert_eq!(Examine::of(&known, verify, false), Examine::Nothing);
            }
        }
    }
}

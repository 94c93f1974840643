//! Finds out who really sent a message: SPF, DKIM, ARC and, of what they find, DMARC.
//!
//! The standards are `mail-auth`'s; here are the bounds around it. A name server that is dead or slow costs a message
//! its time and no more: what could not be looked up by then is a `temperror`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use mail_auth::arc::ArcError;
use mail_auth::common::headers::Header;
use mail_auth::dkim::DkimError;
use mail_auth::dmarc::Policy;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use mail_auth::hickory_resolver::system_conf::read_system_conf;
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{
    ArcOutput, AuthenticatedMessage, DkimOutput, DkimResult, DmarcOutput, DmarcResult, DnsError, Error,
    MessageAuthenticator, Parameters, SpfOutput, SpfResult,
};

use super::config::{MessageAuthenticationConfig, NameServer};
use super::evidence::{Evidence, Readable, Unverifiable};
use super::lookups::{Cut, Lookups, Records};
use crate::event::{Authentication, AuthenticationResult, AuthenticationSource, DmarcPolicy, SignatureResult};
use crate::message::authentication::SIGNATURES_MAX;
use crate::source::intake::parsing::Parsing;
use crate::source::intake::spool::Whole;

/// Questions that SPF may ask for one message. The standard allows ten mechanisms that ask (RFC 7208 §4.6.4); one of them,
/// `mx`, may ask ten times more.
const SPF_LOOKUPS_MAX: usize = 40;
/// Questions for signatures and seals.
const SIGNATURE_LOOKUPS_MAX: usize = 36;
/// Questions for DMARC's walk, which asks up to eight times for each domain (RFC 9989 §4.10): the author's, that of SPF,
/// and one that has signed. They are its own, since whoever forges an author chooses how many signatures there are.
const DMARC_LOOKUPS_MAX: usize = 24;
/// Answers that the resolver remembers, those that say "no such name" above all. An answer has 64 KiB at most.
const ANSWERS_MAX: u64 = 1024;
/// Questions that are under way at the same time to one name server.
const QUESTIONS_MAX: usize = 1024;
/// One question is asked this often.
const ATTEMPTS: u8 = 2;
/// Each time it waits for this part of the message's time.
const TIME_PARTS: u32 = 8;
/// After so many parts SPF, signatures and seals ask nothing new. Their last question is answered two later, and two are
/// DMARC's, however slow the servers are that a sender has chosen.
const ASKING_PARTS: u32 = 4;
/// The name above all others.
const ROOT: &str = ".";

/// Who hands the message over, and in whose name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender<'a> {
    /// None where the client is a relay of our own, so that its address says nothing.
    pub address: Option<IpAddr>,
    /// What it calls itself.
    pub helo: &'a str,
    /// The reverse-path; empty for a notification.
    pub mail_from: &'a str,
}

impl<'a> Sender<'a> {
    /// The domain of the reverse-path; where there is none, what the client calls itself (RFC 7208 §2.4).
    fn spf_domain(self) -> &'a str {
        self.mail_from.rsplit_once('@').map_or(self.helo, |(_, domain)| domain)
    }
}

/// Verifies messages. Its records are shared by all.
pub(super) struct Verifier {
    authenticator: MessageAuthenticator,
    records: Records,
    timeout: Duration,
}

/// Why nothing can be looked up.
#[derive(Debug, thiserror::Error)]
#[error("cannot find the system's name servers; name some in `smtp.message_authentication.resolver`")]
pub struct ResolverError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// Why name servers are of no use.
#[derive(Debug, thiserror::Error)]
#[error(
    "does not look up names for us: {0}; until it does, nothing is known of senders. Name servers are given in \
     `smtp.message_authentication.resolver`, else in /etc/resolv.conf"
)]
pub struct NameServerError(String);

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Asks the configured name servers, or the system's.
    ///
    /// # Errors
    /// The system's cannot be found.
    pub(super) fn new(config: &MessageAuthenticationConfig) -> Result<Self, ResolverError> {
        let (servers, mut options) = if config.resolver.is_empty() {
            read_system_conf().map_err(|err| ResolverError(err.into()))?
        } else {
            let servers = config.resolver.iter().map(name_server).collect();
            (ResolverConfig::from_name_servers(servers), ResolverOpts::default())
        };
        options.timeout = config.timeout / TIME_PARTS;
        options.attempts = ATTEMPTS.into();
        options.cache_size = ANSWERS_MAX;
        options.max_active_requests = QUESTIONS_MAX;
        // What this machine calls its neighbours is nothing that a sender may use.
        options.use_hosts_file = ResolveHosts::Never;
        let authenticator = MessageAuthenticator::new(servers, options).map_err(|err| ResolverError(err.into()))?;
        Ok(Self { authenticator, records: Records::default(), timeout: config.timeout })
    }

    /// Whether the name servers answer, and how soon. What they are asked for is what every one of them knows.
    pub(super) async fn probe(&self) -> Result<Duration, NameServerError> {
        let started = Instant::now();
        match self.authenticator.resolver().txt_lookup(ROOT).await.map_err(Error::from) {
            // The root has no such record, and that is an answer.
            Ok(_) | Err(Error::Dns(DnsError::RecordNotFound(_))) => Ok(started.elapsed()),
            Err(Error::Dns(DnsError::Resolver(why))) => Err(NameServerError(why)),
            Err(err) => Err(NameServerError(err.to_string())),
        }
    }

    /// What is known of `sender` and of the message of which `evidence` was gathered, in time.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn verify(&self, evidence: Result<&Evidence, Unverifiable>, sender: Sender<'_>) -> Authentication {
        let read = evidence.and_then(Evidence::read);
        let begun = Instant::now();
        let (until, end) = (begun + self.timeout / TIME_PARTS * ASKING_PARTS, begun + self.timeout);
        let in_time = tokio::time::timeout(self.timeout, async {
            match &read {
                Ok(read) => self.all(read, sender, until, end).await,
                Err(Unverifiable) => self.only_spf(sender, until).await,
            }
        });
        let late = |_| nothing_in_time(read.as_ref().ok(), sender);
        in_time.await.unwrap_or_else(late)
    }

    async fn all(&self, read: &Readable<'_>, sender: Sender<'_>, until: Instant, end: Instant) -> Authentication {
        let Readable { message, void } = read;
        let lookups = Lookups::new(&self.records, SIGNATURE_LOOKUPS_MAX, until);
        let authenticator = &self.authenticator;
        let dkim = authenticator.verify_dkim(parameters(&lookups, message));
        let arc = authenticator.verify_arc(parameters(&lookups, message));
        let (spf, dkim, arc) = tokio::join!(self.spf(sender, until), dkim, arc);
        let found = Authentication { dkim: signatures(&dkim, void), arc: arc_result(&arc), ..of_spf(&spf, sender) };
        let lookups = Lookups::new(&self.records, DMARC_LOOKUPS_MAX, end);
        let dmarc = authenticator.verify_dmarc(parameters(
            &lookups,
            DmarcParameters {
                message,
                dkim_output: &dkim,
                dkim2_output: None,
                rfc5321_mail_from_domain: spf.domain(),
                spf_output: &spf,
            },
        ));
        // A little before the end, at which all of it would be late.
        let last = end.checked_sub(self.timeout / TIME_PARTS / 4).unwrap_or(end);
        let Ok(dmarc) = tokio::time::timeout_at(last.into(), dmarc).await else {
            let Authentication { dmarc, dmarc_domain, .. } = nothing_in_time(Some(read), sender);
            return Authentication { dmarc, dmarc_domain, ..found };
        };
        let has_record = dmarc.dmarc_record().is_some();
        Authentication {
            dmarc: Some(dmarc_result(&dmarc, &lookups)),
            dmarc_domain: named(dmarc.domain()),
            dmarc_policy: has_record.then(|| dmarc_policy(dmarc.policy())).flatten(),
            ..found
        }
    }

    /// Of a header without measure: nobody can say whose it is.
    async fn only_spf(&self, sender: Sender<'_>, until: Instant) -> Authentication {
        let dmarc = Some(AuthenticationResult::Permerror);
        Authentication { dmarc, ..of_spf(&self.spf(sender, until).await, sender) }
    }

    async fn spf(&self, sender: Sender<'_>, until: Instant) -> SpfOutput {
        let Sender { address, helo, mail_from } = sender;
        let Some(address) = address.map(|address| address.to_canonical()) else { return SpfOutput::default() };
        let domain = sender.spf_domain();
        if domain.starts_with('[') {
            // An address literal has no records (RFC 7208 §4.3).
            return SpfOutput::new(domain.to_owned());
        }
        let lookups = Lookups::new(&self.records, SPF_LOOKUPS_MAX, until);
        let identity = if mail_from.is_empty() {
            SpfParameters::verify_ehlo(address, helo, RECEIVER)
        } else {
            SpfParameters::verify_mail_from(address, helo, RECEIVER, mail_from)
        };
        let found = self.authenticator.verify_spf(parameters(&lookups, identity)).await;
        match lookups.cut() {
            None => found,
            Some(Cut::Count) => found.with_result(SpfResult::PermError),
            Some(Cut::Time) => found.with_result(SpfResult::TempError),
        }
    }
}

/// What is known of `sender` and of the message in `octets`.
///
/// # Cancel safety
/// Nothing is lost when the future is dropped.
pub(super) async fn verify(
    verifier: Option<&Verifier>,
    parsing: &Parsing,
    octets: Whole,
    sender: Sender<'_>,
) -> Authentication {
    let Some(verifier) = verifier else { return nothing_in_time(None, sender) };
    let gathered = parsing.run(octets.len(), move || Evidence::gather(&octets)).await;
    // A thread that could not read it is one that panicked, and nothing was found.
    let evidence = gathered.unwrap_or(Err(Unverifiable));
    verifier.verify(evidence.as_ref().map_err(|_| Unverifiable), sender).await
}

/// What an explanation may call the receiver by (RFC 7208 §7.2, `%{r}`), which nobody is shown.
const RECEIVER: &str = "unknown";

fn name_server(NameServer(address): &NameServer) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

type AllLookups<'x, P, L> = Parameters<'x, P, L, L, L, L, L>;

fn parameters<'x, P>(lookups: &'x Lookups<'x>, params: P) -> AllLookups<'x, P, Lookups<'x>> {
    Parameters {
        params,
        cache_txt: Some(lookups),
        cache_mx: Some(lookups),
        cache_ptr: Some(lookups),
        cache_ipv4: Some(lookups),
        cache_ipv6: Some(lookups),
    }
}

/// What SPF found, with room for the rest.
fn of_spf(spf: &SpfOutput, sender: Sender<'_>) -> Authentication {
    Authentication {
        source: AuthenticationSource::Own,
        spf: sender.address.map(|_| spf_result(spf.result())),
        spf_domain: named(spf.domain()),
        ..Authentication::default()
    }
}

/// All that is known when the time is over.
fn nothing_in_time(read: Option<&Readable<'_>>, sender: Sender<'_>) -> Authentication {
    let late = Some(AuthenticationResult::Temperror);
    let of = |message: &AuthenticatedMessage<'_>| {
        let signature = |signature: &Header<'_, mail_auth::dkim::Signature>| SignatureResult {
            domain: named(&signature.header.d),
            result: AuthenticationResult::Temperror,
        };
        message.dkim_headers.iter().map(signature).collect()
    };
    let from = read.and_then(|read| read.message.from.first()?.rsplit_once('@'));
    Authentication {
        source: AuthenticationSource::Own,
        spf: sender.address.and(late),
        spf_domain: sender.address.and_then(|_| named(sender.spf_domain())),
        dkim: read.map(|read| of(&read.message)).unwrap_or_default(),
        dmarc: late,
        dmarc_domain: from.and_then(|(_, domain)| named(domain)),
        arc: read.filter(|read| !read.message.as_headers.is_empty()).and(late),
        ..Authentication::default()
    }
}

fn named(domain: &str) -> Option<String> {
    crate::message::decoded_line(domain).map(|domain| domain.to_ascii_lowercase())
}

fn spf_result(result: SpfResult) -> AuthenticationResult {
    match result {
        SpfResult::Pass => AuthenticationResult::Pass,
        SpfResult::Fail => AuthenticationResult::Fail,
        SpfResult::SoftFail => AuthenticationResult::Softfail,
        SpfResult::Neutral => AuthenticationResult::Neutral,
        SpfResult::TempError => AuthenticationResult::Temperror,
        SpfResult::PermError => AuthenticationResult::Permerror,
        SpfResult::None => AuthenticationResult::None,
    }
}

fn signatures(verified: &[DkimOutput<'_>], void: &[String]) -> Vec<SignatureResult> {
    let verified = verified.iter().map(|output| SignatureResult {
        domain: output.signature().and_then(|signature| named(&signature.d)),
        result: signature_result(output.result()),
    });
    let void =
        void.iter().map(|domain| SignatureResult { domain: named(domain), result: AuthenticationResult::Permerror });
    verified.chain(void).take(SIGNATURES_MAX).collect()
}

fn signature_result(result: &DkimResult) -> AuthenticationResult {
    match result {
        DkimResult::Pass => AuthenticationResult::Pass,
        // The crate says neutral; the signature is understood, and the text is not what was signed (RFC 8601 §2.7.1).
        DkimResult::Neutral(
            Error::Dkim(DkimError::FailedBodyHashMatch) | Error::Arc(ArcError::FailedBodyHashMatch),
        )
        | DkimResult::Fail(_) => AuthenticationResult::Fail,
        DkimResult::Neutral(_) => AuthenticationResult::Neutral,
        DkimResult::PermError(_) => AuthenticationResult::Permerror,
        DkimResult::TempError(_) => AuthenticationResult::Temperror,
        DkimResult::None => AuthenticationResult::None,
    }
}

fn arc_result(arc: &ArcOutput<'_>) -> Option<AuthenticationResult> {
    Some(signature_result(arc.result())).filter(|result| *result != AuthenticationResult::None)
}

fn dmarc_result(dmarc: &DmarcOutput, lookups: &Lookups<'_>) -> AuthenticationResult {
    match dmarc.result() {
        DmarcResult::Pass => AuthenticationResult::Pass,
        _ if lookups.cut().is_some() => AuthenticationResult::Temperror,
        DmarcResult::Fail(_) => AuthenticationResult::Fail,
        DmarcResult::TempError(_) => AuthenticationResult::Temperror,
        DmarcResult::PermError(_) => AuthenticationResult::Permerror,
        DmarcResult::None => AuthenticationResult::None,
    }
}

fn dmarc_policy(policy: Policy) -> Option<DmarcPolicy> {
    match policy {
        Policy::None => Some(DmarcPolicy::None),
        Policy::Quarantine => Some(DmarcPolicy::Quarantine),
        Policy::Reject => Some(DmarcPolicy::Reject),
        Policy::Unspecified => None,
    }
}

#[cfg(test)]
mod tests;

//! What is known of mail providers, as data: `config/providers.toml` in the program, and a file of the operator's over
//! it. Here is how an entry is found; what it means is the business of those who ask.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::Deserialize;

use crate::registry::ImapSecurity;

/// Why a file of providers cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProvidersError {
    /// It could not be read.
    #[error("cannot read `imap.providers_file` {0}: {1}")]
    Read(PathBuf, String),
    /// It is not of the form of `config/providers.toml`.
    #[error("`imap.providers_file` {0}: {1}")]
    Form(PathBuf, String),
}

/// Known providers: the operator's first, then those of the program. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Providers(Arc<[Arc<File>]>);

/// What is particular about a server. The default is a server like any other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, as in the file")]
pub struct Quirks {
    /// How long one IDLE may last.
    pub idle_renew: Option<Duration>,
    /// IDLE is missing, or accepted and silent.
    pub no_idle: bool,
    /// Pause between questions for new mail.
    pub poll_interval: Option<Duration>,
    /// Connections that one user may have from here.
    pub connections_max: Option<NonZeroUsize>,
    /// ID (RFC 2971) is wanted before the login too.
    pub id_before_login: bool,
    /// SASL-IR is offered and then refused.
    pub no_sasl_ir: bool,
    /// No command before the one before it was answered.
    pub stepwise: bool,
    /// Whether NOTIFY works, where that is known.
    pub notify: Option<bool>,
    /// How long a session may last.
    pub session_max: Option<Duration>,
}

/// Where the mailboxes of a mail domain's users are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The IMAP server.
    pub host: String,
    /// Its port, unless it is the usual one.
    pub port: Option<u16>,
    /// How it is protected.
    pub security: ImapSecurity,
}

/// Where tokens come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OauthPreset {
    /// What `provider` in the configuration calls it.
    pub name: String,
    /// Where a person agrees (RFC 6749 §3.1).
    #[serde(default)]
    pub authorization_endpoint: Option<String>,
    /// Where tokens are given (RFC 6749 §3.2).
    #[serde(default)]
    pub token_endpoint: Option<String>,
    /// Where a login on another device begins (RFC 8628 §3.1).
    #[serde(default)]
    pub device_authorization_endpoint: Option<String>,
    /// What is asked for.
    #[serde(default)]
    pub scope: Option<String>,
    /// What this machine is called in the address that the browser comes back to, where `127.0.0.1` is not taken.
    #[serde(default)]
    pub redirect_host: Option<String>,
    /// What the authorization request carries beside the standard's parameters.
    #[serde(default)]
    pub authorization_parameters: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    provider: Vec<Preset>,
    #[serde(default)]
    oauth: Vec<OauthPreset>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Preset {
    name: String,
    hosts: Vec<String>,
    domains: Vec<String>,
    host: Option<String>,
    port: Option<u16>,
    security: ImapSecurity,
    oauth: Option<String>,
    #[serde(with = "humantime_serde")]
    idle_renew: Option<Duration>,
    no_idle: Option<bool>,
    #[serde(with = "humantime_serde")]
    poll_interval: Option<Duration>,
    connections_max: Option<NonZeroUsize>,
    #[serde(with = "humantime_serde")]
    session_max: Option<Duration>,
    id_before_login: Option<bool>,
    no_sasl_ir: Option<bool>,
    stepwise: Option<bool>,
    notify: Option<bool>,
}

/// What the program knows by itself of a host.
pub fn for_host(host: &str) -> Quirks {
    Providers::default().quirks(host)
}

impl Default for Providers {
    fn default() -> Self {
        static BUILT_IN: LazyLock<Providers> = LazyLock::new(|| {
            #[expect(clippy::expect_used, reason = "a constant that a test reads")]
            let file = toml::from_str(include_str!("../../../config/providers.toml")).expect("the file is right");
            Providers(Arc::new([Arc::new(file)]))
        });
        BUILT_IN.clone()
    }
}

impl Providers {
    /// Those of the program, with those of a file over them.
    ///
    /// # Errors
    /// See [`ProvidersError`].
    pub fn load(path: Option<&Path>) -> Result<Self, ProvidersError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|err| ProvidersError::Read(path.to_owned(), err.to_string()))?;
        let own = Self::read(&text).map_err(|err| ProvidersError::Form(path.to_owned(), err))?;
        Ok(Self(own.0.iter().chain(Self::default().0.iter()).cloned().collect()))
    }

    fn read(text: &str) -> Result<Self, String> {
        let file = toml::from_str(text).map_err(|err: toml::de::Error| err.to_string())?;
        Ok(Self(Arc::new([Arc::new(file)])))
    }

    /// The entries that fit a host: the operator's before the program's, the more particular before the general.
    fn fitting(&self, host: &str) -> Vec<&Preset> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let mut all = Vec::new();
        for file in self.0.iter() {
            let mut found: Vec<(usize, &Preset)> = file
                .provider
                .iter()
                .filter_map(|preset| {
                    let lengths = preset.hosts.iter().filter(|name| is_within(&host, name)).map(String::len);
                    Some((lengths.max()?, preset))
                })
                .collect();
            found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
            all.extend(found.into_iter().map(|(_, preset)| preset));
        }
        all
    }

    /// What is particular about a host.
    pub fn quirks(&self, host: &str) -> Quirks {
        let presets = self.fitting(host);
        let is = |flag: fn(&Preset) -> Option<bool>| presets.iter().find_map(|preset| flag(preset));
        Quirks {
            idle_renew: presets.iter().find_map(|preset| preset.idle_renew),
            no_idle: is(|preset| preset.no_idle).unwrap_or(false),
            poll_interval: presets.iter().find_map(|preset| preset.poll_interval),
            connections_max: presets.iter().find_map(|preset| preset.connections_max),
            id_before_login: is(|preset| preset.id_before_login).unwrap_or(false),
            no_sasl_ir: is(|preset| preset.no_sasl_ir).unwrap_or(false),
            stepwise: is(|preset| preset.stepwise).unwrap_or(false),
            notify: is(|preset| preset.notify),
            session_max: presets.iter().find_map(|preset| preset.session_max),
        }
    }

    /// What the provider of a host is called.
    pub fn name(&self, host: &str) -> Option<&str> {
        self.fitting(host).into_iter().map(|preset| preset.name.as_str()).find(|name| !name.is_empty())
    }

    /// The name of the OAuth provider that a host takes tokens of.
    pub fn oauth_for_host(&self, host: &str) -> Option<&str> {
        self.fitting(host).into_iter().find_map(|preset| preset.oauth.as_deref())
    }

    /// Where the mailbox of an address is.
    pub fn place_of(&self, address: &str) -> Option<Place> {
        let (_, domain) = address.rsplit_once('@')?;
        let is_meant = |preset: &&Preset| preset.domains.iter().any(|known| known.eq_ignore_ascii_case(domain));
        let preset = self.0.iter().flat_map(|file| &file.provider).filter(is_meant).find(|it| it.host.is_some())?;
        Some(Place { host: preset.host.clone()?, port: preset.port, security: preset.security })
    }

    /// Where the tokens of an OAuth provider come from.
    pub fn oauth(&self, name: &str) -> Option<&OauthPreset> {
        self.0.iter().flat_map(|file| &file.oauth).find(|oauth| oauth.name == name)
    }
}

/// Whether `host` is `name` or below it.
fn is_within(host: &str, name: &str) -> bool {
    let rest = host.strip_suffix(name.to_ascii_lowercase().as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_the_quirks_of_its_provider() {
        assert_eq!(for_host("imap.example.org"), Quirks::default());
        assert_eq!(for_host("IMAP.mail.yahoo.com.").idle_renew, Some(Duration::from_mins(3)));
        assert_eq!(for_host("notyahoo.com"), Quirks::default());
        let coremail = for_host("imap.163.com");
        assert!(coremail.no_idle && coremail.id_before_login && coremail.no_sasl_ir && coremail.stepwise);
        assert_eq!(coremail.poll_interval, Some(Duration::from_secs(55)));
        assert_eq!(for_host("imap.rambler.ru").idle_renew, Some(Duration::from_secs(55)));
        assert_eq!(Providers::default().oauth_for_host("imap.gmail.com"), Some("google"));
    }

    #[test]
    fn an_address_says_where_its_mailbox_is() {
        let place = Providers::default().place_of("ada@GMail.com").unwrap();
        assert_eq!((place.host.as_str(), place.port, place.security), ("imap.gmail.com", None, ImapSecurity::Tls));
        assert_eq!(Providers::default().place_of("ada@example.org"), None);
        assert_eq!(Providers::default().place_of("ada"), None);
    }

    #[test]
    fn every_provider_that_names_an_oauth_has_it_with_what_a_login_needs() {
        let providers = Providers::default();
        for name in providers.0.iter().flat_map(|file| &file.provider).filter_map(|preset| preset.oauth.as_deref()) {
            let oauth = providers.oauth(name).unwrap();
            assert!(oauth.authorization_endpoint.is_some() && oauth.token_endpoint.is_some() && oauth.scope.is_some());
        }
    }

    #[test]
    fn a_file_of_the_operators_counts_first_setting_by_setting() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "[[provider]]\nhosts = ['imap.163.com']\nno_idle = false\nnotify = false\n[[oauth]]\nname = 'own'\n";
        std::fs::write(file.path(), text).unwrap();
        let providers = Providers::load(Some(file.path())).unwrap();
        let quirks = providers.quirks("imap.163.com");
        assert!(!quirks.no_idle && quirks.no_sasl_ir && quirks.notify == Some(false));
        assert!(providers.oauth("own").is_some() && providers.oauth("google").is_some());

        std::fs::write(file.path(), "[[provider]]\nhost_names = ['x']\n").unwrap();
        assert!(matches!(Providers::load(Some(file.path())), Err(ProvidersError::Form(..))));
        assert!(matches!(Providers::load(Some(Path::new("/no/such"))), Err(ProvidersError::Read(..))));
    }
}

//! OAuth 2.0 from a person's yes to a mailbox: a provider of our own, and a real Dovecot that asks it about tokens.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use postrider::event::AccountName;
use postrider::registry::{Account, Credentials, CredentialsConfig, LoginMechanism};
use postrider::source::imap::oauth::{Oauth, OauthError};
use postrider::source::imap::provider::Providers;
use postrider::source::imap::{ImapError, ProbeReport, probe_account};
use secrecy::ExposeSecret;
use serde_json::json;
use support::dovecot::Dovecot;
use support::oidc::Oidc;
use support::watching::config;
use support::within;
use tempfile::{TempDir, tempdir};

fn alice() -> AccountName {
    "alice".parse().unwrap()
}

async fn open(oidc: &Oidc) -> Oauth {
    Oauth::open(&oidc.config(), &Providers::default()).await.unwrap()
}

/// A browser that goes where it is sent.
async fn visit(url: &str) -> reqwest::Response {
    within("the browser", reqwest::get(url)).await.unwrap()
}

/// A Dovecot that asks the provider about tokens, an account there, and what is stored for it.
struct Mailbox {
    dovecot: Dovecot,
    folder: TempDir,
    account: Account,
}

impl Mailbox {
    fn new(oidc: &Oidc) -> Self {
        let folder = tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = folder.path().join("oauth2.conf");
        let issuer = &oidc.issuer;
        let text = format!(
            "introspection_mode = post\nintrospection_url = {issuer}/introspect\nusername_attribute = username\n\
             active_attribute = active\nactive_value = true\nforce_introspection = yes\n"
        );
        fs::write(&file, text).unwrap();
        let dovecot = Dovecot::start_with(&format!(
            "auth_mechanisms = plain login scram-sha-256 xoauth2 oauthbearer\nauth_cache_size = 0\n\
             passdb {{\n  driver = oauth2\n  mechanisms = xoauth2 oauthbearer\n  args = {}\n}}\n",
            file.display()
        ));
        let mut account = dovecot.account("alice", &["INBOX"]);
        let imap = account.imap_mut().unwrap();
        (imap.password_typed, imap.oauth) = (None, Some(oidc.config().into()));
        Self { dovecot, folder, account }
    }

    fn credentials(&self) -> Credentials {
        Credentials::new(self.folder.path(), &CredentialsConfig::default())
    }

    async fn probe(&self) -> Result<ProbeReport, ImapError> {
        let imap = self.account.imap.as_ref().unwrap();
        probe_account(&alice(), imap, &config(), Some(self.credentials())).await
    }

    async fn log_in(&self, oidc: &Oidc) {
        let oauth = open(oidc).await;
        let login = oauth.begin(0).await.unwrap();
        let url = login.url("alice").unwrap();
        let (token, page) = tokio::join!(login.finish(), visit(&url));
        assert!(page.status().is_success());
        oauth.store(&token.unwrap(), &alice(), &self.credentials()).await.unwrap();
    }
}

#[tokio::test]
async fn a_login_in_the_browser_opens_the_mailbox_by_both_mechanisms() {
    let oidc = Oidc::start().await;
    let mut mailbox = Mailbox::new(&oidc);
    let err = mailbox.probe().await.unwrap_err();
    assert!(err.is_auth() && err.to_string().contains("postrider account login alice"), "{err}");
    mailbox.log_in(&oidc).await;
    assert_eq!(oidc.known().authorization["scope"], "openid offline_access");
    assert_eq!(oidc.known().authorization["login_hint"], "alice");
    for (mechanism, method) in [
        (None, "OAUTHBEARER"),
        (Some(LoginMechanism::Oauthbearer), "OAUTHBEARER"),
        (Some(LoginMechanism::Xoauth2), "XOAUTH2"),
    ] {
        mailbox.account.imap_mut().unwrap().mechanism = mechanism;
        let report = mailbox.probe().await.unwrap();
        assert_eq!(report.method, Some(method));
    }
    drop(mailbox.dovecot);
}

/// The provider withdrew the token that was just given: refused, thrown away, fetched anew, tried once more.
#[tokio::test]
async fn a_token_that_the_server_refuses_is_renewed_and_tried_once() {
    let oidc = Oidc::start().await;
    let mut mailbox = Mailbox::new(&oidc);
    mailbox.log_in(&oidc).await;
    for mechanism in [LoginMechanism::Oauthbearer, LoginMechanism::Xoauth2] {
        mailbox.account.imap_mut().unwrap().mechanism = Some(mechanism);
        oidc.order(200, json!({"access_token": "void", "expires_in": 3600}));
        let before = oidc.known().asked.len();
        mailbox.probe().await.unwrap();
        assert_eq!(oidc.known().asked[before..], ["refresh_token", "refresh_token"]);
    }
    // Twice refused is refused: no third attempt.
    for _ in 0..2 {
        oidc.order(200, json!({"access_token": format!("void {}", oidc.known().ordered.len())}));
    }
    let before = oidc.known().asked.len();
    let err = mailbox.probe().await.unwrap_err();
    assert!(err.is_auth() && matches!(err, ImapError::Login { .. }), "{err}");
    assert_eq!(oidc.known().asked.len() - before, 2);
}

#[tokio::test]
async fn only_a_withdrawn_login_asks_for_a_person() {
    let oidc = Oidc::start().await;
    let mailbox = Mailbox::new(&oidc);
    mailbox.log_in(&oidc).await;
    for (status, answer) in [(503, json!({})), (429, json!({})), (400, json!({"error": "temporarily_unavailable"}))] {
        oidc.order(status, answer);
        let err = mailbox.probe().await.unwrap_err();
        assert!(matches!(err, ImapError::Oauth(OauthError::Temporary(_))) && !err.is_auth(), "{status}: {err}");
    }
    mailbox.probe().await.unwrap();
    oidc.order(400, json!({"error": "invalid_grant", "error_description": "Token has been revoked."}));
    let err = mailbox.probe().await.unwrap_err();
    assert!(err.is_auth() && err.to_string().contains("Token has been revoked."), "{err}");
    oidc.order(401, json!({"error": "invalid_client"}));
    assert!(mailbox.probe().await.unwrap_err().is_auth());
}

#[tokio::test]
async fn a_refresh_token_that_is_replaced_is_stored() {
    let oidc = Oidc::start().await;
    let mailbox = Mailbox::new(&oidc);
    mailbox.log_in(&oidc).await;
    oidc.known().rotates = true;
    for _ in 0..3 {
        // Each has its own memory: what it uses comes from the store.
        mailbox.probe().await.unwrap();
    }
}

#[tokio::test]
async fn a_stored_login_is_of_no_use_to_another_provider_or_client() {
    let (oidc, other) = (Oidc::start().await, Oidc::start().await);
    let mut mailbox = Mailbox::new(&oidc);
    mailbox.log_in(&oidc).await;
    mailbox.account.imap_mut().unwrap().oauth = Some(other.config().into());
    assert!(matches!(mailbox.probe().await, Err(ImapError::Oauth(OauthError::NotLoggedIn(_)))));
    assert!(other.known().asked.is_empty(), "the token was not sent");
}

#[tokio::test]
async fn a_token_command_gives_the_token() {
    let oidc = Oidc::start().await;
    let mut mailbox = Mailbox::new(&oidc);
    oidc.known().valid.insert("from-a-program".to_owned());
    let imap = mailbox.account.imap_mut().unwrap();
    imap.oauth = None;
    imap.access_token_command = Some(["echo", "from-a-program"].map(str::to_owned).to_vec());
    mailbox.probe().await.unwrap();
    oidc.known().valid.clear();
    let err = mailbox.probe().await.unwrap_err();
    assert!(matches!(err, ImapError::Login { .. }) && err.is_auth(), "{err}");
}

#[tokio::test]
async fn only_the_answer_to_our_own_question_ends_a_login() {
    let oidc = Oidc::start().await;
    let oauth = open(&oidc).await;
    let login = oauth.begin(0).await.unwrap();
    let url = reqwest::Url::parse(&login.url("alice").unwrap()).unwrap();
    let value = |name| url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
    let (back, state) = (value("redirect_uri"), value("state"));
    let strangers = async {
        for query in ["code=evil", "code=evil&state=guess", "error=access_denied&state=guess", ""] {
            assert_eq!(visit(&format!("{back}?{query}")).await.status(), 404, "{query}");
        }
        assert_eq!(visit(&format!("{back}favicon.ico?state={state}")).await.status(), 404);
        visit(&format!("{back}?error=access_denied&error_description=not+today&state={state}")).await
    };
    let (token, page) = tokio::join!(login.finish(), strangers);
    assert!(matches!(&token, Err(OauthError::Denied(text)) if text == "access_denied: not today"), "{token:?}");
    assert!(page.text().await.unwrap().contains("not let in"));
    assert!(oidc.known().asked.is_empty(), "no code was redeemed");
}

/// A browser on another machine ends at an address that it cannot show; a person pastes it.
#[tokio::test]
async fn a_pasted_address_counts_like_the_browsers_visit() {
    let oidc = Oidc::start().await;
    let oauth = open(&oidc).await;
    let login = oauth.begin(0).await.unwrap();
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let sent = client.get(login.url("alice").unwrap()).send().await.unwrap();
    let address = sent.headers()["location"].to_str().unwrap();
    assert!(matches!(login.finish_with("http://127.0.0.1/?code=x&state=y").await, Err(OauthError::Answer(_))));
    assert!(matches!(login.finish_with("hello").await, Err(OauthError::Answer(_))));
    assert_eq!(login.finish_with(address).await.unwrap().expose_secret(), "refresh-1");
}

#[tokio::test]
async fn a_login_without_a_refresh_token_says_what_to_ask_for() {
    let oidc = Oidc::start().await;
    let oauth = open(&oidc).await;
    oidc.order(200, json!({"access_token": "a"}));
    let login = oauth.begin(0).await.unwrap();
    let url = login.url("alice").unwrap();
    let (token, _) = tokio::join!(login.finish(), visit(&url));
    let err = token.unwrap_err();
    assert!(err.to_string().contains("offline_access"), "{err}");
}

#[tokio::test]
async fn a_login_on_another_device_asks_until_the_person_has_agreed() {
    let oidc = Oidc::start().await;
    let oauth = open(&oidc).await;
    let login = oauth.begin_on_device().await.unwrap();
    assert_eq!((login.user_code.as_str(), login.address.ends_with("/activate")), ("WDJB-MJHT", true));
    oidc.order(400, json!({"error": "authorization_pending"}));
    oidc.order(400, json!({"error": "slow_down"}));
    let started = tokio::time::Instant::now();
    let token = within("the device's login", login.finish()).await.unwrap();
    assert_eq!(token.expose_secret(), "refresh-1");
    // One second, one more, and six after `slow_down`.
    assert!(started.elapsed() >= std::time::Duration::from_secs(8), "{:?}", started.elapsed());
    assert_eq!(oidc.known().asked.len(), 3);

    oidc.order(400, json!({"error": "access_denied"}));
    let login = oauth.begin_on_device().await.unwrap();
    assert!(matches!(login.finish().await, Err(OauthError::Denied(_))));
}

#[tokio::test]
async fn a_provider_that_speaks_for_another_is_refused() {
    let oidc = Oidc::start().await;
    oidc.known().issuer = "https://accounts.example.org".to_owned();
    let opened = Oauth::open(&oidc.config(), &Providers::default()).await;
    assert!(matches!(opened, Err(OauthError::Answer(_))));
    let mut config = oidc.config();
    config.provider = "http://accounts.example.org".to_owned();
    assert!(matches!(Oauth::open(&config, &Providers::default()).await, Err(OauthError::Insecure(_))));
    config.provider = "gogle".to_owned();
    assert!(matches!(Oauth::open(&config, &Providers::default()).await, Err(OauthError::Provider(_))));
}

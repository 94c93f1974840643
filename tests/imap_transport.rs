//! The way to a server: proxies, pinned keys, certificates of our own, addresses of our own; against a real Dovecot.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::fs;
use std::path::Path;

use postrider::registry::{Account, ImapEndpoint, ImapSecurity};
use postrider::source::imap::{ImapError, probe};
use support::dovecot::Dovecot;
use support::gateway::{Gateway, Kind};
use support::scripted_imap::ScriptedImap;
use support::watching::config;
use tempfile::tempdir;

/// The account over TLS, by a name that only a proxy or nobody can resolve.
fn over_tls(dovecot: &Dovecot) -> ImapEndpoint {
    let Account { imap, .. } = dovecot.account("alice", &["INBOX"]);
    ImapEndpoint {
        port: Some(dovecot.imaps_port),
        security: ImapSecurity::Tls,
        ca_file: Some(dovecot.ca_file()),
        ..(*imap.unwrap()).clone()
    }
}

fn written(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn both_kinds_of_proxy_are_gone_through_and_find_the_servers_name_themselves() {
    let dovecot = Dovecot::start();
    for (kind, scheme) in [(Kind::Socks5, "socks5"), (Kind::Http, "http")] {
        let gateway = Gateway::start(kind, dovecot.imaps_port, None).await;
        let mut endpoint = over_tls(&dovecot);
        endpoint.host = "localhost".to_owned();
        endpoint.proxy = Some(Box::new(format!("{scheme}://127.0.0.1:{}", gateway.port).parse().unwrap()));
        let report = probe(&endpoint, &config()).await.unwrap();
        assert_eq!(report.address.unwrap().port(), gateway.port);
        assert_eq!(gateway.asked(), [format!("localhost:{}", dovecot.imaps_port)]);

        endpoint.host = "refused.example.org".to_owned();
        let err = probe(&endpoint, &config()).await.unwrap_err();
        assert!(matches!(err, ImapError::Proxy(..)) && !err.is_auth(), "{err:?}");
        assert!(err.reason().contains("it answered: "), "{}", err.reason());
    }
}

#[tokio::test]
async fn a_proxy_that_wants_a_password_gets_it_from_a_file() {
    let (dovecot, folder) = (Dovecot::start(), tempdir().unwrap());
    for (kind, scheme) in [(Kind::Socks5, "socks5"), (Kind::Http, "http")] {
        let gateway = Gateway::start(kind, dovecot.imaps_port, Some(("ada", "pw"))).await;
        let mut endpoint = over_tls(&dovecot);
        for (user, password, gets_through) in [("ada@", "pw\n", true), ("ada@", "wrong", false), ("", "pw", false)] {
            endpoint.proxy = Some(Box::new(format!("{scheme}://{user}127.0.0.1:{}", gateway.port).parse().unwrap()));
            endpoint.proxy_password_file = Some(written(folder.path(), "proxy.password", password));
            let probed = probe(&endpoint, &config()).await;
            match probed {
                Ok(_) => assert!(gets_through, "{scheme} {user} {password}"),
                Err(err) => {
                    assert!(!gets_through && err.reason().contains("proxy_password_file"), "{}", err.reason());
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_proxy_is_told_as_that_and_no_password_goes_there() {
    for scheme in ["socks5", "http"] {
        let server = ScriptedImap::start().await;
        let mut account = server.account();
        let endpoint = account.imap_mut().unwrap();
        let address = format!("{scheme}://127.0.0.1:{}", endpoint.port());
        endpoint.proxy = Some(Box::new(address.parse().unwrap()));
        let unprotected = probe(endpoint, &config()).await;
        assert!(matches!(unprotected, Err(ImapError::Plaintext(_))), "a proxy may go anywhere");
        endpoint.allow_plaintext = true;
        let script = async {
            let mut peer = server.accept().await;
            peer.send("* OK not a proxy\r\n\r\n\r\n").await;
            peer.closed().await;
        };
        let config = config();
        let (probed, ()) = tokio::join!(probe(endpoint, &config), script);
        let err = probed.unwrap_err();
        assert!(err.reason().contains("it does not speak"), "{}", err.reason());
    }
}

#[tokio::test]
async fn a_pinned_key_is_enough_and_another_key_is_refused() {
    let dovecot = Dovecot::start();
    let mut endpoint = over_tls(&dovecot);
    let pin = probe(&endpoint, &config()).await.unwrap().pin.unwrap();
    let other = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".parse().unwrap();

    // With the authority: both must hold.
    endpoint.certificate_pin = vec![other, pin.clone()];
    probe(&endpoint, &config()).await.unwrap();
    // Without: the key alone.
    endpoint.ca_file = None;
    probe(&endpoint, &config()).await.unwrap();

    endpoint.certificate_pin.retain(|known| *known != pin);
    let err = probe(&endpoint, &config()).await.unwrap_err();
    assert!(matches!(err, ImapError::NotPinned(..)) && err.reason().contains(&pin.to_string()), "{}", err.reason());
    endpoint.ca_file = Some(dovecot.ca_file());
    endpoint.host = "127.0.0.1".to_owned();
    assert!(matches!(probe(&endpoint, &config()).await, Err(ImapError::NotPinned(..))));
}

#[tokio::test]
async fn any_certificate_is_taken_only_where_that_is_said() {
    let dovecot = Dovecot::start();
    let mut endpoint = over_tls(&dovecot);
    endpoint.ca_file = None;
    assert!(matches!(probe(&endpoint, &config()).await, Err(ImapError::Certificate(..))));
    endpoint.tls_insecure_accept_any_certificate = true;
    probe(&endpoint, &config()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_ours() {
    let folder = tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "client authority");
    let ca_file = written(folder.path(), "client-ca.pem", &authority.self_signed(&key).unwrap().pem());
    let issuer = rcgen::Issuer::new(authority, key);
    let own_key = rcgen::KeyPair::generate().unwrap();
    let mut own = rcgen::CertificateParams::new(Vec::new()).unwrap();
    own.distinguished_name.push(rcgen::DnType::CommonName, "alice");
    own.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    let own = own.signed_by(&own_key, &issuer).unwrap();

    let dovecot = Dovecot::start_with(&format!(
        "ssl_ca = <{}\nssl_verify_client_cert = yes\nauth_ssl_require_client_cert = yes\n\
         ssl_require_crl = no\n",
        ca_file.display()
    ));
    let mut endpoint = over_tls(&dovecot);
    assert!(probe(&endpoint, &config()).await.is_err(), "without it there is no login");
    endpoint.client_certificate_file = Some(written(folder.path(), "own.pem", &own.pem()));
    let err = probe(&endpoint, &config()).await.unwrap_err();
    assert!(matches!(err, ImapError::ClientCertificate(..)), "there is no key in it: {err}");
    endpoint.client_key_file = Some(written(folder.path(), "own.key", &own_key.serialize_pem()));
    probe(&endpoint, &config()).await.unwrap();
    let both = own.pem() + &own_key.serialize_pem();
    endpoint.client_certificate_file = Some(written(folder.path(), "both.pem", &both));
    endpoint.client_key_file = None;
    probe(&endpoint, &config()).await.unwrap();
}

#[tokio::test]
async fn connections_come_from_the_address_that_is_set() {
    let server = ScriptedImap::start().await;
    let mut account = server.account();
    let endpoint = account.imap_mut().unwrap();
    endpoint.local_address = Some("127.0.0.9".parse().unwrap());
    let script = async {
        let mut peer = server.accept().await;
        assert_eq!(peer.address().ip().to_string(), "127.0.0.9");
        peer.send("* BYE seen\r\n").await;
    };
    let config = config();
    let (probed, ()) = tokio::join!(probe(endpoint, &config), script);
    assert!(matches!(probed, Err(ImapError::Bye { .. })));
    endpoint.local_address = Some("::1".parse().unwrap());
    let err = probe(endpoint, &config).await.unwrap_err();
    assert!(err.reason().contains("reached from here"), "{}", err.reason());
}

//! The routing against whole configurations.

use std::path::PathBuf;

use proptest::prelude::*;
use secrecy::SecretString;

use super::*;
use crate::registry::Account;

fn account(name: &str, addresses: &[&str]) -> Account {
    Account {
        content: Content::Envelope,
        addresses: addresses.iter().map(|&address| address.to_owned()).collect(),
        ..Account::new(AccountName::parse(name).unwrap())
    }
}

type Found = Result<(String, String, Content), NoRoute>;

fn route(routing: &Routing, address: &str, peer: Peer) -> Found {
    let found = routing.route(&Path::parse(address).unwrap(), peer)?;
    Ok((found.account.to_string(), found.mailbox, found.content))
}

fn found(account: &str, mailbox: &str) -> (String, String, Content) {
    (account.into(), mailbox.into(), Content::Envelope)
}

#[test]
fn listed_addresses_are_taken_from_everywhere() {
    let accounts = [account("alice", &["Alice@Example.org", "a+b@example.org"]), account("bob", &["bob@x.example"])];
    let routing = Routing::new(&accounts, None).unwrap();
    let remote = |address| route(&routing, address, Peer::Remote);
    assert_eq!(remote("aLICE@eXAMPLE.org"), Ok(found("alice", "INBOX")));
    assert_eq!(remote("alice+Lists/rust@example.org"), Ok(found("alice", "Lists/rust")));
    assert_eq!(remote("alice+a+b@example.org"), Ok(found("alice", "a+b")));
    assert_eq!(remote("alice+@example.org"), Ok(found("alice", "INBOX")));
    assert_eq!(remote("alice+inbox@example.org"), Ok(found("alice", "INBOX")));
    assert_eq!(remote("\"alice+two words\"@example.org"), Ok(found("alice", "two words")));
    assert_eq!(remote("a+b@example.org"), Ok(found("alice", "INBOX")), "an exact address wins");
    assert_eq!(remote("a@example.org"), Err(NoRoute::UnknownRecipient));
    assert_eq!(remote("alice@x.example"), Err(NoRoute::UnknownRecipient));
    assert_eq!(remote("alice@elsewhere.example"), Err(NoRoute::ForeignDomain));
    assert_eq!(remote("\"alice@example.org\"@evil.example"), Err(NoRoute::ForeignDomain));
    assert_eq!(route(&routing, "alice@localhost", Peer::Loopback), Err(NoRoute::ForeignDomain));
}

#[test]
fn local_domains_are_for_this_machine_only() {
    let domains = ["Box.Lan".to_owned()];
    let routing = Routing::new(&[account("Alice", &["alice@example.org"])], Some(&domains)).unwrap();
    assert_eq!(route(&routing, "alice+x@box.lan", Peer::Loopback), Ok(found("Alice", "x")));
    let unconfigured = Ok(("cron".into(), "INBOX".into(), Content::default()));
    assert_eq!(route(&routing, "Cron@box.lan", Peer::Loopback), unconfigured);
    assert_eq!(route(&routing, "+x@box.lan", Peer::Loopback), Err(NoRoute::UnknownRecipient));
    assert_eq!(route(&routing, "cron@box.lan", Peer::Remote), Err(NoRoute::ForeignDomain));
}

#[test]
fn without_any_account_localhost_is_local() {
    let routing = Routing::new(&[], None).unwrap();
    let alice = Ok(("alice".into(), "INBOX".into(), Content::default()));
    assert_eq!(route(&routing, "alice@localhost", Peer::Loopback), alice);
    assert_eq!(route(&routing, "alice@[127.0.0.1]", Peer::Loopback), Err(NoRoute::ForeignDomain));
    assert_eq!(route(&routing, "alice@localhost", Peer::Remote), Err(NoRoute::ForeignDomain));
    let nowhere = Routing::new(&[], Some(&[])).unwrap();
    assert_eq!(route(&nowhere, "alice@localhost", Peer::Loopback), Err(NoRoute::ForeignDomain));
}

#[test]
fn postmaster_needs_no_domain() {
    let listed = Routing::new(&[account("alice", &["postmaster@example.org"])], None).unwrap();
    assert_eq!(route(&listed, "Postmaster", Peer::Remote), Ok(found("alice", "INBOX")));
    let alone = Routing::new(&[account("a", &["postmaster@x.example"]), account("b", &["postmaster"])], None).unwrap();
    assert_eq!(route(&alone, "postmaster", Peer::Remote), Ok(found("b", "INBOX")));
    let nobody = Routing::new(&[account("alice", &["alice@example.org"])], None).unwrap();
    assert_eq!(route(&nobody, "postmaster", Peer::Loopback), Err(NoRoute::UnknownRecipient));
    let local = Routing::new(&[], None).unwrap();
    assert!(route(&local, "postmaster", Peer::Loopback).is_ok());
    assert_eq!(route(&local, "postmaster", Peer::Remote), Err(NoRoute::UnknownRecipient));
}

#[test]
fn contradictions_are_errors_that_name_both() {
    let twice = [account("alice", &["a@b.example"]), account("bob", &["A@B.example"])];
    let err = Routing::new(&twice, None).unwrap_err().to_string();
    assert!(err.contains("alice") && err.contains("bob"), "{err}");
    assert!(Routing::new(&[account("alice", &["a@b.example", "A@b.example"])], None).is_ok());
    let wrong = Routing::new(&[account("alice", &["alice"])], None);
    assert!(matches!(wrong, Err(RoutingError::Address { .. })), "{wrong:?}");
    for domain in ["", "a b", "[127.0.0.1]", "a@b"] {
        let err = Routing::new(&[], Some(&[domain.into()])).unwrap_err();
        assert!(matches!(&err, RoutingError::Domain(wrong) if wrong == domain), "{err}");
    }
}

fn route_of(text: &str) -> RouteConfig {
    toml::from_str(text).unwrap()
}

fn with_routes(accounts: &[Account], routes: &[&str]) -> Result<Routing, RoutingError> {
    let routes: Vec<_> = routes.iter().map(|text| route_of(text)).collect();
    Routing::with_routes(accounts, &routes, None, &AddressSecrets::default())
}

/// `account/mailbox` and the topics; `-` for an unknown recipient, `!` for a foreign domain.
fn led(routing: &Routing, address: &str) -> String {
    match routing.route(&Path::parse(address).unwrap(), Peer::Remote) {
        Ok(to) => {
            let topics = to.topics.iter().map(|topic| format!(" {topic}"));
            format!("{}/{}{}", to.account, to.mailbox, topics.collect::<String>())
        }
        Err(NoRoute::UnknownRecipient) => "-".to_owned(),
        Err(NoRoute::ForeignDomain) => "!".to_owned(),
    }
}

#[test]
fn what_names_an_address_most_exactly_decides() {
    let accounts = [
        account("exact", &["alerts-web@example.org"]),
        account("plus", &["alerts@example.org"]),
        account("wild", &["alerts-*@example.org", "alerts+night-*@example.org"]),
        account("wilder", &["alerts-w*@example.org"]),
        account("all", &["@example.org", "*@Example.net"]),
    ];
    let routing = with_routes(
        &accounts,
        &[
            "regex = '.*-first@example\\.org'\naccount = 'exact'\nmailbox = 'first'",
            "regex = '.*-(first|second)@example\\.org'\naccount = 'exact'\nmailbox = '$1nd'",
        ],
    )
    .unwrap();
    for (address, to) in [
        ("Alerts-Web@Example.org", "exact/INBOX"),
        ("alerts-web+Lists@example.org", "exact/Lists"),
        ("alerts+x@example.org", "plus/x"),
        ("alerts-disk@example.org", "wild/INBOX"),
        ("alerts-disk+Lists/a@example.org", "wild/Lists/a"),
        ("alerts-web2@example.org", "wilder/INBOX"),
        ("x-first@example.org", "exact/first"),
        ("x-second@example.org", "exact/secondnd"),
        ("anybody@example.org", "all/INBOX"),
        ("anybody+Some+more@example.net", "all/Some+more"),
        ("x-first@example.net", "all/INBOX"),
        ("anybody@sub.example.org", "!"),
        ("alerts+night-1@example.org", "plus/night-1"),
    ] {
        assert_eq!(led(&routing, address), to, "{address}");
    }
}

#[test]
fn captures_make_mailboxes_and_topics() {
    let accounts = [account("ops", &["ops@example.org"])];
    let routing = with_routes(
        &accounts,
        &[
            "match = '*.alerts@example.org'\naccount = 'ops'\nmailbox = 'Alerts/$1'\n\
             topics = ['hosts/$1/$detail', 'alerts']",
            "match = '@hooks.example'\naccount = 'ops'\nmailbox = 'Hooks'\ntopics = ['hooks/$1']",
            "regex = '(?<what>[a-z]+)-(?<id>[0-9]+)@(jobs|tasks)\\.example'\naccount = 'ops'\nmailbox = '$id'\n\
             topics = ['$3/${what}']",
        ],
    )
    .unwrap();
    for (address, to) in [
        ("Web.alerts@example.org", "ops/Alerts/Web hosts/Web/ alerts"),
        ("web.alerts+a/b@example.org", "ops/Alerts/web hosts/web/a%2Fb alerts"),
        ("Stripe+x@hooks.example", "ops/Hooks hooks/Stripe"),
        ("Build-17@jobs.example", "ops/17 jobs/Build"),
        ("build-17x@jobs.example", "!"),
        ("build@example.org", "-"),
    ] {
        assert_eq!(led(&routing, address), to, "{address}");
    }
    let long = format!("{}@hooks.example", "ä".repeat(200));
    assert_eq!(led(&routing, &long), "-", "an address that makes no topic is nobody's");
}

#[test]
fn a_star_in_quotes_is_a_star() {
    let routing = Routing::new(&[account("star", &["\"a*b\"@example.org"])], None).unwrap();
    assert_eq!(led(&routing, "a*b@example.org"), "star/INBOX");
    assert_eq!(led(&routing, "axb@example.org"), "-");
}

const SECRET: &str = "S3cret-0123456789";

fn with_secret() -> Routing {
    let file = PathBuf::from("/alice");
    let alice = Account {
        address_secret_file: Some(file.clone()),
        ..account("alice", &["alice@example.org", "alice-*@example.org", "postmaster@example.org"])
    };
    let accounts = [alice, account("bob", &["bob@example.org", "alice.smith@example.org"])];
    let other = PathBuf::from("/route");
    let mut secrets = AddressSecrets::default();
    secrets.insert(&file, &SecretString::from(SECRET)).unwrap();
    secrets.insert(&other, &SecretString::from("another-0123456789")).unwrap();
    let routes = [
        route_of("regex = 'r-.*@example\\.org'\naccount = 'alice'"),
        route_of("match = 'hook@example.org'\naccount = 'bob'\nsecret_file = '/route'"),
    ];
    Routing::with_routes(&accounts, &routes, None, &secrets).unwrap()
}

#[test]
fn without_its_secret_an_address_is_unknown() {
    let routing = with_secret();
    for (address, to) in [
        (format!("alice+{SECRET}@example.org"), "alice/INBOX"),
        (format!("alice.{SECRET}@example.org"), "alice/INBOX"),
        (format!("ALICE+Lists+{}@example.org", SECRET.to_uppercase()), "alice/Lists"),
        (format!("alice-x+{SECRET}@example.org"), "alice/INBOX"),
        (format!("r-1.{SECRET}@example.org"), "alice/INBOX"),
        ("hook+another-0123456789@example.org".to_owned(), "bob/INBOX"),
        ("alice.smith@example.org".to_owned(), "bob/INBOX"),
        ("alice@example.org".to_owned(), "-"),
        ("alice+Lists@example.org".to_owned(), "-"),
        ("alice+s3cret-012345678@example.org".to_owned(), "-"),
        (format!("alice+{SECRET}+Lists@example.org"), "-"),
        ("alice+another-0123456789@example.org".to_owned(), "-"),
        (format!("hook+{SECRET}@example.org"), "-"),
        (format!("bob+{SECRET}@example.org"), "bob/S3cret-0123456789"),
        (format!("+{SECRET}@example.org"), "-"),
        ("r-1@example.org".to_owned(), "-"),
        ("postmaster".to_owned(), "-"),
    ] {
        assert_eq!(led(&routing, &address), to, "{address}");
    }
}

#[test]
fn a_recipient_does_not_show_its_secret() {
    let routing = with_secret();
    for (written, shown) in [
        (format!("alice+{SECRET}@example.org"), "alice@example.org"),
        (format!("Alice.Lists.{SECRET}@example.org"), "-"),
        (format!("alice+Lists.{SECRET}@example.org"), "alice+Lists@example.org"),
        (format!("\"alice+a b+{SECRET}\"@example.org"), "\"alice+a b\"@example.org"),
    ] {
        let path = Path::parse(&written).unwrap();
        let recipient = routing.route(&path, Peer::Remote).map(|to| crate::source::intake::Recipient::new(path, to));
        let text = recipient.map_or("-".to_owned(), |recipient| {
            assert!(!format!("{recipient:?}").to_lowercase().contains("s3cret"), "{recipient:?}");
            recipient.path.as_str().to_owned()
        });
        assert_eq!(text, shown);
    }
}

#[test]
fn wrong_routes_are_errors_that_say_where() {
    let alice = [account("alice", &["alice@example.org", "a-*@example.org", "@example.net"])];
    for (routes, words) in [
        (&["account = 'alice'"][..], ["number 1", "`match` or `regex`"]),
        (&["account = 'alice'\nmatch = 'a@b'\nregex = 'a@b'"], ["number 1", "`match` or `regex`"]),
        (&["account = 'bob'\nmatch = 'b@example.org'"], ["`bob`", "not there"]),
        (&["account = 'alice'\nmatch = 'b'"], ["number 1", "local@domain"]),
        (&["account = 'alice'\nmatch = 'b@*.org'"], ["number 1", "local@domain"]),
        (&["account = 'alice'\nmatch = 'Alice@example.org'"], ["account `alice`", "number 1"]),
        (&["account = 'alice'\nmatch = 'A-*@example.org'"], ["account `alice`", "number 1"]),
        (&["account = 'alice'\nmatch = '*@example.net'"], ["account `alice`", "number 1"]),
        (&["account = 'alice'\nregex = 'x@y'", "account = 'alice'\nregex = 'x@y'"], ["number 1", "number 2"]),
        (&["account = 'alice'\nregex = 'a)|(b'"], ["number 1", "unopened"]),
        (&["account = 'alice'\nregex = '(a{1000}){1000}'"], ["number 1", "memory"]),
        (&["account = 'alice'\nmatch = 'x@y'\nmailbox = '$1'"], ["`$1`", "nothing captures"]),
        (&["account = 'alice'\nmatch = 'x@y'\ntopics = ['mail/bob/INBOX']"], ["mail/bob/INBOX", "accounts"]),
        (&["account = 'alice'\nmatch = 'x@y'\nforward = { to = ['nobody'] }"], ["number 1", "`nobody`"]),
        (&["account = 'alice'\nmatch = 'x@y'\nsecret_file = '/x'"], ["/x", "not read"]),
    ] {
        let err = with_routes(&alice, routes).unwrap_err();
        let (key, text) = (err.key(), err.to_string());
        assert!(words.iter().all(|word| text.contains(word)), "{routes:?}: {text}");
        assert!(key.starts_with("smtp"), "{key}");
    }
}

/// A recipient costs no more where ten thousand accounts have addresses and patterns; the bound is far from tight, a
/// walk over all of them takes a hundred times as long.
#[test]
fn ten_thousand_accounts_are_looked_up_and_not_walked_over() {
    let accounts: Vec<Account> = (0..10_000)
        .map(|n| {
            let of = |form: &str| form.replace('N', &n.to_string());
            account(&of("userN"), &[&of("userN@example.org"), &of("userN-*@example.org"), &of("@dN.example")])
        })
        .collect();
    let routing = Routing::new(&accounts, None).unwrap();
    let begun = std::time::Instant::now();
    for n in 0..10_000 {
        for form in ["userN+x@example.org", "userN-y@example.org", "z@dN.example"] {
            assert!(led(&routing, &form.replace('N', &n.to_string())).starts_with(&format!("user{n}/")));
        }
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
}

proptest! {
    /// Whatever is asked for gets an answer, and no answer leads outside the accounts that there are.
    #[test]
    fn no_address_panics_or_leads_elsewhere(local in "(alice|bob|r-|hook)?[+.a-z0-9\\-äÄ]{0,12}", tail in "[+.]?(S3cret-0123456789)?") {
        let routing = with_secret();
        let path = Path::parse(&format!("{local}{tail}@example.org"));
        if let Some((to, path)) = path.and_then(|path| Some((routing.route(&path, Peer::Remote).ok()?, path))) {
            prop_assert!(["alice", "bob"].contains(&to.account.as_str()));
            let has_secret = path.as_str().contains(&format!("{SECRET}@"));
            prop_assert!(to.account.as_str() == "bob" || has_secret, "{}", path.as_str());
        }
    }
}

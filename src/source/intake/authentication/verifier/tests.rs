//! Verification without a network: what is known is put into the records, and the name server says nothing.

use std::net::UdpSocket;

use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::dmarc::Dmarc;
use mail_auth::hickory_resolver::proto::op::ResponseCode;
use mail_auth::spf::Spf;
use mail_auth::{DnsError, Txt};

use super::*;
use crate::source::intake::spool::Message;

/// RFC 8463 appendix A.3, with its keys.
const SIGNED: &str = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n d=football.example.com; \
    i=@football.example.com;\r\n q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n subject : date : message-id : \
    from : subject : date;\r\n bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n \
    b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r\n Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n\
    DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n d=football.example.com; i=@football.example.com;\r\n \
    q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n date : message-id : from : subject : date;\r\n \
    bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n \
    b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\r\n \
    DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\r\n \
    dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=\r\n\
    From: Joe SixPack <joe@football.example.com>\r\nTo: Suzie Q <suzie@shopping.example.net>\r\n\
    Subject: Is dinner ready?\r\nDate: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n\
    Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\r\nHi.\r\n\r\nWe lost the game.  Are you hungry \
    yet?\r\n\r\nJoe.\r\n";
const KEYS: [(&str, &str); 2] = [
    ("brisbane", "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="),
    (
        "test",
        "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16\
         JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/\
         K4w3QIDAQAB",
    ),
];
const JOE: Sender<'static> = Sender {
    address: Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1))),
    helo: "mx.example",
    mail_from: "joe@football.example.com",
};

/// With a name server that hears and says nothing.
struct Silent {
    verifier: Verifier,
    name_server: UdpSocket,
}

impl Silent {
    fn new() -> Self {
        Self::within(Duration::from_millis(600))
    }

    /// For messages that have so long.
    fn within(timeout: Duration) -> Self {
        let name_server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let config = MessageAuthenticationConfig {
            resolver: vec![NameServer(name_server.local_addr().unwrap())],
            timeout,
            ..MessageAuthenticationConfig::default()
        };
        Self { verifier: Verifier::new(&config).unwrap(), name_server }
    }

    /// That knows football.example.com, its keys, and its policy.
    fn knowing(spf: &str, dmarc: &str) -> Self {
        Self::new().which_knows(spf, dmarc)
    }

    fn which_knows(self, spf: &str, dmarc: &str) -> Self {
        let records = &self.verifier.records;
        for (selector, key) in KEYS {
            let key = Txt::DomainKey(DomainKey::parse(key.as_bytes()).unwrap().into());
            records.put_txt(&format!("{selector}._domainkey.football.example.com."), key);
        }
        records.put_txt("football.example.com.", Txt::Spf(Spf::parse(spf.as_bytes()).unwrap().into()));
        records.put_txt("_dmarc.football.example.com.", Txt::Dmarc(Dmarc::parse(dmarc.as_bytes()).unwrap().into()));
        for nothing in ["_dmarc.example.com.", "_dmarc.com.", "mx.example.", "_dmarc.example."] {
            self.put_nothing(nothing);
        }
        self
    }

    /// Says from now on that no name exists of those at which policies are.
    fn answer_dmarc_with_no_such_name(&self) {
        let socket = self.name_server.try_clone().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        std::thread::spawn(move || {
            let mut message = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut message) {
                // Behind the twelve octets of its head a question begins with the length of its first label.
                if message[12..].starts_with(b"\x06_dmarc") {
                    message[2] |= 0x80; // An answer (RFC 1035 §4.1.1),
                    message[3] = 0x83; // from who can ask others, that there is no such name.
                    // The question is repeated, and nothing behind it.
                    message[10..12].fill(0);
                    let end = 12 + message[12..len].iter().position(|&octet| octet == 0).unwrap() + 5;
                    socket.send_to(&message[..end], from).unwrap();
                }
            }
        });
    }

    fn put_nothing(&self, name: &str) {
        let nothing = Txt::Error(Error::Dns(DnsError::RecordNotFound(ResponseCode::NXDomain)));
        self.verifier.records.put_txt(name, nothing);
    }

    async fn verify(&self, message: &str, sender: Sender<'_>) -> Authentication {
        let message = Message::from(message.as_bytes().to_vec());
        verify(Some(&self.verifier), &Parsing::default(), message.whole().await.unwrap(), sender).await
    }
}

fn results(found: &Authentication) -> String {
    let dkim: Vec<_> = found.dkim.iter().map(|signature| signature.result.as_str()).collect();
    let or_nothing = |result: Option<AuthenticationResult>| result.map_or("-", AuthenticationResult::as_str);
    format!(
        "spf={} dkim={} dmarc={} arc={}",
        or_nothing(found.spf),
        dkim.join(","),
        or_nothing(found.dmarc),
        or_nothing(found.arc)
    )
}

#[tokio::test]
async fn a_message_of_its_domain_passes_everything() {
    let silent = Silent::knowing("v=spf1 ip4:192.0.2.1 -all", "v=DMARC1; p=reject");
    let found = silent.verify(SIGNED, JOE).await;
    assert_eq!(results(&found), "spf=pass dkim=pass,pass dmarc=pass arc=-");
    assert_eq!(found.source, AuthenticationSource::Own);
    assert_eq!(
        (found.spf_domain.as_deref(), found.dmarc_domain.as_deref()),
        (Some("football.example.com"), Some("football.example.com"))
    );
    assert_eq!(
        (found.dmarc_policy, found.dkim[0].domain.as_deref()),
        (Some(DmarcPolicy::Reject), Some("football.example.com"))
    );
    let mapped = Sender { address: Some("::ffff:192.0.2.1".parse().unwrap()), ..JOE };
    assert_eq!(results(&silent.verify(SIGNED, mapped).await), "spf=pass dkim=pass,pass dmarc=pass arc=-");
}

#[tokio::test]
async fn one_changed_letter_fails() {
    let silent = Silent::knowing("v=spf1 -all", "v=DMARC1; p=reject");
    for (from, to) in [("We lost", "We Lost"), ("Subject: Is", "Subject: As")] {
        let found = silent.verify(&SIGNED.replace(from, to), JOE).await;
        assert_eq!(results(&found), "spf=fail dkim=fail,fail dmarc=fail arc=-", "{to}");
    }
}

/// A message larger than what is hashed at once by the session's own thread.
#[tokio::test]
async fn a_large_message_is_hashed_elsewhere_and_all_of_it() {
    let silent = Silent::knowing("v=spf1 -all", "v=DMARC1; p=none");
    let padded = format!("{SIGNED}{}", "\r\n".repeat(256 * 1024));
    let found = silent.verify(&padded, JOE).await;
    assert_eq!(results(&found), "spf=fail dkim=pass,pass dmarc=pass arc=-", "empty lines at the end do not count");
    let found = silent.verify(&format!("{padded}x\r\n"), JOE).await;
    assert_eq!(results(&found), "spf=fail dkim=fail,fail dmarc=fail arc=-");
}

#[tokio::test]
async fn a_name_server_that_says_nothing_costs_the_time_and_no_more() {
    let silent = Silent::new();
    let begun = Instant::now();
    let found = silent.verify(SIGNED, JOE).await;
    assert_eq!(results(&found), "spf=temperror dkim=temperror,temperror dmarc=temperror arc=-");
    assert_eq!(found.dkim[0].domain.as_deref(), Some("football.example.com"));
    assert!(begun.elapsed() < silent.verifier.timeout * 3, "{:?}", begun.elapsed());
    let nobody =
        verify(None, &Parsing::default(), Message::from(SIGNED.as_bytes().to_vec()).whole().await.unwrap(), JOE).await;
    assert_eq!(results(&nobody), "spf=temperror dkim= dmarc=temperror arc=-");
}

/// Signatures of servers that hear and say nothing take all the time there is for signatures; the author's policy is
/// one question more, of a server that answers.
#[tokio::test]
async fn dmarc_is_found_out_however_many_slow_signatures_there_are() {
    // Long enough for a busy machine to answer in the last quarter.
    let silent = Silent::within(Duration::from_secs(6)).which_knows("v=spf1 -all", "v=DMARC1; p=reject");
    for asked in ["_dmarc.example.com.", "_dmarc.com."] {
        silent.verifier.records.forget_txt(asked);
    }
    silent.answer_dmarc_with_no_such_name();
    let signature = |number: u32| {
        format!(
            "DKIM-Signature: v=1; a=rsa-sha256; d=slow{number}.example; s=s; h=from;\r\n \
             bh=eDCyaw7m810RhFf0TmGWGkTYiT/1GwL4/PCOGIr3ew4=; b=AAAA\r\n"
        )
    };
    let signed: String = (0..6).map(signature).collect();
    let found = silent.verify(&format!("{signed}From: joe@football.example.com\r\n\r\ntext\r\n"), JOE).await;
    assert_eq!(results(&found), format!("spf=fail dkim={} dmarc=fail arc=-", ["temperror"; 6].join(",")));
    assert_eq!(found.dmarc_policy, Some(DmarcPolicy::Reject));
}

#[tokio::test]
async fn what_is_known_counts_where_the_rest_is_not() {
    // The keys are known, the policy is not.
    let silent = Silent::knowing("v=spf1 include:elsewhere.example -all", "v=DMARC1; p=none");
    let found = silent.verify(SIGNED, JOE).await;
    assert_eq!(results(&found), "spf=temperror dkim=pass,pass dmarc=pass arc=-");
}

#[tokio::test]
async fn without_a_reverse_path_what_the_client_calls_itself_counts() {
    let silent = Silent::knowing("v=spf1 ip4:192.0.2.1 -all", "v=DMARC1; p=none; aspf=s");
    let unsigned = "From: joe@football.example.com\r\n\r\ntext\r\n";
    let bounce = Sender { mail_from: "", ..JOE };
    let found = silent.verify(unsigned, bounce).await;
    assert_eq!(
        (results(&found).as_str(), found.spf_domain.as_deref()),
        ("spf=none dkim= dmarc=fail arc=-", Some("mx.example"))
    );
    let found = silent.verify(unsigned, Sender { helo: "football.example.com", ..bounce }).await;
    assert_eq!(results(&found), "spf=pass dkim= dmarc=pass arc=-");
    let found = silent.verify(unsigned, Sender { helo: "[192.0.2.1]", ..bounce }).await;
    assert_eq!(results(&found), "spf=none dkim= dmarc=fail arc=-");
}

/// Whose address says nothing, the relay in front of us: its SPF would be another's.
#[tokio::test]
async fn a_relay_has_no_spf() {
    let silent = Silent::knowing("v=spf1 -all", "v=DMARC1; p=reject");
    let relay = Sender { address: None, ..JOE };
    let found = silent.verify(SIGNED, relay).await;
    assert_eq!((results(&found).as_str(), found.spf_domain), ("spf=- dkim=pass,pass dmarc=pass arc=-", None));
}

#[tokio::test]
async fn a_domain_that_is_not_the_authors_does_not_align() {
    let silent = Silent::knowing("v=spf1 ip4:192.0.2.1 -all", "v=DMARC1; p=reject");
    silent.put_nothing("_dmarc.other.example.");
    let other =
        SIGNED.replace("From: Joe SixPack <joe@football", "From: Eve <eve@other.example>\r\nX-Was: <joe@football");
    let found = silent.verify(&other, JOE).await;
    assert_eq!(results(&found), "spf=pass dkim=fail,fail dmarc=none arc=-", "other.example has no policy");
    let policy = Txt::Dmarc(Dmarc::parse(b"v=DMARC1; p=quarantine").unwrap().into());
    silent.verifier.records.put_txt("_dmarc.other.example.", policy);
    let found = silent.verify(&other, JOE).await;
    assert_eq!(
        (results(&found).as_str(), found.dmarc_policy),
        ("spf=pass dkim=fail,fail dmarc=fail arc=-", Some(DmarcPolicy::Quarantine))
    );
}

#[tokio::test]
async fn a_header_without_measure_leaves_only_spf() {
    let silent = Silent::knowing("v=spf1 ip4:192.0.2.1 -all", "v=DMARC1; p=reject");
    let endless = format!("{}{SIGNED}", "X: y\r\n".repeat(2000));
    assert_eq!(results(&silent.verify(&endless, JOE).await), "spf=pass dkim= dmarc=permerror arc=-");
    assert_eq!(results(&silent.verify("\r\ntext\r\n", JOE).await), "spf=pass dkim= dmarc=permerror arc=-");
}

#[tokio::test]
async fn a_broken_chain_of_seals_fails() {
    let silent = Silent::knowing("v=spf1 -all", "v=DMARC1; p=none");
    let sealed = format!("ARC-Seal: i=1; a=rsa-sha256; cv=none; d=football.example.com; s=test; b=AAAA\r\n{SIGNED}");
    let found = silent.verify(&sealed, JOE).await;
    assert_eq!(results(&found), "spf=fail dkim=pass,pass dmarc=pass arc=-", "a seal without a signature is no chain");
    let set = "ARC-Authentication-Results: i=1; mx.example; none\r\nARC-Message-Signature: i=1; a=rsa-sha256; \
               c=relaxed/relaxed; d=football.example.com; s=test; h=from; bh=AAAA; b=AAAA\r\n";
    let found = silent.verify(&format!("{set}{sealed}"), JOE).await;
    assert_eq!(results(&found), "spf=fail dkim=pass,pass dmarc=pass arc=fail");
}

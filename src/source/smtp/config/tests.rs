//! What `[smtp]` may be, and what is said of one that cannot be.

use super::*;

#[test]
fn an_empty_section_is_the_default_and_survives_toml() {
    assert_eq!(toml::from_str::<SmtpConfig>("").unwrap(), SmtpConfig::default());
    let default = SmtpConfig::default();
    assert_eq!(default.message_bytes_max.get(), 26_214_400);
    assert_eq!(default.memory_bytes_max.get(), 268_435_456);
    assert_eq!(default.data_bytes_per_second_min.get(), 500);
    assert_eq!(default.check(), Ok(()));
    assert!(toml::from_str::<SmtpConfig>("lisen = 1").is_err());
}

#[test]
fn listeners_are_addresses_or_sockets() {
    let text = "listen = '0.0.0.0:25'\n[[listener]]\nrole = 'lmtp'\nlisten = '/run/lmtp'\nmode = '0666'\n\
                [[listener]]\nrole = 'smtp'\nlisten = '[::1]:2526'";
    let config = toml::from_str::<SmtpConfig>(text).unwrap();
    let listeners: Vec<String> = config
        .listeners()
        .map(|listener| format!("{:?} {} {}", listener.role, listener.listen, String::from(listener.mode)))
        .collect();
    assert_eq!(listeners, ["Smtp 0.0.0.0:25 0660", "Lmtp /run/lmtp 0666", "Smtp [::1]:2526 0660"]);
    for wrong in ["listen = 'lmtp.sock'\nrole = 'lmtp'", "listen = '/x'\nrole = 'lmtp'\nmode = '9'", "listen = '/x'"] {
        let err = toml::from_str::<SmtpConfig>(&format!("[[listener]]\n{wrong}")).unwrap_err().to_string();
        assert!(["Unix socket", "octal", "role"].iter().any(|word| err.contains(word)), "{err}");
    }
    let only_lmtp = "enabled = false\n[[listener]]\nrole = 'lmtp'\nlisten = '/x'";
    let only_lmtp = toml::from_str::<SmtpConfig>(only_lmtp).unwrap();
    assert_eq!(only_lmtp.listeners().map(|listener| listener.role).collect::<Vec<_>>(), [Role::Lmtp]);
    let on_25 = "[[listener]]\nrole = 'lmtp'\nlisten = '0.0.0.0:25'";
    assert_eq!(toml::from_str::<SmtpConfig>(on_25).unwrap().check(), Err(SmtpConfigError::LmtpPort));
}

#[test]
fn a_listener_has_its_own_values_and_those_of_all_where_it_gives_none() {
    let text = "tls_certificate_file = 'c'\ntls_key_file = 'k'\nrecipients_max = 7\nreply_timeout = '9s'\n\
                [[listener]]\nrole = 'lmtp'\nlisten = '/run/lmtp'\nrecipients_max = 8\nsessions_max = 3\n\
                [[listener]]\nrole = 'smtp'\nlisten = '[::1]:465'\ntls = 'implicit'\ntls_certificate_file = 'd'\n\
                command_timeout = '1s'\nreply_timeout = '2s'";
    let config = toml::from_str::<SmtpConfig>(text).unwrap();
    assert_eq!(config.check(), Ok(()));
    let all: Vec<_> = config.listeners().collect();
    let tls = |files: (&str, &str)| Some(TlsFiles { certificate: files.0.into(), key: files.1.into() });
    let [main, socket, implicit] = &all[..] else { panic!("{all:?}") };
    assert_eq!((main.tls, &main.tls_files), (TlsMode::Starttls, &tls(("c", "k"))));
    assert_eq!((socket.tls, &socket.tls_files), (TlsMode::None, &None), "nobody can listen in on a Unix socket");
    assert_eq!((implicit.tls, &implicit.tls_files), (TlsMode::Implicit, &tls(("d", "d"))));
    assert_eq!([7, 8, 7], [main, socket, implicit].map(|listener| listener.limits.recipients_max));
    assert_eq!([None, Some(3), None], [main, socket, implicit].map(|listener| listener.limits.sessions_max));
    let timeouts = |of: &ListenerSettings| (of.limits.command_timeout.as_secs(), of.limits.reply_timeout.as_secs());
    assert_eq!([main, socket, implicit].map(timeouts), [(300, 9), (300, 9), (1, 2)]);
}

#[test]
fn contradictions_are_named() {
    let check = |text: &str| toml::from_str::<SmtpConfig>(text).unwrap().check();
    let own = "[[listener]]\nrole = 'smtp'\nlisten = '127.0.0.1:26'\n";
    let at = |port: u16| SocketAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    for (text, expected) in [
        ("tls = 'implicit'".to_owned(), SmtpConfigError::NoCertificate(at(2525))),
        (format!("{own}tls = 'starttls'"), SmtpConfigError::NoCertificate(at(26))),
        ("tls_key_file = 'k'".to_owned(), SmtpConfigError::LonelyKey),
        (format!("{own}tls_key_file = 'k'"), SmtpConfigError::LonelyKey),
        (
            "[[listener]]\nrole = 'submission'\nlisten = '0.0.0.0:587'".to_owned(),
            SmtpConfigError::SubmissionInClear("0.0.0.0:587".to_owned().try_into().unwrap()),
        ),
        ("[[user]]\nname = 'a'".to_owned(), SmtpConfigError::Password("a".to_owned())),
        ("[[user]]\nname = ''\npassword_env = 'P'".to_owned(), SmtpConfigError::UserName(String::new())),
        ("[[user]]\nname = 'a'\npassword_env = 'P'\n".repeat(2), SmtpConfigError::UserName("a".to_owned())),
        (format!("{own}reply_timeout = '0s'"), SmtpConfigError::Timeout("reply_timeout")),
    ] {
        assert_eq!(check(&text), Err(expected), "{text}");
    }
    assert!(check(&format!("{own}message_bytes_max = 300_000_000")).is_err());
    let memory = toml::from_str::<SmtpConfig>("memory_bytes_max = 1000").unwrap().check().unwrap_err().to_string();
    assert!(memory.contains("message_bytes_max") && memory.contains("memory_bytes_max"), "{memory}");
    let zero = toml::from_str::<SmtpConfig>("command_timeout = '0s'").unwrap();
    assert_eq!(zero.check(), Err(SmtpConfigError::Timeout("command_timeout")));
    for name in ["command_timeout", "reply_timeout", "append_timeout"] {
        let endless = toml::from_str::<SmtpConfig>(&format!("{name} = '500000000000years'")).unwrap();
        assert_eq!(endless.check(), Err(SmtpConfigError::Timeout(name)));
    }
    for name in ["auth_failure_delay", "auth_lockout"] {
        let endless = toml::from_str::<SmtpConfig>(&format!("{name} = '500000000000years'")).unwrap();
        assert_eq!(endless.check(), Err(SmtpConfigError::Pause(name)));
    }
    for hostname in ["", "a b", "a\r\n250 b", "-"] {
        let config = SmtpConfig { hostname: Some(hostname.into()), ..SmtpConfig::default() };
        assert_eq!(config.check(), Err(SmtpConfigError::Hostname(hostname.into())));
        assert_eq!(config.announced_name(), "localhost");
    }
    let named = SmtpConfig { hostname: Some("[192.0.2.1]".into()), ..SmtpConfig::default() };
    assert_eq!((named.check(), named.announced_name()), (Ok(()), "[192.0.2.1]".into()));
    assert!(is_hostname(&SmtpConfig::default().announced_name()));
}

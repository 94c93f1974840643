//! What the program keeps of what hostile servers say: no more than its caps, whatever is announced and sent.
//!
//! Apart from the other misbehaviour because it is the real program's memory that is measured, by itself: the kernel's
//! own record of the most that was ever resident (proc(5), `VmHWM`), which no sampling can miss.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::fmt::Write;

use support::eventually;
use support::imap_model::{BASIC, RICH, Store};
use support::misbehaving_imap::{Fault, MisbehavingImap, Trouble};
use support::server::{Options, Server};

/// For a dozen hostile servers at the same time, of which each may fill one response: 2 MiB, in a buffer that doubles.
/// Each of the floods alone is ten times as much.
const GROWTH_KIB_MAX: u64 = 48 * 1024;
const MIB: usize = 1024 * 1024;
const FLOOD: usize = 640 * MIB;

const SETTINGS: &str = "[imap]\nretry_first = \"100ms\"\nretry_max = \"200ms\"\nconnects_per_second = 1000\n\
                        connects_per_host_per_second = 1000\nconnects_per_host_max = 100\nlogin_timeout = \"2s\"\n\
                        open_timeout = \"2s\"\nanswer_timeout = \"2s\"\ndone_timeout = \"2s\"\nidle_renew = \"10s\"\n";

fn huge() -> Vec<Trouble> {
    let text = |text: String| Trouble::Text(text.into_bytes());
    vec![
        Trouble::Flood("* 1 FETCH (UID 4 BODY[1] {1073741824}\r\n".into(), FLOOD),
        Trouble::Flood("* 1 FETCH (UID 4 BODY[1] {4294967295}\r\n".into(), FLOOD),
        Trouble::Flood("* 1 FETCH (UID 4 BODY[1] {99999999999999999999}\r\n".into(), FLOOD),
        Trouble::Flood("* 1 FETCH (UID 4 BODY[1] ~{1073741824}\r\n".into(), FLOOD),
        Trouble::Flood("* OK [ALERT] a line without an end ".into(), FLOOD),
        Trouble::Flood("* SEARCH ".into(), FLOOD),
        Trouble::Flood(
            format!("* 1 FETCH (UID 4 BODY[1] {{1048576}}\r\n{} BODY[2] {{1048576}}\r\n", "x".repeat(MIB)),
            FLOOD,
        ),
        text(format!("* OK {}\r\n", "x".repeat(MIB)).repeat(100)),
        text(format!("* LIST ({}) \"/\" x\r\n", "\\Flag ".repeat(150_000))),
        text(format!("* 1 FETCH (UID 4 BODYSTRUCTURE {})\r\n", "(".repeat(1_000_000))),
        text(format!("* VANISHED (EARLIER) {}1\r\n", "1,3,".repeat(200_000))),
        text("* 1 FETCH (UID 1 FLAGS ())\r\n".repeat(40_000)),
    ]
}

struct Watched {
    program: Server,
    mail: Vec<MisbehavingImap>,
}

impl Watched {
    async fn start(offers: &'static str, faults: Vec<Fault>) -> Self {
        let (mut mail, mut config) = (Vec::new(), SETTINGS.to_owned());
        for (number, fault) in faults.into_iter().enumerate() {
            let server = MisbehavingImap::start(&Store::with_old(3), offers, fault).await;
            let port = server.account(&["INBOX"]).imap.unwrap().port();
            write!(
                config,
                "[[account]]\nname = \"a{number}\"\n[account.imap]\nhost = \"127.0.0.1\"\nport = {port}\n\
                 security = \"none\"\nusername = \"alice\"\npassword_env = \"MAIL_PASSWORD\"\n"
            )
            .unwrap();
            mail.push(server);
        }
        let environment = vec![("MAIL_PASSWORD".to_owned(), "secret".to_owned())];
        let program = Server::with(Options { config, environment, ..Options::default() }).await;
        Self { program, mail }
    }

    /// Delivers until each fault has struck, and then one message more, which must arrive.
    async fn live(&self) {
        let number = std::cell::Cell::new(0);
        eventually("each fault to strike", async || {
            number.set(number.get() + 1);
            let waiting = self.mail.iter().filter(|server| server.is_faulty() && server.struck() == 0);
            let mut all = true;
            for server in waiting {
                all = false;
                if server.idling() > 0 {
                    server.store.deliver("INBOX", &format!("new {} more", number.get()));
                }
            }
            all.then_some(())
        })
        .await;
        for server in &self.mail {
            eventually("each mailbox to be watched", async || (server.idling() > 0).then_some(())).await;
            server.store.deliver("INBOX", "new at last");
        }
        eventually("the last message of each account", async || {
            let events = self.program.whole_log().await;
            let last = events.iter().filter(|event| event["message"]["subject"] == "new at last");
            (last.count() == self.mail.len()).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_huge_is_not_kept() {
    for offers in [BASIC, RICH] {
        let troubles = huge();
        let by_the_book = Watched::start(offers, vec![Fault::None; troubles.len()]).await;
        by_the_book.live().await;
        let least = by_the_book.program.memory("VmHWM") / 1024;
        drop(by_the_book);
        // The greeting, the login, a mailbox that is opened, and what is said of new mail.
        for number in [0, 1, 7, 30] {
            let faults = troubles.iter().map(|trouble| Fault::Response(number, trouble.clone())).collect();
            let watched = Watched::start(offers, faults).await;
            watched.live().await;
            let grown = (watched.program.memory("VmHWM") / 1024).saturating_sub(least);
            println!("before response {number}: {grown} KiB above {least}");
            assert!(grown < GROWTH_KIB_MAX, "{offers}, before response {number}: {grown} KiB above {least}");
        }
    }
}

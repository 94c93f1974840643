//! What a refusal leads to: a server that says no, to the login, to a mailbox or for ever.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::time::Duration;

use futures::StreamExt;
use postrider::event::EventKind;
use postrider::registry::AccountState;
use support::eventually;
use support::imap_model::{BASIC, QRESYNC, RICH};
use support::misbehaving_imap::{Fault, MisbehavingImap, is, tag};
use support::observed::{Observed, impatient, old_mail};
use support::watching::Watching;
use tempfile::tempdir;
use tokio::time::timeout;

/// For one server with one fault: many times what it takes.
const LIMIT: Duration = Duration::from_secs(45);
/// Servers at the same time: most of the time they wait for a deadline.
const AT_ONCE: usize = 16;

/// What a refusal leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reaction {
    /// Credentials are wrong: not before a minute.
    Waits,
    /// A person has to act: not at all.
    Parks,
    /// No place for a connection, or too much was asked: not before so many seconds.
    Pauses(u32),
    /// For the moment: at once.
    Retries,
}

async fn reacts(command: &'static str, answer: &'static str, expected: Reaction) {
    let (store, folder) = (old_mail(), tempdir().unwrap());
    let times = if expected == Reaction::Retries { 1 } else { usize::MAX };
    let fault = Fault::rewrite(times, move |line, _| {
        is(line, command).then(|| {
            let tag = if answer.starts_with("BYE") { "*" } else { tag(line) };
            vec![format!("{tag} {answer}\r\n")]
        })
    });
    let server = MisbehavingImap::start(&store, BASIC, fault).await;
    let watching = Watching::start(folder.path(), &[server.account(&["INBOX"])], impatient());
    let refused = eventually(answer, async || {
        let status = watching.status();
        let is_there = match expected {
            Reaction::Waits | Reaction::Parks => status.state == AccountState::AuthenticationError,
            Reaction::Pauses(_) => status.retry_at.is_some(),
            Reaction::Retries => status.state == AccountState::Connected,
        };
        is_there.then_some(status)
    })
    .await;
    let pause = refused.retry_at.map(|at| at.as_second() - jiff::Timestamp::now().as_second());
    assert!(server.struck() > 0, "{command} {answer}");
    match expected {
        Reaction::Waits => assert!(pause.is_some_and(|pause| (50..70).contains(&pause)), "{answer}: {pause:?}"),
        Reaction::Parks => assert_eq!(pause, None, "{answer}"),
        Reaction::Pauses(least) => {
            assert!(pause.is_some_and(|pause| pause >= i64::from(least)), "{command} {answer}: {pause:?}");
            assert_ne!(refused.state, AccountState::AuthenticationError, "{answer}");
        }
        Reaction::Retries => {}
    }
    if expected != Reaction::Retries {
        // Whoever would come back comes back within milliseconds.
        assert_eq!(server.connections(), 1, "{command} {answer}");
        let words = answer.trim_start_matches("NO ").trim_start_matches("BAD ").rsplit(']').next().unwrap().trim();
        assert!(refused.reason.as_deref().is_some_and(|reason| reason.contains(words)), "{answer}: {refused:?}");
    }
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_has_its_reaction() {
    use Reaction::{Parks, Pauses, Retries, Waits};
    let table = [
        ("LOGIN", "NO [AUTHENTICATIONFAILED] wrong password", Waits),
        ("LOGIN", "NO [EXPIRED] password expired", Waits),
        ("LOGIN", "NO LOGIN failed", Waits),
        ("LOGIN", "NO [AUTHORIZATIONFAILED] not you", Parks),
        ("LOGIN", "NO [CONTACTADMIN] call us", Parks),
        ("LOGIN", "NO [PRIVACYREQUIRED] not like this", Parks),
        ("LOGIN", "NO [WEBALERT https://example.org/unlock] Web login required", Parks),
        ("LOGIN", "NO [ALERT] Application-specific password required", Parks),
        ("LOGIN", "NO Web login required", Parks),
        ("LOGIN", "NO [UNAVAILABLE] Maximum number of connections from user+IP exceeded", Pauses(290)),
        ("LOGIN", "NO [LIMIT] too many sessions", Pauses(290)),
        ("LOGIN", "NO [ALERT] Too many simultaneous connections. (Failure)", Pauses(290)),
        ("LOGIN", "NO [LIMIT] Rate limit hit.", Pauses(590)),
        ("LOGIN", "NO [THROTTLED] slowly", Pauses(590)),
        ("LOGIN", "NO Unsafe Login. Please contact kefu@188.com for help", Parks),
        ("LOGIN", "NO 451 you have exceeded the per-10 minute limit for logins of 500", Pauses(590)),
        ("EXAMINE", "BAD Request is throttled. Suggested Backoff Time: 20000 milliseconds", Pauses(15)),
        ("EXAMINE", "BAD User is authenticated but not connected.", Pauses(290)),
        ("LOGIN", "NO [UNAVAILABLE] Temporary authentication failure.", Retries),
        ("LOGIN", "NO [SERVERBUG] internal error", Retries),
        ("LOGIN", "BAD what?", Retries),
        ("EXAMINE", "NO [INUSE] locked", Retries),
        ("EXAMINE", "NO [CORRUPTION] being repaired", Retries),
        ("IDLE", "BYE Session expired, please login again.", Retries),
        ("NOOP", "BYE Session invalidated - AccessTokenExpired", Retries),
    ];
    futures::stream::iter(table)
        .map(|(command, answer, reaction)| reacts(command, answer, reaction))
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<()>>()
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_refused_logins_are_enough() {
    let (store, folder) = (old_mail(), tempdir().unwrap());
    let fault = Fault::rewrite(usize::MAX, |line, _| {
        is(line, "LOGIN").then(|| vec![format!("{} NO [AUTHENTICATIONFAILED] wrong password\r\n", tag(line))])
    });
    let server = MisbehavingImap::start(&store, BASIC, fault).await;
    let account = server.account(&["INBOX"]);
    let mut watching = Watching::start(folder.path(), std::slice::from_ref(&account), impatient());
    watching.until(EventKind::AccountAuthFailed).await;
    for refused in 1..=5 {
        let waits = eventually("the next refusal", async || {
            let status = watching.status();
            let is_refused = status.state == AccountState::AuthenticationError && server.connections() == refused;
            // Asked of the one that holds it for true that nothing more happens by itself.
            is_refused.then_some(status.retry_at)
        })
        .await;
        if refused < 5 {
            eventually("another attempt", async || {
                watching.handle.retry(&account.name);
                (server.connections() > refused).then_some(())
            })
            .await;
        } else {
            assert_eq!(waits, None, "it is parked");
        }
    }
    server.lift();
    eventually("an attempt that a person asked for", async || {
        watching.handle.retry(&account.name);
        (watching.status().state == AccountState::Connected).then_some(())
    })
    .await;
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_is_refused_leaves_the_others_watched() {
    for offers in [BASIC, RICH] {
        for refusal in ["NO [NONEXISTENT] no such mailbox", "NO [UNAVAILABLE] not now", "NO [NOPERM] not yours"] {
            let (store, folder) = (old_mail(), tempdir().unwrap());
            let fault = Fault::rewrite(usize::MAX, move |line, _| {
                let opens = is(line, "EXAMINE LISTS") || is(line, "EXAMINE \"LISTS\"");
                opens.then(|| vec![format!("{} {refusal}\r\n", tag(line))])
            });
            let server = MisbehavingImap::start(&store, offers, fault).await;
            let mailboxes = ["INBOX", "Lists"];
            let mut watching = Watching::start(folder.path(), &[server.account(&mailboxes)], impatient());
            eventually("the refusal", async || (server.struck() > 0).then_some(())).await;
            // What came before INBOX was seen for the first time is old.
            eventually("INBOX to be watched", async || (server.idling() > 0).then_some(())).await;
            store.deliver("INBOX", "new one");
            assert_eq!(watching.until(EventKind::MessageNew).await.draft.uid, Some(4), "{offers} {refusal}");
            watching.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_of_a_mailbox_that_was_never_opened_is_announced_when_it_can_be() {
    for offers in [BASIC, QRESYNC, RICH] {
        let (store, folder) = (old_mail(), tempdir().unwrap());
        store.deliver("Lists", "old in a list");
        let fault = Fault::rewrite(usize::MAX, |line, _| {
            is(line, "EXAMINE \"LISTS\"").then(|| vec![format!("{} NO [UNAVAILABLE] not now\r\n", tag(line))])
        });
        let server = MisbehavingImap::start(&store, offers, fault).await;
        let watching = Watching::start(folder.path(), &[server.account(&["INBOX", "Lists"])], impatient());
        let mut observed = Observed::new(&store, watching);
        let life = async {
            // By now each of its two mailboxes was seen, by whichever connection.
            eventually("two refusals", async || (server.struck() > 1 && server.idling() > 0).then_some(())).await;
            store.deliver("Lists", "new in a list");
            store.deliver("INBOX", "new one");
            observed.announcement("new one").await;
            server.lift();
            // After three refusals it is left alone until it changes.
            store.deliver("Lists", "new in a list, too");
            observed.announcement("new in a list").await;
            observed.announcement("new in a list, too").await;
        };
        let lived = timeout(LIMIT, life).await;
        assert!(lived.is_ok(), "{offers}: announced {:?}", observed.announced);
        assert_eq!(observed.verdict(), None, "{offers}");
        observed.watching.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_is_refused_three_times_is_left_alone_until_it_changes() {
    let (store, folder) = (old_mail(), tempdir().unwrap());
    let fault = Fault::rewrite(usize::MAX, |line, _| {
        is(line, "EXAMINE \"LISTS\"").then(|| vec![format!("{} NO [CORRUPTION] broken\r\n", tag(line))])
    });
    let server = MisbehavingImap::start(&store, RICH, fault).await;
    let mut watching = Watching::start(folder.path(), &[server.account(&["INBOX", "Lists"])], impatient());
    eventually("three refusals", async || (server.struck() >= 3 && server.idling() > 0).then_some(())).await;
    for number in 1..=10 {
        // Each is a round in which the mailbox would have its turn.
        store.deliver("INBOX", &format!("new {number}"));
        watching.until(EventKind::MessageNew).await;
    }
    assert_eq!(server.struck(), 3);
    store.deliver("Lists", "new in a list");
    eventually("a fourth attempt", async || (server.struck() == 4).then_some(())).await;
    assert_eq!(server.connections(), 1, "the connection is none the worse for it");
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_mail_of_a_mailbox_that_is_made_while_it_is_waited_for_is_new() {
    for offers in [BASIC, QRESYNC, RICH] {
        let (store, folder) = (old_mail(), tempdir().unwrap());
        // Says what it would say, and is counted.
        let asked = Fault::rewrite(usize::MAX, |line, said| is(line, "EXAMINE \"LATER\"").then(|| said.to_vec()));
        let server = MisbehavingImap::start(&store, offers, asked).await;
        let mut watching = Watching::start(folder.path(), &[server.account(&["INBOX", "Later"])], impatient());
        eventually("it to be waited for", async || (server.struck() > 0 && server.idling() > 0).then_some(())).await;
        // As a filter does: with the first message for it.
        store.create("Later", "");
        store.deliver("Later", "new of a list");
        assert_eq!(watching.until(EventKind::MessageNew).await.draft.mailbox.as_deref(), Some("Later"), "{offers}");
        watching.stop().await;
    }
}

//! What the worst messages cost: `cargo bench --bench mime`.
//!
//! Each message is made for one weakness that parsers of mail have: parts without number, multiparts within each other,
//! encoded words, comments, tags that never end. Each is summarised in a process of its own, which says how long that took
//! on one core and by how much its peak of memory grew past the message itself (`VmHWM` of Linux). The promise is below a
//! second and below 100 MB for each. Last comes what is usual: mails a second, on one core.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a benchmark")]

use std::process::Command;
use std::time::{Duration, Instant};

use postrider::event::Content;
use postrider::message::summarise;

const MIB: usize = 1024 * 1024;
/// More than a receiver takes by default.
const BYTES: usize = 30 * MIB;
const TIME_MAX: Duration = Duration::from_secs(1);
const MEMORY_MAX_KIB: u64 = 100 * 1024;

type Make = fn() -> String;

/// `unit`, as often as it fits.
fn filled(head: &str, unit: &str, tail: &str) -> String {
    format!("{head}{}{tail}", unit.repeat(BYTES / unit.len()))
}

const MIXED: &str = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";

fn level(number: usize) -> String {
    format!("Content-Type: multipart/mixed; boundary=n{number}\r\n\r\n--n{number}\r\n")
}

const MESSAGES: &[(&str, Make)] = &[
    ("100,000 parts, 30 MB", || {
        let part = format!("--b\r\nContent-Type: text/plain; name=a.txt\r\n\r\n{}\r\n", "x".repeat(260));
        format!("{MIXED}{}--b--\r\n", part.repeat(100_000))
    }),
    ("10,000 multiparts within each other", || (0..10_000).map(level).collect::<String>() + "\r\n\r\nx"),
    ("multiparts within each other, 30 MB", || (0..BYTES / 70).map(level).collect()),
    ("50 open multiparts, lines that are almost boundaries, 30 MB", || {
        filled(&(0..50).map(level).collect::<String>(), "--n7x\n", "")
    }),
    ("boundaries alone, 30 MB", || filled(MIXED, "--b\n", "")),
    ("100,000 encoded words", || format!("Subject: {}\r\n\r\nx", "=?utf-8?Q?=C3=BC?=\r\n ".repeat(100_000))),
    ("encoded words, 30 MB", || filled("Subject: ", "=?utf-8?B?w7w=?= ", "\r\n\r\nx")),
    ("encoded words that never end, 30 MB", || filled("Subject: ", "=?utf-8?Q?", "\r\n\r\nx")),
    ("a field of 30 MB", || filled("Subject: ", "x", "\r\n\r\nx")),
    ("fields, 30 MB", || filled("", "X: y\r\n", "\r\nx")),
    ("lines that are no fields, 30 MB", || filled("", "x\r\n", "\r\nx")),
    ("comments within comments, 30 MB", || filled("From: ", "(", "\r\n\r\nx")),
    ("recipients, 30 MB", || filled("To: ", "A <a@example.org>, ", "\r\n\r\nx")),
    ("brackets that never close, 30 MB", || filled("To: ", "<", "\r\n\r\nx")),
    ("references, 30 MB", || filled("References: ", "<a@example.org>\r\n ", "\r\n\r\nx")),
    ("100,000 continuations of a file name", || {
        let pieces: String = (0..100_000).map(|index| format!("; filename*{index}*=%41")).collect();
        format!("Content-Type: application/pdf\r\nContent-Disposition: attachment{pieces}\r\n\r\nx")
    }),
    ("1,000 parts with 100 continuations each", || {
        let pieces: String = (0..100).map(|index| format!("; name*{index}*=%41")).collect();
        format!("{MIXED}{}", format!("--b\r\nContent-Type: application/pdf{pieces}\r\n\r\nx\r\n").repeat(1_000))
    }),
    ("elements within each other, 30 MB", || filled("Content-Type: text/html\r\n\r\nx", "<div><ul><li>", "")),
    ("hidden elements, 30 MB", || filled("Content-Type: text/html\r\n\r\nx", "<b style=display:none>", "")),
    ("links within each other, 30 MB", || filled("Content-Type: text/html\r\n\r\nx", "<a href=x>", "")),
    ("tags that never end, 30 MB", || filled("Content-Type: text/html\r\n\r\nx", "<a href=\"", "")),
    ("comments that never end, 30 MB", || filled("Content-Type: text/html\r\n\r\nx", "<!--", "")),
    ("character references, 30 MB", || filled("Content-Type: text/html\r\n\r\nx", "&#x", "")),
    ("equals signs in quoted-printable, 30 MB", || {
        filled("Content-Transfer-Encoding: quoted-printable\r\n\r\n", "=", "")
    }),
    ("base64, 30 MB", || filled("Content-Transfer-Encoding: base64\r\n\r\n", "QUFB", "")),
    ("quotes in flowed text, 30 MB", || filled("Content-Type: text/plain; format=flowed\r\n\r\n", "> \r\n", "")),
    ("line ends, 30 MB", || filled("Subject: x\r\n\r\n", "\n", "")),
    ("CR alone, 30 MB", || filled("Subject: x\r\r", "x\r", "")),
    ("recipients of a delivery report, 30 MB", || {
        filled("Content-Type: message/delivery-status\r\n\r\n", "Final-Recipient: x; a@x\r\n\r\n", "")
    }),
    ("a calendar, 30 MB", || filled("Content-Type: text/calendar\r\n\r\n", "BEGIN:VEVENT\r\n", "")),
];

fn main() {
    match std::env::args().skip(1).find_map(|argument| argument.parse().ok()) {
        Some(index) => one(index),
        None => all(),
    }
}

/// Summarises one message, and says what it cost: microseconds and KiB.
fn one(index: usize) {
    let raw = MESSAGES[index].1().into_bytes();
    let before = peak_kib();
    let begun = Instant::now();
    let summary = summarise(&raw, Content::Text);
    let elapsed = begun.elapsed();
    assert_eq!(summary.size, Some(raw.len() as u64));
    println!("{} {}", elapsed.as_micros(), peak_kib().saturating_sub(before));
}

fn all() {
    let mut broken = Vec::new();
    for (index, (name, _)) in MESSAGES.iter().enumerate() {
        let output = Command::new(std::env::current_exe().unwrap()).arg(index.to_string()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut numbers = text.split_whitespace().map(|number| number.parse::<u64>().unwrap());
        let (time, memory) = (Duration::from_micros(numbers.next().unwrap()), numbers.next().unwrap());
        println!("{name}: {:.1} ms, {:.1} MB", time.as_secs_f64() * 1e3, memory as f64 / 1024.0);
        if time >= TIME_MAX || memory >= MEMORY_MAX_KIB {
            broken.push(*name);
        }
    }
    for (name, text, count) in [("an alert of 4 KB", 4, 50_000_u32), ("a mail of 100 KB", 100, 5_000)] {
        let text = "The disk of host 7 is 93 % full. Grüße\r\n".repeat(text * 1024 / 42);
        let header = "From: =?utf-8?Q?Gr=C3=BC=C3=9Fe?= <a@example.org>\r\nTo: b@example.net\r\nSubject: disk full\r\n\
            Date: Fri, 20 Nov 2026 12:59:58 +0100\r\nMessage-ID: <1@example.org>\r\n\
            Content-Type: text/plain; charset=utf-8\r\n\r\n";
        let raw = format!("{header}{text}").into_bytes();
        let begun = Instant::now();
        for _ in 0..count {
            std::hint::black_box(summarise(std::hint::black_box(&raw), Content::Preview));
        }
        println!("{name}: {:.0} a second", f64::from(count) / begun.elapsed().as_secs_f64());
    }
    assert!(broken.is_empty(), "these broke the promise: {broken:?}");
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.split_whitespace().next().unwrap().parse().unwrap()
}

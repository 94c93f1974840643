//! How long after the dot its reply comes: a client of plain sockets and a thread for each, in a process of its own, so
//! that it can have a core of its own.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

/// The argument that makes this program the client.
pub const CLIENT: &str = "--dots";

/// Milliseconds from the dot to its reply.
#[derive(Debug, Clone, Copy)]
pub struct Dots {
    pub p50: f64,
    pub p99: f64,
    pub messages: usize,
}

/// Runs the client against a server.
pub fn measure(address: &str, sessions: u32, length: usize, time: Duration) -> Dots {
    let program = std::env::current_exe().expect("this program");
    let numbers = [sessions.to_string(), length.to_string(), time.as_secs().to_string()];
    let output = Command::new("taskset")
        .args(["-c", super::SENDERS_CORE])
        .arg(program)
        .args([CLIENT, address])
        .args(numbers)
        .output()
        .expect("taskset");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("numbers");
    let mut ms: Vec<f64> = said.lines().map(|line| line.parse().expect("a number")).collect();
    ms.sort_by(f64::total_cmp);
    let at = |percent: usize| ms[ms.len() * percent / 100];
    Dots { p50: at(50), p99: at(99), messages: ms.len() }
}

/// The client itself: address, sessions, octets of a message, and seconds; prints a line for each message.
pub fn client(arguments: &[String]) {
    let [address, numbers @ ..] = arguments else { panic!("an address") };
    let numbers: Vec<u64> = numbers.iter().map(|number| number.parse().expect("a number")).collect();
    let until = Instant::now() + Duration::from_secs(numbers[2]);
    let length = usize::try_from(numbers[1]).expect("a length");
    let threads: Vec<_> = (0..numbers[0])
        .map(|session| {
            let address = address.clone();
            std::thread::spawn(move || send(&address, session, length, until))
        })
        .collect();
    let mut out = std::io::stdout().lock();
    for thread in threads {
        for time in thread.join().expect("no panic") {
            writeln!(out, "{:.3}", time.as_secs_f64() * 1000.0).expect("its reader");
        }
    }
}

fn send(address: &str, session: u64, length: usize, until: Instant) -> Vec<Duration> {
    let stream = TcpStream::connect(address).expect("the server");
    stream.set_nodelay(true).expect("an option");
    let mut stream = BufReader::new(stream);
    expect(&mut stream, "220");
    say(&mut stream, b"EHLO bench.example.org\r\n");
    expect(&mut stream, "250");
    let mut times = Vec::new();
    while Instant::now() < until {
        for (command, code) in
            [("MAIL FROM:<a@example.org>", "250"), ("RCPT TO:<user@localhost>", "250"), ("DATA", "354")]
        {
            say(&mut stream, format!("{command}\r\n").as_bytes());
            expect(&mut stream, code);
        }
        let mut text = format!(
            "From: a@example.org\r\nTo: user@localhost\r\nSubject: bench\r\nMessage-ID: <{}.{session}.{}@bench>\r\n\r\n",
            std::process::id(),
            times.len()
        );
        while text.len() + 80 < length {
            text.push_str(&"x".repeat(78));
            text.push_str("\r\n");
        }
        text.push_str(".\r\n");
        let begun = Instant::now();
        say(&mut stream, text.as_bytes());
        expect(&mut stream, "250");
        times.push(begun.elapsed());
    }
    say(&mut stream, b"QUIT\r\n");
    times
}

fn say(stream: &mut BufReader<TcpStream>, text: &[u8]) {
    stream.get_mut().write_all(text).expect("it is open");
}

fn expect(stream: &mut BufReader<TcpStream>, code: &str) {
    let mut line = String::new();
    while line.as_bytes().get(3).is_none_or(|&octet| octet == b'-') {
        line.clear();
        assert!(stream.read_line(&mut line).expect("it is open") > 0, "hung up before {code}");
    }
    assert!(line.starts_with(code), "{line}");
}

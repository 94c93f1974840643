//! `postrider watch`: subscribes over NDJSON and prints what comes, for people or for programs.
//!
//! A lost connection is made again and resumes behind the last event that was printed, so that what comes out is
//! what is in the log: nothing twice, nothing left out.

mod lines;
mod record;
mod show;

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use jiff::tz::TimeZone;
use postrider::auth::MercureClaims;
use postrider::event::{EventId, EventIdError, TopicMatcher};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, Response, StatusCode};
use tokio::time::timeout;
use tracing::warn;

use super::client::{Server, ServerArgs};
use super::{CliError, Global, logging};
use lines::Lines;
use record::Record;

pub use show::printable;

const NDJSON: &str = "application/x-ndjson";
const LAST_EVENT_ID: &str = "last-event-id";
/// A stream has heartbeats; one that is silent for longer than several of them is dead.
const SILENCE_MAX: Duration = Duration::from_mins(2);
/// The first pause before a new connection; it doubles up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// As shells report a command that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

/// Arguments of `postrider watch`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "EXAMPLES\n  \
    postrider watch                            everything, as it happens\n  \
    postrider watch 'mail/alice/{mailbox}'     alice's mailboxes\n  \
    postrider watch --last-event-id earliest   all that is kept, then what happens\n  \
    postrider watch | jq -r .message.subject   JSON lines for programs\n  \
    postrider watch --url https://push.example.org --token-file ~/.push-token\n\n\
    A lost connection is made again and resumes where it was. Ctrl-C ends with exit code 130.")]
pub struct WatchArgs {
    /// Topics, URI templates (RFC 6570) or * for all [default: *]
    #[arg(value_name = "TOPIC")]
    topics: Vec<TopicMatcher>,
    /// Begins behind this event, or with the `earliest` that is kept [default: what happens from now on]
    #[arg(long, value_name = "ID|earliest")]
    last_event_id: Option<Start>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Earliest,
    After(EventId),
}

impl FromStr for Start {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, EventIdError> {
        if text == "earliest" { Ok(Self::Earliest) } else { text.parse().map(Self::After) }
    }
}

/// Prints events until it is interrupted.
pub fn run(global: &Global, args: &WatchArgs) -> Result<ExitCode, CliError> {
    logging::start_quiet(global.verbose);
    let topics = if args.topics.is_empty() { vec![TopicMatcher::all()] } else { args.topics.clone() };
    let claims = MercureClaims { subscribe: topics.clone(), ..MercureClaims::default() };
    let server = Server::new(global, &args.server, claims)?;
    let output = Output::of_stdout();
    let mut watch = Watch { server, topics, start: args.last_event_id, output, retry: Retry::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)?;
    runtime.block_on(async {
        tokio::select! {
            ended = watch.follow() => ended.map(|()| ExitCode::SUCCESS),
            Ok(()) = tokio::signal::ctrl_c() => Ok(ExitCode::from(EXIT_INTERRUPTED)),
        }
    })
}

struct Watch {
    server: Server,
    topics: Vec<TopicMatcher>,
    start: Option<Start>,
    output: Output,
    retry: Retry,
}

impl Watch {
    /// Follows the events over as many connections as it takes. Ends well when nobody reads the output any more.
    async fn follow(&mut self) -> Result<(), CliError> {
        let mut stream = Some(self.connect().await?);
        loop {
            if let Some(response) = stream.take()
                && self.read(response).await?.is_break()
            {
                return Ok(());
            }
            let pause = self.retry.next(rand::random());
            warn!(retry_in = ?pause, "not connected, will try again");
            tokio::time::sleep(pause).await;
            stream = match self.connect().await {
                Ok(response) => Some(response),
                Err(err) if may_pass(&err) => None,
                Err(err) => return Err(err),
            };
        }
    }

    async fn connect(&mut self) -> Result<Response, CliError> {
        let query: Vec<_> = self.topics.iter().map(|topic| ("topic", topic.as_str())).collect();
        let mut request = self.server.events(Method::GET).query(&query).header(ACCEPT, NDJSON);
        request = match self.start {
            None => request,
            Some(Start::Earliest) => request.header(LAST_EVENT_ID, "earliest"),
            Some(Start::After(id)) => request.header(LAST_EVENT_ID, id.to_string()),
        };
        let response = self.server.send(request).await?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        if !header(CONTENT_TYPE.as_str()).is_some_and(|kind| kind.starts_with(NDJSON)) {
            return Err(CliError::Answer(self.server.to_string()));
        }
        if self.start.is_none() {
            // The place where the stream began, `earliest` in an empty log: with it, even a connection that breaks
            // before the first event loses nothing.
            self.start = header(LAST_EVENT_ID).and_then(|id| id.parse().ok());
        }
        Ok(response)
    }

    /// Reads one connection to its end. Breaks off when the output is closed.
    async fn read(&mut self, mut response: Response) -> Result<ControlFlow<()>, CliError> {
        let mut lines = Lines::default();
        while let Ok(Ok(Some(chunk))) = timeout(SILENCE_MAX, response.chunk()).await {
            for line in lines.push(&chunk) {
                if self.take(&line)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn take(&mut self, line: &[u8]) -> Result<ControlFlow<()>, CliError> {
        match Record::parse(line) {
            Record::Event(id, event) => {
                if let Err(err) = self.output.write(line, &event) {
                    let is_closed = err.kind() == io::ErrorKind::BrokenPipe;
                    return if is_closed { Ok(ControlFlow::Break(())) } else { Err(CliError::Output(err)) };
                }
                // Only now: what was not printed is asked for again.
                self.start = Some(Start::After(id));
                self.retry = Retry::default();
            }
            Record::Hello(id) => {
                self.start = self.start.or(id.map(Start::After));
                self.retry = Retry::default();
            }
            Record::Bye(retry) => self.retry.hint = retry,
            Record::Nothing => {}
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Whether the same request may work later.
fn may_pass(err: &CliError) -> bool {
    match err {
        CliError::Unreachable(..) => true,
        CliError::Refused { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
        _ => false,
    }
}

/// How long to wait before the next connection.
#[derive(Debug, Default)]
struct Retry {
    failures: u32,
    /// What the server asked for when it said goodbye.
    hint: Option<Duration>,
}

impl Retry {
    /// The next pause; `random` spreads clients that were cut off together.
    fn next(&mut self, random: u32) -> Duration {
        let doubled = RETRY_FIRST.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        let base = self.hint.take().map_or(doubled, |hint| hint.min(RETRY_MAX));
        base.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
    }
}

/// Where events are printed.
struct Output {
    stdout: io::Stdout,
    /// For people: how lines look. Otherwise JSON.
    style: Option<(show::Palette, TimeZone)>,
}

impl Output {
    fn of_stdout() -> Self {
        let stdout = io::stdout();
        let palette = if logging::colours_wanted() { show::Palette::COLOURS } else { show::Palette::PLAIN };
        let style = stdout.is_terminal().then(|| (palette, TimeZone::system()));
        Self { stdout, style }
    }

    fn write(&self, line: &[u8], event: &serde_json::Value) -> io::Result<()> {
        let mut stdout = self.stdout.lock();
        match &self.style {
            // As the server wrote it: programs read this, and JSON escapes what below U+0020 would harm a terminal.
            None => stdout.write_all(line)?,
            Some((palette, zone)) => stdout.write_all(show::line(event, palette, zone).as_bytes())?,
        }
        stdout.write_all(b"\n")?;
        stdout.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_stay_bounded_and_follow_the_server() {
        let mut retry = Retry::default();
        let longest: Vec<_> = (0..9).map(|_| retry.next(u32::MAX).as_millis()).collect();
        assert_eq!(longest, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        assert_eq!(Retry::default().next(0), Duration::from_millis(250));
        let mut told = Retry { hint: Some(Duration::from_secs(3)), failures: 0 };
        assert_eq!((told.next(u32::MAX), told.next(u32::MAX)), (Duration::from_secs(3), Duration::from_secs(1)));
        let mut forever = Retry { hint: Some(Duration::MAX), failures: u32::MAX };
        assert_eq!((forever.next(u32::MAX), forever.next(u32::MAX)), (RETRY_MAX, RETRY_MAX));
    }
}

//! `postrider demo`: the whole way of a mail to look at, on this machine only.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, Mailbox, MessageBuilder, MultiPart, SinglePart};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use postrider::config::Config;
use postrider::http::HttpConfig;
use postrider::server::{Server, StartError};
use postrider::source::smtp::SmtpConfig;
use tokio::time::sleep;

use super::signals::Signals;
use super::{CliError, Global, logging};

/// Time between the mails, so that one can see them come.
const PAUSE: Duration = Duration::from_secs(2);

/// Arguments of `postrider demo`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "EXAMPLES\n  \
    postrider demo\n  \
    postrider demo --http 127.0.0.1:9000\n\n\
    Everything is thrown away at the end, and nothing is opened to other machines. Ctrl-C ends it.")]
pub struct DemoArgs {
    /// Where HTTP is served; on this machine only [default: 127.0.0.1:8025, or any free port]
    #[arg(long, value_name = "ADDR:PORT", value_parser = loopback)]
    pub http: Option<SocketAddr>,
    /// Where mail is received; on this machine only [default: 127.0.0.1:2525, or any free port]
    #[arg(long, value_name = "ADDR:PORT", value_parser = loopback)]
    pub smtp: Option<SocketAddr>,
}

fn loopback(text: &str) -> Result<SocketAddr, &'static str> {
    let address: SocketAddr = text.parse().map_err(|_| "expected an address and a port, as 127.0.0.1:8025")?;
    if address.ip().is_loopback() { Ok(address) } else { Err("the demo opens addresses of this machine only") }
}

/// Runs the demo.
pub fn run(global: &Global, args: &DemoArgs) -> Result<ExitCode, CliError> {
    logging::start_quiet(global.verbose);
    super::runtime()?.block_on(async {
        let signals = Signals::listen()?;
        let folder = tempfile::tempdir().map_err(|err| CliError::Demo(err.to_string()))?;
        let server = open(args, folder.path()).await?;
        let smtp = server.smtp_address().unwrap_or(SmtpConfig::default().listen);
        say(&format!(
            "A demo of postrider: mail arrives at {smtp} and is pushed to the page.\n\nOpen\n  {}\n\n\
             or, in another terminal,\n  POSTRIDER_DATA_DIR={} postrider watch --url {}\n\n",
            server.sign_in_link(),
            folder.path().display(),
            server.page_url(),
        ))?;
        let serving = signals.run(server, || None);
        let sending = async {
            if let Err(err) = send_all(smtp).await {
                tracing::error!(error = format!("{:#}", anyhow::Error::from(err)), "no more mail");
            }
            std::future::pending().await
        };
        let code = tokio::select! {
            code = serving => code,
            code = sending => code,
        };
        folder.close().map_err(|err| CliError::Demo(err.to_string()))?;
        Ok(code)
    })
}

/// Opens the server with nothing configured; a port that is taken by chance does not matter, one that was asked for
/// does.
async fn open(args: &DemoArgs, folder: &std::path::Path) -> Result<Server, StartError> {
    let mut config = Config::default();
    config.http.listen = args.http.unwrap_or(HttpConfig::LISTEN);
    config.smtp.listen = args.smtp.unwrap_or(config.smtp.listen);
    loop {
        let opened = Server::open(config.clone(), folder).await;
        match &opened {
            Err(StartError::Listen { flag: "http", address, .. }) if args.http.is_none() && address.port() != 0 => {
                config.http.listen.set_port(0);
            }
            Err(StartError::Listen { flag: "smtp", address, .. }) if args.smtp.is_none() && address.port() != 0 => {
                config.smtp.listen.set_port(0);
            }
            _ => return opened,
        }
    }
}

fn say(text: &str) -> Result<(), CliError> {
    super::print(text.as_bytes()).map(drop)
}

async fn send_all(smtp: SocketAddr) -> Result<(), CliError> {
    let mailer =
        AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(smtp.ip().to_string()).port(smtp.port()).build();
    let broken = |err: lettre::error::Error| CliError::Demo(err.to_string());
    for (what, mail) in mails().map_err(broken)? {
        sleep(PAUSE).await;
        mailer.send(mail).await.map_err(CliError::DemoMail)?;
        say(&format!("sent: {what}\n"))?;
    }
    say("\nThat was all. Send more, or end with Ctrl-C:\n")?;
    say(&format!("  curl -s smtp://{smtp} --mail-from you@example.org --mail-rcpt ada@localhost -T mail.txt\n"))
}

/// A handful of mails as people get them.
fn mails() -> Result<Vec<(&'static str, Message)>, lettre::error::Error> {
    let html = "<p>Hello Ada,</p><p>shall we have lunch on <b>Friday</b>? The usual place has a new menu.</p>";
    let lunch = from("Charles Babbage <charles@example.org>", "ada@localhost", "Lunch on Friday?").multipart(
        MultiPart::alternative_plain_html(
            "Hello Ada,\n\nshall we have lunch on Friday? The usual place has a new menu.\n\nCharles".to_owned(),
            html.to_owned(),
        ),
    )?;
    let pdf = Attachment::new("Rechnung 2026-118.pdf".to_owned())
        .body(b"%PDF-1.4\n% not much of an invoice\n".to_vec(), content_type("application/pdf"));
    let invoice =
        from("Stadtwerke Grünau <service@stadtwerke.example>", "ada@localhost", "Ihre Rechnung für November ⚡")
            .multipart(
                MultiPart::mixed()
                    .singlepart(SinglePart::plain(
                        "Guten Tag,\n\nanbei finden Sie Ihre Rechnung über 48,20 €.\n".to_owned(),
                    ))
                    .singlepart(pdf),
            )?;
    let list = from("Grace Hopper <grace@example.org>", "ada+lists@localhost", "[compilers] Nanoseconds, a proposal")
        .raw_header(HeaderValue::new(
            HeaderName::new_from_ascii_str("List-Id"),
            "Compilers <compilers.example.org>".to_owned(),
        ))
        .body("I have cut 30 cm of wire for everybody, so that we know what we are talking about.\n".to_owned())?;
    let alert = from("backup@nas.local", "ops@localhost", "Backup failed: disk full")
        .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Importance"), "high".to_owned()))
        .body("Volume /srv/backup has 0 bytes left.\n".to_owned())?;
    Ok(vec![
        ("Charles asks for lunch (text and HTML)", lunch),
        ("an invoice with a PDF", invoice),
        ("a mailing list, into a mailbox of its own", list),
        ("an alert of high priority, to another account", alert),
    ])
}

fn from(sender: &str, to: &str, subject: &str) -> MessageBuilder {
    // Constants of this file; an address that is none would be left out, and building the message would say so.
    let builder = Message::builder().message_id(None).subject(subject);
    let builder = sender.parse::<Mailbox>().map_or(builder.clone(), |sender| builder.clone().from(sender));
    to.parse::<Mailbox>().map_or(builder.clone(), |to| builder.clone().to(to))
}

fn content_type(text: &str) -> ContentType {
    ContentType::parse(text).unwrap_or(ContentType::TEXT_PLAIN)
}

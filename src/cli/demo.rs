//! `postrider demo`: the whole way of a mail to look at, on this machine only.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;

use super::{CliError, Global, logging};

/// Arguments of `postrider demo`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "EXAMPLES\n  \
    postrider demo\n  \
    postrider demo --http 127.0.0.1:9000\n\n\
    Everything is thrown away at the end, and nothing is opened to other machines. Ctrl-C ends it.")]
pub struct DemoArgs {
    /// Where HTTP is served; on this machine only
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8025", value_parser = loopback)]
    pub http: SocketAddr,
    /// Where mail is received; on this machine only
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:2525", value_parser = loopback)]
    pub smtp: SocketAddr,
}

fn loopback(text: &str) -> Result<SocketAddr, &'static str> {
    let address: SocketAddr = text.parse().map_err(|_| "expected an address and a port, as 127.0.0.1:8025")?;
    if address.ip().is_loopback() { Ok(address) } else { Err("the demo opens addresses of this machine only") }
}

/// Runs the demo.
pub fn run(global: &Global, _args: &DemoArgs) -> Result<ExitCode, CliError> {
    logging::start_quiet(global.verbose);
    Err(CliError::Unwired("demo"))
}

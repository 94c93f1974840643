//! What the process is told by signals: SIGTERM and Ctrl-C stop it, SIGHUP lets it read its configuration again.

use std::pin::pin;
use std::process::ExitCode;

use postrider::config::Config;
use postrider::server::Server;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::CliError;

/// Exit code of a program that was interrupted: 128 and the number of SIGINT.
pub const INTERRUPTED: u8 = 130;

/// The signals that the process listens to.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens from now on.
    pub fn listen() -> Result<Self, CliError> {
        let watch = |kind| signal(kind).map_err(CliError::Signals);
        Ok(Self {
            terminate: watch(SignalKind::terminate())?,
            interrupt: watch(SignalKind::interrupt())?,
            hangup: watch(SignalKind::hangup())?,
        })
    }

    /// Runs the server until a signal stops it; a second one does not wait for the grace period. `load` reads the
    /// configuration again.
    pub async fn run(mut self, server: Server, load: impl Fn() -> Option<Config>) -> ExitCode {
        let stop = CancellationToken::new();
        let (reloads, receiver) = watch::channel(None);
        let mut running = pin!(server.run(receiver, stop.clone()));
        let code = loop {
            tokio::select! {
                // Nobody asked for it: whoever restarts what fails must see a failure.
                () = running.as_mut() => return ExitCode::FAILURE,
                _ = self.terminate.recv() => break ExitCode::SUCCESS,
                _ = self.interrupt.recv() => break ExitCode::from(INTERRUPTED),
                _ = self.hangup.recv() => {
                    if let Some(config) = load() {
                        // One that was not taken yet is out of date.
                        reloads.send_replace(Some(config));
                    }
                }
            }
        };
        tracing::info!("stopping; once more to stop at once");
        stop.cancel();
        tokio::select! {
            () = running => {}
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        code
    }
}

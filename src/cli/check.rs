//! `postrider check`: tries every configured part and says what it found.

use std::process::ExitCode;

use clap::Args;

use super::{CliError, Global, logging, print};

/// Arguments of `postrider check`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "EXAMPLES\n  \
    postrider check\n  \
    postrider check --config ./postrider.toml\n\n\
    Ends with 0 when everything works, 78 when the configuration is wrong, 69 when a server does not answer.")]
pub struct CheckArgs {}

/// Checks the configuration.
pub fn run(global: &Global, _args: &CheckArgs) -> Result<ExitCode, CliError> {
    logging::start_quiet(global.verbose);
    let loaded = global.load()?;
    let data_dir = loaded.config.data_dir()?;
    let file = loaded.file.as_ref().map_or("none, all defaults".to_owned(), |file| file.display().to_string());
    print(
        format!(
            "configuration  fine ({file})\ndata folder    {}\naccounts       {}\n",
            data_dir.display(),
            loaded.config.account.len()
        )
        .as_bytes(),
    )
}

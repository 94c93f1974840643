//! The `postrider` program: see `postrider --help`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::main() {
        Ok(code) => code,
        Err(err) => {
            let code = err.exit_code();
            eprintln!("postrider: {:#}", anyhow::Error::from(err));
            code
        }
    }
}

//! The `postrider` program: see `postrider --help`.

mod cli;

use std::process::ExitCode;

/// What the start and each login take for a moment, the system's allocator keeps; with ten thousand mailboxes that is
/// half of the process. This one gives it back after seconds.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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

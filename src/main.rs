//! The `counterseal` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    counterseal::cli::run()
}

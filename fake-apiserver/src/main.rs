//! The `fake-apiserver` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    fake_apiserver::cli::main()
}

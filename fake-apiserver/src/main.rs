//! The `fake-apiserver` program.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Objects are trees of many small texts and maps: their making and dropping is a good part of each request. Without
/// huge pages (`no_thp`): an idle server would keep megabytes that it never used.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    fake_apiserver::cli::main()
}

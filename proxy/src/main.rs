//! The `ringway` program: parses the command line and hands over.

use std::process::ExitCode;

use ringway::sys::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    ringway::cli::main()
}

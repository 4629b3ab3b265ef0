//! The kubectl-lite program.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl_lite::main(std::env::args_os().skip(1).collect())
}

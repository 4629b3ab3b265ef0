//! The launcher's program: see the library.

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    coracle_launcher::cli::main(&arguments)
}

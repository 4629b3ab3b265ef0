//! Logs, on standard error.

use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, fmt};

#[derive(Args, Debug)]
pub struct Options {
    /// text or json
    #[arg(long, global = true, default_value = "text", value_name = "FORMAT")]
    log_format: Format,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Options {
    /// For components: what happens.
    pub fn start(&self) {
        self.subscribe(match self.verbose {
            0 => "info",
            1 => "debug,h2=info,hyper=info,rustls=info,tower=info,netlink_proto=info",
            _ => "trace",
        });
    }

    /// For commands that talk to a person: only what went wrong.
    pub fn start_quiet(&self) {
        self.subscribe(match self.verbose {
            0 => "error",
            1 => "info",
            _ => "debug",
        });
    }

    /// `RUST_LOG` decides where it is set.
    fn subscribe(&self, directives: &str) {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(directives));
        let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true);
        // A logger that is there already stays.
        let _ = match self.log_format {
            Format::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
            Format::Json => builder.json().try_init(),
        };
    }
}

//! Logs, on standard error or in a file that does not grow without bound.

use std::{
    fs::{self, File},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, fmt};

/// A log file that has grown past this is put aside as FILE.1, in place of the one before.
const LARGEST: u64 = 16 << 20;

#[derive(Args, Debug)]
pub struct Options {
    /// text or json
    #[arg(long, global = true, default_value = "text", value_name = "FORMAT")]
    log_format: Format,
    /// Log to a file instead of standard error; past 16 MiB it becomes FILE.1
    #[arg(long, global = true, value_name = "FILE")]
    log_file: Option<PathBuf>,
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
    ///
    /// # Errors
    /// When the log file cannot be opened.
    pub fn start(&self) -> Result<()> {
        self.subscribe(match self.verbose {
            0 => "info",
            1 => "debug,h2=info,hyper=info,rustls=info,tower=info,netlink_proto=info",
            _ => "trace",
        })
    }

    /// For commands that talk to a person: only what went wrong.
    ///
    /// # Errors
    /// When the log file cannot be opened.
    pub fn start_quiet(&self) -> Result<()> {
        self.subscribe(match self.verbose {
            0 => "error",
            1 => "info",
            _ => "debug",
        })
    }

    /// `RUST_LOG` decides where it is set.
    fn subscribe(&self, directives: &str) -> Result<()> {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(directives));
        let (ansi, output) = match &self.log_file {
            Some(path) => (false, Output::File(LogFile::open(path, LARGEST)?)),
            None => (io::stderr().is_terminal(), Output::Stderr(io::stderr())),
        };
        let builder = fmt().with_env_filter(filter).with_writer(Mutex::new(output)).with_target(true);
        // A logger that is there already stays.
        let _ = match self.log_format {
            Format::Text => builder.with_ansi(ansi).try_init(),
            Format::Json => builder.json().try_init(),
        };
        Ok(())
    }
}

enum Output {
    Stderr(io::Stderr),
    File(LogFile),
}

impl Write for Output {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stderr(stderr) => stderr.write(line),
            Self::File(file) => file.write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log file, which is this process's standard error too: what panics and what programs started from here say is in it.
struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
    largest: u64,
}

impl LogFile {
    fn open(path: &Path, largest: u64) -> Result<Self> {
        let open = || -> io::Result<Self> {
            let file = File::options().create(true).append(true).open(path)?;
            nix::unistd::dup2_stderr(&file)?;
            let length = file.metadata()?.len();
            Ok(Self { path: path.to_owned(), file, length, largest })
        };
        open().with_context(|| format!("log to {}", path.display()))
    }

    /// Puts the file aside and goes on in a new one.
    fn rotate(&mut self) -> io::Result<()> {
        let mut aside = self.path.clone().into_os_string();
        aside.push(".1");
        fs::rename(&self.path, aside)?;
        let file = File::options().create(true).append(true).open(&self.path)?;
        nix::unistd::dup2_stderr(&file)?;
        (self.file, self.length) = (file, 0);
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.length >= self.largest && self.rotate().is_err() {
            // A directory that is gone or full: nothing more can be said, and it must not keep the process from working.
            self.length = 0;
        }
        let written = self.file.write(line)?;
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_is_put_aside_when_it_is_large() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        // The test's own standard error must stay what it is.
        let file = File::options().create(true).append(true).open(&path).unwrap();
        let kept = nix::unistd::dup(io::stderr()).unwrap();
        let mut log = LogFile { path: path.clone(), file, length: 0, largest: 10 };
        for line in ["first line\n", "second line\n", "third line\n"] {
            assert_eq!(log.write(line.as_bytes()).unwrap(), line.len());
        }
        nix::unistd::dup2_stderr(&kept).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "third line\n");
        assert_eq!(fs::read_to_string(dir.path().join("log.1")).unwrap(), "second line\n");
    }
}

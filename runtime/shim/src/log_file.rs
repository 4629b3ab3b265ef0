//! Log files in the CRI format: `TIME STREAM P|F TEXT`, a line of output each; `P` marks a part of a longer line
//! (Kubernetes, "CRI container log format").

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
};

use coracle_launcher::log::civil;

/// Longest text of one line; longer output is cut into parts (containerd's max_container_log_line_size).
const MAX_LINE: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// An open log file with what of each stream has not ended in a newline yet.
pub struct LogFile {
    path: String,
    file: File,
    held: [Vec<u8>; 2],
}

fn open(path: &str) -> io::Result<File> {
    // O_NOFOLLOW: the directory is the kubelet's, but what lies there may have been put by a pod's volume.
    OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(libc::O_NOFOLLOW).open(path)
}

impl LogFile {
    pub fn create(path: &str) -> io::Result<LogFile> {
        Ok(LogFile { path: path.to_owned(), file: open(path)?, held: [Vec::new(), Vec::new()] })
    }

    /// Goes on in a new file of the same name: the old one was moved away.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        Ok(())
    }

    /// Takes output as it comes. A disk that is full loses lines, never stops a container.
    pub fn write(&mut self, stream: Stream, mut data: &[u8], now: u64) {
        let mut out = Vec::with_capacity(data.len() + 64);
        let held = &mut self.held[stream as usize];
        while !data.is_empty() {
            let newline = data.iter().position(|&byte| byte == b'\n');
            let room = MAX_LINE - held.len();
            match newline {
                Some(end) if end <= room => {
                    line(&mut out, stream, b'F', held, &data[..end], now);
                    held.clear();
                    data = &data[end + 1..];
                }
                _ if data.len() < room => {
                    held.extend_from_slice(data);
                    data = &[];
                }
                _ => {
                    line(&mut out, stream, b'P', held, &data[..room], now);
                    held.clear();
                    data = &data[room..];
                }
            }
        }
        if !out.is_empty() {
            let _ = self.file.write_all(&out);
        }
    }

    /// The stream ended: what is held is a whole line.
    pub fn finish(&mut self, stream: Stream, now: u64) {
        let held = std::mem::take(&mut self.held[stream as usize]);
        if !held.is_empty() {
            let mut out = Vec::with_capacity(held.len() + 64);
            line(&mut out, stream, b'F', &held, &[], now);
            let _ = self.file.write_all(&out);
        }
    }
}

fn line(out: &mut Vec<u8>, stream: Stream, tag: u8, first: &[u8], second: &[u8], now: u64) {
    timestamp(out, now);
    out.extend_from_slice(if stream == Stream::Stdout { b" stdout " } else { b" stderr " });
    out.extend_from_slice(&[tag, b' ']);
    out.extend_from_slice(first);
    out.extend_from_slice(second);
    out.push(b'\n');
}

/// RFC 3339 with nanoseconds, UTC.
fn timestamp(out: &mut Vec<u8>, nanoseconds: u64) {
    let seconds = nanoseconds / 1_000_000_000;
    let (year, month, day) = civil((seconds / 86_400) as i64);
    let second = seconds % 86_400;
    // Writing to a vector cannot fail.
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        nanoseconds % 1_000_000_000
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_long_ones_are_cut_and_the_last_is_flushed() {
        let path = std::env::temp_dir().join(format!("coracle-log-{}", std::process::id()));
        let mut log = LogFile::create(path.to_str().unwrap()).unwrap();
        log.write(Stream::Stdout, b"one\ntw", 0);
        log.write(Stream::Stderr, b"err\n", 1_500_000_000);
        log.write(Stream::Stdout, b"o\n", 0);
        log.write(Stream::Stdout, &vec![b'x'; MAX_LINE + 3], 0);
        log.finish(Stream::Stdout, 0);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "1970-01-01T00:00:00.000000000Z stdout F one");
        assert_eq!(lines[1], "1970-01-01T00:00:01.500000000Z stderr F err");
        assert_eq!(lines[2], "1970-01-01T00:00:00.000000000Z stdout F two");
        assert!(lines[3].contains(" stdout P xxx") && lines[3].len() > MAX_LINE);
        assert!(lines[4].ends_with(" stdout F xxx"));
        assert_eq!(lines.len(), 5);
    }
}

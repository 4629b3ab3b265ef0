//! Log files, a line of output each: in the CRI format, `TIME STREAM P|F TEXT`, where `P` marks a part of a longer line
//! (Kubernetes, "CRI container log format"), or in Docker's json-file format, where a part is a text without its newline.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    thread::{self, JoinHandle},
};

use coracle_launcher::log::civil;
use flate2::{Compression, write::GzEncoder};

/// Longest text of one line; longer output is cut into parts (containerd's max_container_log_line_size, and the buffer
/// of Docker's log copier).
const MAX_LINE: usize = 16 << 10;
/// What a compressed file's name ends in.
const ZIPPED: &str = ".gz";
/// The compressor's state is on the heap.
const COMPRESSOR_STACK: usize = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// How lines are written, and who moves a full file away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// The kubelet rotates and then asks for a new file.
    Cri,
    /// This program rotates: a file of `max_size` bytes (0: any) becomes `PATH.1`; `max_files` are kept, this one included.
    /// Those moved away may be compressed. `attributes` is a JSON object for each line, or empty.
    Json { max_size: u64, max_files: u32, compress: bool, attributes: String },
}

/// An open log file with what of each stream has not ended in a newline yet.
pub struct LogFile {
    path: String,
    format: Format,
    file: File,
    size: u64,
    held: [Vec<u8>; 2],
    /// Works on `PATH.1` of the last rotation.
    compressing: Option<JoinHandle<()>>,
}

fn open(path: &str) -> io::Result<(File, u64)> {
    // O_NOFOLLOW: the directory is the kubelet's, but what lies there may have been put by a pod's volume.
    // O_NONBLOCK: a fifo there must not hold the shim.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if metadata.file_type().is_fifo() || metadata.file_type().is_socket() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok((file, metadata.len()))
}

impl LogFile {
    pub fn create(path: &str, format: Format) -> io::Result<LogFile> {
        let (file, size) = open(path)?;
        Ok(LogFile { path: path.to_owned(), format, file, size, held: [Vec::new(), Vec::new()], compressing: None })
    }

    /// Goes on in a new file of the same name: the old one was moved away.
    pub fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.size) = open(&self.path)?;
        Ok(())
    }

    /// Takes output as it comes. A disk that is full loses lines, never stops a container.
    pub fn write(&mut self, stream: Stream, mut data: &[u8], now: u64) {
        let mut out = Vec::with_capacity(data.len() + 64);
        let mut held = std::mem::take(&mut self.held[stream as usize]);
        while !data.is_empty() {
            let newline = data.iter().position(|&byte| byte == b'\n');
            let room = MAX_LINE - held.len();
            match newline {
                Some(end) if end <= room => {
                    self.line(&mut out, stream, true, [&held, &data[..end]], now);
                    held.clear();
                    data = &data[end + 1..];
                }
                _ if data.len() < room => {
                    held.extend_from_slice(data);
                    data = &[];
                }
                _ => {
                    let cut = whole_characters(&data[..room]);
                    self.line(&mut out, stream, false, [&held, &data[..cut]], now);
                    held.clear();
                    data = &data[cut..];
                }
            }
        }
        self.held[stream as usize] = held;
        self.append(&out);
    }

    /// The stream ended: what is held is the last line, which has no end. Who reads it adds none (containerd `internal/cri/io`,
    /// `redirectLogs`; Docker's file keeps no newline either).
    pub fn finish(&mut self, stream: Stream, now: u64) {
        let held = std::mem::take(&mut self.held[stream as usize]);
        if !held.is_empty() {
            let mut out = Vec::with_capacity(held.len() + 64);
            self.line(&mut out, stream, false, [&held, &[]], now);
            self.append(&out);
        }
    }

    fn line(&mut self, out: &mut Vec<u8>, stream: Stream, whole: bool, text: [&[u8]; 2], now: u64) {
        let (max_size, max_files, compress) = match &self.format {
            Format::Cri if whole => return cri_line(out, stream, b'F', without_return(text), now),
            Format::Cri => return cri_line(out, stream, b'P', text, now),
            Format::Json { max_size, max_files, compress, attributes } => {
                json_line(out, stream, whole, text, attributes, now);
                (*max_size, *max_files, *compress)
            }
        };
        if max_size > 0 && self.size + out.len() as u64 >= max_size {
            self.append(out);
            out.clear();
            self.rotate(max_files, compress);
        }
    }

    fn append(&mut self, out: &[u8]) {
        if out.is_empty() {
            return;
        }
        match self.file.write_all(out) {
            Ok(()) => self.size += out.len() as u64,
            // Half a line would spoil the next one.
            Err(_) => drop(self.file.set_len(self.size)),
        }
    }

    /// `PATH` becomes `PATH.1`, `PATH.1` becomes `PATH.2`; the oldest goes. With one file, it begins anew.
    fn rotate(&mut self, max_files: u32, compress: bool) {
        if max_files <= 1 {
            if self.file.set_len(0).is_ok() {
                self.size = 0;
            }
            return;
        }
        // What is moved must have its last name.
        self.wait_compressed();
        let name = |index: u32| if index == 0 { self.path.clone() } else { format!("{}.{index}", self.path) };
        let zipped = |index: u32| format!("{}{ZIPPED}", name(index));
        for index in (0..max_files - 1).rev() {
            // Only one of the two names is there, unless a kill came between them.
            let _ = fs::remove_file(zipped(index + 1));
            if fs::rename(name(index), name(index + 1)).is_err() {
                let _ = fs::remove_file(name(index + 1));
            }
            let _ = fs::rename(zipped(index), zipped(index + 1));
        }
        let first = name(1);
        // Without a new file the old one, under its new name, is better than none.
        let opened = self.reopen();
        if compress && opened.is_ok() {
            let thread = thread::Builder::new().stack_size(COMPRESSOR_STACK);
            // What cannot be compressed stays as it is.
            self.compressing = thread.spawn(move || drop(compress_file(&first))).ok();
        }
    }

    fn wait_compressed(&mut self) {
        if let Some(thread) = self.compressing.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        self.wait_compressed();
    }
}

/// `PATH` becomes `PATH.gz`: it is there whole under one of the names at any time.
fn compress_file(path: &str) -> io::Result<()> {
    let (zipped, part) = (format!("{path}{ZIPPED}"), format!("{path}{ZIPPED}.part"));
    let mut from = File::open(path)?;
    let to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&part)?;
    let mut encoder = GzEncoder::new(to, Compression::default());
    let written =
        io::copy(&mut from, &mut encoder).and_then(|_| encoder.finish()).and_then(|_| fs::rename(&part, zipped));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written?;
    fs::remove_file(path)
}

/// How much of `text` can be taken without cutting a UTF-8 character in two; all of it if it is something else.
fn whole_characters(text: &[u8]) -> usize {
    let from = text.len().saturating_sub(4);
    let Some(last) = (from..text.len()).rev().find(|&at| text[at] & 0xc0 != 0x80) else { return text.len() };
    let length = match text[last] {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf7 => 4,
        _ => 1,
    };
    if last + length > text.len() && last > 0 { last } else { text.len() }
}

/// A terminal ends lines with a carriage return and a newline, which are one end (containerd `internal/cri/io`, `readLine`).
fn without_return([first, second]: [&[u8]; 2]) -> [&[u8]; 2] {
    match second {
        [] => [first.strip_suffix(b"\r").unwrap_or(first), second],
        _ => [first, second.strip_suffix(b"\r").unwrap_or(second)],
    }
}

fn cri_line(out: &mut Vec<u8>, stream: Stream, tag: u8, [first, second]: [&[u8]; 2], now: u64) {
    timestamp(out, now);
    out.extend_from_slice(if stream == Stream::Stdout { b" stdout " } else { b" stderr " });
    out.extend_from_slice(&[tag, b' ']);
    out.extend_from_slice(first);
    out.extend_from_slice(second);
    out.push(b'\n');
}

fn json_line(out: &mut Vec<u8>, stream: Stream, whole: bool, text: [&[u8]; 2], attributes: &str, now: u64) {
    out.extend_from_slice(b"{\"log\":\"");
    if text[0].is_empty() {
        json_text(out, text[1]);
    } else {
        // A character may lie in both.
        json_text(out, &text.concat());
    }
    out.extend_from_slice(if whole { b"\\n\",\"stream\":\"" } else { b"\",\"stream\":\"" });
    out.extend_from_slice(if stream == Stream::Stdout { b"stdout" } else { b"stderr" });
    if attributes.is_empty() {
        out.push(b'"');
    } else {
        out.extend_from_slice(b"\",\"attrs\":");
        out.extend_from_slice(attributes.as_bytes());
    }
    out.extend_from_slice(b",\"time\":\"");
    timestamp(out, now);
    out.extend_from_slice(b"\"}\n");
}

/// What is not UTF-8 becomes U+FFFD, as in Docker's files.
fn json_text(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for chunk in text.utf8_chunks() {
        let mut rest = chunk.valid().as_bytes();
        while let Some(at) = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
            out.extend_from_slice(&rest[..at]);
            match rest[at] {
                b'"' => out.extend_from_slice(b"\\\""),
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'\t' => out.extend_from_slice(b"\\t"),
                b'\r' => out.extend_from_slice(b"\\r"),
                byte => {
                    out.extend_from_slice(b"\\u00");
                    out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
            }
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
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

    /// A log at a path of its own, written by `act`, and what lies at the path and its rotations afterwards.
    fn written(format: Format, act: impl FnOnce(&mut LogFile)) -> Vec<String> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("coracle-log-{}-{number}", std::process::id()));
        let path = path.to_str().unwrap();
        act(&mut LogFile::create(path, format).unwrap());
        let mut out = vec![fs::read_to_string(path).unwrap()];
        fs::remove_file(path).unwrap();
        for index in 1.. {
            let path = format!("{path}.{index}");
            let Ok(text) = fs::read_to_string(&path) else { break };
            fs::remove_file(&path).unwrap();
            out.push(text);
        }
        out
    }

    fn json(max_size: u64, max_files: u32) -> Format {
        Format::Json { max_size, max_files, compress: false, attributes: String::new() }
    }

    #[test]
    fn lines_are_whole_long_ones_are_cut_and_the_last_is_flushed() {
        let files = written(Format::Cri, |log| {
            log.write(Stream::Stdout, b"one\ntw", 0);
            log.write(Stream::Stderr, b"err\n", 1_500_000_000);
            log.write(Stream::Stdout, b"o\n", 0);
            log.write(Stream::Stdout, b"terminal\r\n\r\na\rb\r", 0);
            log.write(Stream::Stdout, b"\n", 0);
            log.write(Stream::Stdout, &vec![b'x'; MAX_LINE + 3], 0);
            log.finish(Stream::Stdout, 0);
        });
        let lines: Vec<&str> = files[0].lines().collect();
        assert_eq!(lines[0], "1970-01-01T00:00:00.000000000Z stdout F one");
        assert_eq!(lines[1], "1970-01-01T00:00:01.500000000Z stderr F err");
        assert_eq!(lines[2], "1970-01-01T00:00:00.000000000Z stdout F two");
        let ends = ["stdout F terminal", "stdout F ", "stdout F a\rb"];
        assert!(lines[3..6].iter().zip(ends).all(|(line, end)| line.ends_with(end)), "{lines:?}");
        assert!(lines[6].contains(" stdout P xxx") && lines[6].len() > MAX_LINE);
        // There was no newline.
        assert!(lines[7].ends_with(" stdout P xxx"));
        assert_eq!(lines.len(), 8);
    }

    #[test]
    fn json_lines_hold_any_bytes() {
        let format = json(0, 1);
        let files = written(format, |log| {
            log.write(Stream::Stdout, "a \"q\" \\ \t\r\u{1} ä".as_bytes(), 0);
            log.write(Stream::Stdout, b" \xff!\n", 1_000_000_000);
            log.write(Stream::Stderr, b"no end", 0);
            log.finish(Stream::Stderr, 0);
        });
        let expected = concat!(
            r#"{"log":"a \"q\" \\ \t\r\u0001 ä \ufffd!\n","stream":"stdout","time":"1970-01-01T00:00:01.000000000Z"}"#,
            "\n",
            r#"{"log":"no end","stream":"stderr","time":"1970-01-01T00:00:00.000000000Z"}"#,
            "\n"
        );
        assert_eq!(files, [expected]);
    }

    #[test]
    fn a_character_is_not_cut_in_two() {
        let format = json(0, 1);
        let files = written(format, |log| {
            log.write(Stream::Stdout, &[b"x", "ä".repeat(MAX_LINE).as_bytes(), b"\n"].concat(), 0);
        });
        assert!(!files[0].contains("fffd"));
        assert_eq!(files[0].matches('ä').count(), MAX_LINE);
        assert_eq!(files[0].matches("\\n").count(), 1);
    }

    #[test]
    fn full_files_are_moved_away_and_the_oldest_goes() {
        let line = |log: &mut LogFile, text: &str| log.write(Stream::Stdout, format!("{text}\n").as_bytes(), 0);
        let files = written(json(100, 3), |log| {
            for text in ["one", "two", "three", "four", "five", "six", "seven"] {
                line(log, text);
            }
        });
        let words =
            |file: &String| file.lines().map(|line| line.split('"').nth(3).unwrap().to_owned()).collect::<Vec<_>>();
        let words: Vec<_> = files.iter().map(words).collect();
        assert_eq!(words, [vec!["seven\\n"], vec!["five\\n", "six\\n"], vec!["three\\n", "four\\n"]]);
        let one = written(json(1, 1), |log| line(log, "gone"));
        assert_eq!(one, [""]);
    }

    #[test]
    fn attributes_stand_in_each_line_and_moved_files_are_compressed() {
        let dir = std::env::temp_dir().join(format!("coracle-log-{}-gz", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("log");
        let attributes = r#"{"tag":"x"}"#.to_owned();
        let format = Format::Json { max_size: 1, max_files: 3, compress: true, attributes };
        let mut log = LogFile::create(path.to_str().unwrap(), format).unwrap();
        for text in ["one\n", "two\n", "three\n"] {
            log.write(Stream::Stdout, text.as_bytes(), 0);
        }
        drop(log);
        let mut names: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["log", "log.1.gz", "log.2.gz"]);
        let mut text = String::new();
        let file = File::open(dir.join("log.2.gz")).unwrap();
        io::Read::read_to_string(&mut flate2::read::GzDecoder::new(file), &mut text).unwrap();
        let expected =
            r#"{"log":"two\n","stream":"stdout","attrs":{"tag":"x"},"time":"1970-01-01T00:00:00.000000000Z"}"#;
        assert_eq!(text.trim_end(), expected);
        fs::remove_dir_all(dir).unwrap();
    }
}

//! `GET /containers/{id}/logs`: what a container wrote, from its log files, and what it goes on to write.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::{
        fd::{AsFd, AsRawFd, RawFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::StatusCode;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::Deserialize;
use tokio::{io::unix::AsyncFd, sync::mpsc};

use super::{
    super::{
        Docker,
        http::{Answer, Call, Problem, stream},
        streams::{MULTIPLEXED, Options, RAW, frame},
    },
    Container,
};
use crate::engine::model::Status;

const BLOCK: usize = 64 << 10;
/// A line of a log file is not longer: the shim cuts output into pieces of 16 KiB, and JSON at most sixfolds them; the
/// attributes are bounded where they are made.
const MAX_LINE: usize = (256 << 10) + super::log_options::MAX_ATTRIBUTES;

/// What of a log is wanted.
#[derive(Clone, Debug, Default)]
struct Wanted {
    stdout: bool,
    stderr: bool,
    timestamps: bool,
    /// The attributes of a line before it.
    details: bool,
    tty: bool,
    /// Nanoseconds since 1970.
    since: Option<i64>,
    until: Option<i64>,
    tail: Option<u64>,
}

/// One piece of output.
#[derive(Debug, PartialEq)]
struct Piece {
    stderr: bool,
    at: i64,
    text: Vec<u8>,
    attributes: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct JsonLine {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
    time: jiff::Timestamp,
}

pub async fn logs(call: Call) -> Answer {
    let container = call.docker.container(call.name())?;
    let query = &call.query;
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(Problem::bad("Bad parameters: you must choose at least one stream"));
    }
    let (driver, tty) = container.with(|record| (record.host.log_config.kind.clone(), record.config.tty));
    let path = call.docker.log_path(&container);
    if driver == "none" || path.as_os_str().is_empty() {
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "configured logging driver does not support reading"));
    }
    let wanted = Wanted {
        stdout,
        stderr,
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
        tty,
        since: moment(query.text("since"))?.filter(|&at| at > 0),
        until: moment(query.text("until"))?.filter(|&at| at > 0),
        tail: query.text("tail").parse().ok(),
    };
    let follow = query.flag("follow");
    let kind = if tty || call.version < 42 { RAW } else { MULTIPLEXED };
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        if let Err(error) = send(container, path, wanted, follow, sender).await {
            tracing::debug!(%error, "a log could not be read to its end");
        }
    });
    Ok(stream(kind, receiver))
}

/// The log so far, in the form of the attached stream.
pub fn replay(docker: &Docker, container: &Container, options: &Options) -> Vec<Bytes> {
    let wanted = Wanted { stdout: options.stdout, stderr: options.stderr, tty: options.tty, ..Wanted::default() };
    let Ok(mut reader) = Reader::open(&docker.log_path(container), None) else { return Vec::new() };
    let mut out = Vec::new();
    while let Ok(Some(piece)) = reader.next() {
        out.extend(wanted.show(&piece));
    }
    out
}

/// `1700000000.5` or RFC 3339, in nanoseconds since 1970.
pub fn moment(text: &str) -> Result<Option<i64>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(i64::try_from(at.as_nanosecond()).ok());
    }
    let bad = || Problem::bad(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"));
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().map_err(|_| bad())?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: i64 = digits.parse().map_err(|_| bad())?;
    Ok(Some(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)))
}

async fn send(
    container: Arc<Container>,
    path: PathBuf,
    wanted: Wanted,
    follow: bool,
    sender: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    // Watched before it is read: what is written from here on is noticed.
    let watch = if follow { Some(Watch::open(&path)?) } else { None };
    let mut state = container.engine.watch();
    let (opened, tail) = (path.clone(), wanted.tail);
    let mut reader = tokio::task::spawn_blocking(move || Reader::open(&opened, tail)).await??;
    loop {
        // Asked before reading: output is in the file before the end is known.
        let ended = state.borrow_and_update().status != Status::Running && !container.live.lock().restarting;
        loop {
            let (back, piece) = tokio::task::spawn_blocking(move || {
                let mut batch = Vec::new();
                while batch.len() < 256 {
                    match reader.next() {
                        Ok(Some(piece)) => batch.push(piece),
                        Ok(None) => break,
                        Err(error) => return (reader, Err(error)),
                    }
                }
                (reader, Ok(batch))
            })
            .await?;
            reader = back;
            let batch = piece?;
            if batch.is_empty() {
                break;
            }
            for piece in batch {
                if wanted.until.is_some_and(|until| piece.at > until) {
                    return Ok(());
                }
                if let Some(bytes) = wanted.show(&piece)
                    && sender.send(bytes).await.is_err()
                {
                    return Ok(());
                }
            }
        }
        let Some(watch) = watch.as_ref().filter(|_| !ended) else { return Ok(()) };
        let until = wanted.until.map(|until| (until - crate::engine::model::now()).max(0) as u64);
        tokio::select! {
            () = sender.closed() => return Ok(()),
            changed = watch.changed() => changed?,
            ended = state.changed() => if ended.is_err() { return Ok(()) },
            () = tokio::time::sleep(std::time::Duration::from_nanos(until.unwrap_or(u64::MAX / 4))), if until.is_some() => return Ok(()),
        }
    }
}

impl Wanted {
    fn show(&self, piece: &Piece) -> Option<Bytes> {
        let stream = if piece.stderr { self.stderr } else { self.stdout };
        if !stream || self.since.is_some_and(|since| piece.at < since) {
            return None;
        }
        let mut text = Vec::with_capacity(piece.text.len() + 40);
        if self.timestamps {
            let at = jiff::Timestamp::from_nanosecond(i128::from(piece.at)).unwrap_or_default();
            text.extend_from_slice(format!("{at:.9} ").as_bytes());
        }
        if self.details {
            text.extend_from_slice(details(&piece.attributes).as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(&piece.text);
        Some(if self.tty { text.into() } else { frame(piece.stderr, &text) })
    }
}

/// `a=b,c=d`, escaped as in a query (moby `api/server/httputils/write_log_stream.go`).
fn details(attributes: &BTreeMap<String, String>) -> String {
    let escape = |text: &str| {
        text.bytes().fold(String::new(), |mut out, byte| {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
                b' ' => out.push('+'),
                // Writing to a string cannot fail.
                byte => drop(write!(out, "%{byte:02X}")),
            }
            out
        })
    };
    let pairs: Vec<String> =
        attributes.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect();
    pairs.join(",")
}

/// Changes of a log file and its directory.
struct Watch {
    inotify: AsyncFd<Notifier>,
}

struct Notifier(Inotify);

impl AsRawFd for Notifier {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watch {
    fn open(path: &Path) -> io::Result<Watch> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let dir = path.parent().unwrap_or(Path::new("/"));
        inotify.add_watch(dir, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)?;
        // SAFETY: the descriptor is open for as long as the notifier is, which the watch owns.
        let inotify = unsafe { AsyncFd::register(Notifier(inotify)) }.map_err(io::Error::from)?;
        Ok(Watch { inotify })
    }

    async fn changed(&self) -> io::Result<()> {
        let mut ready = self.inotify.readable().await?;
        while self.inotify.get_ref().0.read_events().is_ok_and(|events| !events.is_empty()) {}
        ready.clear_ready();
        Ok(())
    }
}

/// Reads a log file and those it was rotated to, oldest first.
struct Reader {
    path: PathBuf,
    /// Older files that come before, newest last.
    older: Vec<File>,
    file: Option<File>,
    buffer: Vec<u8>,
    start: usize,
}

impl Reader {
    /// Opens a log; with `tail` only its last lines.
    fn open(path: &Path, tail: Option<u64>) -> io::Result<Reader> {
        let mut files = Vec::new();
        let open = |path: &Path| match File::open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let dir = path.parent().unwrap_or(Path::new("/"));
        let newest = open(path)?;
        for number in 1.. {
            let moved = format!("{}.{number}", path.display());
            let file = match open(Path::new(&moved))? {
                Some(file) => Some(file),
                None => open(Path::new(&format!("{moved}.gz")))?.map(|file| unzipped(file, dir)).transpose()?,
            };
            match file {
                Some(file) => files.push(file),
                None => break,
            }
        }
        let mut left = tail;
        let mut newest = newest;
        if let (Some(lines), Some(file)) = (&mut left, &mut newest) {
            *lines = lines.saturating_sub(seek_lines(file, *lines)?);
        }
        let mut older = Vec::new();
        for mut file in files {
            match &mut left {
                Some(0) => break,
                Some(lines) => *lines = lines.saturating_sub(seek_lines(&mut file, *lines)?),
                None => {}
            }
            older.push(file);
        }
        older.reverse();
        let mut reader =
            Reader { path: path.to_owned(), older: Vec::new(), file: newest, buffer: Vec::new(), start: 0 };
        if !older.is_empty() {
            // The oldest is read first; what is newer waits, the newest last.
            older.extend(reader.file.take());
            older.reverse();
            reader.file = older.pop();
            reader.older = older;
        }
        Ok(reader)
    }

    /// The next piece; none if there is none now.
    fn next(&mut self) -> io::Result<Option<Piece>> {
        loop {
            let rest = &self.buffer[self.start..];
            if let Some(end) = memchr(rest) {
                let piece = parse(&rest[..end]);
                self.start += end + 1;
                match piece {
                    Some(piece) => return Ok(Some(piece)),
                    // A line that is no log entry is passed over.
                    None => continue,
                }
            }
            self.buffer.drain(..std::mem::take(&mut self.start));
            if self.buffer.len() > MAX_LINE {
                self.buffer.clear();
            }
            if self.file.is_none() {
                self.file = File::open(&self.path).ok();
            }
            let Some(file) = &mut self.file else { return Ok(None) };
            let before = self.buffer.len();
            self.buffer.resize(before + BLOCK, 0);
            let count = file.read(&mut self.buffer[before..])?;
            self.buffer.truncate(before + count);
            if count > 0 {
                continue;
            }
            if let Some(next) = self.older.pop() {
                self.file = Some(next);
                continue;
            }
            // Rotated: another file has the name now.
            let own = file.metadata()?;
            match std::fs::metadata(&self.path) {
                Ok(named) if named.ino() != own.ino() => self.file = Some(File::open(&self.path)?),
                _ => return Ok(None),
            }
        }
    }
}

/// What a compressed file holds, in one without a name beside it: it is read from its end, too.
fn unzipped(file: File, dir: &Path) -> io::Result<File> {
    let mut out = File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(dir)?;
    io::copy(&mut GzDecoder::new(file), &mut out)?;
    out.seek(SeekFrom::Start(0))?;
    Ok(out)
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&byte| byte == b'\n')
}

/// Goes to where the last `lines` lines begin; how many there are.
fn seek_lines(file: &mut File, lines: u64) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(0);
    }
    let mut found = 0;
    let mut block = vec![0; BLOCK];
    let length = end;
    while end > 0 {
        let begin = end.saturating_sub(BLOCK as u64);
        let part = &mut block[..(end - begin) as usize];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(part)?;
        for (index, byte) in part.iter().enumerate().rev() {
            let at = begin + index as u64;
            // The newline at the very end closes the last line.
            if *byte == b'\n' && at + 1 < length {
                found += 1;
                if found == lines {
                    file.seek(SeekFrom::Start(at + 1))?;
                    return Ok(lines);
                }
            }
        }
        end = begin;
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(if length > 0 { found + 1 } else { 0 })
}

/// A line of the json-file driver, or of a pod's log (CRI).
fn parse(line: &[u8]) -> Option<Piece> {
    if line.first() == Some(&b'{') {
        let line: JsonLine = serde_json::from_slice(line).ok()?;
        return Some(Piece {
            stderr: line.stream == "stderr",
            at: i64::try_from(line.time.as_nanosecond()).ok()?,
            text: line.log.into_bytes(),
            attributes: line.attrs,
        });
    }
    let mut parts = line.splitn(4, |&byte| byte == b' ');
    let time: jiff::Timestamp = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let stderr = parts.next()? == b"stderr";
    let whole = parts.next()?.first() == Some(&b'F');
    let mut text = parts.next()?.to_vec();
    if whole {
        text.push(b'\n');
    }
    Some(Piece { stderr, at: i64::try_from(time.as_nanosecond()).ok()?, text, attributes: BTreeMap::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_formats_are_read() {
        let json = parse(br#"{"log":"a\n","stream":"stderr","time":"1970-01-01T00:00:01.5Z"}"#).unwrap();
        assert_eq!(json, Piece { stderr: true, at: 1_500_000_000, text: b"a\n".to_vec(), attributes: BTreeMap::new() });
        let cri = parse(b"1970-01-01T00:00:01.000000000Z stdout F b c").unwrap();
        assert_eq!(
            cri,
            Piece { stderr: false, at: 1_000_000_000, text: b"b c\n".to_vec(), attributes: BTreeMap::new() }
        );
        assert!(parse(b"nonsense").is_none());
    }

    #[test]
    fn the_last_lines_are_found_over_rotated_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let entry = |number: u32| {
            format!("{{\"log\":\"{number}\\n\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:00Z\"}}\n")
        };
        std::fs::write(dir.path().join("log.2"), entry(1)).unwrap();
        std::fs::write(dir.path().join("log.1"), entry(2) + &entry(3)).unwrap();
        std::fs::write(&path, entry(4) + &entry(5)).unwrap();
        for (tail, expected) in
            [(None, "12345"), (Some(3), "345"), (Some(2), "45"), (Some(0), ""), (Some(9), "12345"), (Some(1), "5")]
        {
            let mut reader = Reader::open(&path, tail).unwrap();
            let mut text = String::new();
            while let Some(piece) = reader.next().unwrap() {
                text += std::str::from_utf8(&piece.text).unwrap().trim();
            }
            assert_eq!(text, expected, "{tail:?}");
        }
    }

    #[test]
    fn moments_are_read() {
        assert_eq!(moment("1.5").unwrap(), Some(1_500_000_000));
        assert_eq!(moment("1970-01-01T00:00:02Z").unwrap(), Some(2_000_000_000));
        assert_eq!(moment("").unwrap(), None);
        assert!(moment("yesterday").is_err());
    }
}

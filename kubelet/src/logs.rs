//! Reads a container's log: the CRI format, from a point, to a point, and on as it is written.
//!
//! A line is `2026-01-01T00:00:00.000000000Z stdout F text`; the tag is `P` when the line goes on in the next one
//! (cri-api `docs`, kubernetes `pkg/kubelet/kuberuntime/logs`).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

/// Longest line that is read; the runtime cuts at 16 KiB.
const MAX_LINE: u64 = 1 << 20;
/// How much is read at a time when looking for the last lines.
const CHUNK: u64 = 64 * 1024;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    pub follow: bool,
    pub timestamps: bool,
    pub tail: Option<u64>,
    pub since: Option<Timestamp>,
    /// No more bytes than this.
    pub limit: Option<u64>,
}

/// A line of the file.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    time: &'a str,
    whole: bool,
    text: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let _stream = parts.next()?;
    // Tags are separated by colons; the first says whether the line is whole.
    let whole = !parts.next()?.starts_with(b"P");
    Some(Line { time, whole, text: parts.next().unwrap_or_default() })
}

/// Turns lines of the file into what is asked for.
struct Writer {
    options: Options,
    left: Option<u64>,
    /// The next part begins a line.
    at_start: bool,
}

impl Writer {
    fn new(options: Options) -> Self {
        Self { left: options.limit, options, at_start: true }
    }

    /// Appends a line's text. Whether more may come.
    fn write(&mut self, line: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(line) = parse(line) else { return true };
        if let Some(since) = self.options.since
            && line.time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return true;
        }
        let before = out.len();
        if self.options.timestamps && self.at_start {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if line.whole {
            out.push(b'\n');
        }
        self.at_start = line.whole;
        let Some(left) = &mut self.left else { return true };
        let written = (out.len() - before) as u64;
        if written >= *left {
            out.truncate(before + usize::try_from(*left).unwrap_or(usize::MAX));
            *left = 0;
            return false;
        }
        *left -= written;
        true
    }
}

/// Where the last `lines` lines begin.
fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    let size = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(size);
    }
    let (mut end, mut found) = (size, 0);
    while end > 0 {
        let start = end.saturating_sub(CHUNK);
        let mut chunk = vec![0; usize::try_from(end - start).unwrap_or(0)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut chunk)?;
        for (i, byte) in chunk.iter().enumerate().rev() {
            let position = start + i as u64;
            // The break at the very end ends the last line, and begins none.
            if *byte == b'\n' && position + 1 != size {
                found += 1;
                if found == lines {
                    return Ok(position + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

/// A place in a log file.
struct Cursor {
    reader: BufReader<File>,
    /// A line that is not whole yet.
    partial: Vec<u8>,
}

impl Cursor {
    fn open(path: &Path, tail: Option<u64>) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let start = tail.map_or(Ok(0), |lines| tail_start(&mut file, lines))?;
        file.seek(SeekFrom::Start(start))?;
        Ok(Self { reader: BufReader::new(file), partial: Vec::new() })
    }

    /// Reads up to about a chunk. Whether there may be more now, and whether the reader wants more at all.
    fn read(&mut self, writer: &mut Writer, out: &mut Vec<u8>) -> io::Result<(bool, bool)> {
        while out.len() < CHUNK as usize {
            let read = (&mut self.reader).take(MAX_LINE).read_until(b'\n', &mut self.partial)?;
            if read == 0 {
                return Ok((false, true));
            }
            if self.partial.last() != Some(&b'\n') && (self.partial.len() as u64) < MAX_LINE {
                // Still being written.
                return Ok((false, true));
            }
            let line = std::mem::take(&mut self.partial);
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            if !writer.write(line, out) {
                return Ok((false, false));
            }
        }
        Ok((true, true))
    }
}

/// Tells a follower whether its container still runs.
pub trait Liveness: Send + 'static {
    /// Whether more may be written.
    fn running(&self) -> impl Future<Output = bool> + Send;
}

/// Reads the log at `path` into `out`. With `follow`, goes on until the container has ended; `changes` rings when any
/// container on the node changed.
pub async fn read<L: Liveness>(
    path: PathBuf,
    options: Options,
    alive: L,
    mut changes: watch::Receiver<u64>,
    out: mpsc::Sender<io::Result<Bytes>>,
) {
    let follow = options.follow;
    if let Err(error) = copy(&path, options, follow.then_some(&alive), &mut changes, &out).await {
        // The reader may be gone; then nobody is to be told.
        let _ = out.send(Err(error)).await;
    }
}

async fn copy<L: Liveness>(
    path: &Path,
    options: Options,
    follow: Option<&L>,
    changes: &mut watch::Receiver<u64>,
    out: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let watcher = follow.map(|_| watch_file(path)).transpose()?;
    let mut cursor = Cursor::open(path, options.tail)?;
    let mut writer = Writer::new(options);
    loop {
        changes.mark_unchanged();
        let alive = match follow {
            Some(follow) => follow.running().await,
            None => false,
        };
        // Asked before the last read: what was written until then is read.
        loop {
            let mut chunk = Vec::new();
            let (more, wanted) = cursor.read(&mut writer, &mut chunk)?;
            if !chunk.is_empty() && out.send(Ok(chunk.into())).await.is_err() {
                return Ok(());
            }
            if !wanted {
                return Ok(());
            }
            if !more {
                break;
            }
        }
        let Some(watcher) = watcher.as_ref().filter(|_| alive) else { return Ok(()) };
        tokio::select! {
            () = out.closed() => return Ok(()),
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            ready = watcher.readable() => {
                let mut ready = ready?;
                let replaced = drain(watcher);
                ready.clear_ready();
                if replaced && path.exists() {
                    cursor = Cursor::open(path, None)?;
                }
            }
        }
    }
}

/// An inotify instance as tokio wants to hold it.
struct Watch(Inotify);

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

fn watch_file(path: &Path) -> io::Result<AsyncFd<Watch>> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    // The directory too: a rotated log is another file under the same name.
    if let Some(parent) = path.parent() {
        inotify.add_watch(parent, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)?;
    }
    inotify.add_watch(path, AddWatchFlags::IN_MODIFY)?;
    // SAFETY: `as_raw_fd` of `Watch` gives the same open descriptor for as long as the value lives, since nothing replaces it.
    let registered = unsafe { AsyncFd::register(Watch(inotify)) };
    Ok(registered?)
}

/// Takes the events that are there. Whether a file was made or moved here.
fn drain(watcher: &AsyncFd<Watch>) -> bool {
    let mut replaced = false;
    while let Ok(events) = watcher.get_ref().0.read_events() {
        replaced |=
            events.iter().any(|event| event.mask.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO));
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    struct Alive(Arc<AtomicBool>);
    impl Liveness for Alive {
        async fn running(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }

    const LOG: &str = "2026-01-01T00:00:00.1Z stdout F one\n2026-01-01T00:00:01.1Z stderr P tw\n2026-01-01T00:00:02.1Z stderr F o\n2026-01-01T00:00:03.1Z stdout F three\n";

    async fn text(options: Options) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let (sender, mut receiver) = mpsc::channel(16);
        let (_bell, changes) = watch::channel(0);
        read(path, options, Alive(Arc::default()), changes, sender).await;
        let mut out = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            out.extend_from_slice(&chunk.unwrap());
        }
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn options_choose_what_is_read() {
        assert_eq!(text(Options::default()).await, "one\ntwo\nthree\n");
        assert_eq!(text(Options { tail: Some(1), ..Options::default() }).await, "three\n");
        assert_eq!(text(Options { tail: Some(0), ..Options::default() }).await, "");
        assert_eq!(text(Options { tail: Some(99), ..Options::default() }).await, "one\ntwo\nthree\n");
        assert_eq!(text(Options { since: "2026-01-01T00:00:03Z".parse().ok(), ..Options::default() }).await, "three\n");
        assert_eq!(text(Options { limit: Some(5), ..Options::default() }).await, "one\nt");
        assert_eq!(
            text(Options { timestamps: true, tail: Some(3), ..Options::default() }).await,
            "2026-01-01T00:00:01.1Z two\n2026-01-01T00:00:03.1Z three\n"
        );
    }

    #[tokio::test]
    async fn following_ends_with_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut file = File::create(&path).unwrap();
        write!(file, "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:00Z stdout F tw").unwrap();
        let alive = Arc::new(AtomicBool::new(true));
        let (sender, mut receiver) = mpsc::channel(16);
        let (bell, changes) = watch::channel(0);
        let follow = Options { follow: true, ..Options::default() };
        let task = tokio::spawn(read(path, follow, Alive(alive.clone()), changes, sender));
        assert_eq!(receiver.recv().await.unwrap().unwrap(), "one\n");
        writeln!(file, "o").unwrap();
        assert_eq!(receiver.recv().await.unwrap().unwrap(), "two\n");
        writeln!(file, "2026-01-01T00:00:00Z stdout F end").unwrap();
        alive.store(false, Ordering::SeqCst);
        bell.send_replace(1);
        assert_eq!(receiver.recv().await.unwrap().unwrap(), "end\n");
        assert!(receiver.recv().await.is_none());
        task.await.unwrap();
    }
}

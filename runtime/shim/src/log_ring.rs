//! A log file that holds nobody back: output waits for the disk in a buffer of a bounded size, and what does not fit is
//! dropped (Docker's `mode=non-blocking`, moby `daemon/logger/ring.go`).

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use crate::log_file::{LogFile, Stream};

/// The writer needs little: a line is formatted on the heap.
const STACK: usize = 128 << 10;

/// Where output goes.
pub enum Log {
    Direct(LogFile),
    Ring(Ring),
}

enum Item {
    Data(Stream, Vec<u8>, u64),
    Finish(Stream, u64),
    Reopen,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: u64,
    /// The writer has taken something and has not written it yet.
    busy: bool,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something came, or was written.
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Ring {
    shared: Arc<Shared>,
    capacity: u64,
    writer: Option<JoinHandle<()>>,
}

impl Log {
    /// `buffer` bytes may wait; 0 writes at once.
    pub fn new(file: LogFile, buffer: u64) -> io::Result<Log> {
        if buffer == 0 {
            return Ok(Log::Direct(file));
        }
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let writer = thread::Builder::new().stack_size(STACK).spawn(move || write_out(file, &theirs))?;
        Ok(Log::Ring(Ring { shared, capacity: buffer, writer: Some(writer) }))
    }

    pub fn write(&mut self, stream: Stream, data: &[u8], now: u64) {
        match self {
            Log::Direct(file) => file.write(stream, data, now),
            Log::Ring(ring) => {
                let mut queue = ring.shared.lock();
                let after = queue.bytes + data.len() as u64;
                // One piece larger than the buffer is taken when nothing else waits.
                if after > ring.capacity && queue.bytes > 0 {
                    return;
                }
                queue.bytes = after;
                queue.items.push_back(Item::Data(stream, data.to_vec(), now));
                ring.shared.changed.notify_all();
            }
        }
    }

    pub fn finish(&mut self, stream: Stream, now: u64) {
        match self {
            Log::Direct(file) => file.finish(stream, now),
            Log::Ring(ring) => ring.push(Item::Finish(stream, now)),
        }
    }

    pub fn reopen(&mut self) -> io::Result<()> {
        match self {
            Log::Direct(file) => file.reopen(),
            Log::Ring(ring) => {
                ring.push(Item::Reopen);
                Ok(())
            }
        }
    }

    /// Waits until everything is in the file.
    pub fn flush(&mut self) {
        let Log::Ring(ring) = self else { return };
        let mut queue = ring.shared.lock();
        while !queue.items.is_empty() || queue.busy {
            queue = ring.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Ring {
    fn push(&self, item: Item) {
        self.shared.lock().items.push_back(item);
        self.shared.changed.notify_all();
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write_out(mut file: LogFile, shared: &Shared) {
    let mut queue = shared.lock();
    loop {
        let Some(item) = queue.items.pop_front() else {
            if queue.closed {
                return;
            }
            queue = shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        queue.busy = true;
        drop(queue);
        let mut written = 0;
        match item {
            Item::Data(stream, data, now) => {
                written = data.len() as u64;
                file.write(stream, &data, now);
            }
            Item::Finish(stream, now) => file.finish(stream, now),
            Item::Reopen => drop(file.reopen()),
        }
        queue = shared.lock();
        queue.busy = false;
        queue.bytes -= written;
        shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read};

    use super::*;
    use crate::log_file::Format;

    #[test]
    fn what_does_not_fit_is_dropped_and_nobody_waits() {
        // No writer: a disk that takes nothing.
        let ring = Ring { shared: Arc::default(), capacity: 8, writer: None };
        let shared = ring.shared.clone();
        let mut log = Log::Ring(ring);
        for (data, waiting) in [(&b"larger than all of it"[..], 1), (&b"x"[..], 1)] {
            log.write(Stream::Stdout, data, 0);
            assert_eq!(shared.lock().items.len(), waiting);
        }
        shared.lock().items.clear();
        shared.lock().bytes = 0;
        for (data, waiting) in [(b"four", 1), (b"four", 2), (b"more", 2)] {
            log.write(Stream::Stdout, data, 0);
            assert_eq!(shared.lock().items.len(), waiting);
        }
    }

    #[test]
    fn all_that_was_taken_is_in_the_file_after_a_flush() {
        let path = std::env::temp_dir().join(format!("coracle-ring-{}", std::process::id()));
        let mut log = Log::new(LogFile::create(path.to_str().unwrap(), Format::Cri).unwrap(), 1 << 20).unwrap();
        log.write(Stream::Stdout, b"one\ntw", 0);
        log.finish(Stream::Stdout, 0);
        log.flush();
        let mut text = String::new();
        fs::File::open(&path).unwrap().read_to_string(&mut text).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(text.ends_with("P tw\n") && text.lines().count() == 2, "{text}");
    }
}

//! Reads ahead on a thread of its own: a layer is inflated while its files are written.
//!
//! Pieces go one way through a short queue, emptied ones come back, so that memory is bounded by [`PIECES`] × [`PIECE`].

use std::{
    io::{self, Read},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::Scope,
};

use crate::error::{Context, Result};

/// Bytes that change hands at once: few wake-ups, and still in the processor's cache when they are read.
const PIECE: usize = 256 << 10;
/// Pieces in all: one on each side, and two between.
const PIECES: usize = 4;

/// What comes over: how much of a piece is filled, or why there is no more. Nothing more is the end.
type Piece = io::Result<(Vec<u8>, usize)>;

/// The reading end.
pub struct ReadAhead {
    pieces: Receiver<Piece>,
    emptied: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    filled: usize,
    position: usize,
    ended: bool,
}

impl ReadAhead {
    /// Starts the thread, which opens the stream and reads it until its end, or until this end is dropped. The scope waits
    /// for it.
    pub fn start<'scope, R: Read>(
        scope: &'scope Scope<'scope, '_>,
        open: impl FnOnce() -> io::Result<R> + Send + 'scope,
    ) -> Result<ReadAhead> {
        let (filled, pieces) = sync_channel(PIECES);
        let (emptied, empty) = sync_channel(PIECES);
        for _ in 1..PIECES {
            // One is in the reader's hand; the queue has room for the others.
            let _ = emptied.send(Vec::new());
        }
        let work = move || {
            if let Err(error) = open().and_then(|stream| fill(stream, &filled, &empty)) {
                // Nobody may be left to hear of it.
                let _ = filled.send(Err(error));
            }
        };
        std::thread::Builder::new().name("inflate".into()).spawn_scoped(scope, work).context("start a thread")?;
        Ok(ReadAhead { pieces, emptied, current: Vec::new(), filled: 0, position: 0, ended: false })
    }

    /// Takes the next piece; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        // The other side takes it, unless it is through.
        let _ = self.emptied.send(std::mem::take(&mut self.current));
        (self.filled, self.position) = (0, 0);
        match self.pieces.recv() {
            Ok(Ok((piece, filled))) => (self.current, self.filled) = (piece, filled),
            Ok(Err(error)) => {
                self.ended = true;
                return Err(error);
            }
            Err(_) => self.ended = true,
        }
        Ok(!self.ended)
    }
}

/// Reads the whole stream into pieces; ends early when nobody reads them.
fn fill(mut stream: impl Read, filled: &SyncSender<Piece>, empty: &Receiver<Vec<u8>>) -> io::Result<()> {
    while let Ok(mut piece) = empty.recv() {
        piece.resize(PIECE, 0);
        let count = read_full(&mut stream, &mut piece)?;
        if count == 0 || filled.send(Ok((piece, count))).is_err() {
            break;
        }
    }
    Ok(())
}

/// Fills the piece unless the stream ends before. What comes before a failure is of no use without the rest.
fn read_full(stream: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < piece.len() {
        match stream.read(&mut piece[count..]) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position == self.filled {
            if !self.advance()? {
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.filled - self.position);
        buffer[..count].copy_from_slice(&self.current[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead<T>(stream: impl Read + Send, work: impl FnOnce(ReadAhead) -> T) -> T {
        std::thread::scope(|scope| work(ReadAhead::start(scope, || Ok(stream)).unwrap()))
    }

    /// Gives a few bytes at a time, and fails at its end if it is told to.
    struct Drops(u64, bool);

    impl Read for Drops {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 && self.1 {
                return Err(io::Error::other("torn"));
            }
            let count = buffer.len().min(1001).min(self.0 as usize);
            for (index, byte) in buffer[..count].iter_mut().enumerate() {
                *byte = ((self.0 - index as u64) % 251) as u8;
            }
            self.0 -= count as u64;
            Ok(count)
        }
    }

    #[test]
    fn gives_what_the_stream_gives() {
        for length in [0, 1, PIECE as u64, PIECE as u64 + 1, 10 * PIECE as u64 + 7] {
            let (mut direct, mut through) = (Vec::new(), Vec::new());
            Drops(length, false).read_to_end(&mut direct).unwrap();
            ahead(Drops(length, false), |mut reader| reader.read_to_end(&mut through)).unwrap();
            assert!(direct == through, "{length}");
        }
    }

    #[test]
    fn a_failure_is_no_end() {
        ahead(Drops(5 * PIECE as u64, true), |mut reader| {
            assert_eq!(io::copy(&mut reader, &mut io::sink()).unwrap_err().to_string(), "torn");
        });
        let error = std::thread::scope(|scope| {
            let closed = || Err::<io::Empty, _>(io::Error::other("closed"));
            ReadAhead::start(scope, closed).unwrap().read(&mut [0]).unwrap_err()
        });
        assert_eq!(error.to_string(), "closed");
    }

    /// A stream without an end, and a reader that has enough: the scope must come to its own.
    #[test]
    fn ends_with_its_reader() {
        let count = ahead(io::repeat(7), |mut reader| reader.read(&mut [0; 100]));
        assert_eq!(count.unwrap(), 100);
    }
}

//! Frames on the wire (SPDY protocol draft 3.1, section 2.2 and 2.6).

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// No frame is longer: Go's side sends at most what one write gives it, which is 32 KiB in kubectl.
const MAX_FRAME: usize = 1 << 20;
/// Data is cut into frames of this.
pub const MAX_DATA: usize = 32 << 10;
const HEAD: usize = 8;
const VERSION: u16 = 3;
const FIN: u8 = 0x01;

/// What a peer says.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A new stream, with its header block still packed.
    Open {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    /// The peer agrees to a stream.
    Reply {
        stream: u32,
        block: Bytes,
    },
    Data {
        stream: u32,
        fin: bool,
        data: Bytes,
    },
    Reset {
        stream: u32,
    },
    Ping {
        number: u32,
    },
    GoAway,
    /// More headers of a stream; the block has to be unpacked to keep the compression in step.
    Headers {
        block: Bytes,
    },
    /// SETTINGS, WINDOW_UPDATE and what else there may be.
    Other,
}

/// Takes one frame from the front of the buffer; none while it is not whole.
///
/// # Errors
/// When the frame is malformed or too long.
pub fn take(buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
    let Some(head) = buffer.first_chunk::<HEAD>().copied() else { return Ok(None) };
    let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    let flags = head[4];
    let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
    if length > MAX_FRAME {
        return Err(malformed("a frame is too long"));
    }
    if buffer.len() < HEAD + length {
        buffer.reserve(HEAD + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(HEAD);
    let mut body = buffer.split_to(length).freeze();
    let fin = flags & FIN != 0;
    if word & 0x8000_0000 == 0 {
        return Ok(Some(Frame::Data { stream: word, fin, data: body }));
    }
    if (word >> 16) as u16 & 0x7fff != VERSION {
        return Err(malformed("a frame of another version"));
    }
    let stream = |body: &mut Bytes| -> io::Result<u32> {
        if body.len() < 4 {
            return Err(malformed("a frame ends early"));
        }
        Ok(body.get_u32() & 0x7fff_ffff)
    };
    Ok(Some(match word as u16 {
        1 => {
            let stream = stream(&mut body)?;
            // The associated stream, priority and slot mean nothing here.
            if body.len() < 6 {
                return Err(malformed("a frame ends early"));
            }
            body.advance(6);
            Frame::Open { stream, fin, block: body }
        }
        2 => Frame::Reply { stream: stream(&mut body)?, block: body },
        3 => Frame::Reset { stream: stream(&mut body)? },
        6 if body.len() >= 4 => Frame::Ping { number: body.get_u32() },
        7 => Frame::GoAway,
        8 => {
            stream(&mut body)?;
            Frame::Headers { block: body }
        }
        _ => Frame::Other,
    }))
}

/// Writes a frame; blocks are packed already.
pub fn put(frame: &Frame, out: &mut BytesMut) {
    match frame {
        Frame::Data { stream, fin, data } => {
            out.put_u32(*stream);
            head(*fin, data.len(), out);
            out.put_slice(data);
        }
        Frame::Open { stream, fin, block } => {
            control(1, *fin, 10 + block.len(), out);
            out.put_u32(*stream);
            out.put_slice(&[0; 6]);
            out.put_slice(block);
        }
        Frame::Reply { stream, block } => {
            control(2, false, 4 + block.len(), out);
            out.put_u32(*stream);
            out.put_slice(block);
        }
        Frame::Reset { stream } => {
            control(3, false, 8, out);
            out.put_u32(*stream);
            // CANCEL
            out.put_u32(5);
        }
        Frame::Ping { number } => {
            control(6, false, 4, out);
            out.put_u32(*number);
        }
        Frame::GoAway => {
            control(7, false, 8, out);
            out.put_u64(0);
        }
        Frame::Headers { .. } | Frame::Other => {}
    }
}

fn control(kind: u16, fin: bool, length: usize, out: &mut BytesMut) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    head(fin, length, out);
}

fn head(fin: bool, length: usize, out: &mut BytesMut) {
    // Every frame written here is shorter than 2^24 bytes.
    out.put_u32((u32::from(if fin { FIN } else { 0 }) << 24) | (length as u32 & 0x00ff_ffff));
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_were_however_they_are_cut() {
        let block = Bytes::from_static(b"block");
        let frames = [
            Frame::Open { stream: 1, fin: false, block: block.clone() },
            Frame::Reply { stream: 1, block },
            Frame::Data { stream: 1, fin: true, data: Bytes::from_static(b"data") },
            Frame::Data { stream: 3, fin: false, data: Bytes::new() },
            Frame::Reset { stream: 3 },
            Frame::Ping { number: 7 },
            Frame::GoAway,
        ];
        let mut wire = BytesMut::new();
        frames.iter().for_each(|frame| put(frame, &mut wire));
        let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
        for byte in wire {
            buffer.put_u8(byte);
            seen.extend(take(&mut buffer).unwrap());
        }
        assert_eq!(seen, frames);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let long = [0, 0, 0, 1, 0, 0xff, 0xff, 0xff];
        assert!(take(&mut BytesMut::from(&long[..])).is_err());
        let version = [0x80, 2, 0, 1, 0, 0, 0, 0];
        assert!(take(&mut BytesMut::from(&version[..])).is_err());
        let short = [0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0];
        assert!(take(&mut BytesMut::from(&short[..])).is_err());
    }
}

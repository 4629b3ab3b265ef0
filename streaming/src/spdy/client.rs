//! The client's side, by hand, for tests.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    frame::{self, Frame},
    headers::Packer,
};

pub struct Client<S> {
    connection: S,
    packer: Packer,
    buffer: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn new(connection: S) -> Self {
        Self { connection, packer: Packer::default(), buffer: BytesMut::new() }
    }

    pub async fn open(&mut self, stream: u32, pairs: &[(&str, &str)]) {
        let headers = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let block = self.packer.pack(&headers).unwrap().into();
        self.send(Frame::Open { stream, fin: false, block }).await;
    }

    pub async fn send(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        frame::put(&frame, &mut bytes);
        self.connection.write_all(&bytes).await.unwrap();
    }

    pub async fn write(&mut self, stream: u32, data: &'static [u8]) {
        self.send(Frame::Data { stream, fin: false, data: Bytes::from_static(data) }).await;
    }

    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = frame::take(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            if self.connection.read_buf(&mut self.buffer).await.unwrap() == 0 {
                return None;
            }
        }
    }

    /// What comes on a stream until the connection ends, and how often this or that frame ends it.
    pub async fn all(&mut self, streams: &[u32]) -> Vec<(Vec<u8>, usize, usize)> {
        let mut out = vec![(Vec::new(), 0, 0); streams.len()];
        while let Some(frame) = self.next().await {
            let (id, data, fin, reset) = match frame {
                Frame::Data { stream, fin, data } => (stream, data, usize::from(fin), 0),
                Frame::Reset { stream } => (stream, Bytes::new(), 0, 1),
                _ => continue,
            };
            let place = &mut out[streams.iter().position(|stream| *stream == id).unwrap()];
            place.0.extend_from_slice(&data);
            place.1 += fin;
            place.2 += reset;
        }
        out
    }
}

//! A SPDY connection as a client: one task reads, one writes, streams are pairs of bounded queues.
//!
//! Without flow control in the protocol, a reader that does not keep up stops the whole connection (its queue fills, the reading task
//! waits), which is what TCP then tells the peer.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::SpdyError;
use super::frame::{FIN, Frame, Headers, decode, encode};
use super::headers::{Decoder, Encoder};

const QUEUE: usize = 16;

enum Outgoing {
    Open { id: u32, headers: Headers },
    Frame(Frame),
}

#[derive(Default)]
struct Entry {
    data: Option<mpsc::Sender<Bytes>>,
    replied: Option<oneshot::Sender<Result<(), SpdyError>>>,
}

type Streams = Arc<Mutex<HashMap<u32, Entry>>>;

/// An open connection. It ends when it and all its streams are dropped, or when the peer ends it.
pub struct Connection {
    outgoing: mpsc::Sender<Outgoing>,
    streams: Streams,
    next: u32,
}

/// One stream: what the peer sends is read from it, and it is written to until it is closed.
pub struct Stream {
    pub read: ReadHalf,
    pub write: WriteHalf,
}

/// What the peer sends on a stream.
pub struct ReadHalf(mpsc::Receiver<Bytes>);

/// What we send on a stream. Dropping it does not end the stream: [`WriteHalf::close`] does.
pub struct WriteHalf {
    id: u32,
    outgoing: mpsc::Sender<Outgoing>,
}

impl Connection {
    /// Speaks SPDY as a client over a connection that was switched to it.
    ///
    /// # Errors
    /// When compression cannot be set up.
    pub fn client<IO>(io: IO) -> Result<Self, SpdyError>
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(io);
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let streams = Streams::default();
        tokio::spawn(write_all(write, queue, Encoder::new()?));
        tokio::spawn(read_all(read, Arc::clone(&streams), outgoing.downgrade()));
        // Clients use odd numbers.
        Ok(Self { outgoing, streams, next: 1 })
    }

    /// Opens a stream and waits for the peer's yes.
    ///
    /// # Errors
    /// When the peer refuses or is gone.
    pub async fn open(&mut self, headers: Headers) -> Result<Stream, SpdyError> {
        let id = self.next;
        self.next += 2;
        let (data, read) = mpsc::channel(QUEUE);
        let (replied, reply) = oneshot::channel();
        lock(&self.streams).insert(id, Entry { data: Some(data), replied: Some(replied) });
        self.outgoing.send(Outgoing::Open { id, headers }).await.map_err(|_| SpdyError::Closed)?;
        reply.await.map_err(|_| SpdyError::Closed)??;
        Ok(Stream { read: ReadHalf(read), write: WriteHalf { id, outgoing: self.outgoing.clone() } })
    }
}

impl ReadHalf {
    /// The next piece; `None` when the peer has ended the stream.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.0.recv().await
    }
}

impl WriteHalf {
    /// # Errors
    /// When the connection is gone.
    pub async fn send(&self, data: Bytes) -> Result<(), SpdyError> {
        self.frame(Frame::Data { id: self.id, flags: 0, data }).await
    }

    /// Says that nothing more comes.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn close(&self) -> Result<(), SpdyError> {
        self.frame(Frame::Data { id: self.id, flags: FIN, data: Bytes::new() }).await
    }

    async fn frame(&self, frame: Frame) -> Result<(), SpdyError> {
        self.outgoing.send(Outgoing::Frame(frame)).await.map_err(|_| SpdyError::Closed)
    }
}

async fn write_all<W: AsyncWrite + Unpin>(
    mut io: W,
    mut queue: mpsc::Receiver<Outgoing>,
    mut encoder: Encoder,
) -> Result<(), SpdyError> {
    let mut buffer = BytesMut::new();
    while let Some(first) = queue.recv().await {
        let mut next = Some(first);
        while let Some(outgoing) = next {
            let frame = match outgoing {
                Outgoing::Open { id, headers } => Frame::SynStream { id, flags: 0, block: encoder.encode(&headers)? },
                Outgoing::Frame(frame) => frame,
            };
            encode(&frame, &mut buffer);
            next = queue.try_recv().ok();
        }
        io.write_all_buf(&mut buffer).await?;
        io.flush().await?;
    }
    io.shutdown().await?;
    Ok(())
}

async fn read_all<R: AsyncRead + Unpin>(mut io: R, streams: Streams, outgoing: mpsc::WeakSender<Outgoing>) {
    let mut buffer = BytesMut::with_capacity(32 * 1024);
    let mut decoder = Decoder::new();
    let end: Result<(), SpdyError> = async {
        loop {
            while let Some(frame) = decode(&mut buffer)? {
                deliver(frame, &streams, &outgoing, &mut decoder).await?;
            }
            buffer.reserve(16 * 1024);
            if io.read_buf(&mut buffer).await? == 0 {
                return if buffer.is_empty() {
                    Ok(())
                } else {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                };
            }
        }
    }
    .await;
    if let Err(error) = end {
        tracing::debug!(error = &error as &dyn std::error::Error, "SPDY connection ended");
    }
    // Readers see the end of their streams, and whoever waits for a reply sees it closed.
    lock(&streams).clear();
}

async fn deliver(
    frame: Frame,
    streams: &Streams,
    outgoing: &mpsc::WeakSender<Outgoing>,
    decoder: &mut Decoder,
) -> Result<(), SpdyError> {
    match frame {
        Frame::SynReply { id, flags, block } => {
            decoder.decode(&block)?;
            if let Some(replied) = lock(streams).get_mut(&id).and_then(|e| e.replied.take()) {
                // Whoever opened it may have given up.
                let _ = replied.send(Ok(()));
            }
            ended(streams, id, flags);
        }
        Frame::Data { id, flags, data } => {
            let to = lock(streams).get(&id).and_then(|e| e.data.clone());
            if let Some(to) = to.filter(|_| !data.is_empty()) {
                // Its reader may have gone; the stream's other direction may still be of use.
                let _ = to.send(data).await;
            }
            ended(streams, id, flags);
        }
        Frame::RstStream { id, status } => {
            if let Some(Entry { replied: Some(replied), .. }) = lock(streams).remove(&id) {
                let _ = replied.send(Err(SpdyError::Refused(status)));
            }
        }
        // The state of compression is the connection's: every block is read, wanted or not.
        Frame::Headers { id, flags, block } => {
            decoder.decode(&block)?;
            ended(streams, id, flags);
        }
        Frame::SynStream { id, block, .. } => {
            decoder.decode(&block)?;
            // Servers open no streams in these protocols: REFUSED_STREAM.
            answer(outgoing, Frame::RstStream { id, status: 3 }).await;
        }
        // Even numbers are the peer's; ours would be answers to pings that we never send.
        Frame::Ping { id } if id % 2 == 0 => answer(outgoing, Frame::Ping { id }).await,
        Frame::Ping { .. } | Frame::GoAway | Frame::Ignored => {}
    }
    Ok(())
}

async fn answer(outgoing: &mpsc::WeakSender<Outgoing>, frame: Frame) {
    if let Some(outgoing) = outgoing.upgrade() {
        // A connection that is closing needs no answer.
        let _ = outgoing.send(Outgoing::Frame(frame)).await;
    }
}

fn ended(streams: &Streams, id: u32, flags: u8) {
    if flags & FIN != 0
        && let Some(entry) = lock(streams).get_mut(&id)
    {
        entry.data = None;
    }
}

fn lock(streams: &Streams) -> std::sync::MutexGuard<'_, HashMap<u32, Entry>> {
    streams.lock().unwrap_or_else(PoisonError::into_inner)
}

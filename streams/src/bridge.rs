//! Between a client's WebSocket and a node's SPDY connection.
//!
//! ```text
//! WebSocket message [0] data --> stdin          stdout, stderr, error --> messages [1], [2], [3]
//!                   [4] size --> resize         [255] n: stream n is at its end
//! ```
//!
//! The session is over when the node has ended all that it sends; the client then gets a normal close.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::spdy::{Connection, ReadHalf, SpdyError, WriteHalf};
use crate::websocket::WebSocket;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
const QUEUE: usize = 16;
const CHUNK: usize = 32 * 1024;

/// The streams that a client asked for, as its query says (`stdin=true&tty=true…`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Wanted {
    /// Reads `stdin`, `stdout`, `stderr` and `tty`, each true when `true` or `1`. A terminal has no stderr of its own.
    #[must_use]
    pub fn from_query(query: &str) -> Self {
        let on = |name: &str| {
            query.split('&').any(|p| p.split_once('=').is_some_and(|(k, v)| k == name && matches!(v, "true" | "1")))
        };
        let tty = on("tty");
        Self { stdin: on("stdin"), stdout: on("stdout"), stderr: on("stderr") && !tty, tty }
    }
}

/// Why a session ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    #[error("talk to the node")]
    Spdy(#[from] SpdyError),
    #[error("talk to the client")]
    WebSocket(#[from] Box<tungstenite::Error>),
    #[error("copy bytes")]
    Io(#[from] std::io::Error),
}

/// Carries a remote command or an attached session until it ends.
///
/// # Errors
/// When either side breaks off.
pub async fn channels<IO>(websocket: WebSocket, node: IO, wanted: Wanted) -> Result<(), BridgeError>
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut connection = Connection::client(node)?;
    let (output, from_node) = mpsc::channel(QUEUE);
    let mut input = Input::default();
    // The order is that of upstream's client: the node gives up when it has not seen all of them in time.
    let error = connection.open(stream("error")).await?;
    tokio::spawn(forward(ERROR, error.read, output.clone()));
    if wanted.stdin {
        input.stdin = Some(connection.open(stream("stdin")).await?.write);
    }
    for (name, channel, on) in [("stdout", STDOUT, wanted.stdout), ("stderr", STDERR, wanted.stderr)] {
        if on {
            tokio::spawn(forward(channel, connection.open(stream(name)).await?.read, output.clone()));
        }
    }
    if wanted.tty {
        input.resize = Some(connection.open(stream("resize")).await?.write);
    }
    drop(output);
    // What we never send is at its end; the node waits for no more of it.
    error.write.close().await?;
    carry(websocket, from_node, input).await
}

#[derive(Default)]
struct Input {
    stdin: Option<WriteHalf>,
    resize: Option<WriteHalf>,
}

async fn carry(
    mut websocket: WebSocket,
    mut from_node: mpsc::Receiver<Message>,
    input: Input,
) -> Result<(), BridgeError> {
    loop {
        tokio::select! {
            // Cancel-safe: a message that was not taken stays in the queue.
            message = from_node.recv() => match message {
                Some(message) => websocket.send(message).await.map_err(Box::new)?,
                None => return finish(websocket).await,
            },
            // Cancel-safe: a frame that is half read stays in the WebSocket's buffer.
            message = websocket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => input.take(bytes).await?,
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Box::new(error).into()),
            },
        }
    }
}

impl Input {
    async fn take(&self, mut message: Bytes) -> Result<(), SpdyError> {
        let Some(channel) = message.first().copied() else { return Ok(()) };
        let data = message.split_off(1);
        match (channel, &self.stdin, &self.resize) {
            (STDIN, Some(stdin), _) if !data.is_empty() => stdin.send(data).await,
            (RESIZE, _, Some(resize)) => resize.send(data).await,
            (CLOSE, Some(stdin), _) if data.first() == Some(&STDIN) => stdin.close().await,
            // Empty first messages and channels that were not asked for.
            _ => Ok(()),
        }
    }
}

async fn finish<S>(mut websocket: WebSocketStream<S>) -> Result<(), BridgeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    match websocket.close(Some(close)).await {
        // The client may be quicker: its close is as good as ours.
        Ok(()) | Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => {}
        Err(error) => return Err(Box::new(error).into()),
    }
    // Until it has answered, the last messages may still be on their way to it.
    while let Some(Ok(_)) = websocket.next().await {}
    Ok(())
}

async fn forward(channel: u8, mut stream: ReadHalf, to: mpsc::Sender<Message>) {
    while let Some(data) = stream.next().await {
        let mut message = BytesMut::with_capacity(data.len() + 1);
        message.put_u8(channel);
        message.put(data);
        if to.send(Message::Binary(message.freeze())).await.is_err() {
            return;
        }
    }
}

fn stream(name: &str) -> Vec<(String, String)> {
    vec![("streamtype".to_owned(), name.to_owned())]
}

/// Carries SPDY inside a WebSocket ([`crate::websocket::TUNNEL`]): binary messages are the bytes of the node's connection.
///
/// # Errors
/// When either side breaks off.
pub async fn tunnel<IO>(mut websocket: WebSocket, node: IO) -> Result<(), BridgeError>
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut read, mut write) = tokio::io::split(node);
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        buffer.reserve(CHUNK);
        tokio::select! {
            // Cancel-safe: read_buf reads nothing when it is dropped.
            count = read.read_buf(&mut buffer) => match count? {
                0 => return finish(websocket).await,
                _ => websocket.send(Message::Binary(buffer.split().freeze())).await.map_err(Box::new)?,
            },
            // Cancel-safe: a frame that is half read stays in the WebSocket's buffer.
            message = websocket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => write.write_all(&bytes).await?,
                Some(Ok(Message::Close(_))) | None => return Ok(write.shutdown().await?),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Box::new(error).into()),
            },
        }
    }
}

/// How output is put into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Binary,
    /// Text messages of base64.
    Base64,
}

/// Sends output that only flows one way, each piece a message, after an empty one; what the client sends is ignored.
///
/// # Errors
/// When either side breaks off.
pub async fn output<S, B>(
    mut websocket: WebSocketStream<S>,
    mut output: B,
    encoding: Encoding,
) -> Result<(), BridgeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Stream<Item = std::io::Result<Bytes>> + Unpin,
{
    let message = |bytes: Bytes| match encoding {
        Encoding::Binary => Message::Binary(bytes),
        Encoding::Base64 => Message::text(STANDARD.encode(bytes)),
    };
    websocket.send(message(Bytes::new())).await.map_err(Box::new)?;
    loop {
        tokio::select! {
            // Cancel-safe: a stream's next item is not lost when waiting for it is dropped.
            piece = output.next() => match piece {
                Some(bytes) => websocket.send(message(bytes?)).await.map_err(Box::new)?,
                None => return finish(websocket).await,
            },
            // Cancel-safe: a frame that is half read stays in the WebSocket's buffer.
            heard = websocket.next() => match heard {
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Box::new(error).into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use futures::stream;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::{Encoding, Wanted, output};

    #[tokio::test]
    async fn output_comes_in_messages_after_an_empty_one() {
        let binary = |bytes: &'static [u8]| Message::Binary(bytes.into());
        for (encoding, wanted) in [
            (Encoding::Binary, [binary(b""), binary(b"one\n"), binary(b"two")]),
            (Encoding::Base64, [Message::text(""), Message::text("b25lCg=="), Message::text("dHdv")]),
        ] {
            let (near, far) = tokio::io::duplex(1024);
            let server = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
            let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
            let pieces = stream::iter(["one\n", "two"].map(|piece| Ok(piece.into())));
            let sending = tokio::spawn(output(server, pieces, encoding));
            for message in wanted {
                assert_eq!(client.next().await.unwrap().unwrap(), message);
            }
            assert!(matches!(client.next().await, Some(Ok(Message::Close(_)))));
            assert!(client.next().await.is_none());
            sending.await.unwrap().unwrap();
        }
    }

    #[test]
    fn a_terminal_has_no_stderr() {
        let wanted = Wanted::from_query("command=sh&stdin=true&stdout=1&stderr=true&tty=true");
        assert_eq!(wanted, Wanted { stdin: true, stdout: true, stderr: false, tty: true });
        assert_eq!(Wanted::from_query("stdin=false&stdout"), Wanted::default());
    }
}

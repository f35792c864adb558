//! Passes bytes on between two ends, for as long as at least one of them says something now and then.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

const BUFFER: usize = 16 * 1024;

/// When something was heard last.
type Heard = Arc<Mutex<Instant>>;

/// An end whose words are noticed.
struct End<S> {
    stream: S,
    heard: Heard,
}

/// Passes on until both ends have closed; `false`: until nothing came from either for `idle` (zero: however long).
///
/// # Errors
/// An end that fails.
pub(super) async fn relay(
    one: impl AsyncRead + AsyncWrite + Unpin,
    other: impl AsyncRead + AsyncWrite + Unpin,
    idle: Duration,
) -> io::Result<bool> {
    let heard: Heard = Arc::new(Mutex::new(Instant::now()));
    let mut one = End { stream: one, heard: Arc::clone(&heard) };
    let mut other = End { stream: other, heard: Arc::clone(&heard) };
    let passing = pin!(tokio::io::copy_bidirectional_with_sizes(&mut one, &mut other, BUFFER, BUFFER));
    // The session is over whichever comes first: nothing is to be kept.
    tokio::select! {
        passed = passing => passed.map(|_| true),
        () = silence(&heard, idle) => Ok(false),
    }
}

async fn silence(heard: &Heard, idle: Duration) {
    if idle.is_zero() {
        return std::future::pending().await;
    }
    loop {
        let until = *heard.lock().unwrap_or_else(PoisonError::into_inner) + idle;
        if until <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for End<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for End<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_when_neither_end_says_anything() {
        let (mut client, ours) = duplex(64);
        let (theirs, mut runtime) = duplex(64);
        let begun = Instant::now();
        let passing = tokio::spawn(relay(ours, theirs, Duration::from_secs(60)));
        // Either end keeps it.
        for end in [&mut client, &mut runtime] {
            tokio::time::sleep(Duration::from_secs(50)).await;
            end.write_all(b"x").await.unwrap();
        }
        assert_eq!((client.read_u8().await.unwrap(), runtime.read_u8().await.unwrap()), (b'x', b'x'));
        assert!(!passing.await.unwrap().unwrap());
        assert!((160..162).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_when_both_ends_are_closed() {
        let (client, ours) = duplex(64);
        let (theirs, runtime) = duplex(64);
        let passing = tokio::spawn(relay(ours, theirs, Duration::ZERO));
        tokio::time::sleep(Duration::from_secs(100_000)).await;
        drop((client, runtime));
        assert!(passing.await.unwrap().unwrap());
    }
}

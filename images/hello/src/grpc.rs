//! `grpc.health.v1.Health/Check`, by hand: one unary call over HTTP/2 with an enum in its answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body, Frame};

/// A gRPC answer: its message, then its trailers.
pub struct Answer(std::vec::IntoIter<Frame<Bytes>>);

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(Ok))
    }
}

/// SERVING (1) or NOT_SERVING (2).
pub fn health(serving: bool) -> Response<Answer> {
    // Uncompressed, two bytes long, field 1 as a varint.
    let message = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 0x08, if serving { 1 } else { 2 }]);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let mut response = Response::new(Answer(vec![Frame::data(message), Frame::trailers(trailers)].into_iter()));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

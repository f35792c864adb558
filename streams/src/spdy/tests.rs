use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::frame::{FIN, Frame, decode, encode};
use super::headers::{Decoder, Encoder, dictionary};
use super::*;

#[test]
fn dictionary_is_the_protocols() {
    let bytes = dictionary();
    let adler = bytes.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    assert_eq!((bytes.len(), adler.1 << 16 | adler.0), (1423, 0xe3c6_a7c2));
}

#[test]
fn frames_survive_the_wire_in_any_pieces() {
    let frames = [
        Frame::SynStream { id: 1, flags: 0, block: Bytes::from_static(b"xy") },
        Frame::SynReply { id: 1, flags: FIN, block: Bytes::from_static(b"") },
        Frame::RstStream { id: 3, status: 5 },
        Frame::Ping { id: 2 },
        Frame::Headers { id: 7, flags: 0, block: Bytes::from_static(b"h") },
        Frame::Data { id: 9, flags: FIN, data: Bytes::from_static(b"hello") },
        Frame::GoAway,
    ];
    let mut wire = BytesMut::new();
    frames.iter().for_each(|f| encode(f, &mut wire));
    for piece in [1, 3, 7, wire.len()] {
        let mut buffer = BytesMut::new();
        let mut read = Vec::new();
        for bytes in wire.chunks(piece) {
            buffer.extend_from_slice(bytes);
            while let Some(frame) = decode(&mut buffer).unwrap() {
                read.push(frame);
            }
        }
        assert_eq!(read, frames, "in pieces of {piece}");
    }
}

#[test]
fn what_is_not_spdy_is_an_error() {
    for bytes in [
        &b"\x80\x02\x00\x01\x00\x00\x00\x00"[..],
        b"\x80\x03\x00\x63\x00\x00\x00\x00",
        b"\x00\x00\x00\x01\x00\xff\xff\xff",
        b"\x80\x03\x00\x01\x00\x00\x00\x04abcd",
    ] {
        assert!(decode(&mut BytesMut::from(bytes)).is_err(), "{bytes:?}");
    }
}

#[test]
fn headers_share_their_compression_state() {
    let (mut encoder, mut decoder) = (Encoder::new().unwrap(), Decoder::new());
    for round in 0..200 {
        let headers: Headers = (0..round % 7)
            .map(|i| (format!("streamtype-{i}"), format!("value {round} {}", "z".repeat(round * i))))
            .collect();
        assert_eq!(decoder.decode(&encoder.encode(&headers).unwrap()).unwrap(), headers);
    }
    assert!(Decoder::new().decode(b"no zlib at all").is_err());
}

/// A peer that replies to every stream and sends back what it gets.
async fn echo(io: tokio::io::DuplexStream) {
    let (mut read, mut write) = tokio::io::split(io);
    let (mut buffer, mut encoder, mut decoder) = (BytesMut::new(), Encoder::new().unwrap(), Decoder::new());
    loop {
        while let Some(frame) = decode(&mut buffer).unwrap() {
            let mut out = BytesMut::new();
            match frame {
                Frame::SynStream { id, block, .. } => {
                    let headers = decoder.decode(&block).unwrap();
                    match headers.iter().any(|(_, v)| v == "refuse") {
                        true => encode(&Frame::RstStream { id, status: 3 }, &mut out),
                        false => encode(
                            &Frame::SynReply { id, flags: 0, block: encoder.encode(&Headers::new()).unwrap() },
                            &mut out,
                        ),
                    }
                }
                data @ Frame::Data { .. } => encode(&data, &mut out),
                other => panic!("unexpected {other:?}"),
            }
            write.write_all(&out).await.unwrap();
        }
        if read.read_buf(&mut buffer).await.unwrap() == 0 {
            return;
        }
    }
}

#[tokio::test]
async fn streams_of_a_connection_are_apart() {
    let (ours, theirs) = tokio::io::duplex(1000);
    let peer = tokio::spawn(echo(theirs));
    let mut connection = Connection::client(ours).unwrap();
    let mut one = connection.open(vec![("streamtype".into(), "stdin".into())]).await.unwrap();
    let mut two = connection.open(vec![("streamtype".into(), "stdout".into())]).await.unwrap();
    let refused = connection.open(vec![("streamtype".into(), "refuse".into())]).await;
    assert!(matches!(refused, Err(SpdyError::Refused(3))));
    two.write.send(Bytes::from(vec![7; 5000])).await.unwrap();
    one.write.send(Bytes::from_static(b"abc")).await.unwrap();
    one.write.close().await.unwrap();
    assert_eq!(two.read.next().await.unwrap().len(), 5000);
    assert_eq!(one.read.next().await.unwrap(), "abc");
    assert_eq!(one.read.next().await, None);
    drop((one, two, connection));
    peer.await.unwrap();
}

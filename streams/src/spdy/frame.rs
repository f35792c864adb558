//! Frames of SPDY/3.1 (draft-mbelshe-httpbis-spdy-00 section 2.2 and 2.6), between bytes and values.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::SpdyError;

/// Header names (lower case) and values of a stream.
pub type Headers = Vec<(String, String)>;

const VERSION: u16 = 3;
const CONTROL: u8 = 0x80;
const HEAD: usize = 8;
/// Nobody in this protocol sends more in one frame; a length beyond it is an attack or not SPDY.
const MOST: usize = 1 << 20;

/// The other end will send nothing more on the stream.
pub const FIN: u8 = 0x01;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// One frame; header blocks are still compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        id: u32,
        flags: u8,
        block: Bytes,
    },
    SynReply {
        id: u32,
        flags: u8,
        block: Bytes,
    },
    RstStream {
        id: u32,
        status: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    Headers {
        id: u32,
        flags: u8,
        block: Bytes,
    },
    Data {
        id: u32,
        flags: u8,
        data: Bytes,
    },
    /// SETTINGS and WINDOW_UPDATE: valid, and of no consequence without flow control.
    Ignored,
}

/// Takes one frame off the front; `None` while it is not all there.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, SpdyError> {
    let Some(head) = buffer.first_chunk::<HEAD>() else { return Ok(None) };
    let [first, _, _, _, flags, high, middle, low] = *head;
    let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    if length > MOST {
        return Err(SpdyError::Protocol("a frame of more than 1 MiB"));
    }
    if buffer.len() < HEAD + length {
        return Ok(None);
    }
    let mut head = buffer.split_to(HEAD).freeze();
    let body = buffer.split_to(length).freeze();
    if first & CONTROL == 0 {
        return Ok(Some(Frame::Data { id: head.get_u32(), flags, data: body }));
    }
    if head.get_u16() & 0x7fff != VERSION {
        return Err(SpdyError::Protocol("a version that is not 3"));
    }
    control(head.get_u16(), flags, body).map(Some)
}

fn control(kind: u16, flags: u8, mut body: Bytes) -> Result<Frame, SpdyError> {
    let least = match kind {
        SYN_STREAM => 10,
        RST_STREAM => 8,
        SYN_REPLY | HEADERS | PING => 4,
        SETTINGS | WINDOW_UPDATE | GOAWAY => 0,
        _ => return Err(SpdyError::Protocol("a control frame of an unknown type")),
    };
    if body.len() < least {
        return Err(SpdyError::Protocol("a control frame that is too short"));
    }
    Ok(match kind {
        SYN_STREAM => {
            let id = stream_id(&mut body);
            // Associated stream, priority and credential slot mean nothing here.
            body.advance(6);
            Frame::SynStream { id, flags, block: body }
        }
        SYN_REPLY => Frame::SynReply { id: stream_id(&mut body), flags, block: body },
        HEADERS => Frame::Headers { id: stream_id(&mut body), flags, block: body },
        RST_STREAM => Frame::RstStream { id: stream_id(&mut body), status: body.get_u32() },
        PING => Frame::Ping { id: body.get_u32() },
        GOAWAY => Frame::GoAway,
        _ => Frame::Ignored,
    })
}

fn stream_id(body: &mut Bytes) -> u32 {
    body.get_u32() & 0x7fff_ffff
}

/// Appends a frame.
pub fn encode(frame: &Frame, out: &mut BytesMut) {
    match frame {
        Frame::Data { id, flags, data } => {
            out.put_u32(*id);
            flags_and_length(out, *flags, data.len());
            out.put_slice(data);
        }
        Frame::SynStream { id, flags, block } => {
            head(out, SYN_STREAM, *flags, 10 + block.len());
            out.put_u32(*id);
            out.put_bytes(0, 6);
            out.put_slice(block);
        }
        Frame::SynReply { id, flags, block } => with_block(out, SYN_REPLY, *id, *flags, block),
        Frame::Headers { id, flags, block } => with_block(out, HEADERS, *id, *flags, block),
        Frame::RstStream { id, status } => {
            head(out, RST_STREAM, 0, 8);
            out.put_u32(*id);
            out.put_u32(*status);
        }
        Frame::Ping { id } => {
            head(out, PING, 0, 4);
            out.put_u32(*id);
        }
        Frame::GoAway => {
            head(out, GOAWAY, 0, 8);
            out.put_bytes(0, 8);
        }
        Frame::Ignored => {}
    }
}

fn with_block(out: &mut BytesMut, kind: u16, id: u32, flags: u8, block: &Bytes) {
    head(out, kind, flags, 4 + block.len());
    out.put_u32(id);
    out.put_slice(block);
}

fn head(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    flags_and_length(out, flags, length);
}

fn flags_and_length(out: &mut BytesMut, flags: u8, length: usize) {
    out.put_u32(u32::from(flags) << 24 | u32::try_from(length).unwrap_or(0) & 0x00ff_ffff);
}

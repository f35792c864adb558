//! Header blocks: name/value pairs in one zlib stream a direction, which starts from a dictionary that the protocol fixes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::SpdyError;
use super::frame::Headers;

/// A block that inflates to more than this is an attack.
const MOST: usize = 64 * 1024;

/// Words that the dictionary of SPDY/3 lists with their length in front.
const WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
/// What follows them.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found\
    500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 \
    Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,\
    text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// The dictionary of SPDY/3: 1,423 bytes, Adler-32 0xe3c6a7c2.
pub(super) fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1423);
    for word in WORDS {
        bytes.put_u32(u32::try_from(word.len()).unwrap_or(0));
        bytes.put_slice(word.as_bytes());
    }
    bytes.put_slice(TAIL.as_bytes());
    bytes
}

/// Compresses the blocks of one direction.
pub struct Encoder(Compress);

impl Encoder {
    pub fn new() -> Result<Self, SpdyError> {
        let mut zlib = Compress::new(Compression::fast(), true);
        zlib.set_dictionary(&dictionary()).map_err(|_| SpdyError::Protocol("zlib refused the dictionary"))?;
        Ok(Self(zlib))
    }

    pub fn encode(&mut self, headers: &Headers) -> Result<Bytes, SpdyError> {
        let mut plain = BytesMut::new();
        put_length(&mut plain, headers.len());
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            put_length(&mut plain, text.len());
            plain.put_slice(text.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let mut rest = plain.as_ref();
        loop {
            let (read, written) = (self.0.total_in(), out.len());
            out.reserve(256);
            self.0.compress_vec(rest, &mut out, FlushCompress::Sync).map_err(|_| SpdyError::Protocol("zlib failed"))?;
            let read = usize::try_from(self.0.total_in() - read).unwrap_or(usize::MAX);
            rest = rest.get(read..).unwrap_or(&[]);
            // A sync flush is over when it had room to spare.
            if rest.is_empty() && (out.len() < out.capacity() || out.len() == written) {
                return Ok(out.into());
            }
        }
    }
}

/// Reads the blocks of one direction.
pub struct Decoder(Decompress);

impl Decoder {
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub fn decode(&mut self, block: &[u8]) -> Result<Headers, SpdyError> {
        parse(self.inflate(block)?.into())
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let mut out = Vec::new();
        let mut rest = block;
        while !rest.is_empty() {
            let (read, written) = (self.0.total_in(), out.len());
            out.reserve(1024);
            match self.0.decompress_vec(rest, &mut out, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Err(SpdyError::Protocol("a header stream that ends")),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(&dictionary())
                        .map_err(|_| SpdyError::Protocol("headers compressed with another dictionary"))?;
                }
                Err(_) => return Err(SpdyError::Protocol("headers that are no zlib stream")),
            }
            let consumed = usize::try_from(self.0.total_in() - read).unwrap_or(usize::MAX);
            rest = rest.get(consumed..).unwrap_or(&[]);
            if out.len() > MOST {
                return Err(SpdyError::Protocol("headers of more than 64 KiB"));
            }
            if consumed == 0 && out.len() == written && out.len() < out.capacity() && self.0.total_in() > 6 {
                return Err(SpdyError::Protocol("headers that are cut short"));
            }
        }
        Ok(out)
    }
}

fn parse(mut plain: Bytes) -> Result<Headers, SpdyError> {
    const SHORT: SpdyError = SpdyError::Protocol("headers that are cut short");
    let count = plain.try_get_u32().map_err(|_| SHORT)?;
    let mut text = || -> Result<String, SpdyError> {
        let length = usize::try_from(plain.try_get_u32().map_err(|_| SHORT)?).map_err(|_| SHORT)?;
        if plain.len() < length {
            return Err(SHORT);
        }
        Ok(String::from_utf8_lossy(&plain.split_to(length)).into_owned())
    };
    (0..count).map(|_| Ok((text()?, text()?))).collect()
}

fn put_length(out: &mut BytesMut, length: usize) {
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

//! How one record lies in the log: flag, key length, splice offset, key, JSON; numbers little-endian.

use bytes::Bytes;

use crate::{Encoded, Key, Record};

const DELETED: u8 = 0;
const PRESENT: u8 = 1;
const HEAD: usize = 1 + 4 + 4;

pub(crate) fn encode(key: &Key, value: Option<&Encoded>) -> Vec<u8> {
    let name = key.as_str().as_bytes();
    let (flag, splice, json) = match value {
        Some(value) => (PRESENT, value.splice, value.json.as_ref()),
        None => (DELETED, 0, [].as_slice()),
    };
    let mut out = Vec::with_capacity(HEAD + name.len() + json.len());
    out.push(flag);
    // Keys come from URL paths of at most a few KiB.
    out.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&splice.to_le_bytes());
    out.extend_from_slice(name);
    out.extend_from_slice(json);
    out
}

pub(crate) fn decode(revision: u64, bytes: &[u8]) -> Option<Record> {
    let (flag, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (splice, rest) = rest.split_first_chunk::<4>()?;
    let (name, json) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let key = Key::parse(std::str::from_utf8(name).ok()?)?;
    let splice = u32::from_le_bytes(*splice);
    let value = match *flag {
        DELETED => None,
        PRESENT if usize::try_from(splice).ok()? <= json.len() => {
            Some(Encoded { json: Bytes::copy_from_slice(json), splice })
        }
        _ => return None,
    };
    Some(Record { revision, key, value })
}

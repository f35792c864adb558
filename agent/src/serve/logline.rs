//! One entry of a CRI log file: `2016-10-06T00:17:09.669794202Z stdout F content`.

use jiff::Timestamp;

/// Which of a container's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A parsed entry.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// When it was written.
    pub time: Timestamp,
    /// The same as it stands in the file.
    pub stamp: &'a [u8],
    /// Where to.
    pub stream: Stream,
    /// Whether the line goes on in the next entry.
    pub partial: bool,
    /// What was written, without a line end.
    pub content: &'a [u8],
}

/// Parses a line; `None` for what the runtime did not write.
#[must_use]
pub fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let (stamp, rest) = split(line)?;
    let (stream, rest) = split(rest)?;
    let (tags, content) = split(rest).unwrap_or((rest, b""));
    let time = std::str::from_utf8(stamp).ok()?.parse().ok()?;
    let stream = match stream {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    // Tags are separated by colons; the first says whether the line is whole.
    let partial = match tags.split(|byte| *byte == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Entry { time, stamp, stream, partial, content })
}

/// A time stamp of an entry as it is shown: nine digits of a second, the zone as it stands (upstream's `RFC3339NanoFixed`).
#[must_use]
pub fn fixed(stamp: &[u8]) -> Vec<u8> {
    const SECONDS: usize = "2016-10-06T00:17:09".len();
    const DIGITS: usize = 9;
    let Some((seconds, rest)) = stamp.split_at_checked(SECONDS) else { return stamp.to_vec() };
    let fraction = rest.strip_prefix(b".").unwrap_or_default();
    let count = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, zone) = if rest.starts_with(b".") { fraction.split_at(count) } else { (&[][..], rest) };
    let mut out = seconds.to_vec();
    out.push(b'.');
    out.extend(digits.iter().chain(std::iter::repeat(&b'0')).take(DIGITS));
    out.extend_from_slice(if zone == b"+00:00" { b"Z" } else { zone });
    out
}

fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = text.iter().position(|byte| *byte == b' ')?;
    let (head, tail) = text.split_at(space);
    Some((head, tail.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_the_cri_are_read() {
        let entry = parse(b"2016-10-06T00:17:09.669794202Z stderr P:x a b \n").unwrap();
        assert_eq!((entry.stream, entry.partial, entry.content), (Stream::Stderr, true, b"a b ".as_slice()));
        assert_eq!(entry.time.subsec_nanosecond(), 669_794_202);
        assert_eq!(parse(b"2016-10-06T00:17:09.669794202+02:00 stdout F \n").unwrap().content, b"");
        assert_eq!(parse(b"2016-10-06T00:17:09.669794202Z stdout F").unwrap().content, b"");
    }

    #[test]
    fn time_stamps_are_shown_with_nine_digits() {
        for (stamp, shown) in [
            ("2016-10-06T00:17:09.669794202Z", "2016-10-06T00:17:09.669794202Z"),
            ("2016-10-06T00:17:09.66979Z", "2016-10-06T00:17:09.669790000Z"),
            ("2016-10-06T00:17:09+02:00", "2016-10-06T00:17:09.000000000+02:00"),
            ("2016-10-06T00:17:09.5-07:30", "2016-10-06T00:17:09.500000000-07:30"),
            ("2016-10-06T00:17:09.1234567891+00:00", "2016-10-06T00:17:09.123456789Z"),
        ] {
            assert_eq!(String::from_utf8(fixed(stamp.as_bytes())).unwrap(), shown);
        }
    }

    #[test]
    fn other_lines_are_none() {
        for line in [
            "",
            "\n",
            "text",
            "2016-10-06T00:17:09Z stdin F x",
            "yesterday stdout F x",
            "2016-10-06T00:17:09Z stdout Q x",
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{line:?}");
        }
    }
}

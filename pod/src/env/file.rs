//! Files of variables (KEP-3721): a strict part of the shell's syntax.

/// Why a file of variables cannot be read. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// A line without a variable.
    #[error("invalid environment variable format at line {0}: missing '='")]
    NoVariable(usize),
    /// A line that begins with `=`.
    #[error("invalid environment variable format at line {0}: empty variable name")]
    NoName(usize),
    /// `NAME = 'value'`
    #[error("invalid environment variable format at line {0}: whitespace before '=' is not allowed")]
    Space(usize),
    /// `NAME=value`
    #[error("invalid environment variable format at line {0}: value must be enclosed in single quotes")]
    NoQuotes(usize),
    /// Something after the value that is no comment.
    #[error("invalid environment variable format at line {0}: unexpected content after closing quote")]
    Trailing(usize),
    /// More than is ever read for a line.
    #[error("error reading environment variable file at line {0}: token too long")]
    TooLong(usize),
    /// The value does not end.
    #[error("invalid environment variable format starting at line {0}: unclosed single quote")]
    Unclosed(usize),
}

/// What upstream's scanner takes for a line, with what ends it.
const LONGEST_LINE: usize = 64 << 10;
const BLANK: [char; 2] = [' ', '\t'];

/// The value of a variable, the first of its name; `None` when there is none before the end. What comes after it is
/// not looked at.
///
/// # Errors
/// A line before it that is not understood.
pub fn variable(text: &str, key: &str) -> Result<Option<String>, FileError> {
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        if line.len() >= LONGEST_LINE {
            return Err(FileError::TooLong(number));
        }
        let line = line.trim_start_matches(BLANK);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or(FileError::NoVariable(number))?;
        match name.trim_end_matches(BLANK) {
            "" => return Err(FileError::NoName(number)),
            trimmed if trimmed != name => return Err(FileError::Space(number)),
            _ => {}
        }
        // As in a shell, the value is empty then.
        if value.starts_with(BLANK) {
            if name == key {
                return Ok(None);
            }
            continue;
        }
        let quoted = value.strip_prefix('\'').ok_or(FileError::NoQuotes(number))?;
        let value = until_quote(quoted, number, &mut lines)?;
        if name == key {
            return Ok(Some(value).filter(|value| !value.is_empty()));
        }
    }
    Ok(None)
}

/// The value up to its closing quote, which may be on a later line.
fn until_quote<'a>(
    first: &'a str,
    begun: usize,
    lines: &mut impl Iterator<Item = (usize, &'a str)>,
) -> Result<String, FileError> {
    let mut value = String::new();
    let (mut number, mut rest) = (begun, first);
    loop {
        if let Some((last, after)) = rest.split_once('\'') {
            value.push_str(last);
            let after = after.trim_start_matches(BLANK);
            let fine = after.is_empty() || after.starts_with('#');
            return if fine { Ok(value) } else { Err(FileError::Trailing(number)) };
        }
        value.push_str(rest);
        value.push('\n');
        // One that is too long is the end, too.
        let next = lines.next().filter(|(_, line)| line.len() < LONGEST_LINE);
        (number, rest) = next.ok_or(FileError::Unclosed(begun))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_understood() {
        let text = "# a comment\n\n  A='1' # more\nB='two\nlines $HOME'\nC= 'nothing'\nA='later'\nD=''\n";
        let of = |key: &str| variable(text, key).unwrap();
        assert_eq!(of("A").as_deref(), Some("1"));
        assert_eq!(of("B").as_deref(), Some("two\nlines $HOME"));
        assert_eq!([of("C"), of("D"), of("E")], [None, None, None]);
    }

    #[test]
    fn what_is_not() {
        for (text, error) in [
            ("A", FileError::NoVariable(1)),
            ("\n='x'", FileError::NoName(2)),
            ("A ='x'", FileError::Space(1)),
            ("A=x", FileError::NoQuotes(1)),
            ("A='x' y", FileError::Trailing(1)),
            ("A='x\ny' z", FileError::Trailing(2)),
            ("B='x'\nA='y", FileError::Unclosed(2)),
        ] {
            assert_eq!(variable(text, "K"), Err(error), "{text}");
        }
        let long = "x".repeat(LONGEST_LINE);
        assert_eq!(variable(&format!("A='x'\n#{long}\nK='v'"), "K"), Err(FileError::TooLong(2)));
        assert_eq!(variable(&format!("K='\n{long}'"), "K"), Err(FileError::Unclosed(1)));
        assert_eq!(variable(&format!("K='v'\n{long}"), "K"), Ok(Some("v".to_owned())));
        assert_eq!(variable("K='v'\nA", "K"), Ok(Some("v".to_owned())), "what comes after is not looked at");
    }
}

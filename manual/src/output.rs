//! Standard output of a command. Who reads it may have heard enough (`| head -1`), or be gone with his terminal: that ends nothing that is
//! under way, which `println!` would by its panic.

use std::fmt::{Arguments, Display};
use std::io::{self, ErrorKind, Write as _};

/// Writes a line.
pub fn line(text: impl Display) {
    write(format_args!("{text}\n"));
}

/// Writes a text that has its own ends of lines.
pub fn text(text: impl Display) {
    write(format_args!("{text}"));
}

fn write(text: Arguments<'_>) {
    let mut out = io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        // A full disk is worth a word, as far as anybody hears it.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "cannot write to standard output: {error}");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    /// The test calls itself as the program whose reader goes.
    #[test]
    fn a_reader_who_is_gone_ends_nothing() {
        const SPEAKS: &str = "KEELSON_TEST_SPEAKS";
        if std::env::var_os(SPEAKS).is_some() {
            (0..20_000).for_each(|_| line("said"));
            text("all\n");
            eprintln!("all is said");
            return;
        }
        let mut program = Command::new(std::env::current_exe().unwrap());
        program.args(["--exact", "output::tests::a_reader_who_is_gone_ends_nothing", "--nocapture"]).env(SPEAKS, "");
        let mut child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "said"));
        // A pipe holds less than what is still to come.
        drop(lines);
        let out = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(stderr.contains("all is said") && !stderr.contains("cannot write"), "{stderr}");
    }
}

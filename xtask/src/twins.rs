//! Code that stands twice: runs of the same lines in two places, which want to be one function.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// So many lines that say something, one after the other, are a copy and no accident.
const RUN: usize = 9;

struct Line<'a> {
    number: usize,
    text: &'a str,
}

/// Every pair of places that share a run, the longest form of each.
pub fn find(files: &[(PathBuf, String)]) -> Vec<String> {
    let files: Vec<(&Path, Vec<Line<'_>>)> = files.iter().map(|(path, text)| (path.as_path(), telling(text))).collect();
    let mut first: HashMap<Vec<&str>, (usize, usize)> = HashMap::new();
    let mut twins = Vec::new();
    for (file, (_, lines)) in files.iter().enumerate() {
        let mut at = 0;
        while let Some(window) = lines.get(at..at + RUN) {
            let key: Vec<&str> = window.iter().map(|line| line.text).collect();
            let known = *first.entry(key).or_insert((file, at));
            let overlaps = known.0 == file && at < known.1 + RUN;
            if overlaps {
                at += 1;
                continue;
            }
            let length = shared(&files, known, (file, at));
            twins.push(format!(
                "{} is the same as {}",
                place(&files, known, length),
                place(&files, (file, at), length)
            ));
            at += length;
        }
    }
    twins
}

/// How many lines from the two places on are the same.
fn shared(files: &[(&Path, Vec<Line<'_>>)], a: (usize, usize), b: (usize, usize)) -> usize {
    let line = |(file, at): (usize, usize), by: usize| files.get(file)?.1.get(at + by).map(|line| line.text);
    (0..).take_while(|by| line(a, *by).is_some() && line(a, *by) == line(b, *by)).count()
}

fn place(files: &[(&Path, Vec<Line<'_>>)], (file, at): (usize, usize), length: usize) -> String {
    let Some((path, lines)) = files.get(file) else { return String::new() };
    let number = |at: usize| lines.get(at).map_or(0, |line| line.number);
    format!("{}:{}-{}", path.display(), number(at), number(at + length - 1))
}

/// The lines that say something: no comments, imports, brackets.
fn telling(text: &str) -> Vec<Line<'_>> {
    let lines = text.lines().map(str::trim).enumerate().map(|(at, text)| Line { number: at + 1, text });
    let mut imports = false;
    lines
        .filter(|line| {
            let begins = line.text.starts_with("use ") || line.text.starts_with("pub use ");
            let is_import = imports || begins;
            imports = is_import && !line.text.ends_with(';');
            !is_import && !line.text.starts_with("//") && line.text.chars().any(char::is_alphanumeric)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: String) -> (PathBuf, String) {
        (name.into(), text)
    }

    fn numbered(from: usize, to: usize) -> String {
        (from..to).map(|n| format!("    let v{n} = {n};\n")).collect()
    }

    #[test]
    fn a_copied_run_is_found_with_both_places() {
        let a = file("a.rs", format!("use x::{{\n  y,\n}};\n{}", numbered(0, 12)));
        let b = file("b.rs", format!("fn f() {{\n// why\n{}}}\n", numbered(2, 30)));
        assert_eq!(find(&[a, b]), ["a.rs:6-15 is the same as b.rs:3-12"]);
    }

    #[test]
    fn a_short_run_or_the_same_imports_are_none() {
        let imports = "use a::b;\n".repeat(20);
        let a = file("a.rs", format!("{imports}{}", numbered(0, 12)));
        let b = file("b.rs", format!("{imports}{}", numbered(5, 20)));
        assert_eq!(find(&[a, b]), Vec::<String>::new());
    }

    #[test]
    fn a_run_in_the_same_file_is_found() {
        let text = format!("{}fn g() {{\n{}", numbered(0, 10), numbered(0, 10));
        assert_eq!(find(&[file("a.rs", text)]), ["a.rs:1-10 is the same as a.rs:12-21"]);
    }
}

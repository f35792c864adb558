//! Sets of indexes as the status of a Job writes them: `1,3-5,7`.

use std::collections::BTreeSet;

/// Reads a set; what cannot be read is left out.
pub(super) fn read(text: &str) -> BTreeSet<i32> {
    let mut set = BTreeSet::new();
    for interval in text.split(',') {
        let (first, last) = interval.split_once('-').unwrap_or((interval, interval));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            set.extend(first..=last);
        }
    }
    set
}

/// Writes a set, neighbours as intervals.
pub(super) fn write(set: &BTreeSet<i32>) -> String {
    let mut intervals: Vec<(i32, i32)> = Vec::new();
    for index in set {
        match intervals.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => intervals.push((*index, *index)),
        }
    }
    let shown = intervals.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    shown.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for text in ["", "0", "1,3-5,7,8", "0-100"] {
            assert_eq!(write(&read(text)), text);
        }
    }
}

//! A section in Markdown. Pure.

use std::fmt::Write;

use super::compare::Compared;
use super::figures::Spread;
use super::goals::{Limit, Verdict};
use super::rows::{Better, Unit};
use super::sizes::{Sizes, thousands};

/// A value as a person reads it: three digits that count, and its unit.
#[must_use]
pub fn value(value: f64, unit: Unit) -> String {
    let (digits, unit) = parts(value, unit);
    digits + unit
}

fn parts(value: f64, unit: Unit) -> (String, &'static str) {
    match unit {
        Unit::Milliseconds if value >= 10_000.0 => (digits(value / 1000.0), " s"),
        Unit::Milliseconds => (digits(value), " ms"),
        Unit::Mebibytes => (digits(value), " MiB"),
        Unit::Percent => (digits(value), " %"),
        Unit::PerSecond => (digits(value), "/s"),
        Unit::Times => (digits(value), " ×"),
    }
}

fn digits(value: f64) -> String {
    match value {
        v if v >= 99.95 => thousands(&format!("{v:.0}")),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// The middle, and between what the rounds lie where there are several.
#[must_use]
pub fn spread(spread: Option<Spread>, unit: Unit) -> String {
    let Some(Spread { median, low, high }) = spread else { return "–".to_owned() };
    if (high - low).abs() < f64::EPSILON {
        return value(median, unit);
    }
    let [middle, low, high] = [median, low, high].map(|v| parts(v, unit));
    if low.1 == middle.1 && high.1 == middle.1 {
        return format!("{}{} ({}–{})", middle.0, middle.1, low.0, high.0);
    }
    format!("{}{} ({}{}–{}{})", middle.0, middle.1, low.0, low.1, high.0, high.1)
}

/// All rows of a section. Columns are as wide as what is in them: the table is read in terminals too.
#[must_use]
pub fn rows(compared: &[Compared], sizes: &Sizes) -> String {
    let beside = compared.iter().any(|c| c.stock.is_some());
    let head = if beside { vec!["", "stock", "ours", "ours is better"] } else { vec!["", "ours"] };
    let mut lines = vec![head.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for Compared { row, stock, ours, factor } in compared.iter().filter(|c| c.stock.or(c.ours).is_some()) {
        let mut cells = vec![sizes.say(&row.what)];
        if beside {
            cells.push(spread(*stock, row.unit));
        }
        cells.push(spread(*ours, row.unit));
        if beside {
            cells.push(spread(*factor, Unit::Times));
        }
        lines.push(cells);
    }
    table(&lines)
}

/// The goals of a section and what became of them.
#[must_use]
pub fn goals(verdicts: &[(Verdict, Compared)], sizes: &Sizes) -> String {
    let head = ["goal", "issue", "at stake", "measured", ""].map(str::to_owned).to_vec();
    let lines = verdicts.iter().map(|(verdict, compared)| {
        let unit = compared.row.unit;
        let bound = match compared.row.better {
            Better::Less => "at most",
            Better::More => "at least",
        };
        let limit = match verdict.goal.limit {
            Limit::Value(limit) => format!("{bound} {}", value(limit, unit)),
            Limit::OfStock(share) => format!("{bound} {share} × stock: {}", value(verdict.limit, unit)),
        };
        let outcome = if verdict.met {
            "met".to_owned()
        } else {
            format!("**missed** by {:.0} %", (verdict.missed_by() * 100.0).max(1.0))
        };
        vec![
            sizes.say(&compared.row.what),
            format!("{}", verdict.goal.issue),
            limit,
            value(verdict.measured, unit),
            outcome,
        ]
    });
    table(&std::iter::once(head).chain(lines).collect::<Vec<_>>())
}

/// The first line is the head.
fn table(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
        if number == 0 {
            for width in &widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::goals::Goal;
    use super::super::rows::{Row, Take};
    use super::*;

    fn compared(stock: Option<f64>, ours: f64) -> Compared {
        let take = Take::Median("ready_ms".into());
        let what = "{burst} pods".into();
        let row = Row { id: "x".into(), what, take, unit: Unit::Milliseconds, better: Better::Less };
        let of = |v: f64| Spread::of(&[v]);
        Compared { row, stock: stock.and_then(of), ours: of(ours), factor: stock.and_then(|s| of(s / ours)) }
    }

    #[test]
    fn values_have_three_digits_that_count() {
        let said = [0.034, 9.996, 12.34, 163.4, 9999.0, 19_100.0].map(|v| value(v, Unit::Milliseconds));
        assert_eq!(said, ["0.03 ms", "10.0 ms", "12.3 ms", "163 ms", "9,999 ms", "19.1 s"]);
        assert_eq!(value(5104.2, Unit::PerSecond), "5,104/s");
    }

    #[test]
    fn a_spread_names_its_unit_once_where_it_has_one() {
        let said = |values: &[f64]| spread(Spread::of(values), Unit::Milliseconds);
        assert_eq!(said(&[230.0, 250.0, 240.0]), "240 ms (230–250)");
        assert_eq!(said(&[9000.0, 12_000.0, 11_000.0]), "11.0 s (9,000 ms–12.0 s)");
        assert_eq!(said(&[240.0]), "240 ms");
        assert_eq!(said(&[]), "–");
    }

    #[test]
    fn ours_alone_has_one_column() {
        let alone = rows(&[compared(None, 5.0)], &Sizes::full());
        assert_eq!(alone, "|          | ours    |\n|----------|---------|\n| 110 pods | 5.00 ms |\n");
        let beside = rows(&[compared(Some(10.0), 5.0)], &Sizes::full());
        assert!(beside.contains("| 110 pods | 10.0 ms | 5.00 ms | 2.00 ×"), "{beside}");
    }

    #[test]
    fn a_missed_goal_says_by_how_much() {
        let goal = Goal { issue: 5, row: "x", limit: Limit::Value(4.0) };
        let missed = Verdict { goal, limit: 4.0, measured: 5.0, met: false };
        let text = goals(&[(missed, compared(None, 5.0))], &Sizes::full());
        assert!(text.contains("at most 4.00 ms | 5.00 ms  | **missed** by 25 %"), "{text}");
        let of_stock = Goal { limit: Limit::OfStock(0.5), ..goal };
        let met = Verdict { goal: of_stock, limit: 5.0, measured: 5.0, met: true };
        let text = goals(&[(met, compared(Some(10.0), 5.0))], &Sizes::full());
        assert!(text.contains("at most 0.5 × stock: 5.00 ms") && text.contains("| met"), "{text}");
    }
}

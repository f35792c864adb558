//! A section as a picture: how many times better ours is, row by row, on a logarithmic axis. Pure; the picture is SVG without scripts,
//! fonts or links of its own.

use std::fmt::Write;

use super::compare::Compared;
use super::figures::Spread;
use super::rows::Unit;
use super::sizes::Sizes;
use super::table::value;

const WIDTH: f64 = 1120.0;
/// Where the axis begins and ends; words are left and right of it.
const LEFT: f64 = 400.0;
const RIGHT: f64 = 860.0;
const TOP: f64 = 126.0;
/// For the numbers beside the bars.
const PADDING: f64 = 48.0;
const LINE: f64 = 24.0;
const BETTER: &str = "#2a7f62";
const WORSE: &str = "#c2571a";

/// The axis: factors from `low` to `high`, both powers of ten or twice or five times one.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Axis {
    low: f64,
    high: f64,
}

/// Draws the rows that both sides have; the lines of `measured` say where, when and of what they are.
#[must_use]
pub fn draw(title: &str, measured: &[String; 3], compared: &[Compared], sizes: &Sizes) -> String {
    let rows: Vec<_> = compared.iter().filter_map(|c| Some((c, c.factor?, c.stock?, c.ours?))).collect();
    let axis = Axis::over(rows.iter().map(|(_, factor, ..)| factor));
    let bottom = TOP + LINE * rows.iter().fold(0.0, |count, _| count + 1.0);
    let height = bottom + 44.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    text(&mut svg, (20.0, 30.0), "font-size=\"18\" font-weight=\"bold\"", title);
    for (y, line) in [52.0, 69.0, 86.0].into_iter().zip(measured) {
        text(&mut svg, (20.0, y), "fill=\"#666\"", line);
    }
    text(&mut svg, (RIGHT + 20.0, TOP - 14.0), "font-weight=\"bold\"", "stock → ours");
    axis.draw(&mut svg, bottom);
    let mut y = TOP + LINE / 2.0;
    for (compared, factor, stock, ours) in rows {
        bar(&mut svg, axis, y, factor);
        text(&mut svg, (LEFT - 12.0, y + 4.0), "text-anchor=\"end\"", &sizes.say(&compared.row.what));
        let unit = compared.row.unit;
        let values = format!("{} → {}", value(stock.median, unit), value(ours.median, unit));
        text(&mut svg, (RIGHT + 20.0, y + 4.0), "fill=\"#444\"", &values);
        y += LINE;
    }
    svg.push_str("</svg>\n");
    svg
}

/// A bar from "equal" to the middle, a line over all rounds, and the number.
fn bar(svg: &mut String, axis: Axis, y: f64, factor: Spread) {
    let (equal, end) = (axis.x(1.0), axis.x(factor.median));
    let colour = if factor.median >= 1.0 { BETTER } else { WORSE };
    let (from, width) = (equal.min(end), (end - equal).abs().max(1.0));
    let _ = writeln!(
        svg,
        "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"12\" fill=\"{colour}\" opacity=\"0.75\"/>",
        y - 6.0
    );
    let (low, high) = (axis.x(factor.low), axis.x(factor.high));
    if high - low > 1.0 {
        let _ = writeln!(
            svg,
            "<path d=\"M{low:.1} {y:.1}H{high:.1}M{low:.1} {:.1}v8M{high:.1} {:.1}v8\" stroke=\"#222\" fill=\"none\"/>",
            y - 4.0,
            y - 4.0
        );
    }
    let number = value(factor.median, Unit::Times);
    // Where the bar ends, on the side away from "equal".
    let (x, anchor) = if factor.median >= 1.0 { (high.max(end) + 6.0, "start") } else { (low.min(end) - 6.0, "end") };
    text(svg, (x, y + 4.0), &format!("font-size=\"11\" text-anchor=\"{anchor}\""), &number);
}

impl Axis {
    /// Room for all factors and for "equal".
    fn over<'a>(factors: impl Iterator<Item = &'a Spread>) -> Self {
        let (mut low, mut high) = (1.0_f64, 1.0_f64);
        for factor in factors {
            low = low.min(factor.low);
            high = high.max(factor.high);
        }
        Self { low, high: high.max(2.0) }
    }

    fn x(self, factor: f64) -> f64 {
        let (from, to) = (LEFT + PADDING, RIGHT - PADDING);
        from + (to - from) * (factor / self.low).ln() / (self.high / self.low).ln()
    }

    /// 1, 2, 5, 10, … as far as the axis goes; powers of ten alone where it goes far.
    fn marks(self) -> Vec<f64> {
        let steps: &[f64] = if self.high / self.low > 300.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let powers = (-4..7).map(|power| 10_f64.powi(power));
        let all = powers.flat_map(|power| steps.iter().map(move |step| step * power));
        all.filter(|mark| (self.low..=self.high).contains(mark)).collect()
    }

    fn draw(self, svg: &mut String, bottom: f64) {
        for mark in self.marks() {
            let x = self.x(mark);
            let equal = (mark - 1.0).abs() < f64::EPSILON;
            let (colour, width) = if equal { ("#222", 1.5) } else { ("#ddd", 1.0) };
            let _ =
                writeln!(svg, "<path d=\"M{x:.1} {TOP}V{bottom:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>");
            let label = if equal { "equal".to_owned() } else { format!("{mark} ×") };
            text(svg, (x, bottom + 18.0), "text-anchor=\"middle\" font-size=\"11\"", &label);
        }
        let middle = f64::midpoint(LEFT, RIGHT);
        text(svg, (middle, TOP - 14.0), "text-anchor=\"middle\" font-weight=\"bold\"", "ours is better, times");
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), style: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{words}</text>");
}

#[cfg(test)]
mod tests {
    use super::super::rows::{Better, Row, Take};
    use super::*;

    fn compared(factors: &[f64]) -> Compared {
        let take = Take::Median("x".into());
        let row = Row { id: "x".into(), what: "a < b".into(), take, unit: Unit::Mebibytes, better: Better::Less };
        Compared { row, stock: Spread::of(&[90.0]), ours: Spread::of(&[15.0]), factor: Spread::of(factors) }
    }

    #[test]
    fn equal_lies_between_better_and_worse() {
        let axis = Axis::over(
            [Spread { median: 0.5, low: 0.4, high: 0.6 }, Spread { median: 20.0, low: 9.0, high: 30.0 }].iter(),
        );
        assert!(LEFT < axis.x(0.4) && axis.x(0.4) < axis.x(1.0) && axis.x(1.0) < axis.x(30.0) && axis.x(30.0) < RIGHT);
        assert_eq!(axis.marks(), [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]);
    }

    #[test]
    fn a_long_axis_has_powers_of_ten_alone() {
        assert_eq!(Axis { low: 0.9, high: 5000.0 }.marks(), [1.0, 10.0, 100.0, 1000.0]);
    }

    #[test]
    fn words_and_values_are_drawn_and_escaped() {
        let svg = draw(
            "T",
            &["A", "B", "C"].map(str::to_owned),
            &[compared(&[5.0, 6.0, 7.0]), compared(&[])],
            &Sizes::full(),
        );
        assert!(
            svg.contains(">a &lt; b</text>")
                && svg.contains(">90.0 MiB → 15.0 MiB</text>")
                && svg.contains(">6.00 ×</text>")
        );
        assert_eq!(svg.matches("a &lt; b").count(), 1, "a row without a ratio is not drawn");
    }

    #[test]
    fn worse_has_a_colour_of_its_own() {
        assert!(draw("T", &["A", "B", "C"].map(str::to_owned), &[compared(&[0.5])], &Sizes::full()).contains(WORSE));
        assert!(!draw("T", &["A", "B", "C"].map(str::to_owned), &[compared(&[2.0])], &Sizes::full()).contains(WORSE));
    }
}

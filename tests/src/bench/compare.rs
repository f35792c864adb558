//! Rows over all rounds. Pure.

use super::Figures;
use super::figures::Spread;
use super::rows::{Better, Row, Take, Unit};

/// What both sides measured in one round; a side that was not measured has nothing.
#[derive(Debug, Clone, Default)]
pub struct Round {
    pub stock: Option<Figures>,
    pub ours: Option<Figures>,
}

/// A row with its values.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    pub row: Row,
    pub stock: Option<Spread>,
    pub ours: Option<Spread>,
    /// How many times better ours is: above 1 where it is better. The ratio is taken within a round, so that what changes from round
    /// to round on the machine does not enter it.
    pub factor: Option<Spread>,
}

/// Less CPU than this is as good as none, and no ratio is made of how much less.
const LEAST_PERCENT: f64 = 0.01;

/// Compares all rows.
#[must_use]
pub fn compare(rows: Vec<Row>, rounds: &[Round]) -> Vec<Compared> {
    rows.into_iter().map(|row| compared(row, rounds)).collect()
}

fn compared(row: Row, rounds: &[Round]) -> Compared {
    let value = |figures: &Option<Figures>| value(&row.take, figures.as_ref()?);
    let (stock, ours): (Vec<_>, Vec<_>) = rounds.iter().map(|round| (value(&round.stock), value(&round.ours))).unzip();
    let pairs = stock.iter().zip(&ours);
    let told = |value: f64| if row.unit == Unit::Percent { value.max(LEAST_PERCENT) } else { value };
    let factors: Vec<f64> =
        pairs.filter_map(|(stock, ours)| factor(row.better, told((*stock)?), told((*ours)?))).collect();
    let spread = |values: Vec<Option<f64>>| Spread::of(&values.into_iter().flatten().collect::<Vec<_>>());
    Compared { stock: spread(stock), ours: spread(ours), factor: Spread::of(&factors), row }
}

fn value(take: &Take, figures: &Figures) -> Option<f64> {
    match take {
        Take::Median(figure) => figures.median(figure),
        Take::P99(figure) => figures.quantile(figure, 0.99),
        Take::Times(figure, of) => factor(Better::Less, figures.median(figure)?, figures.median(of)?),
    }
}

/// `None` where a ratio says nothing: of nothing, or of what has shrunk below it.
fn factor(better: Better, stock: f64, ours: f64) -> Option<f64> {
    let (upper, lower) = match better {
        Better::Less => (stock, ours),
        Better::More => (ours, stock),
    };
    (upper > 0.0 && lower > 0.0).then(|| upper / lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(take: Take, better: Better) -> Row {
        Row { id: "x".into(), what: "x".into(), take, unit: Unit::Milliseconds, better }
    }

    fn round(stock: f64, ours: f64) -> Round {
        let figures = |value| {
            let mut figures = Figures::default();
            figures.set("a", value);
            figures.set("floor", 2.0);
            Some(figures)
        };
        Round { stock: figures(stock), ours: figures(ours) }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was half as fast in the second round: values spread, ratios do not.
        let rounds = [round(10.0, 5.0), round(20.0, 10.0)];
        let compared = compared(row(Take::Median("a".into()), Better::Less), &rounds);
        assert_eq!(compared.stock, Some(Spread { median: 15.0, low: 10.0, high: 20.0 }));
        assert_eq!(compared.factor, Some(Spread { median: 2.0, low: 2.0, high: 2.0 }));
    }

    #[test]
    fn more_is_better_turns_the_ratio_round() {
        let compared = compared(row(Take::Median("a".into()), Better::More), &[round(10.0, 5.0)]);
        assert_eq!(compared.factor.map(|f| f.median), Some(0.5));
    }

    #[test]
    fn times_are_of_the_same_side() {
        let compared = compared(row(Take::Times("a".into(), "floor".into()), Better::Less), &[round(10.0, 5.0)]);
        assert_eq!((compared.stock.map(|s| s.median), compared.ours.map(|s| s.median)), (Some(5.0), Some(2.5)));
    }

    #[test]
    fn hardly_any_cpu_is_not_told_from_none() {
        let mut cpu = row(Take::Median("a".into()), Better::Less);
        cpu.unit = Unit::Percent;
        assert_eq!(compared(cpu, &[round(0.5, 0.0001)]).factor.map(|f| f.median), Some(50.0));
    }

    #[test]
    fn a_side_that_was_not_measured_and_a_value_of_zero_make_no_ratio() {
        let alone = Round { stock: None, ..round(1.0, 5.0) };
        let compared_alone = compared(row(Take::Median("a".into()), Better::Less), &[alone]);
        assert_eq!((compared_alone.stock, compared_alone.factor), (None, None));
        assert_eq!(compared_alone.ours.map(|s| s.median), Some(5.0));
        assert_eq!(compared(row(Take::Median("a".into()), Better::Less), &[round(1.0, 0.0)]).factor, None);
    }
}

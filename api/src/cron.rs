//! Schedules of CronJobs: the five fields of cron, and `@daily` and its kin, as `github.com/robfig/cron` reads them.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// When a CronJob makes jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// At every minute that matches.
    Fields(Fields),
    /// `@every 90m`
    Every(SignedDuration),
}

/// What a minute must be; a bit for each value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Days of the month and of the week are alternatives, unless one of them is `*`.
    any_day: bool,
}

/// Why a text is no schedule, in the words of robfig/cron.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

/// The values that a field may have, with their names.
struct Bounds {
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { least: 0, most: 59, names: &[] };
const HOURS: Bounds = Bounds { least: 0, most: 23, names: &[] };
const DAYS: Bounds = Bounds { least: 1, most: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    least: 1,
    most: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds = Bounds { least: 0, most: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };
/// How far ahead a match is looked for: the 29th of February comes within eight years.
const YEARS_AHEAD: i16 = 8;

fn fail<T>(text: String) -> Result<T, ParseError> {
    Err(ParseError(text))
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let text = text.trim();
        let text = match text.split_once(' ') {
            Some((zone, rest)) if zone.starts_with("TZ=") || zone.starts_with("CRON_TZ=") => rest.trim(),
            _ => text,
        };
        if text.is_empty() {
            return fail("empty spec string".into());
        }
        if text.starts_with('@') {
            return descriptor(text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return fail(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        };
        let is_star = |field: &str| field.split(',').any(|part| part.starts_with(['*', '?']));
        Ok(Schedule::Fields(Fields {
            minutes: field(minutes, &MINUTES)?,
            hours: field(hours, &HOURS)?,
            days: field(days, &DAYS)?,
            months: field(months, &MONTHS)?,
            weekdays: field(weekdays, &WEEKDAYS)?,
            any_day: !is_star(days) && !is_star(weekdays),
        }))
    }

    /// The first time after `after` that matches in a time zone; none when there is no such day.
    #[must_use]
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(step) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(*step).ok()
            }
            Schedule::Fields(fields) => fields.next(after, zone),
        }
    }
}

fn descriptor(text: &str) -> Result<Schedule, ParseError> {
    let plain = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other => {
            let Some(every) = other.strip_prefix("@every ") else {
                return fail(format!("unrecognized descriptor: {text}"));
            };
            let step: SignedDuration = match every.trim().parse() {
                Ok(step) => step,
                Err(_) => return fail(format!("failed to parse duration {text}: time: invalid duration {every:?}")),
            };
            // Nothing is done more often than every second.
            return Ok(Schedule::Every(SignedDuration::from_secs(step.as_secs().max(1))));
        }
    };
    Schedule::parse(plain)
}

fn field(text: &str, bounds: &Bounds) -> Result<u64, ParseError> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    parts.map(|part| range(part, bounds)).try_fold(0, |all, bits| Ok(all | bits?))
}

/// `*`, `n`, `n-m`, each with `/step`.
fn range(text: &str, bounds: &Bounds) -> Result<u64, ParseError> {
    let steps: Vec<&str> = text.split('/').collect();
    let limits: Vec<&str> = steps.first().copied().unwrap_or_default().split('-').collect();
    let (start, mut end) = match limits.as_slice() {
        ["*" | "?"] => (bounds.least, bounds.most),
        [one] => {
            let one = value(one, bounds)?;
            (one, one)
        }
        [start, end] => (value(start, bounds)?, value(end, bounds)?),
        _ => return fail(format!("too many hyphens: {text}")),
    };
    let step = match steps.as_slice() {
        [_] => 1,
        [_, step] => {
            if limits.len() == 1 {
                end = bounds.most;
            }
            number(step)?
        }
        _ => return fail(format!("too many slashes: {text}")),
    };
    let (least, most) = (bounds.least, bounds.most);
    if start < least {
        return fail(format!("beginning of range ({start}) below minimum ({least}): {text}"));
    }
    if end > most {
        return fail(format!("end of range ({end}) above maximum ({most}): {text}"));
    }
    if start > end {
        return fail(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return fail(format!("step of range should be a positive number: {text}"));
    }
    let stride = usize::try_from(step).unwrap_or(usize::MAX);
    Ok((start..=end).step_by(stride).fold(0, |bits, value| bits | 1 << value))
}

fn value(text: &str, bounds: &Bounds) -> Result<u32, ParseError> {
    let lower = text.to_ascii_lowercase();
    match bounds.names.iter().zip(bounds.least..).find(|(name, _)| **name == lower) {
        Some((_, value)) => Ok(value),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, ParseError> {
    match text.parse::<i64>() {
        Ok(number) if number < 0 => fail(format!("negative number ({number}) not allowed: {text}")),
        Ok(number) => Ok(u32::try_from(number).unwrap_or(u32::MAX)),
        Err(_) => fail(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")),
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits & (1 << value) != 0)
}

impl Fields {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut at = zone.to_datetime(after).with().second(0).subsec_nanosecond(0).build().ok()?;
        let last = at.year().checked_add(YEARS_AHEAD)?;
        at = at.checked_add(1.minute()).ok()?;
        while at.year() <= last {
            if !has(self.months, at.month()) {
                at = midnight(at.first_of_month().checked_add(1.month()).ok()?);
            } else if !self.is_day(at) {
                at = midnight(at.checked_add(1.day()).ok()?);
            } else if !has(self.hours, at.hour()) {
                at = at.with().minute(0).build().ok()?.checked_add(1.hour()).ok()?;
            } else if !has(self.minutes, at.minute()) {
                at = at.checked_add(1.minute()).ok()?;
            } else {
                // A time that a change of the clocks skips is taken as the moment after it; one that comes twice, the first time.
                let found = zone.to_ambiguous_zoned(at).compatible().ok()?.timestamp();
                if found > after {
                    return Some(found);
                }
                at = at.checked_add(1.minute()).ok()?;
            }
        }
        None
    }

    fn is_day(&self, at: DateTime) -> bool {
        let day = has(self.days, at.day());
        let weekday = has(self.weekdays, at.weekday().to_sunday_zero_offset());
        if self.any_day { day || weekday } else { day && weekday }
    }
}

fn midnight(at: DateTime) -> DateTime {
    at.date().to_datetime(Time::midnight())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str, zone: &str) -> String {
        let zone = TimeZone::get(zone).unwrap();
        let schedule = Schedule::parse(schedule).unwrap();
        schedule.next(after.parse().unwrap(), &zone).map_or("never".into(), |time| time.to_string())
    }

    #[test]
    fn the_next_time() {
        let utc = |schedule, after| next(schedule, after, "UTC");
        assert_eq!(utc("* * * * *", "2026-03-01T10:00:30Z"), "2026-03-01T10:01:00Z");
        assert_eq!(utc("*/15 * * * *", "2026-03-01T10:45:00Z"), "2026-03-01T11:00:00Z");
        assert_eq!(utc("30 4 1,15 * 5", "2026-03-02T00:00:00Z"), "2026-03-06T04:30:00Z");
        assert_eq!(utc("0 0 * * MON-wed", "2026-03-05T00:00:00Z"), "2026-03-09T00:00:00Z");
        assert_eq!(utc("0 0 29 2 *", "2026-03-01T00:00:00Z"), "2028-02-29T00:00:00Z");
        assert_eq!(utc("0 0 31 2 *", "2026-03-01T00:00:00Z"), "never");
        assert_eq!(utc("@hourly", "2026-03-01T10:00:00Z"), "2026-03-01T11:00:00Z");
        assert_eq!(utc("@every 90m", "2026-03-01T10:00:00.5Z"), "2026-03-01T11:30:00Z");
        assert_eq!(utc("5/20 * * * *", "2026-03-01T10:06:00Z"), "2026-03-01T10:25:00Z");
        assert_eq!(next("0 9 * * *", "2026-03-01T00:00:00Z", "Asia/Tokyo"), "2026-03-02T00:00:00Z");
        // The clocks go forward over it.
        assert_eq!(next("30 2 * * *", "2026-03-28T12:00:00Z", "Europe/Berlin"), "2026-03-29T01:30:00Z");
    }

    #[test]
    fn what_is_wrong() {
        let wrong = |text: &str| Schedule::parse(text).unwrap_err().to_string();
        assert_eq!(wrong(""), "empty spec string");
        assert_eq!(wrong("a b"), "expected exactly 5 fields, found 2: [a b]");
        assert_eq!(wrong("60 * * * *"), "end of range (60) above maximum (59): 60");
        assert_eq!(wrong("x * * * *"), "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax");
        assert_eq!(wrong("5-2 * * * *"), "beginning of range (5) beyond end of range (2): 5-2");
        assert_eq!(wrong("* * 0 * *"), "beginning of range (0) below minimum (1): 0");
        assert_eq!(wrong("*/0 * * * *"), "step of range should be a positive number: */0");
        assert_eq!(wrong("1-2-3 * * * *"), "too many hyphens: 1-2-3");
        assert_eq!(wrong("@sometimes"), "unrecognized descriptor: @sometimes");
    }
}

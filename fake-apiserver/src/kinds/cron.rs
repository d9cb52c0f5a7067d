//! Schedules as cron writes them (`github.com/robfig/cron/v3`, which upstream parses them with).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, ToSpan, civil, tz::TimeZone};

use crate::base::status::go_quote;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// What a field may hold: lowest and highest number, and names from the lowest on.
struct Bounds(u64, u64, &'static [&'static str]);

const FIELDS: [Bounds; 5] =
    [Bounds(0, 59, &[]), Bounds(0, 23, &[]), Bounds(1, 31, &[]), Bounds(1, 12, &MONTHS), Bounds(0, 6, &DAYS)];

/// When something is to happen again and again.
#[derive(Clone, Debug)]
pub struct Schedule {
    zone: TimeZone,
    times: Times,
}

#[derive(Clone, Debug)]
enum Times {
    /// At the minutes whose numbers stand in these sets of bits: minute, hour, day of the month, month, day of the week.
    Fields { bits: [u64; 5], any_day: bool, any_weekday: bool },
    /// Always after that time.
    Every(Duration),
}

/// How far ahead a time is looked for (`robfig/cron`'s five years).
const YEARS: i32 = 5;

impl Schedule {
    /// Reads a schedule. Its own time zone goes before the one given; without either it is UTC.
    ///
    /// # Errors
    /// The parser's text.
    pub fn parse(schedule: &str, zone: &str) -> Result<Self, String> {
        let mut rest = schedule;
        let mut name = zone;
        if schedule.starts_with("TZ=") || schedule.starts_with("CRON_TZ=") {
            let (zone, after) = schedule.split_once(' ').unwrap_or((schedule, ""));
            name = zone.split_once('=').map_or("", |(_, name)| name);
            check_zone(name).map_err(|why| format!("provided bad location {name}: {why}"))?;
            rest = after.trim();
        }
        let zone = TimeZone::get(name).unwrap_or(TimeZone::UTC);
        if rest.starts_with('@') {
            let times = match descriptor(rest)? {
                Descriptor::Fields(fields) => Self::parse(fields, "")?.times,
                Descriptor::Every(duration) => Times::Every(duration),
            };
            return Ok(Self { zone, times });
        }
        let fields: Vec<_> = rest.split_whitespace().collect();
        if fields.len() != FIELDS.len() {
            let list = fields.join(" ");
            return Err(format!("expected exactly 5 fields, found {}: [{list}]", fields.len()));
        }
        let mut bits = [0; 5];
        for ((field, bounds), bits) in fields.iter().zip(FIELDS).zip(&mut bits) {
            for part in field.split(',').filter(|part| !part.is_empty()) {
                *bits |= range(part, &bounds)?;
            }
        }
        let any = |field: &str| field.split(',').any(|part| part.starts_with(['*', '?']));
        let times = Times::Fields { bits, any_day: any(fields[2]), any_weekday: any(fields[4]) };
        Ok(Self { zone, times })
    }

    /// The first time after another; `None` if there is none in the years to come.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let (bits, any_day, any_weekday) = match &self.times {
            Times::Every(duration) => {
                let whole = Duration::from_secs(duration.as_secs().max(1));
                let start = Timestamp::from_second(after.as_second()).ok()?;
                return start.saturating_add(SignedDuration::try_from(whole).ok()?).ok();
            }
            Times::Fields { bits, any_day, any_weekday } => (bits, *any_day, *any_weekday),
        };
        let has = |field: usize, value: i8| u32::try_from(value).is_ok_and(|value| bits[field] & (1 << value) != 0);
        let day_fits = |date: civil::Date| {
            let day = has(2, date.day());
            let weekday = has(4, date.weekday().to_sunday_zero_offset());
            // With both fields given, either is enough.
            if any_day || any_weekday { day && weekday } else { day || weekday }
        };
        let start = after.to_zoned(self.zone.clone()).datetime();
        let last = start.date().year().saturating_add(i16::try_from(YEARS).ok()?);
        let mut at = start.with().second(0).subsec_nanosecond(0).build().ok()?.checked_add(1.minute()).ok()?;
        while at.date().year() <= last {
            if !has(3, at.date().month()) {
                at = at.date().first_of_month().checked_add(1.month()).ok()?.at(0, 0, 0, 0);
            } else if !day_fits(at.date()) {
                at = at.date().checked_add(1.day()).ok()?.at(0, 0, 0, 0);
            } else if !has(1, at.hour()) {
                at = at.with().minute(0).build().ok()?.checked_add(1.hour()).ok()?;
            } else if !has(0, at.minute()) {
                at = at.checked_add(1.minute()).ok()?;
            } else {
                let time = at.to_zoned(self.zone.clone()).ok()?.timestamp();
                if time > after {
                    return Some(time);
                }
                at = at.checked_add(1.minute()).ok()?; // an hour that comes twice
            }
        }
        None
    }
}

/// Checks a schedule.
///
/// # Errors
/// The parser's text.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    Schedule::parse(schedule, "").map(drop)
}

/// Checks the name of a time zone.
///
/// # Errors
/// Go's text.
pub(super) fn check_zone(name: &str) -> Result<(), String> {
    let known = ["", "UTC", "Local"].contains(&name) || jiff::tz::TimeZone::get(name).is_ok();
    if known { Ok(()) } else { Err(format!("unknown time zone {name}")) }
}

/// What a word that begins with `@` stands for.
enum Descriptor {
    Fields(&'static str),
    Every(Duration),
}

fn descriptor(text: &str) -> Result<Descriptor, String> {
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => "",
    };
    if !fields.is_empty() {
        return Ok(Descriptor::Fields(fields));
    }
    let Some(duration) = text.strip_prefix("@every ") else { return Err(format!("unrecognized descriptor: {text}")) };
    let units = [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    // numbers, each with a unit
    let mut rest = duration.trim_start_matches(['-', '+']);
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (amount, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| factor);
        let (Ok(amount), Some(factor)) = (amount.parse::<f64>(), factor) else {
            let why = format!("time: invalid duration {}", go_quote(duration));
            return Err(format!("failed to parse duration {text}: {why}"));
        };
        seconds += amount * factor;
        rest = after;
    }
    Ok(Descriptor::Every(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)))
}

/// The numbers of a part of a field, as bits.
fn range(part: &str, Bounds(low, high, names): &Bounds) -> Result<u64, String> {
    let pieces: Vec<_> = part.split('/').collect();
    let ends: Vec<_> = pieces[0].split('-').collect();
    let (start, mut end) = if matches!(ends[0], "*" | "?") {
        (*low, *high)
    } else {
        let start = number(ends[0], *low, names)?;
        match ends.len() {
            1 => (start, start),
            2 => (start, number(ends[1], *low, names)?),
            _ => return Err(format!("too many hyphens: {part}")),
        }
    };
    let step = match pieces.len() {
        1 => 1,
        2 => {
            let step = number(pieces[1], 0, &[])?;
            if ends.len() == 1 {
                end = *high;
            }
            step
        }
        _ => return Err(format!("too many slashes: {part}")),
    };
    if start < *low {
        return Err(format!("beginning of range ({start}) below minimum ({low}): {part}"));
    }
    if end > *high {
        return Err(format!("end of range ({end}) above maximum ({high}): {part}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {part}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    Ok((start..=end).step_by(step).fold(0, |bits, number| bits | 1 << number))
}

fn number(text: &str, low: u64, names: &[&str]) -> Result<u64, String> {
    if let Some(place) = names.iter().position(|name| *name == text.to_lowercase()) {
        return Ok(low + u64::try_from(place).unwrap_or(0));
    }
    text.parse().map_err(|_| {
        let why = format!("strconv.Atoi: parsing {}: invalid syntax", go_quote(text));
        format!("failed to parse int from {text}: {why}")
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("*/5 0-3,12 ? JAN-mar 1", "")]
    #[case::named("@daily", "")]
    #[case::every("@every 1h30m", "")]
    #[case::four("* * * *", "expected exactly 5 fields, found 4: [* * * *]")]
    #[case::above("61 * * * *", "end of range (61) above maximum (59): 61")]
    #[case::below("0 0 0 * *", "beginning of range (0) below minimum (1): 0")]
    #[case::backwards("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1")]
    #[case::no_step("*/0 * * * *", "step of range should be a positive number: */0")]
    #[case::word("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax")]
    #[case::unknown("@never", "unrecognized descriptor: @never")]
    fn a_schedule_is_right_or_the_parser_says_why_not(#[case] schedule: &str, #[case] why: &str) {
        assert_eq!(check(schedule).err().unwrap_or_default(), why);
    }

    #[rstest]
    #[case::minutes("*/5 * * * *", "", "2026-01-01T00:05:00Z")]
    #[case::hours("30 3 * * *", "", "2026-01-01T03:30:00Z")]
    #[case::week("0 0 * * MON", "", "2026-01-05T00:00:00Z")]
    #[case::either_day("0 0 13 * FRI", "", "2026-01-02T00:00:00Z")]
    #[case::leap_day("0 0 29 2 *", "", "2028-02-29T00:00:00Z")]
    #[case::in_a_zone("0 9 * * *", "Europe/Zurich", "2026-01-01T08:00:00Z")]
    #[case::own_zone("CRON_TZ=Asia/Tokyo 0 10 * * *", "Europe/Zurich", "2026-01-01T01:00:00Z")]
    #[case::word("@hourly", "", "2026-01-01T01:00:00Z")]
    #[case::every("@every 90s", "", "2026-01-01T00:01:43Z")]
    fn a_schedule_says_when_the_next_time_is(#[case] schedule: &str, #[case] zone: &str, #[case] next: &str) {
        let after = "2026-01-01T00:00:13Z".parse().unwrap();
        let time = Schedule::parse(schedule, zone).unwrap().next(after);
        assert_eq!(time, Some(next.parse().unwrap()));
    }

    #[test]
    fn a_day_that_never_comes_has_no_next_time() {
        let after = "2026-01-01T00:00:13Z".parse().unwrap();
        assert_eq!(Schedule::parse("0 0 31 2 *", "").unwrap().next(after), None);
    }
}

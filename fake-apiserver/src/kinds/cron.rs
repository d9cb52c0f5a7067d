//! Schedules as cron writes them (`github.com/robfig/cron/v3`, which upstream parses them with).

use crate::base::status::go_quote;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// What a field may hold: lowest and highest number, and names from the lowest on.
struct Bounds(u64, u64, &'static [&'static str]);

const FIELDS: [Bounds; 5] =
    [Bounds(0, 59, &[]), Bounds(0, 23, &[]), Bounds(1, 31, &[]), Bounds(1, 12, &MONTHS), Bounds(0, 6, &DAYS)];

/// Checks a schedule.
///
/// # Errors
/// The parser's text.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    let mut rest = schedule;
    if schedule.starts_with("TZ=") || schedule.starts_with("CRON_TZ=") {
        let (zone, after) = schedule.split_once(' ').unwrap_or((schedule, ""));
        let name = zone.split_once('=').map_or("", |(_, name)| name);
        check_zone(name).map_err(|why| format!("provided bad location {name}: {why}"))?;
        rest = after.trim();
    }
    if rest.starts_with('@') {
        return descriptor(rest);
    }
    let fields: Vec<_> = rest.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let list = fields.join(" ");
        return Err(format!("expected exactly 5 fields, found {}: [{list}]", fields.len()));
    }
    for (field, bounds) in fields.iter().zip(FIELDS) {
        for part in field.split(',').filter(|part| !part.is_empty()) {
            range(part, &bounds)?;
        }
    }
    Ok(())
}

/// Checks the name of a time zone.
///
/// # Errors
/// Go's text.
pub(super) fn check_zone(name: &str) -> Result<(), String> {
    let known = ["", "UTC", "Local"].contains(&name) || jiff::tz::TimeZone::get(name).is_ok();
    if known { Ok(()) } else { Err(format!("unknown time zone {name}")) }
}

fn descriptor(text: &str) -> Result<(), String> {
    const KNOWN: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
    if KNOWN.contains(&text) {
        return Ok(());
    }
    let Some(duration) = text.strip_prefix("@every ") else { return Err(format!("unrecognized descriptor: {text}")) };
    let number = |part: &str| part.parse::<f64>().is_ok();
    let units = ["ns", "us", "µs", "ms", "s", "m", "h"];
    // numbers, each with a unit
    let mut rest = duration.trim_start_matches(['-', '+']);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (amount, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        if !number(amount) || !units.contains(&unit) {
            let why = format!("time: invalid duration {}", go_quote(duration));
            return Err(format!("failed to parse duration {text}: {why}"));
        }
        rest = after;
    }
    Ok(())
}

fn range(part: &str, Bounds(low, high, names): &Bounds) -> Result<(), String> {
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
    Ok(())
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
}

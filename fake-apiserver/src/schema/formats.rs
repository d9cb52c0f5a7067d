//! Formats of texts: what OpenAPI's `format` asks for in custom kinds, and what Go's own types read in built-in ones.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{LazyLock, Mutex},
};

use jiff::{Timestamp, tz::Offset};
use regex::Regex;

use crate::base::status::go_quote;

macro_rules! pattern {
    ($name:ident, $text:literal) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($text).expect("a constant pattern"));
    };
}

pattern!(TIME_OF_DAY, r"^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$");
pattern!(UUID, r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?([0-9a-f])[0-9a-f]{3}-?([0-9a-f])[0-9a-f]{3}-?[0-9a-f]{12}$");
pattern!(BASE64, r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$");
pattern!(SSN, r"^\d{3}[- ]?\d{2}[- ]?\d{4}$");
pattern!(HEX_COLOR, r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$");
pattern!(
    RGB_COLOR,
    r"^rgb\(\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*\)$"
);
pattern!(MAC, r"^(?i)([0-9a-f]{2}([:-][0-9a-f]{2}){5,19}|[0-9a-f]{4}(\.[0-9a-f]{4}){2,9})$");
pattern!(
    HOSTNAME,
    r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$"
);
pattern!(EMAIL, r#"^[^@\s<>()\[\],;:"\\]+@[^@\s<>()\[\],;:"\\]+$"#);
pattern!(GO_DURATION, r"^[+-]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$");
pattern!(WORD_DURATION, r"^((\d+)\s*([A-Za-zµ]+))$");

/// Patterns compiled so far: definitions repeat the same few hundreds of times.
static PATTERNS: Mutex<BTreeMap<String, Result<Regex, String>>> = Mutex::new(BTreeMap::new());

/// A pattern of a schema, compiled.
pub(super) fn pattern(text: &str) -> Result<Regex, String> {
    let mut known = PATTERNS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(result) = known.get(text) {
        return result.clone();
    }
    let result = Regex::new(text).map_err(|error| error.to_string());
    if known.len() < crate::schema::PATTERN_LIMIT {
        known.insert(text.to_owned(), result.clone());
    }
    result
}

/// Whether a text has a format; `None` where the format is unknown, so that any text will do.
///
/// See `kube-openapi/pkg/validation/strfmt` and `apiextensions-apiserver/pkg/apiserver/validation/formats.go`.
pub(super) fn check(format: &str, text: &str) -> Option<bool> {
    let name: String = format.chars().filter(|c| *c != '-').collect();
    Some(match name.as_str() {
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "uri" => is_request_uri(text),
        "email" => EMAIL.is_match(text),
        "hostname" => text.chars().count() <= 255 && HOSTNAME.is_match(text),
        "ipv4" => parse_ip(text).is_some() && text.contains('.'),
        "ipv6" => parse_ip(text).is_some() && text.contains(':'),
        "cidr" => is_cidr(text),
        "mac" => MAC.is_match(text),
        "uuid" => UUID.is_match(text),
        "uuid3" => UUID.captures(text).is_some_and(|m| &m[1] == "3"),
        "uuid4" => UUID.captures(text).is_some_and(|m| &m[1] == "4" && "89abAB".contains(&m[2])),
        "uuid5" => UUID.captures(text).is_some_and(|m| &m[1] == "5" && "89abAB".contains(&m[2])),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => is_credit_card(text),
        "ssn" => SSN.is_match(text),
        "hexcolor" => HEX_COLOR.is_match(text),
        "rgbcolor" => RGB_COLOR.is_match(text),
        "byte" => BASE64.is_match(text),
        "password" => true,
        "date" => is_date(text),
        "duration" => is_duration(text),
        "datetime" => is_date_time(text),
        "k8sshortname" => is_label(text),
        "k8slongname" => !text.is_empty() && text.len() <= 253 && text.split('.').all(is_long_part),
        _ => return None,
    })
}

fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_long_part(text)
}

fn is_long_part(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.iter().all(|b| plain(*b) || *b == b'-')
        && bytes.first().is_some_and(|b| plain(*b))
        && bytes.last().is_some_and(|b| plain(*b))
}

fn is_request_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
            && !rest.contains(' ')
    })
}

/// An address as Go's older parser reads it: leading zeros are decimal.
pub(super) fn parse_ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') || !text.contains('.') {
        return text.parse().ok().filter(|_| !text.contains('%'));
    }
    let parts: Vec<u8> = text
        .split('.')
        .map(|part| if part.len() <= 3 || part.starts_with('0') { part.parse().ok() } else { None })
        .collect::<Option<_>>()?;
    let octets: [u8; 4] = parts.try_into().ok()?;
    Some(IpAddr::from(octets))
}

fn is_cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        let most = match parse_ip(address) {
            Some(IpAddr::V4(_)) => 32,
            Some(IpAddr::V6(_)) => 128,
            None => return false,
        };
        !bits.is_empty()
            && bits.bytes().all(|b| b.is_ascii_digit())
            && bits.parse::<u32>().is_ok_and(|bits| bits <= most)
    })
}

fn is_isbn10(text: &str) -> bool {
    let digits: Vec<char> = text.chars().filter(|c| *c != '-' && *c != ' ').collect();
    if digits.len() != 10 {
        return false;
    }
    let mut sum = 0;
    for (index, c) in digits.iter().enumerate() {
        let digit = match c {
            'X' if index == 9 => 10,
            c => match c.to_digit(10) {
                Some(digit) => digit,
                None => return false,
            },
        };
        sum += digit * (index as u32 + 1);
    }
    sum % 11 == 0
}

fn is_isbn13(text: &str) -> bool {
    let digits: Option<Vec<u32>> = text.chars().filter(|c| *c != '-' && *c != ' ').map(|c| c.to_digit(10)).collect();
    digits.is_some_and(|digits| {
        digits.len() == 13
            && digits.iter().enumerate().map(|(i, d)| if i % 2 == 0 { *d } else { 3 * d }).sum::<u32>() % 10 == 0
    })
}

fn is_credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    if !(13..=19).contains(&digits.len()) {
        return false;
    }
    let double = |d: u32| if d > 4 { 2 * d - 9 } else { 2 * d };
    digits.iter().rev().enumerate().map(|(i, d)| if i % 2 == 1 { double(*d) } else { *d }).sum::<u32>() % 10 == 0
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok() && text.as_bytes()[4] == b'-'
}

fn is_date_time(text: &str) -> bool {
    let text = text.to_lowercase();
    let mut parts = text.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else { return false };
    is_date(date) && TIME_OF_DAY.captures(time).is_some_and(|m| &m[1] <= "23" && &m[2] <= "59" && &m[3] <= "59")
}

fn is_duration(text: &str) -> bool {
    if GO_DURATION.is_match(text) {
        return true;
    }
    const UNITS: &[&str] = &[
        "ns", "nano", "us", "µs", "micro", "ms", "milli", "s", "sec", "m", "min", "h", "hr", "hour", "d", "day", "w",
        "wk", "week",
    ];
    WORD_DURATION.captures(text).is_some_and(|m| {
        let unit = m[3].to_lowercase();
        UNITS.iter().any(|known| unit == *known || unit == format!("{known}s"))
    })
}

const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
const LAYOUT_MICRO: &str = "2006-01-02T15:04:05.000000Z07:00";

/// Reads a point in time as Go's `time.Parse` with RFC 3339 does, and prints it as Kubernetes does: in UTC, to the
/// second, or with six digits.
pub(super) fn go_time(text: &str, micro: bool) -> Result<String, String> {
    let layout = if micro { LAYOUT_MICRO } else { LAYOUT };
    let fail = |rest: &str, want: &str| {
        format!(
            "parsing time {} as {}: cannot parse {} as {}",
            go_quote(text),
            go_quote(layout),
            go_quote(rest),
            go_quote(want)
        )
    };
    let out_of_range = |what: &str| format!("parsing time {}: {what} out of range", go_quote(text));
    let mut rest = text;
    let mut numbers = [0_u32; 6];
    let steps = [("2006", 4, "-"), ("01", 2, "-"), ("02", 2, "T"), ("15", 2, ":"), ("04", 2, ":"), ("05", 2, "")];
    for (index, (want, digits, then)) in steps.into_iter().enumerate() {
        let Some(head) = rest.get(..digits).filter(|head| head.bytes().all(|b| b.is_ascii_digit())) else {
            return Err(fail(rest, want));
        };
        numbers[index] = head.parse().map_err(|_| fail(rest, want))?;
        let range = match index {
            1 => Some((1..=12, "month")),
            3 => Some((0..=23, "hour")),
            4 => Some((0..=59, "minute")),
            5 => Some((0..=59, "second")),
            _ => None,
        };
        if let Some((_, what)) = range.filter(|(range, _)| !range.contains(&numbers[index])) {
            return Err(out_of_range(what));
        }
        rest = &rest[digits..];
        rest = rest.strip_prefix(then).ok_or_else(|| fail(rest, then))?;
    }
    let fraction = rest.strip_prefix(['.', ',']).map_or(0, |tail| tail.bytes().take_while(u8::is_ascii_digit).count());
    if micro && fraction != 6 {
        return Err(fail(rest, ".000000"));
    }
    let (fraction, zone) = if fraction == 0 { ("", rest) } else { (&rest[1..=fraction], &rest[fraction + 1..]) };
    let seconds_east = match zone.as_bytes() {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] if [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()) => {
            let two = |a: u8, b: u8| i32::from(a - b'0') * 10 + i32::from(b - b'0');
            let (hours, minutes) = (two(*h1, *h2), two(*m1, *m2));
            if hours > 24 || minutes > 59 {
                return Err(out_of_range("time zone offset hour"));
            }
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        [b'Z', ..] => {
            return Err(format!("parsing time {}: extra text: {}", go_quote(text), go_quote(&zone[1..])));
        }
        _ => return Err(fail(zone, "Z07:00")),
    };
    let [year, month, day, hour, minute, second] = numbers.map(|n| n as i16);
    let date = jiff::civil::Date::new(year, month as i8, day as i8).map_err(|_| out_of_range("day"))?;
    let time = date.at(hour as i8, minute as i8, second as i8, 0);
    let utc = Offset::UTC.to_timestamp(time).map_err(|_| out_of_range("year"))?;
    let utc = Timestamp::from_second(utc.as_second() - i64::from(seconds_east)).map_err(|_| out_of_range("year"))?;
    let printed = utc.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    Ok(if micro { format!("{printed}.{fraction}Z") } else { format!("{printed}Z") })
}

/// Reads base64 as Go's decoder does and prints it as its encoder does.
pub(super) fn base64(text: &str) -> Result<String, String> {
    let corrupt = |at: usize| Err(format!("illegal base64 data at input byte {at}"));
    let mut digits: Vec<u8> = Vec::with_capacity(text.len());
    let mut padding = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\r' | b'\n' => {}
            b'=' if (2..4).contains(&(digits.len() % 4)) && digits.len() % 4 + padding < 4 => padding += 1,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' if padding == 0 => digits.push(byte),
            _ => return corrupt(at),
        }
    }
    if !(digits.len() + padding).is_multiple_of(4) {
        // Go tells where the unfinished group began
        return corrupt(if padding > 0 { text.len() } else { digits.len() - digits.len() % 4 });
    }
    digits.extend(std::iter::repeat_n(b'=', padding));
    Ok(String::from_utf8_lossy(&digits).into_owned())
}

//! The one form of a quantity: `1000m` is `1`, `1024Mi` is `1Gi`. Upstream: `apimachinery/pkg/api/resource/quantity.go`.

use serde_json::Value;

/// One, in the smallest parts that a quantity can have.
const ONE: i128 = 1_000_000_000;

/// The most that a quantity can be.
const MOST: i128 = i64::MAX as i128 * ONE;

const DECIMAL: [(i32, &str); 10] =
    [(-9, "n"), (-6, "u"), (-3, "m"), (0, ""), (3, "k"), (6, "M"), (9, "G"), (12, "T"), (15, "P"), (18, "E")];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// How a quantity was written, which its one form keeps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

/// Gives a quantity its one form. What is none stays as it is: the server has taken it, or will refuse it.
pub(super) fn canonical(value: &mut Value) {
    let text = match &*value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return,
    };
    if let Some((amount, format, is_kept)) = parse(&text) {
        *value = if is_kept { text } else { write(amount, format) }.into();
    }
}

fn parse(text: &str) -> Option<(i128, Format, bool)> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{part}");
    if digits.is_empty() || part.contains('.') {
        return None;
    }
    let mantissa: i128 = digits.parse().ok()?;
    let mut exponent = -i32::try_from(part.len()).ok()?;
    let (mut factor, format) = (1_i128, suffix_format(suffix)?);
    match format {
        Format::Binary => factor = 1024_i128.checked_pow(BINARY.iter().position(|known| *known == suffix)? as u32)?,
        Format::Decimal => exponent += DECIMAL.iter().find(|(_, known)| *known == suffix)?.0,
        Format::Exponent => exponent += suffix[1..].parse::<i32>().ok()?,
    }
    let scaled = mantissa.checked_mul(factor)?.checked_mul(ONE)?;
    let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
    // What is smaller than the smallest part counts as one.
    let amount = if exponent < 0 { (scaled + power - 1) / power } else { scaled.checked_mul(power)? };
    let amount = amount.min(MOST);
    let shown = whole.trim_start_matches('0').to_owned() + part;
    // What is short and nearly in its one form is kept as it was written.
    let is_kept = match format {
        Format::Binary => {
            let power = BINARY.iter().position(|known| *known == suffix)?;
            part.is_empty() && shown.len() + 3 * power < 15 && mantissa & 7 != 0
        }
        Format::Decimal | Format::Exponent => {
            let starts = !whole.trim_start_matches('0').is_empty() && shown.len() <= 18;
            starts && exponent >= -9 && exponent % 3 == 0 && !shown.ends_with("000")
        }
    };
    Some((if negative { -amount } else { amount }, format, is_kept))
}

fn suffix_format(suffix: &str) -> Option<Format> {
    if suffix.len() > 1 && suffix.starts_with(['e', 'E']) && !suffix.ends_with('i') {
        return Some(Format::Exponent);
    }
    if !suffix.is_empty() && BINARY.contains(&suffix) {
        return Some(Format::Binary);
    }
    DECIMAL.iter().any(|(_, known)| *known == suffix).then_some(Format::Decimal)
}

fn write(amount: i128, format: Format) -> String {
    if amount == 0 {
        return "0".into();
    }
    if format == Format::Binary && amount % ONE == 0 && amount.abs() >= 1024 * ONE {
        let (mut number, mut at) = (amount / ONE, 0);
        while number % 1024 == 0 && at + 1 < BINARY.len() {
            number /= 1024;
            at += 1;
        }
        return format!("{number}{}", BINARY[at]);
    }
    let (mut number, mut exponent) = (amount, -9);
    while number % 1000 == 0 && exponent < 18 {
        number /= 1000;
        exponent += 3;
    }
    if format == Format::Exponent {
        return if exponent == 0 { number.to_string() } else { format!("{number}e{exponent}") };
    }
    let suffix = DECIMAL.iter().find(|(known, _)| *known == exponent).map_or("", |(_, suffix)| suffix);
    format!("{number}{suffix}")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(json!("1000m"), "1")]
    #[case(json!("0.5"), "500m")]
    #[case(json!(".5"), "500m")]
    #[case(json!(1000), "1k")]
    #[case(json!("1500m"), "1500m")]
    #[case(json!("1024Mi"), "1Gi")]
    #[case(json!("1.5Gi"), "1536Mi")]
    #[case(json!("1000Mi"), "1000Mi")]
    #[case(json!("0.1Ki"), "102400m")]
    #[case(json!("512Ki"), "512Ki")]
    #[case(json!("0.5Ki"), "512")]
    #[case(json!("1e3"), "1e3")]
    #[case(json!("1500e0"), "1500e0")]
    #[case(json!("1E3"), "1E3")]
    #[case(json!("+2"), "+2")]
    #[case(json!("1E"), "1E")]
    #[case(json!("0.1n"), "1n")]
    #[case(json!("-1000m"), "-1")]
    #[case(json!("0Gi"), "0")]
    #[case(json!(" 1 "), "1")]
    #[case(json!("99999999999E"), "99999999999E")]
    #[case(json!("much"), "much")]
    #[case(json!("1.2.3"), "1.2.3")]
    fn a_quantity_has_one_form(#[case] written: Value, #[case] wanted: &str) {
        let mut value = written;
        canonical(&mut value);
        assert_eq!(value, wanted);
        let again = value.clone();
        canonical(&mut value);
        assert_eq!(value, again);
    }
}

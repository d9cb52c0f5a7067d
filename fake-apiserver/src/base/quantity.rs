//! [`Quantity`]: an amount of a resource (`500m`, `1536Mi`), parsed and printed as Kubernetes does.
//!
//! Upstream: `k8s.io/apimachinery/pkg/api/resource/quantity.go`.

use std::{cmp::Ordering, fmt, str::FromStr};

/// What is no quantity at all.
pub const FORMAT_WRONG: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const NUMERIC_WRONG: &str = "unable to parse numeric part of quantity";
const SUFFIX_WRONG: &str = "unable to parse quantity's suffix";

/// The family of suffixes a quantity was written in, and is printed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `1e3`
    DecimalExponent,
    /// `1k`
    DecimalSi,
    /// `1Ki`
    BinarySi,
}

/// An exact decimal number with the format that it was written in. Equal quantities compare as equal whatever their
/// format. Numbers beyond 38 digits saturate.
#[derive(Clone, Debug)]
pub struct Quantity {
    /// Without trailing zeros, unless the value is 0.
    mantissa: i128,
    /// Power of ten.
    scale: i32,
    format: Format,
    /// The text as written, where upstream deems it canonical already.
    text: Option<String>,
}

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, i32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// Sign, digits before and after the point, suffix.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
    /// Whether there were digits (a zero counts) or a point: upstream's slow path fails without.
    numeric: bool,
}

fn split(text: &str) -> Result<Parts<'_>, &'static str> {
    let negative = text.starts_with('-');
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let stripped = rest.trim_start_matches('0');
    let whole_end = stripped.find(|c: char| !c.is_ascii_digit()).unwrap_or(stripped.len());
    let (whole, tail) = stripped.split_at(whole_end);
    let (fraction, suffix) = match tail.strip_prefix('.') {
        Some(tail) => tail.split_at(tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len())),
        None => ("", tail),
    };
    let numeric = rest.len() > stripped.len() || !whole.is_empty() || !fraction.is_empty();
    // the suffix is letters, a sign, digits
    let after = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let digits = after.strip_prefix(['-', '+']).unwrap_or(after);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FORMAT_WRONG);
    }
    Ok(Parts { negative, whole: if whole.is_empty() { "0" } else { whole }, fraction, suffix, numeric })
}

/// Base, exponent and format of a suffix.
fn interpret(suffix: &str) -> Option<(u32, i32, Format)> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(text, _)| *text == suffix) {
        return Some((10, *exponent, Format::DecimalSi));
    }
    if let Some((_, exponent)) = BINARY.iter().find(|(text, _)| *text == suffix) {
        return Some((2, *exponent, Format::BinarySi));
    }
    let digits = suffix.strip_prefix(['e', 'E']).filter(|digits| !digits.is_empty())?;
    let exponent = digits.parse::<i64>().ok()?;
    // beyond this every number is 0 or saturates
    Some((10, exponent.clamp(-1000, 1000) as i32, Format::DecimalExponent))
}

fn power(base: i128, exponent: u32) -> i128 {
    base.saturating_pow(exponent)
}

impl Quantity {
    /// Parses a quantity.
    ///
    /// # Errors
    /// Upstream's text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if text.is_empty() {
            return Err(FORMAT_WRONG);
        }
        let parts = split(text)?;
        let (base, exponent, format) = interpret(parts.suffix).ok_or(SUFFIX_WRONG)?;
        let digits = format!("{}{}", parts.whole, parts.fraction);
        let number = digits.parse::<i128>().unwrap_or(i128::MAX); // only too many digits can fail
        let fast = fast_value(&digits, &parts, exponent, format);
        if fast.is_none() && !parts.numeric {
            return Err(NUMERIC_WRONG);
        }
        let mut scale = -i32::try_from(parts.fraction.len()).unwrap_or(i32::MAX);
        let mut mantissa = number;
        match base {
            2 => mantissa = mantissa.saturating_mul(1_i128 << exponent),
            _ => scale = scale.saturating_add(exponent),
        }
        let reuse = fast.is_some_and(|value| match format {
            Format::BinarySi => exponent % 10 == 0 && value & 7 != 0,
            Format::DecimalExponent | Format::DecimalSi => {
                scale % 3 == 0 && !digits.ends_with("000") && !digits.starts_with('0')
            }
        });
        let mut quantity = Self { mantissa, scale, format, text: None };
        quantity.round_away(-9);
        if format == Format::BinarySi && fast.is_none() {
            let max = Self { mantissa: i64::MAX.into(), scale: 0, format, text: None };
            if quantity > max {
                quantity = max;
            }
            if quantity.mantissa > 0 && quantity < Self::whole(1) {
                quantity.format = Format::DecimalSi;
            }
        }
        if parts.negative {
            quantity.mantissa = -quantity.mantissa;
        }
        if text == "0" || reuse {
            quantity.text = Some(text.to_owned());
        }
        Ok(quantity)
    }

    /// A whole number of something.
    pub fn whole(value: i64) -> Self {
        let mut quantity = Self { mantissa: value.into(), scale: 0, format: Format::DecimalSi, text: None };
        quantity.normalise();
        quantity
    }

    /// Zero.
    pub fn zero() -> Self {
        Self::whole(0)
    }

    fn normalise(&mut self) {
        if self.mantissa == 0 {
            self.scale = 0;
        }
        while self.mantissa != 0 && self.mantissa % 10 == 0 {
            self.mantissa /= 10;
            self.scale += 1;
        }
    }

    fn round_away(&mut self, scale: i32) {
        if self.scale < scale {
            let divisor = power(10, scale.abs_diff(self.scale));
            let (quotient, rest) = (self.mantissa / divisor, self.mantissa % divisor);
            self.mantissa = quotient + rest.signum();
            self.scale = scale;
        }
        self.normalise();
    }

    /// Rounds up to thousandths, as upstream's defaults do with each resource list.
    #[must_use]
    pub fn rounded_to_milli(mut self) -> Self {
        let before = (self.mantissa, self.scale);
        self.round_away(-3);
        if (self.mantissa, self.scale) != before {
            self.text = None;
        }
        self
    }

    /// Rounds up to a whole number.
    #[must_use]
    pub fn rounded_to_whole(mut self) -> Self {
        if !self.is_whole() {
            self.round_away(0);
            self.text = None;
        }
        self
    }

    /// Whether it is 0.
    pub fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    /// Whether it is below 0.
    pub fn is_negative(&self) -> bool {
        self.mantissa < 0
    }

    /// Whether it is a whole number.
    pub fn is_whole(&self) -> bool {
        self.scale >= 0
    }

    /// Whether upstream takes it for no whole number: `MilliValue() % 1000 != 0`, which is so of large amounts, too,
    /// whose thousandths wrap around in 64 bits.
    pub fn is_fractional(&self) -> bool {
        if !self.is_whole() {
            return true;
        }
        if self.format == Format::BinarySi {
            let value = self.value();
            return value < i64::MAX && value.wrapping_mul(1000) % 1000 != 0;
        }
        // beyond 18 decimal places upstream takes an amount that it cannot scale for none
        let Some(places) = u32::try_from(self.scale + 3).ok().filter(|places| *places <= 18) else { return false };
        let low = self.mantissa.wrapping_mul(power(10, places)).rem_euclid(1 << 64);
        let wrapped = if low < 1 << 63 { low } else { low - (1 << 64) };
        wrapped % 1000 != 0
    }

    /// The value rounded up to a whole number, within `i64`.
    pub fn value(&self) -> i64 {
        self.scaled(0)
    }

    /// The value in thousandths, rounded up, within `i64`.
    pub fn milli(&self) -> i64 {
        self.scaled(-3)
    }

    fn scaled(&self, scale: i32) -> i64 {
        let mut rounded = self.clone();
        rounded.round_away(scale);
        let up = power(10, u32::try_from(rounded.scale - scale).unwrap_or(0));
        let value = rounded.mantissa.saturating_mul(up);
        i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
    }

    /// The nearest floating-point number.
    pub fn approximate(&self) -> f64 {
        format!("{}e{}", self.mantissa, self.scale).parse().unwrap_or_default()
    }

    /// The sum; the format is that of `self`, unless `self` is 0.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let scale = self.scale.min(other.scale);
        let aligned = |quantity: &Self| quantity.mantissa.saturating_mul(power(10, quantity.scale.abs_diff(scale)));
        let format = if self.is_zero() { other.format } else { self.format };
        let mut sum = Self { mantissa: aligned(self).saturating_add(aligned(other)), scale, format, text: None };
        sum.normalise();
        sum
    }

    /// The difference; the format is that of `self`, unless `self` is 0.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let negated = Self { mantissa: -other.mantissa, text: None, ..other.clone() };
        self.plus(&negated)
    }

    fn canonical(&self) -> String {
        if self.mantissa == 0 {
            return "0".into();
        }
        let whole = || self.mantissa.checked_mul(power(10, u32::try_from(self.scale).ok()?));
        if self.format == Format::BinarySi
            && let Some(mut value) = whole()
            && !(-1023..=1023).contains(&value)
        {
            let mut step = 0;
            while value % 1024 == 0 && step < BINARY.len() {
                value /= 1024;
                step += 1;
            }
            return format!("{value}{}", step.checked_sub(1).map_or("", |step| BINARY[step].0));
        }
        let spare = self.scale.rem_euclid(3);
        let (mantissa, exponent) = (self.mantissa.saturating_mul(power(10, spare.unsigned_abs())), self.scale - spare);
        let suffix = DECIMAL.iter().find(|(_, e)| *e == exponent).filter(|_| self.format != Format::DecimalExponent);
        match suffix {
            Some((suffix, _)) => format!("{mantissa}{suffix}"),
            None if exponent == 0 => mantissa.to_string(),
            None => format!("{mantissa}e{exponent}"),
        }
    }
}

/// The number before its suffix, where upstream keeps the quantity in 64 bits; there it may keep the text, too.
fn fast_value(digits: &str, parts: &Parts<'_>, exponent: i32, format: Format) -> Option<i64> {
    let length = i32::try_from(digits.len()).ok()?;
    let fraction = i32::try_from(parts.fraction.len()).ok()?;
    let (precision, scale, factor) = match format {
        Format::BinarySi if parts.fraction.is_empty() => (15 - length - exponent * 3 / 10 - 1, 0, 1_i64 << exponent),
        Format::BinarySi => return None,
        Format::DecimalExponent | Format::DecimalSi => (18 - length, exponent - fraction, 1),
    };
    let value = digits.parse::<i64>().ok()?;
    (precision >= 0 && scale >= -9 && value.checked_mul(factor).is_some()).then_some(value)
}

impl FromStr for Quantity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => f.write_str(text),
            None => f.write_str(&self.canonical()),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        (self.mantissa, self.scale) == (other.mantissa, other.scale)
    }
}

impl Eq for Quantity {}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        let signs = self.mantissa.signum().cmp(&other.mantissa.signum());
        if signs != Ordering::Equal || self.mantissa == 0 {
            return signs;
        }
        let scale = self.scale.min(other.scale);
        let aligned = |q: &Self| q.mantissa.saturating_mul(power(10, q.scale.abs_diff(scale)));
        aligned(self).cmp(&aligned(other))
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("1000000", "1M")]
    #[case("Gi", "0")]
    #[case("0", "0")]
    #[case("1Pi", "1Pi")]
    #[case("1024Ki", "1Mi")]
    #[case("1.0Gi", "1Gi")]
    #[case("1.5Gi", "1536Mi")]
    #[case("00.10", "100m")]
    #[case("1.1Ki", "1126400m")]
    #[case("1.", "1.")]
    #[case("9223372036854775807", "9223372036854775807")]
    #[case("1E3", "1E3")]
    #[case("1e20", "100e18")]
    #[case(".5", "500m")]
    #[case("+1", "+1")]
    #[case("-1", "-1")]
    #[case("1000m", "1")]
    #[case("1500m", "1500m")]
    #[case("100n", "100n")]
    #[case("0.0000000001", "1n")]
    #[case("16Ei", "9223372036854775807")]
    #[case("512", "512")]
    #[case("0.5Ki", "512")]
    #[case(" 1Gi ", "1Gi")]
    fn a_quantity_prints_as_upstream_prints_it(#[case] text: &str, #[case] printed: &str) {
        assert_eq!(Quantity::parse(text).unwrap().to_string(), printed);
    }

    #[rstest]
    #[case("", FORMAT_WRONG)]
    #[case("lots", FORMAT_WRONG)]
    #[case("1e3Ki", FORMAT_WRONG)]
    #[case("1gi", FORMAT_WRONG)]
    #[case("0x10", FORMAT_WRONG)]
    #[case("1_000", FORMAT_WRONG)]
    #[case("1e", SUFFIX_WRONG)]
    #[case("1mm", SUFFIX_WRONG)]
    #[case(".e-20", NUMERIC_WRONG)]
    fn what_is_no_quantity_is_told_why(#[case] text: &str, #[case] message: &str) {
        assert_eq!(Quantity::parse(text).unwrap_err(), message);
    }

    #[test]
    fn resource_lists_round_up_to_thousandths() {
        let rounded = |text: &str| Quantity::parse(text).unwrap().rounded_to_milli().to_string();
        assert_eq!(rounded("100n"), "1m");
        assert_eq!(rounded("100u"), "1m");
        assert_eq!(rounded("-0.0011"), "-2m");
        assert_eq!(rounded("1E3"), "1E3");
    }

    #[test]
    fn sums_keep_the_format_of_the_first_that_is_not_zero() {
        let q = |text: &str| Quantity::parse(text).unwrap();
        assert_eq!(q("1Gi").plus(&q("512Mi")).to_string(), "1536Mi");
        assert_eq!(q("0").plus(&q("512Mi")).to_string(), "512Mi");
        assert_eq!(q("1").minus(&q("250m")).to_string(), "750m");
        assert!(q("1Gi") > q("1G"));
        assert_eq!(q("1.0"), q("1000m"));
        assert_eq!((q("1100m").value(), q("1.1").milli()), (2, 1100));
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_as_the_same_amount(
            text in "[+-]?[0-9]{1,20}(\\.[0-9]{0,12})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|e[0-9]|E-[0-9])?"
        ) {
            let quantity = Quantity::parse(&text).unwrap();
            let again = Quantity::parse(&quantity.to_string()).unwrap();
            prop_assert_eq!(&quantity, &again);
        }

        #[test]
        fn no_text_breaks_the_parser(text in "[-+0-9.eEinumkKMGTPx ]{0,40}") {
            let _ = Quantity::parse(&text);
        }
    }
}

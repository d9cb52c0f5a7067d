//! Semantic versions in rules.

use std::{any::Any, cmp::Ordering};

use ::cel::{
    Env, ExecutionError, add_member_overload, add_overload,
    common::{
        types::{CelBool, CelInt, CelString, Type},
        value::{StaticVal, Val},
    },
};

use super::{Registered, fail};

opaque!(SemverVal, Semver, SEMVER, "kubernetes.Semver");

#[derive(Clone, Debug)]
struct Semver {
    numbers: [u64; 3],
    pre: Vec<String>,
}

impl PartialEq for Semver {
    fn eq(&self, other: &Self) -> bool {
        self.order(other) == Ordering::Equal
    }
}

impl Semver {
    fn parse(text: &str) -> Option<Self> {
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        let (text, pre) = text.split_once('-').map_or((text, None), |(text, pre)| (text, Some(pre)));
        let word =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let number = |part: &str| {
            let plain = part == "0" || !part.starts_with('0');
            part.parse::<u64>().ok().filter(|_| plain && part.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let numbers: Vec<u64> = text.split('.').map(number).collect::<Option<_>>()?;
        let pre: Vec<String> = pre.map_or_else(Vec::new, |pre| pre.split('.').map(str::to_owned).collect());
        let pre_fits = pre.iter().all(|part| word(part) && (!digits(part) || number(part).is_some()));
        let build_fits = build.is_none_or(|build| build.split('.').all(word));
        (pre_fits && build_fits).then_some(Self { numbers: numbers.try_into().ok()?, pre })
    }

    fn order(&self, other: &Self) -> Ordering {
        let pre = match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let mut order = Ordering::Equal;
                for (a, b) in self.pre.iter().zip(&other.pre) {
                    order = order.then_with(|| match (a.parse::<u64>(), b.parse::<u64>()) {
                        (Ok(a), Ok(b)) => a.cmp(&b),
                        (Ok(_), Err(_)) => Ordering::Less,
                        (Err(_), Ok(_)) => Ordering::Greater,
                        (Err(_), Err(_)) => a.cmp(b),
                    });
                }
                order.then(self.pre.len().cmp(&other.pre.len()))
            }
        };
        self.numbers.cmp(&other.numbers).then(pre)
    }
}

fn semver(text: &CelString<'_>) -> Result<SemverVal, ExecutionError> {
    let bad = || "No Major.Minor.Patch elements found";
    Semver::parse(text.inner()).map_or_else(|| fail("semver", bad()), |version| Ok(SemverVal(version)))
}

/// `v1.0` is read as `1.0.0`.
fn normalized(text: &str) -> String {
    let text = text.strip_prefix('v').unwrap_or(text);
    let (numbers, rest) = text.split_at(text.find(['-', '+']).unwrap_or(text.len()));
    let mut parts: Vec<&str> = numbers.split('.').map(|part| part.trim_start_matches('0')).collect();
    for part in &mut parts {
        if part.is_empty() {
            *part = "0";
        }
    }
    parts.resize(parts.len().max(3), "0");
    format!("{}{rest}", parts.join("."))
}

fn semver_normalized(text: &CelString<'_>, normalize: &CelBool) -> Result<SemverVal, ExecutionError> {
    if *normalize.inner() { semver(&CelString::from(normalized(text.inner()))) } else { semver(text) }
}

fn is_semver(text: &CelString<'_>) -> CelBool {
    CelBool::from(Semver::parse(text.inner()).is_some())
}

fn is_semver_normalized(text: &CelString<'_>, normalize: &CelBool) -> CelBool {
    if *normalize.inner() { is_semver(&CelString::from(normalized(text.inner()))) } else { is_semver(text) }
}

fn part(version: &SemverVal, index: usize) -> CelInt {
    CelInt::from(i64::try_from(version.0.numbers[index]).unwrap_or(i64::MAX))
}

fn major(version: &SemverVal) -> CelInt {
    part(version, 0)
}

fn minor(version: &SemverVal) -> CelInt {
    part(version, 1)
}

fn patch(version: &SemverVal) -> CelInt {
    part(version, 2)
}

fn semver_less(a: &SemverVal, b: &SemverVal) -> CelBool {
    CelBool::from(a.0.order(&b.0) == Ordering::Less)
}

fn semver_greater(a: &SemverVal, b: &SemverVal) -> CelBool {
    CelBool::from(a.0.order(&b.0) == Ordering::Greater)
}

fn semver_compare(a: &SemverVal, b: &SemverVal) -> CelInt {
    CelInt::from(a.0.order(&b.0) as i64)
}

pub(super) fn functions(env: &mut Env) -> Registered {
    add_overload!(env, fn semver: (CelString<'_>) -> Result<SemverVal>)?;
    add_overload!(env, fn semver_normalized: (CelString<'_>, CelBool) -> Result<SemverVal>, name = "semver")?;
    add_overload!(env, fn is_semver: (CelString<'_>) -> CelBool)?;
    add_overload!(env, fn is_semver_normalized: (CelString<'_>, CelBool) -> CelBool, name = "isSemver")?;
    add_member_overload!(env, fn major: (SemverVal) -> CelInt)?;
    add_member_overload!(env, fn minor: (SemverVal) -> CelInt)?;
    add_member_overload!(env, fn patch: (SemverVal) -> CelInt)?;
    add_member_overload!(env, fn semver_less: (SemverVal, SemverVal) -> CelBool, name = "isLessThan")?;
    add_member_overload!(env, fn semver_greater: (SemverVal, SemverVal) -> CelBool, name = "isGreaterThan")?;
    add_member_overload!(env, fn semver_compare: (SemverVal, SemverVal) -> CelInt, name = "compareTo")
}

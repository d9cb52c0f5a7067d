//! The part of JSONPath that printer columns use: members, wildcards, indexes, slices and filters.
//!
//! Upstream: `k8s.io/client-go/util/jsonpath`, with missing members allowed.

use serde_json::Value;

/// One step of a path.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Member(String),
    Any,
    Deep(String),
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    Filter(Filter),
}

/// `[?(@.type=="Ready")]`.
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Vec<Step>,
    test: Option<(Compare, Value)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Compare {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// A path, read once.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct JsonPath(Vec<Step>);

impl JsonPath {
    /// Reads a path such as `.spec.size`; `None` where it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        steps(text.strip_prefix('$').unwrap_or(text)).map(Self)
    }

    /// The first value that the path leads to.
    pub(super) fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        find(&self.0, value).into_iter().next()
    }
}

fn steps(mut text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    while !text.is_empty() {
        if let Some(rest) = text.strip_prefix("..") {
            let (name, rest) = member(rest);
            steps.push(Step::Deep(name));
            text = rest;
        } else if let Some(rest) = text.strip_prefix('.') {
            let (name, rest) = member(rest);
            match name.as_str() {
                "" => {}
                "*" => steps.push(Step::Any),
                _ => steps.push(Step::Member(name)),
            }
            text = rest;
        } else if let Some(rest) = text.strip_prefix('[') {
            let end = closing(rest)?;
            steps.push(bracket(rest[..end].trim())?);
            text = &rest[end + 1..];
        } else if steps.is_empty() {
            let (name, rest) = member(text);
            steps.push(Step::Member(name));
            text = rest;
        } else {
            return None;
        }
    }
    Some(steps)
}

/// A member's name up to the next step; a backslash takes the meaning from the next character.
fn member(text: &str) -> (String, &str) {
    let (mut name, mut escaped) = (String::new(), false);
    for (i, c) in text.char_indices() {
        match c {
            c if escaped => {
                name.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '.' | '[' => return (name, &text[i..]),
            c => name.push(c),
        }
    }
    (name, "")
}

/// Where the bracket that is open at the start closes.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0usize, None);
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '(') => depth += 1,
            (None, ']') if depth == 0 => return Some(i),
            (None, ']' | ')') => depth = depth.checked_sub(1)?,
            (None, _) => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    if text == "*" {
        return Some(Step::Any);
    }
    if let Some(inside) = text.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return filter(inside).map(Step::Filter);
    }
    if let Some(name) = unquoted(text) {
        return Some(Step::Member(name.into()));
    }
    if let Some((from, to)) = text.split_once(':') {
        let bound = |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
        return Some(Step::Slice(bound(from.trim())?, bound(to.trim())?));
    }
    text.parse().ok().map(Step::Index)
}

fn unquoted(text: &str) -> Option<&str> {
    ['\'', '"'].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
}

fn filter(text: &str) -> Option<Filter> {
    const OPERATORS: [(&str, Compare); 6] = [
        ("==", Compare::Equal),
        ("!=", Compare::NotEqual),
        ("<=", Compare::LessEqual),
        (">=", Compare::GreaterEqual),
        ("<", Compare::Less),
        (">", Compare::Greater),
    ];
    let found = OPERATORS.iter().filter_map(|(sign, compare)| Some((text.find(sign)?, *sign, *compare)));
    let (left, test) = match found.min_by_key(|(at, sign, _)| (*at, std::cmp::Reverse(sign.len()))) {
        Some((at, sign, compare)) => (&text[..at], Some((compare, literal(text[at + sign.len()..].trim())?))),
        None => (text, None),
    };
    Some(Filter { left: steps(left.trim().strip_prefix('@')?)?, test })
}

fn literal(text: &str) -> Option<Value> {
    match unquoted(text) {
        Some(text) => Some(text.into()),
        None => serde_json::from_str(text).ok(),
    }
}

fn find<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in steps {
        found = found.into_iter().flat_map(|value| apply(step, value)).collect();
    }
    found
}

fn apply<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    match step {
        Step::Member(name) => value.get(name).into_iter().collect(),
        Step::Any => children(value),
        Step::Deep(name) => {
            let mut found: Vec<_> = value.get(name).into_iter().collect();
            found.extend(children(value).into_iter().flat_map(|child| apply(step, child)));
            found
        }
        Step::Index(index) => {
            let Value::Array(items) = value else { return Vec::new() };
            items.get(position(*index, items.len())).into_iter().collect()
        }
        Step::Slice(from, to) => {
            let Value::Array(items) = value else { return Vec::new() };
            let from = position(from.unwrap_or(0), items.len());
            let to = to.map_or(items.len(), |to| position(to, items.len())).min(items.len());
            items.get(from..to).into_iter().flatten().collect()
        }
        Step::Filter(filter) => match value {
            Value::Array(items) => items.iter().filter(|item| passes(filter, item)).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => Vec::new(),
        },
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(map) => map.values().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// A place in a list, counted from the end where it is negative; beyond the list where there is none.
fn position(index: i64, length: usize) -> usize {
    let index = if index < 0 { index.saturating_add_unsigned(length as u64) } else { index };
    usize::try_from(index).unwrap_or(usize::MAX)
}

fn passes(filter: &Filter, item: &Value) -> bool {
    let left = find(&filter.left, item);
    let Some((compare, right)) = &filter.test else { return !left.is_empty() };
    let Some(left) = left.first() else { return false };
    let order = match (left, right) {
        (Value::String(left), Value::String(right)) => left.partial_cmp(right),
        (Value::Number(left), Value::Number(right)) => left.as_f64().partial_cmp(&right.as_f64()),
        (left, right) if *left == right => Some(std::cmp::Ordering::Equal),
        _ => None,
    };
    match compare {
        Compare::Equal => order.is_some_and(|order| order.is_eq()),
        Compare::NotEqual => !order.is_some_and(|order| order.is_eq()),
        Compare::Less => order.is_some_and(|order| order.is_lt()),
        Compare::LessEqual => order.is_some_and(|order| order.is_le()),
        Compare::Greater => order.is_some_and(|order| order.is_gt()),
        Compare::GreaterEqual => order.is_some_and(|order| order.is_ge()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(".spec.size", Some(json!(3)))]
    #[case("{.spec.size}", Some(json!(3)))]
    #[case("$.spec.size", Some(json!(3)))]
    #[case(".spec.absent.deeper", None)]
    #[case(r#".status.conditions[?(@.type=="Ready")].status"#, Some(json!("True")))]
    #[case(".status.conditions[?(@.type=='Ready')].reason", Some(json!("Ok")))]
    #[case(".status.conditions[?(@.type!='Ready')].status", Some(json!("False")))]
    #[case(".status.conditions[?(@.type=='Absent')].status", None)]
    #[case(".status.conditions[?(@.reason)].status", Some(json!("True")))]
    #[case(".status.conditions[?(@.age>=5)].type", Some(json!("Ready")))]
    #[case(".status.conditions[0].type", Some(json!("Other")))]
    #[case(".status.conditions[-1].type", Some(json!("Ready")))]
    #[case(".status.conditions[1:].type", Some(json!("Ready")))]
    #[case(".status.conditions[*].type", Some(json!("Other")))]
    #[case(r".metadata.labels.a\.b/c", Some(json!("x")))]
    #[case(".metadata.labels['a.b/c']", Some(json!("x")))]
    #[case("..size", Some(json!(3)))]
    fn a_path_leads_to_its_first_value(#[case] path: &str, #[case] expected: Option<Value>) {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "x"}},
            "spec": {"size": 3},
            "status": {"conditions": [
                {"type": "Other", "status": "False", "age": 1},
                {"type": "Ready", "status": "True", "reason": "Ok", "age": 5},
            ]},
        });
        assert_eq!(JsonPath::parse(path).expect("a path").first(&object).cloned(), expected);
    }

    #[rstest]
    #[case(".a[")]
    #[case(".a[x]")]
    #[case(".a[?(type=='x')]")]
    fn what_is_no_path_is_none(#[case] path: &str) {
        assert_eq!(JsonPath::parse(path), None);
    }
}

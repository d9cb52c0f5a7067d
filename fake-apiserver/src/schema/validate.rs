//! Checking a value against a custom kind's schema: kube-openapi's validator, list sets and maps, CEL rules.

use serde_json::{Number, Value};

use super::{Checks, Node, Schema, Type, cel, formats};
use crate::base::{FieldError, status::FieldErrorKind};

mod lists;

pub(super) use lists::Correlation;

/// All that is wrong with an object; `more` is told of behind what its types and bounds say, and before its rules. What
/// was wrong `before` may keep rules from being looked at.
pub(super) fn validate(
    schema: &Schema,
    new: &Value,
    old: Option<&Value>,
    before: &[FieldError],
    more: Vec<FieldError>,
) -> Vec<FieldError> {
    let mut walker = Walker { errors: Vec::new() };
    walker.value(&schema.root, new, old, &mut String::new());
    let mut errors = walker.errors;
    errors.extend(more);
    if schema.root.has.embedded {
        embedded(&schema.root, new, &mut String::new(), &mut errors);
    }
    if schema.root.has.lists {
        // An object whose lists were wrong before may stay so.
        let before = old.map_or_else(Vec::new, |old| lists::check(&schema.root, old));
        if before.is_empty() {
            errors.extend(lists::check(&schema.root, new));
        }
    }
    if schema.root.has.rules {
        if errors.iter().chain(before).any(blocks_rules) {
            errors.push(FieldError {
                kind: FieldErrorKind::Invalid,
                field: "<nil>".into(),
                body: "Invalid value: null: some validation rules were not checked because the object was invalid; \
                       correct the existing errors to complete validation"
                    .into(),
            });
        } else {
            errors.extend(cel::validate(&schema.root, new, old));
        }
    }
    errors
}

/// What is wrong with a part of an object, as for defaults.
pub(super) fn validate_part(node: &Node, value: &Value) -> Vec<FieldError> {
    let mut walker = Walker { errors: Vec::new() };
    walker.value(node, value, None, &mut String::new());
    walker.errors
}

/// Whole objects inside an object say what they are; see `apiserver/schema/objectmeta/validation.go`.
fn embedded(node: &Node, value: &Value, path: &mut String, errors: &mut Vec<FieldError>) {
    if !node.has.embedded {
        return;
    }
    let length = path.len();
    match value {
        Value::Object(map) => {
            if node.embedded {
                for key in ["apiVersion", "kind"] {
                    let field = format!("{path}.{key}");
                    match map.get(key) {
                        None => errors.push(FieldError::required(&field, "")),
                        Some(Value::String(text)) if text.is_empty() => {
                            errors.push(FieldError::invalid(&field, &text.as_str().into(), "must not be empty"));
                        }
                        Some(_) => {}
                    }
                }
            }
            for (key, value) in map {
                let property = node.properties.get(key);
                let Some(child) = property.or(node.additional.as_ref()) else { continue };
                if property.is_none() {
                    path.push_str(&format!("[{key}]"));
                } else {
                    if length > 0 {
                        path.push('.');
                    }
                    path.push_str(key);
                }
                embedded(child, value, path, errors);
                path.truncate(length);
            }
        }
        Value::Array(items) => {
            let Some(child) = &node.items else { return };
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                embedded(child, item, path, errors);
                path.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn blocks_rules(error: &FieldError) -> bool {
    match error.kind {
        FieldErrorKind::NotSupported
        | FieldErrorKind::Required
        | FieldErrorKind::TooLong
        | FieldErrorKind::TooMany
        | FieldErrorKind::TypeInvalid => true,
        FieldErrorKind::Duplicate
        | FieldErrorKind::Invalid
        | FieldErrorKind::Forbidden
        | FieldErrorKind::NotFound
        | FieldErrorKind::Internal => false,
    }
}

struct Walker {
    errors: Vec<FieldError>,
}

/// What a check of a subtree came to: upstream's `MatchCount`, by which it picks the likeliest branch of an `anyOf`.
type Matches = usize;

impl Walker {
    /// The field that a path names; upstream drops the dot before a member of the root.
    fn field(path: &str) -> &str {
        path.strip_prefix('.').unwrap_or(path)
    }

    fn invalid(&mut self, path: &str, value: &Value, detail: &str) {
        self.errors.push(FieldError::invalid(Self::field(path), value, detail));
    }

    /// An error that kube-openapi does not tie to a field.
    fn loose(&mut self, detail: String) {
        self.errors.push(FieldError::invalid("<nil>", &Value::String(String::new()), &detail));
    }

    fn wrong_type(&mut self, path: &str, want: &str, shown: &Value) {
        let text = match shown {
            Value::String(text) => crate::base::status::go_quote(text),
            other => other.to_string(),
        };
        let detail = format!("{path} in body must be of type {want}: {text}");
        self.errors.push(FieldError::type_invalid(Self::field(path), shown, &detail));
    }

    /// Checks a value. With an equal old value nothing is wrong: see `apiserver/validation/ratcheting.go`.
    fn value(&mut self, node: &Node, value: &Value, old: Option<&Value>, path: &mut String) -> Matches {
        if old.is_some_and(|old| old == value) {
            return 1;
        }
        let mut matches = 1;
        if value.is_null() {
            if !node.nullable && (node.kind.is_some() || node.int_or_string) {
                self.wrong_type(path, type_names(node), &Value::String("null".into()));
            }
            self.allowed(node, value, path);
            return matches;
        }
        self.type_of(node, value, path);
        let plain = Checks::default();
        let checks = node.checks.as_deref().unwrap_or(&plain);
        matches += self.compound(checks, value, path) + 1;
        match value {
            Value::String(text) => {
                self.text(checks, text, value, path);
                if formats::check(&node.format, text) == Some(false) {
                    let format = node.format.clone();
                    self.wrong_type(path, &format, value);
                }
                matches += 1;
            }
            Value::Number(number) => {
                self.number(node, checks, number, value, path);
                matches += 1;
            }
            Value::Array(items) => matches += self.items(node, checks, items, old, path),
            Value::Null | Value::Bool(_) | Value::Object(_) => {}
        }
        self.allowed(node, value, path);
        if let Value::Object(_) = value {
            matches += self.members(node, checks, value, old, path);
        }
        matches
    }

    /// See `kube-openapi/pkg/validation/validate/type.go`.
    fn type_of(&mut self, node: &Node, value: &Value, path: &str) {
        if node.kind.is_none() && !node.int_or_string && node.format.is_empty() {
            return;
        }
        let (name, format) = type_and_format(value);
        let has = |kind: &str| match node.kind {
            _ if node.int_or_string => kind == "integer" || kind == "string",
            Some(known) => known.name() == kind,
            None => false,
        };
        let whole = matches!(value, Value::Number(n) if n.is_f64() && n.as_f64().is_some_and(|n| n.fract() == 0.0));
        let float_as_int = name == "number" && whole && has("integer");
        let int_as_float = name == "integer" && has("number");
        let is_text_or_list = value.is_string() || value.is_array();
        if !is_text_or_list && !node.format.is_empty() {
            let low_int = node.format == "int64" && format == "int32";
            let low_float = node.format == "float64" && format == "float32";
            if !(has(name) || format == node.format || float_as_int || int_as_float || low_int || low_float) {
                return self.wrong_type(path, &node.format.clone(), &Value::String(format.into()));
            }
        }
        let is_number = has("number") || has("integer");
        if !is_number && !node.format.is_empty() && is_text_or_list {
            return;
        }
        if !(has(name) || float_as_int || int_as_float) {
            self.wrong_type(path, type_names(node), &Value::String(name.into()));
        }
    }

    /// `anyOf`, `oneOf`, `allOf`, `not`; see `schema_props.go` there.
    fn compound(&mut self, checks: &Checks, value: &Value, path: &mut String) -> Matches {
        let try_one = |node: &Node, path: &mut String| {
            let mut walker = Walker { errors: Vec::new() };
            let matches = walker.value(node, value, None, path);
            (matches, walker.errors)
        };
        let mut total = 0;
        if !checks.any_of.is_empty() {
            let mut best: Option<(Matches, Vec<FieldError>)> = None;
            let mut valid = false;
            for node in &checks.any_of {
                let result = try_one(node, path);
                if result.1.is_empty() {
                    valid = true;
                    total += result.0;
                    break;
                }
                if best.as_ref().is_none_or(|best| result.0 > best.0) {
                    best = Some(result);
                }
            }
            if !valid {
                self.loose(format!("\"{path}\" must validate at least one schema (anyOf)"));
                self.errors.extend(best.into_iter().flat_map(|best| best.1));
            }
        }
        if !checks.one_of.is_empty() {
            let mut best: Option<(Matches, Vec<FieldError>)> = None;
            let mut valid = 0;
            for node in &checks.one_of {
                let result = try_one(node, path);
                if result.1.is_empty() {
                    valid += 1;
                    best = None;
                } else if valid == 0 && best.as_ref().is_none_or(|best| result.0 > best.0) {
                    best = Some(result);
                }
            }
            if valid != 1 {
                let found = if valid == 0 {
                    "Found none valid".to_owned()
                } else {
                    format!("Found {valid} valid alternatives")
                };
                self.loose(format!("\"{path}\" must validate one and only one schema (oneOf). {found}"));
                self.errors.extend(best.into_iter().flat_map(|best| best.1));
            }
        }
        if !checks.all_of.is_empty() {
            let mut valid = 0;
            for node in &checks.all_of {
                let (matches, errors) = try_one(node, path);
                total += matches;
                valid += usize::from(errors.is_empty());
                self.errors.extend(errors);
            }
            if valid != checks.all_of.len() {
                let none = if valid == 0 { ". None validated" } else { "" };
                self.loose(format!("\"{path}\" must validate all the schemas (allOf){none}"));
            }
        }
        if checks.not.as_ref().is_some_and(|node| try_one(node, path).1.is_empty()) {
            self.loose(format!("\"{path}\" must not validate the schema (not)"));
        }
        total
    }

    fn text(&mut self, checks: &Checks, text: &str, value: &Value, path: &str) {
        let length = || i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        if let Some(max) = checks.max_length.filter(|max| length() > *max) {
            let body = format!("Too long: may not be more than {max} bytes");
            return self.errors.push(FieldError {
                kind: FieldErrorKind::TooLong,
                field: Self::field(path).into(),
                body,
            });
        }
        if let Some(min) = checks.min_length.filter(|min| length() < *min) {
            return self.invalid(path, value, &format!("{path} in body should be at least {min} chars long"));
        }
        if let Some((source, _)) = checks.pattern.as_ref().filter(|(_, pattern)| !pattern.is_match(text)) {
            self.invalid(path, value, &format!("{path} in body should match '{source}'"));
        }
    }

    /// See `validator.go` there: a whole number is compared as one, which cuts the fraction off the bound.
    fn number(&mut self, node: &Node, checks: &Checks, number: &Number, value: &Value, path: &str) {
        self.range(node, number, "Checked", path);
        let whole = number.as_i64();
        let float = number.as_f64().unwrap_or_default();
        if let Some(factor) = checks.multiple_of {
            match whole {
                Some(whole) => {
                    let factor = factor as i64;
                    if factor <= 0 {
                        let text = format!("factor MultipleOf declared for {path} must be positive: {factor}");
                        self.invalid(path, &factor.into(), &text);
                    } else if whole % factor != 0 {
                        self.invalid(path, value, &format!("{path} in body should be a multiple of {factor}"));
                    }
                }
                None if factor <= 0.0 => {
                    let text = format!("factor MultipleOf declared for {path} must be positive: {}", go_float(factor));
                    self.invalid(path, &factor.into(), &text);
                }
                None => {
                    let times = if factor < 1.0 { 1.0 / factor * float } else { float / factor };
                    if !is_whole(times) {
                        let factor = go_float(factor);
                        self.invalid(path, value, &format!("{path} in body should be a multiple of {factor}"));
                    }
                }
            }
        }
        if let Some(minimum) = checks.minimum {
            let (low, bound) = match whole {
                Some(whole) if checks.exclusive_minimum => (whole <= minimum as i64, (minimum as i64).to_string()),
                Some(whole) => (whole < minimum as i64, (minimum as i64).to_string()),
                None if checks.exclusive_minimum => (float <= minimum, go_float(minimum)),
                None => (float < minimum, go_float(minimum)),
            };
            if low {
                let or_equal = if checks.exclusive_minimum { "" } else { " or equal to" };
                self.invalid(path, value, &format!("{path} in body should be greater than{or_equal} {bound}"));
            }
        }
        if let Some(maximum) = checks.maximum {
            let (high, bound) = match whole {
                Some(whole) if checks.exclusive_maximum => (whole >= maximum as i64, (maximum as i64).to_string()),
                Some(whole) => (whole > maximum as i64, (maximum as i64).to_string()),
                None if checks.exclusive_maximum => (float >= maximum, go_float(maximum)),
                None => (float > maximum, go_float(maximum)),
            };
            if high {
                let or_equal = if checks.exclusive_maximum { "" } else { " or equal to" };
                self.invalid(path, value, &format!("{path} in body should be less than{or_equal} {bound}"));
            }
        }
    }

    /// Whether a number is of its type and format at all.
    fn range(&mut self, node: &Node, number: &Number, prefix: &str, path: &str) {
        let fits = match node.kind {
            Some(Type::Integer) => {
                let whole = number.as_i64().or_else(|| {
                    let float = number.as_f64()?;
                    (float.fract() == 0.0 && float.abs() < 9.3e18).then_some(float as i64)
                });
                match (node.format.as_str(), whole) {
                    ("int32", Some(whole)) => i32::try_from(whole).is_ok(),
                    ("uint32", Some(whole)) => u32::try_from(whole).is_ok(),
                    ("uint64", Some(whole)) => whole >= 0,
                    (_, whole) => whole.is_some(),
                }
            }
            Some(Type::Object | Type::Array | Type::String | Type::Number | Type::Boolean) | None => {
                !matches!(node.format.as_str(), "float" | "float32")
                    || number.as_f64().is_some_and(|float| float.abs() <= f64::from(f32::MAX))
            }
        };
        if fits {
            return;
        }
        let kind = node.kind.map_or("", Type::name);
        let format = if node.format.is_empty() {
            " (default format)".to_owned()
        } else {
            format!(" with format {}", node.format)
        };
        self.loose(format!("{prefix} value must be of type {kind}{format} in {path}"));
    }

    fn items(
        &mut self,
        node: &Node,
        checks: &Checks,
        items: &[Value],
        old: Option<&Value>,
        path: &mut String,
    ) -> Matches {
        let mut matches = 0;
        if let Some(child) = &node.items {
            let length = path.len();
            let correlated = lists::Correlation::new(&node.list_type, old);
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                matches += self.value(child, item, correlated.find(item), path);
                path.truncate(length);
            }
        }
        let size = i64::try_from(items.len()).unwrap_or(i64::MAX);
        if let Some(min) = checks.min_items.filter(|min| size < *min) {
            let detail = format!("{path} in body should have at least {min} items");
            self.invalid(path, &size.into(), &detail);
        }
        if let Some(max) = checks.max_items.filter(|max| size > *max) {
            self.too_many(path, size, max);
        }
        if checks.unique_items && (1..items.len()).any(|i| items[..i].contains(&items[i])) {
            let detail = format!("{path} in body shouldn't contain duplicates");
            self.invalid(path, &Value::String(String::new()), &detail);
        }
        matches + 1
    }

    fn too_many(&mut self, path: &str, size: i64, max: i64) {
        let count = |n: i64| usize::try_from(n).unwrap_or_default();
        self.errors.push(FieldError::too_many(Self::field(path), count(size), count(max)));
    }

    fn allowed(&mut self, node: &Node, value: &Value, path: &str) {
        let Some(checks) = node.checks.as_deref().filter(|checks| !checks.allowed.is_empty()) else { return };
        let same = |allowed: &Value| match (allowed, value) {
            (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
            (a, b) => a == b,
        };
        if !checks.allowed.iter().any(same) {
            let texts: Vec<String> = checks
                .allowed
                .iter()
                .map(|allowed| allowed.as_str().map_or_else(|| allowed.to_string(), str::to_owned))
                .collect();
            self.errors.push(FieldError::not_supported(Self::field(path), value, &texts));
        }
    }

    fn members(
        &mut self,
        node: &Node,
        checks: &Checks,
        value: &Value,
        old: Option<&Value>,
        path: &mut String,
    ) -> Matches {
        let Value::Object(map) = value else { return 0 };
        let size = i64::try_from(map.len()).unwrap_or(i64::MAX);
        if let Some(min) = checks.min_properties.filter(|min| size < *min) {
            let detail = format!("{path} in body should have at least {min} properties");
            self.invalid(path, &size.into(), &detail);
            return 1;
        }
        if let Some(max) = checks.max_properties.filter(|max| size > *max) {
            self.too_many(path, size, max);
            return 1;
        }
        let mut matches = 1;
        let length = path.len();
        let old = old.and_then(Value::as_object);
        if let Some(child) = &node.additional {
            for (key, value) in map.iter().filter(|(key, _)| !node.properties.contains_key(*key)) {
                path.push('.');
                path.push_str(key);
                matches += self.value(child, value, old.and_then(|old| old.get(key)), path);
                path.truncate(length);
            }
        }
        // walk the smaller side: CRDs know many members, objects have few
        for (key, value) in map {
            let Some(child) = node.properties.get(key) else { continue };
            if length > 0 {
                path.push('.');
            }
            path.push_str(key);
            matches += self.value(child, value, old.and_then(|old| old.get(key)), path);
            path.truncate(length);
        }
        for key in &node.required {
            if !map.contains_key(key) {
                let field = format!("{path}.{key}");
                self.errors.push(FieldError::required(Self::field(&field), ""));
            }
        }
        matches
    }
}

fn type_names(node: &Node) -> &'static str {
    if node.int_or_string { "integer,string" } else { node.kind.map_or("", Type::name) }
}

/// The JSON type and Go's format of a value, as kube-openapi infers them.
fn type_and_format(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::Number(number) if number.is_f64() => ("number", "float64"),
        Value::Number(_) => ("integer", "int64"),
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
    }
}

/// Whether a number is whole, up to rounding; see swag's `IsFloat64AJSONInteger`.
fn is_whole(number: f64) -> bool {
    const EPSILON: f64 = 1e-9;
    if !number.is_finite() || number.abs() > 9_007_199_254_740_991.0 {
        return false;
    }
    let off = (number - number.round()).abs();
    off == 0.0 || off < EPSILON * number.abs().max(f64::MIN_POSITIVE)
}

/// A number as Go's `%v` prints it.
pub(super) fn go_float(number: f64) -> String {
    let exponent = if number == 0.0 { 0 } else { number.abs().log10().floor() as i32 };
    if (-4..21).contains(&exponent) {
        return format!("{number}");
    }
    let text = format!("{number:e}");
    match text.split_once('e') {
        Some((mantissa, power)) => {
            let (sign, digits) = power.strip_prefix('-').map_or(('+', power), |digits| ('-', digits));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

#[cfg(test)]
mod tests;

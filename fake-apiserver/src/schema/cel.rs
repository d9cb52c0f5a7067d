//! CEL rules on custom kinds: `x-kubernetes-validations`.
//!
//! The language itself is the `cel` crate's; here are its binding to schemas, Kubernetes' own functions, a check of rules
//! when a CustomResourceDefinition is written, the cost that a rule may come to, and which rules run on which values.

use std::{
    cmp::Reverse,
    sync::{Arc, LazyLock},
};

use ::cel::{Context, Env, ExecutionError, Value as CelValue, common::types::CelOptional};
use serde_json::{Map, Value, json};

use self::{
    budget::{Budget, Metered},
    check::Kind,
};
use super::{ListType, Node, structural::field_path, validate::Correlation};
use crate::base::{
    FieldError, limits,
    status::{FieldErrorKind, go_value},
};

mod authorizer;
mod budget;
mod check;
mod comprehensions;
mod cost;
mod deep;
mod expression;
mod library;
mod patches;
mod values;

pub use self::expression::{Answer, Bindings, Scope, Wanted};

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(library::environment()));

/// One rule of `x-kubernetes-validations`, compiled.
#[derive(Debug)]
pub struct Rule {
    expression: String,
    program: Metered,
    message: String,
    /// The expression that gives the message, and its text.
    message_program: Option<(String, Metered)>,
    reason: FieldErrorKind,
    field_path: String,
    /// Whether it looks at the old value, and so runs on updates only.
    transition: bool,
    /// Whether `oldSelf` is an optional, and the rule runs without an old value, too.
    optional_old: bool,
}

/// What has been found on the way through a schema.
#[derive(Default)]
struct Found {
    errors: Vec<FieldError>,
    /// Cost of all rules so far.
    total: u64,
    /// The dearest ones, dearest first.
    dearest: Vec<(u64, String)>,
}

impl Found {
    fn observe(&mut self, field: String, cost: u64) {
        self.total = self.total.saturating_add(cost);
        if cost >= limits::SCHEMA_RULES_COST / 100 {
            self.dearest.push((cost, field));
            self.dearest.sort_by_key(|(cost, _)| Reverse(*cost));
            self.dearest.truncate(4);
        }
    }
}

/// Where a node of a schema stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a str,
    whole: bool,
    cardinality: cost::Cardinality,
    /// The list around it whose items cannot be told from each other after an update.
    uncorrelated: Option<&'a str>,
}

/// Compiles the rules of a schema into its nodes. Parts with errors of their own (`flawed`, by path) are passed over.
pub(super) fn compile(
    root: &mut Arc<Node>,
    source: &Map<String, Value>,
    path: &str,
    flawed: &[FieldError],
) -> Vec<FieldError> {
    let mut found = Found::default();
    let place = Place { path, whole: true, cardinality: Some(1), uncorrelated: None };
    compile_node(root, source, place, flawed, &mut found);
    if found.total > limits::SCHEMA_RULES_COST {
        let detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        found.errors.extend(found.dearest.iter().map(|(_, field)| FieldError::forbidden(field, detail)));
        let name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        let detail = too_dear(name, found.total, limits::SCHEMA_RULES_COST);
        found.errors.push(FieldError::forbidden(path, &detail));
    }
    found.errors
}

fn too_dear(name: &str, cost: u64, limit: u64) -> String {
    let times = cost as f64 / limit as f64;
    let factor = if times > 100.0 {
        "more than 100x".to_owned()
    } else if times < 1.5 {
        format!("{times:.6}x")
    } else {
        format!("{times:.1}x")
    };
    format!(
        "{name} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

fn compile_node(
    node: &mut Arc<Node>,
    source: &Map<String, Value>,
    place: Place<'_>,
    flawed: &[FieldError],
    found: &mut Found,
) {
    if !node.has.rules {
        return;
    }
    let Place { path, whole, cardinality, uncorrelated } = place;
    let part = |key: &str| source.get(key).and_then(Value::as_object);
    let below = cost::children(node, cardinality);
    let is_map = matches!(node.list_type, ListType::Map(_));
    let inside = Place { whole: false, cardinality: below, ..place };
    let inner = Arc::make_mut(node);
    if let (Some(child), Some(source)) = (&mut inner.additional, part("additionalProperties")) {
        let path = format!("{path}.additionalProperties");
        compile_node(child, source, Place { path: &path, ..inside }, flawed, found);
    }
    for (name, child) in &mut inner.properties {
        if let Some(source) = part("properties").and_then(|map| map.get(name)).and_then(Value::as_object) {
            let path = format!("{path}.properties[{name}]");
            compile_node(child, source, Place { path: &path, ..inside }, flawed, found);
        }
    }
    if let (Some(child), Some(source)) = (&mut inner.items, part("items")) {
        let uncorrelated = uncorrelated.or((!is_map).then_some(path));
        let path = format!("{path}.items");
        compile_node(child, source, Place { path: &path, uncorrelated, ..inside }, flawed, found);
    }
    let listed = source.get("x-kubernetes-validations").and_then(Value::as_array);
    let listed = listed.map(Vec::as_slice).unwrap_or_default();
    if flawed.iter().any(|error| error.field.starts_with(path)) {
        return;
    }
    let this = values::with_type_and_metadata(node, whole);
    if !listed.is_empty() && !values::is_visible(&this) {
        let detail = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to \
                      convert structural schema to CEL declarations";
        return found.errors.push(FieldError::internal(&format!("{path}.x-kubernetes-validations"), detail));
    }
    let mut rules = Vec::new();
    for (index, rule) in listed.iter().enumerate() {
        let path = format!("{path}.x-kubernetes-validations[{index}]");
        let compiled = compile_rule(&this, rule, Place { path: &path, ..place }, found);
        rules.extend(compiled.map(|compiled| {
            let field = rule.get("fieldPath").and_then(Value::as_str).unwrap_or_default();
            let field_path = field_path(source, field, true).map(|(path, _)| path).unwrap_or_default();
            Arc::new(Rule { field_path, ..compiled })
        }));
    }
    Arc::make_mut(node).rules = rules;
}

/// Compiles a rule; tells what is wrong with it, or how dear it is.
fn compile_rule(node: &Arc<Node>, rule: &Value, place: Place<'_>, found: &mut Found) -> Option<Rule> {
    let path = place.path;
    let text = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default();
    let optional_old = rule.get("optionalOldSelf").and_then(Value::as_bool);
    // upstream shows its internal type
    let refuse = |member: &str, detail: String| {
        let shown = json!({
            "Rule": text("rule"), "Message": text("message"), "MessageExpression": text("messageExpression"),
            "Reason": rule.get("reason"), "FieldPath": text("fieldPath"), "OptionalOldSelf": rule.get("optionalOldSelf"),
        });
        let mut members: Vec<String> = Vec::new();
        for key in ["Rule", "Message", "MessageExpression", "Reason", "FieldPath", "OptionalOldSelf"] {
            members.push(format!("\"{key}\":{}", go_json(&shown[key])));
        }
        FieldError {
            kind: FieldErrorKind::Invalid,
            field: format!("{path}.{member}"),
            body: format!("Invalid value: {{{}}}: {detail}", members.join(",")),
        }
    };
    let before = found.errors.len();
    let compiled = compile_expression(node, text("rule"), optional_old == Some(true), Kind::may_be_bool, "bool");
    let mut transition = false;
    match &compiled {
        Ok((program, cost)) => {
            let cost = cost::of_all(*cost, place.cardinality, node, place.whole);
            if cost > limits::RULE_COST {
                let detail = too_dear("estimated rule cost", cost, limits::RULE_COST);
                found.errors.push(FieldError::forbidden(&format!("{path}.rule"), &detail));
            }
            found.observe(format!("{path}.rule"), cost);
            transition = program.names_old;
        }
        Err(Flaw::Text(text)) => found.errors.push(refuse("rule", format!("compilation failed: {text}"))),
        Err(Flaw::Kind(text)) => found.errors.push(refuse("rule", format!("cel expression {text}"))),
    }
    let mut message_program = None;
    if compiled.is_ok() && !text("messageExpression").is_empty() {
        let message = text("messageExpression");
        match compile_expression(node, message, optional_old == Some(true), Kind::may_be_string, "string") {
            Ok((program, cost)) => {
                if cost > limits::RULE_COST {
                    let detail = too_dear("estimated messageExpression cost", cost, limits::RULE_COST);
                    found.errors.push(FieldError::forbidden(&format!("{path}.messageExpression"), &detail));
                }
                found.observe(format!("{path}.messageExpression"), cost);
                message_program = Some((message.to_owned(), program.metered));
            }
            Err(Flaw::Text(text)) => {
                let detail = format!("messageExpression compilation failed: {text}");
                found.errors.push(refuse("messageExpression", detail));
            }
            Err(Flaw::Kind(text)) => {
                found.errors.push(refuse("messageExpression", format!("messageExpression {text}")));
            }
        }
    }
    if transition {
        if let Some(list) = place.uncorrelated {
            let detail = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}");
            let field = format!("{path}.rule");
            found.errors.push(FieldError::invalid(&field, &text("rule").into(), &detail));
        }
    } else if let Some(flag) = optional_old {
        let detail = "may not be set if oldSelf is not used in rule";
        found.errors.push(FieldError::invalid(&format!("{path}.optionalOldSelf"), &flag.into(), detail));
    }
    if found.errors.len() > before {
        return None;
    }
    let program = compiled.ok()?.0.metered;
    let reason = match text("reason") {
        "FieldValueRequired" => FieldErrorKind::Required,
        "FieldValueForbidden" => FieldErrorKind::Forbidden,
        "FieldValueDuplicate" => FieldErrorKind::Duplicate,
        _ => FieldErrorKind::Invalid,
    };
    Some(Rule {
        expression: text("rule").trim().to_owned(),
        program,
        message: text("message").trim().to_owned(),
        message_program,
        reason,
        field_path: String::new(),
        transition,
        optional_old: optional_old == Some(true),
    })
}

/// Why an expression was refused.
enum Flaw {
    /// It does not compile; cel-go's words.
    Text(String),
    /// It evaluates to something else than wanted.
    Kind(String),
}

/// An expression that was compiled.
struct Compiled {
    metered: Metered,
    /// Whether it looks at the old value.
    names_old: bool,
}

/// An expression, compiled, and the highest cost of evaluating it.
fn compile_expression(
    node: &Arc<Node>,
    source: &str,
    optional_old: bool,
    fits: fn(&Kind) -> bool,
    wanted: &str,
) -> Result<(Compiled, u64), Flaw> {
    deep::check(source).map_err(Flaw::Text)?;
    deep::with_stack(source, || {
        let program = ENV.compile(source).map_err(|error| Flaw::Text(check::syntax_error(source, &error)))?;
        let checked = check::check(&program, source, node, optional_old).map_err(Flaw::Text)?;
        if !fits(&checked.kind) {
            return Err(Flaw::Kind(format!("must evaluate to a {wanted}")));
        }
        let cost = cost::estimate(program.expression(), &checked, node);
        let metered = Metered::new(&program).map_err(Flaw::Text)?;
        Ok((Compiled { metered, names_old: program.references().has_variable("oldSelf") }, cost))
    })
}

/// A value as Go's encoder writes it: with `<`, `>` and `&` escaped.
fn go_json(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// Checks the rules on an object.
pub(super) fn validate(root: &Arc<Node>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(root, new, old, &mut String::new(), true, &Budget::new(), &mut errors);
    errors
}

fn walk(
    node: &Arc<Node>,
    new: &Value,
    old: Option<&Value>,
    path: &mut String,
    whole: bool,
    budget: &Budget,
    errors: &mut Vec<FieldError>,
) {
    if !node.has.rules || new.is_null() || budget.is_spent() {
        return;
    }
    let old = old.filter(|old| !old.is_null());
    if !node.rules.is_empty() {
        run(node, new, old, path, whole, budget, errors);
    }
    let length = path.len();
    match new {
        Value::Array(items) => {
            let Some(child) = &node.items else { return };
            let correlated = Correlation::new(&node.list_type, old);
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                walk(child, item, correlated.find(item), path, false, budget, errors);
                path.truncate(length);
            }
        }
        Value::Object(map) => {
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
                walk(child, value, old.and_then(|old| old.get(key)), path, false, budget, errors);
                path.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn run(
    node: &Arc<Node>,
    new: &Value,
    old: Option<&Value>,
    path: &str,
    whole: bool,
    budget: &Budget,
    errors: &mut Vec<FieldError>,
) {
    let unchanged = old.is_some_and(|old| old == new);
    let applies = |rule: &Rule| {
        if rule.transition { old.is_some() || rule.optional_old } else { !unchanged }
    };
    if !node.rules.iter().any(|rule| applies(rule)) {
        return;
    }
    let this = values::with_type_and_metadata(node, whole);
    let new_value = values::convert(&this, new);
    let old_value = old.map(|old| values::convert(&this, old));
    for rule in node.rules.iter().filter(|rule| applies(rule)) {
        let mut context = Context::with_env(Arc::clone(&ENV));
        budget.bind(&mut context);
        context.add_variable_as_val("self", new_value.clone());
        if rule.optional_old {
            let optional = old_value.clone().map_or_else(CelOptional::none, CelOptional::of);
            context.add_variable_as_val("oldSelf", Box::new(optional));
        } else if let Some(old_value) = &old_value {
            context.add_variable_as_val("oldSelf", old_value.clone());
        }
        let field = match (path.is_empty(), rule.field_path.is_empty()) {
            (_, true) if path.is_empty() => "<nil>".to_owned(),
            (_, true) => path.to_owned(),
            (true, false) => rule.field_path.clone(),
            (false, false) => format!("{path}.{}", rule.field_path),
        };
        match deep::with_stack(&rule.expression, || rule.program.run(&context, budget)) {
            Ok(CelValue::Bool(true)) => {}
            Ok(_) => errors.push(broken(rule, &context, budget, field, new)),
            Err(error) => {
                let said = if rule.message.is_empty() { &rule.expression } else { &rule.message };
                let detail = match error {
                    ExecutionError::NoSuchOverload(_) | ExecutionError::UnsupportedBinaryOperator(..) => format!(
                        "'no such overload': call arguments did not match a supported operator, function or macro signature for rule: {said}"
                    ),
                    other => match go_error(&other).as_str() {
                        budget::SPENT => budget::SPENT.to_owned(),
                        budget::TOO_DEAR if budget.is_spent() => budget::SPENT.to_owned(),
                        budget::TOO_DEAR => format!(
                            "'{}': no further validation rules will be run due to call cost exceeds limit for rule: {said}",
                            budget::TOO_DEAR
                        ),
                        why => format!("{why} evaluating rule: {said}"),
                    },
                };
                let kind = node.kind.map_or("", super::Type::name);
                let field = if path.is_empty() { "<nil>" } else { path };
                let ends =
                    detail.ends_with("no further validation rules will be run") || detail.contains(budget::TOO_DEAR);
                errors.push(FieldError::invalid(field, &kind.into(), &detail));
                if ends {
                    return budget.spend();
                }
            }
        }
    }
}

fn broken(rule: &Rule, context: &Context<'_, '_>, budget: &Budget, field: String, value: &Value) -> FieldError {
    let computed = rule.message_program.as_ref().and_then(|(source, program)| {
        match deep::with_stack(source, || program.run(context, budget)) {
            Ok(CelValue::String(text)) => {
                let text = text.trim().to_owned();
                (!text.is_empty() && !text.contains('\n') && text.len() <= 5 * 1024).then_some(text)
            }
            Ok(_) | Err(_) => None,
        }
    });
    let message = computed.unwrap_or_else(|| {
        if rule.message.is_empty() { format!("failed rule: {}", rule.expression) } else { rule.message.clone() }
    });
    // whole objects and lists are not shown
    let shown = if value.is_object() || value.is_array() { String::new() } else { format!("{}: ", go_value(value)) };
    let body = match rule.reason {
        FieldErrorKind::Required => format!("Required value: {message}"),
        FieldErrorKind::Forbidden => format!("Forbidden: {message}"),
        FieldErrorKind::Duplicate if shown.is_empty() => "Duplicate value".to_owned(),
        FieldErrorKind::Duplicate => format!("Duplicate value: {}", go_value(value)),
        FieldErrorKind::Invalid
        | FieldErrorKind::NotSupported
        | FieldErrorKind::TooLong
        | FieldErrorKind::TooMany
        | FieldErrorKind::NotFound
        | FieldErrorKind::TypeInvalid
        | FieldErrorKind::Internal => format!("Invalid value: {shown}{message}"),
    };
    FieldError { kind: rule.reason, field, body }
}

/// What cel-go says where the `cel` crate fails.
fn go_error(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::DivisionByZero(_) => "division by zero".into(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".into(),
        ExecutionError::IndexOutOfBounds(CelValue::Int(index)) => format!("index out of bounds: {index}"),
        ExecutionError::Overflow(..) => "integer overflow".into(),
        ExecutionError::FunctionError { function, message } => match function.as_str() {
            "duration" => "type conversion error from 'string' to 'google.protobuf.Duration'".into(),
            "timestamp" => "type conversion error from 'string' to 'google.protobuf.Timestamp'".into(),
            "int" => "type conversion error from 'string' to 'int'".into(),
            "double" => "type conversion error from 'string' to 'double'".into(),
            _ => message.clone(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;

//! CEL rules on custom kinds: `x-kubernetes-validations`.
//!
//! The language itself is the `cel` crate's; here are its binding to schemas, Kubernetes' own functions, a check of rules
//! when a CustomResourceDefinition is written, and which rules run on which values. What the check leaves out is the cost
//! estimate: no rule is refused for being dear.

use std::sync::{Arc, LazyLock};

use ::cel::{Context, Env, ExecutionError, Program, Value as CelValue, common::types::CelOptional};
use serde_json::{Map, Value, json};

use super::{Node, structural::field_path, validate::Correlation};
use crate::base::{
    FieldError,
    status::{FieldErrorKind, go_value},
};

mod check;
mod library;
mod values;

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(library::environment()));

/// One rule of `x-kubernetes-validations`, compiled.
#[derive(Debug)]
pub struct Rule {
    expression: String,
    program: Program,
    message: String,
    message_program: Option<Program>,
    reason: FieldErrorKind,
    field_path: String,
    /// Whether it looks at the old value, and so runs on updates only.
    transition: bool,
    /// Whether `oldSelf` is an optional, and the rule runs without an old value, too.
    optional_old: bool,
}

/// Compiles the rules of a schema into its nodes.
pub(super) fn compile(root: &mut Arc<Node>, source: &Map<String, Value>, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    compile_node(root, source, path, true, &mut errors);
    errors
}

fn compile_node(
    node: &mut Arc<Node>,
    source: &Map<String, Value>,
    path: &str,
    whole: bool,
    errors: &mut Vec<FieldError>,
) {
    if !node.has.rules {
        return;
    }
    let part = |key: &str| source.get(key).and_then(Value::as_object);
    let inner = Arc::make_mut(node);
    for (name, child) in &mut inner.properties {
        if let Some(source) = part("properties").and_then(|map| map.get(name)).and_then(Value::as_object) {
            compile_node(child, source, &format!("{path}.properties[{name}]"), false, errors);
        }
    }
    if let (Some(child), Some(source)) = (&mut inner.items, part("items")) {
        compile_node(child, source, &format!("{path}.items"), false, errors);
    }
    if let (Some(child), Some(source)) = (&mut inner.additional, part("additionalProperties")) {
        compile_node(child, source, &format!("{path}.additionalProperties"), false, errors);
    }
    let this = values::with_type_and_metadata(node, whole);
    let mut rules = Vec::new();
    for (index, rule) in
        source.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten().enumerate()
    {
        match compile_rule(&this, rule, &format!("{path}.x-kubernetes-validations[{index}]")) {
            Ok(rule) => rules.push(Arc::new(rule)),
            Err(error) => errors.push(error),
        }
    }
    Arc::make_mut(node).rules = rules;
}

fn compile_rule(node: &Arc<Node>, rule: &Value, path: &str) -> Result<Rule, FieldError> {
    let text = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default();
    let optional_old = rule.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or_default();
    // upstream shows its internal type
    let refuse = |member: &str, detail: &str| {
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
    let expression = text("rule").trim();
    let program = ENV
        .compile(expression)
        .map_err(|error| refuse("rule", &format!("compilation failed: {}", check::syntax_error(expression, &error))))?;
    match check::check(&program, expression, node, optional_old) {
        Err(text) => return Err(refuse("rule", &format!("compilation failed: {text}"))),
        Ok(kind) if !kind.may_be_bool() => return Err(refuse("rule", "cel expression must evaluate to a bool")),
        Ok(_) => {}
    }
    let transition = program.references().has_variable("oldSelf");
    if optional_old && !transition {
        let detail = "may not be set if oldSelf is not used in rule";
        return Err(FieldError::invalid(&format!("{path}.optionalOldSelf"), &Value::Bool(true), detail));
    }
    let message_expression = text("messageExpression").trim();
    let message_program = if message_expression.is_empty() {
        None
    } else {
        let failed =
            |text: String| refuse("messageExpression", &format!("messageExpression compilation failed: {text}"));
        let program =
            ENV.compile(message_expression).map_err(|error| failed(check::syntax_error(message_expression, &error)))?;
        match check::check(&program, message_expression, node, optional_old) {
            Err(text) => return Err(failed(text)),
            Ok(kind) if !kind.may_be_string() => {
                return Err(refuse("messageExpression", "messageExpression must evaluate to a string"));
            }
            Ok(_) => Some(program),
        }
    };
    let reason = match text("reason") {
        "FieldValueRequired" => FieldErrorKind::Required,
        "FieldValueForbidden" => FieldErrorKind::Forbidden,
        "FieldValueDuplicate" => FieldErrorKind::Duplicate,
        _ => FieldErrorKind::Invalid,
    };
    let field_path = field_path(text("fieldPath")).unwrap_or_default().join(".");
    let message = text("message").trim().to_owned();
    let expression = expression.to_owned();
    Ok(Rule { expression, program, message, message_program, reason, field_path, transition, optional_old })
}

/// A value as Go's encoder writes it: with `<`, `>` and `&` escaped.
fn go_json(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// Checks the rules on an object.
pub(super) fn validate(root: &Arc<Node>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(root, new, old, &mut String::new(), true, &mut errors);
    errors
}

fn walk(
    node: &Arc<Node>,
    new: &Value,
    old: Option<&Value>,
    path: &mut String,
    whole: bool,
    errors: &mut Vec<FieldError>,
) {
    if !node.has.rules || new.is_null() {
        return;
    }
    let old = old.filter(|old| !old.is_null());
    if !node.rules.is_empty() {
        run(node, new, old, path, whole, errors);
    }
    let length = path.len();
    match new {
        Value::Array(items) => {
            let Some(child) = &node.items else { return };
            let correlated = Correlation::new(&node.list_type, old);
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                walk(child, item, correlated.find(item), path, false, errors);
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
                walk(child, value, old.and_then(|old| old.get(key)), path, false, errors);
                path.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn run(node: &Arc<Node>, new: &Value, old: Option<&Value>, path: &str, whole: bool, errors: &mut Vec<FieldError>) {
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
        match rule.program.execute(&context) {
            Ok(CelValue::Bool(true)) => {}
            Ok(_) => errors.push(broken(rule, &context, field, new)),
            Err(error) => {
                let said = if rule.message.is_empty() { &rule.expression } else { &rule.message };
                let detail = match error {
                    ExecutionError::NoSuchOverload(_) | ExecutionError::UnsupportedBinaryOperator(..) => format!(
                        "'no such overload': call arguments did not match a supported operator, function or macro signature for rule: {said}"
                    ),
                    other => format!("{} evaluating rule: {said}", go_error(&other)),
                };
                let kind = node.kind.map_or("", super::Type::name);
                let field = if path.is_empty() { "<nil>" } else { path };
                errors.push(FieldError::invalid(field, &kind.into(), &detail));
            }
        }
    }
}

fn broken(rule: &Rule, context: &Context<'_, '_>, field: String, value: &Value) -> FieldError {
    let computed = rule.message_program.as_ref().and_then(|program| match program.execute(context) {
        Ok(CelValue::String(text)) => {
            let text = text.trim().to_owned();
            (!text.is_empty() && !text.contains('\n') && text.len() <= 5 * 1024).then_some(text)
        }
        Ok(_) | Err(_) => None,
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

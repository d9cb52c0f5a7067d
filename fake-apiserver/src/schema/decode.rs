//! Decoding into built-in kinds: what sigs.k8s.io/json does with a body and a Go type, and what Go's encoder makes of the
//! result.

use serde_json::{Map, Number, Value};

use super::{Decoded, Node, Type, builtin, formats, gotypes};
use crate::base::{quantity::Quantity, status::json_kind};

/// Decodes a body.
pub(super) fn decode(root: &Node, value: Value) -> Result<Decoded, String> {
    let mut decoder = Decoder::default();
    let mut path = String::new();
    let value = decoder.value(root, value, "", &mut path);
    match decoder.fatal.or(decoder.error) {
        Some(error) => Err(error),
        None => Ok(Decoded { value: value.unwrap_or_default(), unknown: decoder.unknown }),
    }
}

#[derive(Default)]
struct Decoder {
    unknown: Vec<String>,
    /// The first wrong type; decoding goes on behind it.
    error: Option<String>,
    /// What a type's own decoder refused; this ends decoding, and hides [`Self::error`].
    fatal: Option<String>,
    /// Names of the members on the way to the value, without indices.
    members: Vec<String>,
    /// The struct whose member is being decoded.
    strukt: String,
}

impl Decoder {
    fn wrong_type(&mut self, what: &str, go_type: &str) {
        if self.error.is_some() {
            return;
        }
        let place = if self.members.is_empty() {
            "value".to_owned()
        } else {
            format!("struct field {}.{}", self.strukt, self.members.join("."))
        };
        self.error = Some(format!("json: cannot unmarshal {what} into Go {place} of type {go_type}"));
    }

    fn fatal(&mut self, error: String) {
        self.fatal.get_or_insert(error);
    }

    /// The decoded value; `None` for `null` and for what is wrong.
    fn value(&mut self, node: &Node, value: Value, member: &str, path: &mut String) -> Option<Value> {
        if self.fatal.is_some() || value.is_null() {
            return None;
        }
        if gotypes::is_quantity(node) {
            return self.quantity(&value);
        }
        if node.int_or_string {
            return self.int_or_string(value);
        }
        if gotypes::is_time(node) {
            return self.time(node, &value);
        }
        match node.definition.rsplit('.').next() {
            Some("JSONSchemaProps") if node.preserve_unknown => {
                let whole = builtin::schema(&node.definition);
                return self.value(&whole.root, value, member, path);
            }
            Some("JSONSchemaPropsOrBool" | "JSONSchemaPropsOrArray") => return self.schemas(node, value),
            _ => {}
        }
        let Some(kind) = node.kind else { return Some(value) };
        match (kind, value) {
            (Type::Object, Value::Object(map)) if gotypes::is_struct(node) => Some(self.members(node, map, path)),
            (Type::Object, Value::Object(map)) => Some(self.map(node, map, path)),
            (Type::Array, Value::Array(items)) => Some(self.items(node, items, path)),
            (Type::String, Value::String(text)) if node.format == "byte" => match formats::base64(&text) {
                Ok(bytes) => Some(Value::String(bytes)),
                Err(error) => {
                    self.fatal(error);
                    None
                }
            },
            (Type::String, value @ Value::String(_)) | (Type::Boolean, value @ Value::Bool(_)) => Some(value),
            (Type::Integer, Value::Number(number)) if fits(&number, &node.format) => Some(Value::Number(number)),
            (Type::Integer, Value::Number(number)) => {
                self.wrong_type(&format!("number {number}"), &gotypes::name(node, member));
                None
            }
            (Type::Number, value @ Value::Number(_)) => Some(value),
            (Type::Object | Type::Array | Type::String | Type::Integer | Type::Number | Type::Boolean, value) => {
                self.wrong_type(json_kind(&value), &gotypes::name(node, member));
                None
            }
        }
    }

    /// What a schema has for a schema, a list of them or a flag: Go decodes these apart, and says nothing of unknown fields.
    fn schemas(&mut self, node: &Node, value: Value) -> Option<Value> {
        let name = node.definition.trim_end_matches("OrBool").trim_end_matches("OrArray");
        match value {
            Value::Object(_) => match decode(&builtin::schema(name).root, value) {
                Ok(decoded) => Some(decoded.value),
                Err(error) => {
                    self.fatal(error);
                    None
                }
            },
            Value::Array(items) => items.into_iter().map(|item| self.schemas(node, item)).collect(),
            other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => Some(other),
        }
    }

    fn members(&mut self, node: &Node, map: Map<String, Value>, path: &mut String) -> Value {
        let outer =
            std::mem::replace(&mut self.strukt, node.definition.rsplit('.').next().unwrap_or_default().to_owned());
        let mut out = Map::new();
        let length = path.len();
        for (name, value) in map {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&name);
            if let Some(child) = node.properties.get(&name) {
                self.members.push(name);
                let value = self.value(child, value, self.members.last().cloned().unwrap_or_default().as_str(), path);
                let name = self.members.pop().unwrap_or_default();
                if let Some(value) = value.filter(|value| !vanishes(node, child, &name, value)) {
                    out.insert(name, value);
                }
            } else {
                self.unknown.push(path.clone());
            }
            path.truncate(length);
        }
        for (name, zero) in &node.always {
            if !out.contains_key(name) {
                out.insert(name.clone(), zero.clone());
            }
        }
        self.strukt = outer;
        Value::Object(out)
    }

    fn map(&mut self, node: &Node, map: Map<String, Value>, path: &mut String) -> Value {
        let Some(child) = &node.additional else { return Value::Object(map) };
        let length = path.len();
        let mut out = Map::new();
        for (key, value) in map {
            path.push('.');
            path.push_str(&key);
            // `null` leaves the zero value under its key
            let value = self.value(child, value, "", path).unwrap_or_else(|| gotypes::zero(child));
            path.truncate(length);
            out.insert(key, value);
        }
        Value::Object(out)
    }

    fn items(&mut self, node: &Node, items: Vec<Value>, path: &mut String) -> Value {
        let Some(child) = &node.items else { return Value::Array(items) };
        let length = path.len();
        let mut out = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            path.push_str(&format!("[{index}]"));
            out.push(self.value(child, item, "", path).unwrap_or_else(|| gotypes::zero(child)));
            path.truncate(length);
        }
        Value::Array(out)
    }

    fn quantity(&mut self, value: &Value) -> Option<Value> {
        let text = match value {
            Value::String(text) => text.trim().to_owned(),
            other => other.to_string(),
        };
        match Quantity::parse(&text) {
            Ok(quantity) => Some(Value::String(quantity.to_string())),
            Err(error) => {
                self.fatal(error.to_owned());
                None
            }
        }
    }

    fn int_or_string(&mut self, value: Value) -> Option<Value> {
        let what = match &value {
            Value::String(_) => return Some(value),
            Value::Number(number) if fits(number, "int32") => return Some(value),
            Value::Number(number) => format!("number {number}"),
            other => json_kind(other).to_owned(),
        };
        self.fatal(format!("json: cannot unmarshal {what} into Go value of type int32"));
        None
    }

    fn time(&mut self, node: &Node, value: &Value) -> Option<Value> {
        let Some(text) = value.as_str() else {
            self.fatal(format!("json: cannot unmarshal {} into Go value of type string", json_kind(value)));
            return None;
        };
        match formats::go_time(text, node.definition.ends_with(".MicroTime")) {
            Ok(text) => Some(Value::String(text)),
            Err(error) => {
                self.fatal(error);
                None
            }
        }
    }
}

/// Whether Go's encoder drops the member: it is empty, and its tag says `omitempty`.
fn vanishes(node: &Node, child: &Node, name: &str, value: &Value) -> bool {
    let any = child.definition.ends_with(".JSON") || child.definition.contains(".JSONSchemaPropsOr");
    let empty = match value {
        Value::Null => true,
        _ if any => false,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0) && child.kind == Some(Type::Integer),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty() && child.additional.is_some(),
    };
    empty && !child.int_or_string && !node.keep_empty.iter().any(|kept| kept == name)
}

fn fits(number: &Number, format: &str) -> bool {
    match number.as_i64() {
        Some(number) => format != "int32" || i32::try_from(number).is_ok(),
        None => false,
    }
}

#[cfg(test)]
mod tests;

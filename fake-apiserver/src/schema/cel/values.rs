//! JSON as CEL sees it, by schema.

use std::{any::Any, sync::Arc};

use ::cel::{
    ExecutionError,
    common::{
        traits::Indexer,
        types::{
            CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, STRING_TYPE,
            Type as CelType,
        },
        value::{CowVal, StaticVal, Val},
    },
};
use serde_json::Value;

use super::super::{ListType, Node, Type};

/// Words of CEL that a member's name may not be.
const RESERVED: [&str; 18] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
];

/// A member's name as rules write it; `None` if they cannot.
pub(super) fn escape(name: &str) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let first = name.chars().next()?;
    if !(first.is_ascii_alphabetic() || "_.-/".contains(first)) {
        return None;
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-/".contains(c)) {
        return None;
    }
    let text = name.replace("__", "__underscores__");
    Some(text.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__"))
}

/// The schema as rules see it: a whole object has its type and its name.
pub(super) fn with_type_and_metadata(node: &Arc<Node>, whole: bool) -> Arc<Node> {
    if !(whole || node.embedded) {
        return Arc::clone(node);
    }
    let text = || Arc::new(Node { kind: Some(Type::String), ..Node::default() });
    let names = [("name".to_owned(), text()), ("generateName".to_owned(), text())];
    let metadata = Node { kind: Some(Type::Object), properties: names.into(), ..Node::default() };
    let mut node = Arc::clone(node);
    let inner = Arc::make_mut(&mut node);
    inner.properties.insert("apiVersion".into(), text());
    inner.properties.insert("kind".into(), text());
    inner.properties.insert("metadata".into(), Arc::new(metadata));
    node
}

/// Whether rules can see a value of this schema at all.
pub(super) fn is_visible(node: &Node) -> bool {
    if node.int_or_string {
        return true;
    }
    match node.kind {
        None => false,
        Some(Type::Array) => node.items.as_ref().is_some_and(|items| is_visible(items)),
        Some(Type::Object) => node.additional.as_ref().is_none_or(|items| is_visible(items)),
        Some(Type::String | Type::Integer | Type::Number | Type::Boolean) => true,
    }
}

/// A value by its schema.
pub(super) fn convert(node: &Arc<Node>, value: &Value) -> Box<dyn Val> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(flag) => Box::new(CelBool::from(*flag)),
        Value::Number(number) => match number.as_i64().filter(|_| node.kind != Some(Type::Number)) {
            Some(whole) => Box::new(CelInt::from(whole)),
            None => Box::new(CelDouble::from(number.as_f64().unwrap_or_default())),
        },
        Value::String(text) => from_text(node, text),
        Value::Array(items) => {
            let nothing = Arc::new(Node::default());
            let child = node.items.as_ref().unwrap_or(&nothing);
            let items: Vec<Box<dyn Val>> = items.iter().map(|item| convert(child, item)).collect();
            Box::new(CelList::from(items))
        }
        Value::Object(map) => match &node.additional {
            Some(child) => {
                let items = map.iter().map(|(key, value)| (CelMapKey::from(key.clone()), convert(child, value)));
                #[expect(clippy::disallowed_types, reason = "what CelMap is made of")]
                let items: std::collections::HashMap<_, _> = items.collect();
                Box::new(CelMap::from(items))
            }
            None => Box::new(ObjectVal { node: Arc::clone(node), value: Arc::new(value.clone()) }),
        },
    }
}

/// A value without a schema.
pub(super) fn any(value: &Value) -> Box<dyn Val> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(flag) => Box::new(CelBool::from(*flag)),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Box::new(CelInt::from(whole)),
            None => Box::new(CelDouble::from(number.as_f64().unwrap_or_default())),
        },
        Value::String(text) => Box::new(CelString::from(text.to_owned())),
        Value::Array(items) => Box::new(CelList::from(items.iter().map(any).collect::<Vec<_>>())),
        Value::Object(map) => {
            let items = map.iter().map(|(key, value)| (CelMapKey::from(key.clone()), any(value)));
            #[expect(clippy::disallowed_types, reason = "what CelMap is made of")]
            let items: std::collections::HashMap<_, _> = items.collect();
            Box::new(CelMap::from(items))
        }
    }
}

fn from_text(node: &Node, text: &str) -> Box<dyn Val> {
    let string = || CelString::from(text.to_owned());
    let function = match node.format.as_str() {
        "duration" => "duration",
        "date-time" => "timestamp",
        "date" => "timestamp",
        "byte" => {
            return match decode_base64(text) {
                Some(bytes) => Box::new(CelBytes::from(bytes)),
                None => Box::new(string()),
            };
        }
        _ => return Box::new(string()),
    };
    let full = if node.format == "date" { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let arguments = vec![CowVal::owned(CelString::from(full))];
    let converted = super::ENV.find_overload(function, &arguments).and_then(|convert| convert(arguments).ok());
    converted.map_or_else(|| Box::new(string()) as Box<dyn Val>, |value| value.into_owned())
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(digit)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

/// An object with known members. Rules select its members; they cannot walk them.
#[derive(Clone, Debug)]
pub(super) struct ObjectVal {
    node: Arc<Node>,
    value: Arc<Value>,
}

static OBJECT: CelType = CelType::new_unspecified_type("object");

impl Val for ObjectVal {
    fn get_type(&self) -> &CelType {
        &OBJECT
    }

    fn cel_type() -> &'static CelType {
        &OBJECT
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.downcast_ref::<Self>().is_some_and(|other| same(&self.node, &self.value, &other.value))
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for ObjectVal {}

impl Indexer for ObjectVal {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let Some(name) = index.downcast_ref::<CelString<'_>>() else {
            let got = index.get_type().name().to_owned();
            return Err(ExecutionError::UnexpectedType { got, want: STRING_TYPE.name().to_owned() });
        };
        let name = name.inner();
        let mut members = self.node.properties.iter();
        let member =
            match self.node.properties.get_key_value(name).filter(|(key, _)| escape(key).as_deref() == Some(name)) {
                Some(member) => Some(member),
                None => members.find(|(key, _)| escape(key).as_deref() == Some(name)),
            };
        let value = member.and_then(|(key, child)| Some((child, self.value.get(key)?)));
        match value {
            // null is absent
            Some((child, value)) if !value.is_null() => Ok(CowVal::Owned(convert(child, value))),
            Some(_) | None => Err(ExecutionError::no_such_key(name)),
        }
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(CowVal::into_owned)
    }
}

/// Equality by schema: the order of sets and maps does not count, nor do members that rules cannot see.
fn same(node: &Node, a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            let Some(child) = &node.items else { return a == b };
            let ordered = node.list_type == ListType::Atomic;
            a.len() == b.len()
                && if ordered {
                    a.iter().zip(b).all(|(a, b)| same(child, a, b))
                } else {
                    a.iter().all(|a| b.iter().any(|b| same(child, a, b)))
                }
        }
        (Value::Object(a), Value::Object(b)) => match &node.additional {
            Some(child) => a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(child, a, b))),
            None => node.properties.iter().all(|(key, child)| match (a.get(key), b.get(key)) {
                (Some(a), Some(b)) => same(child, a, b),
                (Some(Value::Null), None) | (None, Some(Value::Null)) | (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            }),
        },
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (a, b) => a == b,
    }
}

//! Bodies in `application/vnd.kubernetes.protobuf`, read as the JSON that Go makes of the same object.
//!
//! A table of messages says which members there are; nothing here knows a kind. Upstream:
//! `k8s.io/apimachinery/pkg/runtime/serializer/protobuf` and the `generated.pb.go` of each API package.

mod table;
mod wire;

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use serde_json::{Map, Value};

use self::{
    table::{Field, Message, Shape, Table, Type, table},
    wire::{Reader, Wire},
};
use super::json;
use crate::base::{limits, names::split_api_version};

/// What every body starts with: `k8s` and the way it is encoded.
const MAGIC: &[u8] = b"k8s\0";

/// Why a body does not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unread {
    /// Type and version that the body claims to be of, if it could be read that far.
    pub(super) claimed: Option<(String, String)>,
    /// Upstream's words for what is wrong.
    pub(super) why: String,
}

impl Unread {
    fn envelope(why: impl Into<String>) -> Self {
        Self { claimed: None, why: why.into() }
    }
}

/// What a body is wrapped in: `runtime.Unknown`.
pub(super) struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Reads the envelope of a body that is taken for a kind where it does not say its own.
    ///
    /// # Errors
    /// Where the body does not start as one, or ends too early.
    pub(super) fn read(bytes: &'a [u8], api_version: &str, kind: &str) -> Result<Self, Unread> {
        if bytes.is_empty() {
            return Err(Unread::envelope("empty data"));
        }
        let data = bytes.strip_prefix(MAGIC).ok_or_else(|| {
            Unread::envelope("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
        })?;
        if data.is_empty() {
            return Err(Unread::envelope("empty body"));
        }
        let mut found = Self { api_version: String::new(), kind: String::new(), raw: &[] };
        found.members(data).map_err(Unread::envelope)?;
        if found.kind.is_empty() {
            found.kind = kind.into();
        }
        if found.api_version.is_empty() {
            found.api_version = api_version.into();
        }
        Ok(found)
    }

    fn members(&mut self, data: &'a [u8]) -> Result<(), String> {
        const MEMBERS: [&str; 4] = ["TypeMeta", "Raw", "ContentEncoding", "ContentType"];
        each(data, "Unknown", &MEMBERS, |number, bytes| {
            match number {
                1 => each(bytes, "TypeMeta", &["APIVersion", "Kind"], |number, text| {
                    let text = String::from_utf8_lossy(text).into_owned();
                    *(if number == 1 { &mut self.api_version } else { &mut self.kind }) = text;
                    Ok(())
                })?,
                2 => self.raw = bytes,
                _ => {}
            }
            Ok(())
        })
    }

    fn unread(&self, why: impl Into<String>) -> Unread {
        let version = split_api_version(&self.api_version).1.to_owned();
        Unread { claimed: Some((self.kind.clone(), version)), why: why.into() }
    }

    /// A custom kind has no messages. Upstream says so to who asks for no validation of fields; it has no reader that
    /// validates, and its handler panics without one.
    pub(super) fn custom(&self) -> Unread {
        self.unread("Object 'Kind' is missing in 'object has no kind field '")
    }

    /// The object inside. Of a kind that the table does not have, only type and version are read.
    ///
    /// # Errors
    /// Where the object is no message of its kind.
    pub(super) fn open(&self) -> Result<Value, Unread> {
        let table = table();
        // Every group has these options under its own version.
        let options = || (self.kind == "DeleteOptions").then(|| table.find("v1", &self.kind)).flatten();
        let mut object = match table.find(&self.api_version, &self.kind).or_else(options) {
            None => Map::new(),
            Some(message) => {
                let mut decoder = Decoder { table, messages: 0 };
                match decoder.message(message, self.raw, 1).map_err(|why| self.unread(why))? {
                    Value::Object(object) => object,
                    _ => Map::new(),
                }
            }
        };
        object.insert("apiVersion".into(), self.api_version.clone().into());
        object.insert("kind".into(), self.kind.clone().into());
        Ok(Value::Object(object))
    }
}

/// Walks the members of a message all of whose fields are bytes; `names` are those in Go, in the order of their numbers.
fn each<'a>(
    bytes: &'a [u8],
    message: &str,
    names: &[&str],
    mut member: impl FnMut(usize, &'a [u8]) -> Result<(), String>,
) -> Result<(), String> {
    let mut reader = Reader::new(bytes);
    while !reader.done() {
        let tag = reader.tag(message)?;
        let number = usize::try_from(tag.number).unwrap_or_default();
        match number.checked_sub(1).and_then(|place| names.get(place)) {
            None => reader.skip(tag)?,
            Some(name) => match reader.value(tag)? {
                Some(Wire::Bytes(value)) => member(number, value)?,
                _ => return Err(wrong_wire(tag.kind, name)),
            },
        }
    }
    Ok(())
}

fn wrong_wire(kind: u64, name: &str) -> String {
    format!("proto: wrong wireType = {kind} for field {name}")
}

/// Reads the messages of one body.
struct Decoder {
    table: &'static Table,
    messages: usize,
}

impl Decoder {
    fn message(&mut self, place: usize, bytes: &[u8], depth: usize) -> Result<Value, String> {
        if depth > limits::DEPTH {
            return Err(json::TOO_DEEP.into());
        }
        self.messages += 1;
        if self.messages > limits::PROTOBUF_MESSAGES {
            return Err(format!("more than {} messages", limits::PROTOBUF_MESSAGES));
        }
        let message = &self.table.messages[place];
        let mut found: BTreeMap<i32, Vec<Wire<'_>>> = BTreeMap::new();
        let mut reader = Reader::new(bytes);
        while !reader.done() {
            let tag = reader.tag(message.name)?;
            let Some(field) = message.fields.iter().find(|field| field.number == tag.number) else {
                reader.skip(tag)?;
                continue;
            };
            if !field.written_as(tag.kind) {
                return Err(wrong_wire(tag.kind, &field.go_name));
            }
            found.entry(tag.number).or_default().extend(reader.value(tag)?);
        }
        let mut out = Map::new();
        for field in &message.fields {
            let values = found.remove(&field.number).unwrap_or_default();
            let value = self.field(field, &values, depth)?;
            match (field.shape, value) {
                (Shape::Inline, Some(Value::Object(members))) => out.extend(members),
                // A list that is a message of its own, since a protobuf map has no lists as values.
                (_, value) if field.name.is_empty() => return Ok(value.unwrap_or_else(|| Value::Array(Vec::new()))),
                (_, Some(value)) => drop(out.insert(field.name.into(), value)),
                (_, None) => {}
            }
        }
        Ok(union(message, out))
    }

    /// A member as Go writes it; `None` where it writes none.
    fn field(&mut self, field: &Field, values: &[Wire<'_>], depth: usize) -> Result<Option<Value>, String> {
        let absent = || field.always.then_some(Value::Null);
        match field.shape {
            Shape::Pointer if values.is_empty() => Ok(absent()),
            Shape::Pointer | Shape::Inline => self.single(field.kind, values, depth).map(Some),
            Shape::Value => {
                let value = self.single(field.kind, values, depth)?;
                let written = match field.kind {
                    _ if field.always => true,
                    Type::Message(_) | Type::Json | Type::Quantity | Type::IntOrString => true,
                    Type::Time | Type::MicroTime => !(field.omit_zero && value.is_null()),
                    Type::Bool => value != false,
                    Type::Int32 | Type::Int64 | Type::Double => value.as_f64() != Some(0.0),
                    Type::String | Type::Bytes => value != "",
                };
                // A byte slice that was never there is nil.
                let nil = field.kind == Type::Bytes && values.is_empty();
                Ok(written.then_some(if nil { Value::Null } else { value }))
            }
            Shape::List | Shape::Map if values.is_empty() => Ok(absent()),
            Shape::List => {
                let mut items = Vec::new();
                for value in values {
                    match value {
                        Wire::Bytes(packed) if matches!(field.kind, Type::Int32 | Type::Int64) => {
                            let mut reader = Reader::new(packed);
                            while !reader.done() {
                                items.push(scalar(field.kind, Wire::Varint(reader.varint()?)));
                            }
                        }
                        value => items.push(self.single(field.kind, &[*value], depth)?),
                    }
                }
                Ok(Some(Value::Array(items)))
            }
            Shape::Map => {
                let mut map = Map::new();
                for value in values {
                    let Wire::Bytes(entry) = value else { continue };
                    let (key, value) = self.entry(field, entry, depth)?;
                    map.insert(key, value);
                }
                Ok(Some(Value::Object(map)))
            }
        }
    }

    /// An entry of a map: key and value are the members 1 and 2 of a message.
    fn entry(&mut self, field: &Field, bytes: &[u8], depth: usize) -> Result<(String, Value), String> {
        let (mut key, mut value) = (String::new(), Vec::new());
        let mut reader = Reader::new(bytes);
        while !reader.done() {
            let tag = reader.tag(&field.go_name)?;
            match (tag.number, reader.value(tag)?) {
                (1, Some(Wire::Bytes(text))) => key = String::from_utf8_lossy(text).into_owned(),
                (2, Some(Wire::Bytes(bytes))) => value = vec![Wire::Bytes(bytes)],
                (_, Some(_)) => {}
                (_, None) => reader.skip(tag)?,
            }
        }
        Ok((key, self.single(field.kind, &value, depth)?))
    }

    /// A value that stands there once: of several scalars the last counts, several messages are merged.
    fn single(&mut self, kind: Type, values: &[Wire<'_>], depth: usize) -> Result<Value, String> {
        let merged: Cow<'_, [u8]> = match values {
            [] => Cow::Borrowed(&[]),
            [Wire::Bytes(bytes)] => Cow::Borrowed(bytes),
            values => {
                let parts =
                    values.iter().filter_map(|value| if let Wire::Bytes(bytes) = value { Some(*bytes) } else { None });
                parts.collect::<Vec<_>>().concat().into()
            }
        };
        let last = values.last().copied();
        match kind {
            Type::Message(place) => self.message(place, &merged, depth + 1),
            // Its text is read, and refused, where those in JSON are.
            Type::Quantity => Ok(text_of(&merged, "Quantity", "String_")?.unwrap_or_else(|| "0".into()).into()),
            Type::Json => {
                let raw = text_of(&merged, "RawExtension", "Raw")?.unwrap_or_default();
                if raw.is_empty() {
                    return Ok(Value::Null);
                }
                let value = json::parse(raw.as_bytes())?.value;
                if levels(&value) + depth > limits::DEPTH { Err(json::TOO_DEEP.into()) } else { Ok(value) }
            }
            Type::Time | Type::MicroTime => time(&merged, kind == Type::MicroTime),
            Type::IntOrString => int_or_string(&merged),
            Type::String | Type::Bytes => Ok(scalar(kind, last.unwrap_or(Wire::Bytes(&[])))),
            Type::Bool | Type::Int32 | Type::Int64 => Ok(scalar(kind, last.unwrap_or(Wire::Varint(0)))),
            Type::Double => Ok(scalar(kind, last.unwrap_or(Wire::Fixed64(0)))),
        }
    }
}

impl Field {
    /// Whether a value of this field may be written in a way.
    fn written_as(&self, wire: u64) -> bool {
        match (self.shape, self.kind) {
            (Shape::Map, _) => wire == 2,
            (Shape::List, Type::Int32 | Type::Int64) => wire == 0 || wire == 2,
            (_, Type::Bool | Type::Int32 | Type::Int64) => wire == 0,
            (_, Type::Double) => wire == 1,
            (
                _,
                Type::String
                | Type::Bytes
                | Type::Quantity
                | Type::Time
                | Type::MicroTime
                | Type::IntOrString
                | Type::Json
                | Type::Message(_),
            ) => wire == 2,
        }
    }
}

fn scalar(kind: Type, value: Wire<'_>) -> Value {
    match (kind, value) {
        (Type::Bool, Wire::Varint(value)) => (value != 0).into(),
        (Type::Int32, Wire::Varint(value)) => (value as i32).into(),
        (_, Wire::Varint(value)) => (value as i64).into(),
        (_, Wire::Fixed64(bits)) => whole(f64::from_bits(bits)),
        (Type::Bytes, Wire::Bytes(bytes)) => BASE64.encode(bytes).into(),
        (_, Wire::Bytes(bytes)) => String::from_utf8_lossy(bytes).into(),
    }
}

/// A number as Go writes it in JSON: without a fraction where it has none.
fn whole(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e15 { (number as i64).into() } else { number.into() }
}

/// Upstream's types that are one thing or another, and say in JSON only which.
fn union(message: &Message, mut members: Map<String, Value>) -> Value {
    let mut take = |name: &str| members.remove(name).filter(|value| !value.is_null());
    match message.name {
        "JSONSchemaPropsOrBool" => {
            let allows = take("Allows");
            take("Schema").or(allows).unwrap_or_default()
        }
        "JSONSchemaPropsOrArray" => take("JSONSchemas").or_else(|| take("Schema")).unwrap_or_default(),
        "JSONSchemaPropsOrStringArray" => take("Property").or_else(|| take("Schema")).unwrap_or_default(),
        _ => Value::Object(members),
    }
}

/// The text of a message with one member.
fn text_of(bytes: &[u8], message: &str, name: &str) -> Result<Option<String>, String> {
    let mut found = None;
    each(bytes, message, &[name], |_, text| {
        found = Some(String::from_utf8_lossy(text).into_owned());
        Ok(())
    })?;
    Ok(found)
}

/// Levels of nesting of a value.
fn levels(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or_default(),
        Value::Object(members) => 1 + members.values().map(levels).max().unwrap_or_default(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// The varints of a message, and its texts.
fn numbers<'a>(bytes: &'a [u8], message: &str, names: &[&str]) -> Result<BTreeMap<i32, Wire<'a>>, String> {
    let mut found = BTreeMap::new();
    let mut reader = Reader::new(bytes);
    while !reader.done() {
        let tag = reader.tag(message)?;
        let name = usize::try_from(tag.number - 1).ok().and_then(|place| names.get(place));
        match (name, tag.kind) {
            (None, _) => reader.skip(tag)?,
            (Some(_), 0 | 2) => found.extend(reader.value(tag)?.map(|value| (tag.number, value))),
            (Some(name), kind) => return Err(wrong_wire(kind, name)),
        }
    }
    Ok(found)
}

/// Seconds of Go's zero time, the first of January of the year 1.
const ZERO_TIME: i64 = -62_135_596_800;

/// A time; the fraction counts for times with microseconds only (`time_proto.go`).
fn time(bytes: &[u8], micros: bool) -> Result<Value, String> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let found = numbers(bytes, "Timestamp", &["Seconds", "Nanos"])?;
    let number = |number, name| match found.get(&number) {
        None => Ok(0),
        Some(Wire::Varint(value)) => Ok(*value as i64),
        Some(Wire::Bytes(_) | Wire::Fixed64(_)) => Err(wrong_wire(2, name)),
    };
    let (seconds, nanos) = (number(1, "Seconds")?, number(2, "Nanos")? as i32);
    let nanos = if micros { nanos - nanos % 1000 } else { 0 };
    if (seconds, nanos) == (ZERO_TIME, 0) {
        return Ok(Value::Null);
    }
    let time = Timestamp::new(seconds, nanos).map_err(|_| "Time.MarshalJSON: year outside of range [0,9999]")?;
    let format = if micros { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Ok(time.strftime(format).to_string().into())
}

/// A number or a text: the first member says which.
fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    let found = numbers(bytes, "IntOrString", &["Type", "IntVal", "StrVal"])?;
    let (kind, int) = match (found.get(&1), found.get(&2)) {
        (Some(Wire::Bytes(_)), _) => return Err(wrong_wire(2, "Type")),
        (_, Some(Wire::Bytes(_))) => return Err(wrong_wire(2, "IntVal")),
        (Some(Wire::Varint(kind)), Some(Wire::Varint(int))) => (*kind, *int),
        (Some(Wire::Varint(kind)), _) => (*kind, 0),
        (_, Some(Wire::Varint(int))) => (0, *int),
        _ => (0, 0),
    };
    match (kind, found.get(&3)) {
        (0, _) => Ok((int as i32).into()),
        (1, None) => Ok("".into()),
        (1, Some(Wire::Bytes(text))) => Ok(String::from_utf8_lossy(text).into()),
        (1, Some(_)) => Err(wrong_wire(0, "StrVal")),
        (_, _) => Err("impossible IntOrString.Type".into()),
    }
}

#[cfg(test)]
mod tests;

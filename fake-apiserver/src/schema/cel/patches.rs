//! What expressions of mutations make: `Object{…}`, which is merged into an object, and `JSONPatch{…}`.
//!
//! Upstream: `apiserver/pkg/cel/mutation` (`typeresolver.go`, `jsonpatch.go`, `dynamic/objects.go`) and
//! `apiserver/pkg/cel/library/jsonpatch.go`.

use std::{any::Any, mem};

use ::cel::{
    Env, ExecutionError, add_overload,
    common::{
        ast::{CallExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue, MapEntryExpr, MapExpr},
        types::{
            CelBool, CelBytes, CelDouble, CelDuration, CelInt, CelMapKey, CelNull, CelString, CelTimestamp, CelUInt,
            DYN_TYPE, STRING_TYPE, Type,
        },
        value::{CowVal, StaticVal, Val},
    },
};
use serde_json::{Map, Value};

use super::{
    check::Kind,
    comprehensions::keys,
    library::{Answer, Args, Registered, elements, fail},
};

/// The function that only expressions of mutations know.
pub(super) const ESCAPE: &str = "jsonpatch.escapeKey";

const PATCH: &str = "JSONPatch";
const OBJECT: &str = "Object";
const NEW: &str = "@new";

/// Whether a type of this name can be made.
pub(super) fn is_type(name: &str) -> bool {
    name == PATCH || name == OBJECT || name.strip_prefix(OBJECT).is_some_and(|rest| rest.starts_with('.'))
}

/// The kind of a type's member; an object may have any.
pub(super) fn member(kind: &str, name: &str) -> Option<Kind> {
    match (kind, name) {
        (PATCH, "op" | "path" | "from") => Some(Kind::Text),
        (PATCH, "value") => Some(Kind::Dyn),
        (PATCH, _) => None,
        _ => Some(Kind::Dyn),
    }
}

/// Something that was made: an object or one patch.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Made {
    kind: String,
    fields: Map<String, Value>,
    /// The types of the objects in it, with the path of fields that leads to them from here.
    inner: Vec<(String, String)>,
}

static MADE: Type = Type::new_unspecified_type(OBJECT);

impl Val for Made {
    fn get_type(&self) -> &Type {
        &MADE
    }

    fn cel_type() -> &'static Type {
        &MADE
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.downcast_ref::<Self>() == Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Made {}

impl Made {
    /// The fields of an object.
    ///
    /// # Errors
    /// A type of an object in it whose name is not that of the fields that lead there.
    pub(super) fn object(self) -> Result<Value, String> {
        let mut wrong = Vec::new();
        for (path, kind) in &self.inner {
            let expected = format!("{}{path}", self.kind);
            if *kind != expected {
                wrong.push(format!(
                    "unexpected type name \"{kind}\", expected \"{expected}\", which matches field name path from root \
                     Object type"
                ));
            }
        }
        match wrong.is_empty() {
            true => Ok(Value::Object(self.fields)),
            false => Err(format!("type mismatch: {}", wrong.join("\n"))),
        }
    }
}

/// The operations of a list of patches.
///
/// # Errors
/// As [`Made::object`], of a value.
pub(super) fn operations(list: &dyn Val) -> Result<Vec<Value>, String> {
    let mut operations = Vec::new();
    for patch in elements(list) {
        let Some(patch) = patch.downcast_ref::<Made>() else {
            return Err("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".into());
        };
        // The paths in it begin with `.value`, which is the root of the objects there.
        let root = patch.inner.iter().find(|(path, _)| path == ".value").map(|(_, kind)| kind.clone());
        let inner = patch
            .inner
            .iter()
            .filter(|_| root.is_some())
            .map(|(path, kind)| (path.strip_prefix(".value").unwrap_or(path).to_owned(), kind.clone()));
        let value = Made { kind: root.clone().unwrap_or_default(), fields: Map::new(), inner: inner.collect() };
        value.object()?;
        let mut operation = patch.fields.clone();
        if operation.get("from").is_some_and(|from| from == "") {
            operation.remove("from");
        }
        for key in ["op", "path"] {
            operation.entry(key).or_insert_with(|| "".into());
        }
        operations.push(Value::Object(operation));
    }
    Ok(operations)
}

/// A value as JSON; the types of objects in it are noted with their paths.
fn json(value: &dyn Val, path: &str, inner: &mut Vec<(String, String)>) -> Result<Value, ExecutionError> {
    if let Some(made) = value.downcast_ref::<Made>() {
        inner.push((path.to_owned(), made.kind.clone()));
        inner.extend(made.inner.iter().map(|(below, kind)| (format!("{path}{below}"), kind.clone())));
        return Ok(Value::Object(made.fields.clone()));
    }
    if value.downcast_ref::<CelNull>().is_some() {
        return Ok(Value::Null);
    }
    if let Some(flag) = value.downcast_ref::<CelBool>() {
        return Ok((*flag.inner()).into());
    }
    if let Some(number) = value.downcast_ref::<CelInt>() {
        return Ok((*number.inner()).into());
    }
    if let Some(number) = value.downcast_ref::<CelUInt>() {
        return Ok((*number.inner()).into());
    }
    if let Some(number) = value.downcast_ref::<CelDouble>() {
        return Ok((*number.inner()).into());
    }
    if let Some(text) = value.downcast_ref::<CelString<'_>>() {
        return Ok(text.inner().into());
    }
    if let Some(bytes) = value.downcast_ref::<CelBytes<'_>>() {
        use base64::Engine;
        return Ok(base64::engine::general_purpose::STANDARD.encode(bytes.inner()).into());
    }
    if let Some(time) = value.downcast_ref::<CelTimestamp>() {
        return Ok(time.inner().to_rfc3339().replace("+00:00", "Z").into());
    }
    if let Some(keys) = keys(value) {
        let Some(map) = value.as_indexer() else { return fail(NEW, "no such overload") };
        let mut members = Map::new();
        for key in keys {
            let CelMapKey::String(name) = &key else {
                let shown = key.inner().get_type().name();
                return fail(NEW, format!("map key is of type {shown}, not string"));
            };
            members.insert(name.inner().to_owned(), json(map.get(key.inner())?.as_ref(), path, inner)?);
        }
        return Ok(Value::Object(members));
    }
    if value.as_iterable().is_some() && value.downcast_ref::<CelDuration>().is_none() {
        let items = elements(value);
        return items.iter().map(|item| json(item.as_ref(), path, inner)).collect::<Result<_, _>>().map(Value::Array);
    }
    fail(NEW, format!("a value of type {} cannot be part of an object", value.get_type().name()))
}

fn new<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let (Some(kind), Some(fields)) = (args[0].as_ref().downcast_ref::<CelString<'_>>(), keys(args[1].as_ref())) else {
        return fail(NEW, "no such overload");
    };
    let mut made = Made { kind: kind.inner().to_owned(), fields: Map::new(), inner: Vec::new() };
    let Some(members) = args[1].as_ref().as_indexer() else { return fail(NEW, "no such overload") };
    for key in fields {
        let CelMapKey::String(name) = &key else { continue };
        let value = members.get(key.inner())?;
        let value = json(value.as_ref(), &format!(".{}", name.inner()), &mut made.inner)?;
        if made.kind == PATCH && name.inner() != "value" && !value.is_string() {
            let shown = match value {
                Value::Null => "structpb.NullValue",
                Value::Bool(_) => "bool",
                Value::Number(_) => "int64",
                _ => "map[ref.Val]ref.Val",
            };
            return fail(NEW, format!("unexpected type {shown} for JSONPatchType '{}' field", name.inner()));
        }
        made.fields.insert(name.inner().to_owned(), value);
    }
    Ok(CowVal::owned(made))
}

fn escape_key(key: &CelString<'_>) -> CelString<'static> {
    CelString::from(key.inner().replace('~', "~0").replace('/', "~1"))
}

pub(super) fn functions(env: &mut Env) -> Registered {
    env.add_overload(NEW, NEW, vec![STRING_TYPE, DYN_TYPE], new)?;
    add_overload!(env, fn escape_key: (CelString<'_>) -> CelString<'_>, name = "jsonpatch.escapeKey")
}

/// The interpreter makes only types that it was told of beforehand: what is made becomes a call.
pub(super) fn lower(expression: &mut IdedExpr) {
    let Expr::Struct(made) = &mut expression.expr else { return };
    let entry = |entry: IdedEntryExpr| {
        let EntryExpr::StructField(field) = entry.expr else { return entry };
        let key = IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::String(CelString::from(field.field))) };
        let entry_expr = EntryExpr::MapEntry(MapEntryExpr { key, value: field.value, optional: field.optional });
        IdedEntryExpr { id: 0, expr: entry_expr }
    };
    let entries = mem::take(&mut made.entries).into_iter().map(entry).collect();
    let name = LiteralValue::String(CelString::from(mem::take(&mut made.type_name)));
    let args = [Expr::Literal(name), Expr::Map(MapExpr { entries })].map(|expr| IdedExpr { id: 0, expr });
    expression.expr = Expr::Call(CallExpr { func_name: NEW.into(), target: None, args: args.into() });
}

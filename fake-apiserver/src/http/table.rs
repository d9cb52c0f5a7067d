//! Objects as rows of a table, for `kubectl get`, and as their metadata alone.
//!
//! Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/response.go` and
//! `k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{columns, jsonpath::JsonPath};
use crate::{
    base::Object,
    kinds,
    registry::{Column, Resource},
};

/// What stands in a row beside the cells: `?includeObject=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Include {
    /// Nothing.
    None,
    /// The object's metadata; the default.
    Metadata,
    /// The object.
    Object,
}

/// How the objects of one resource become rows.
pub(super) struct Table<'a> {
    resource: &'a Resource,
    /// Paths of a custom kind's columns; `None` for a path that cannot be read.
    paths: Vec<Option<JsonPath>>,
    version: &'a str,
    include: Include,
}

const NAME_DESCRIPTION: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

const CREATED_DESCRIPTION: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

impl<'a> Table<'a> {
    /// A table of a resource's objects, in a version of `meta.k8s.io`.
    pub(super) fn new(resource: &'a Resource, version: &'a str, include: Include) -> Self {
        let paths = match resource.custom {
            Some(_) => resource.columns.iter().map(|column| JsonPath::parse(&column.json_path)).collect(),
            None => Vec::new(),
        };
        Self { resource, paths, version, include }
    }

    /// The table, with list metadata.
    pub(super) fn render<'b>(
        &self,
        metadata: Value,
        objects: impl Iterator<Item = &'b Object>,
        now: Timestamp,
        headers: bool,
    ) -> Value {
        let rows: Vec<Value> = objects.map(|object| self.row(object, now)).collect();
        json!({
            "kind": "Table",
            "apiVersion": format!("meta.k8s.io/{}", self.version),
            "metadata": metadata,
            "columnDefinitions": if headers { self.headers() } else { Value::Null },
            "rows": rows,
        })
    }

    fn headers(&self) -> Value {
        let column = |name: &str, kind: &str, format: &str, description: &str, priority: i64| json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority});
        let own = self.resource.columns.iter().map(|it: &Column| {
            let description = match it.description.as_str() {
                "" if self.resource.custom.is_none() => columns::description(self.resource, &it.name),
                "" => {
                    format!("Custom resource definition column (in JSONPath format): {}", it.json_path)
                }
                text => text.into(),
            };
            column(&it.name, &it.kind, &it.format, &description, it.priority)
        });
        if self.resource.custom.is_none() {
            return own.collect();
        }
        let mut headers = vec![column("Name", "string", "name", NAME_DESCRIPTION, 0)];
        headers.extend(own);
        if self.resource.columns.is_empty() {
            headers.push(column("Age", "date", "", CREATED_DESCRIPTION, 0));
        }
        headers.into()
    }

    fn row(&self, object: &Object, now: Timestamp) -> Value {
        let cells = match self.resource.custom {
            Some(_) => self.custom_cells(object, now),
            None => (kinds::rules(&self.resource.gvr.group, &self.resource.kind).cells)(object, now),
        };
        let shown = match self.include {
            Include::None => Value::Null,
            Include::Metadata => partial(object, self.version),
            Include::Object => {
                let mut object = object.clone();
                object.unpack();
                object.into_value()
            }
        };
        json!({"cells": cells, "object": shown})
    }

    fn custom_cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let mut cells = vec![object.name().into()];
        let value = object.as_value();
        for (column, path) in self.resource.columns.iter().zip(&self.paths) {
            let found = path.as_ref().and_then(|path| path.first(value));
            cells.push(found.map_or(Value::Null, |found| cell(&column.kind, found, now)));
        }
        if self.resource.columns.is_empty() {
            cells.push(cell("date", object.at(&["metadata", "creationTimestamp"]).unwrap_or(&Value::Null), now));
        }
        cells
    }
}

/// A value as a cell of a column's type; `null` where the value has another one.
fn cell(kind: &str, value: &Value, now: Timestamp) -> Value {
    match (kind, value) {
        ("string", Value::String(text)) => text.clone().into(),
        ("string", Value::Null) => "<nil>".into(),
        ("string", other) => other.to_string().into(),
        ("integer", Value::Number(number)) => {
            number.as_i64().map_or_else(|| number.as_f64().map(|float| float as i64).into(), Into::into)
        }
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(text)) => match text.parse::<Timestamp>() {
            Ok(time) => age(time, now).into(),
            Err(_) => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}

/// How long ago a time was, as `kubectl` shows ages; upstream's `duration.HumanDuration`.
pub(super) fn age(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - time.as_second();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let pair = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..-1 => "<invalid>".into(),
        -1..0 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(hours / 24, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{}d", hours / 24),
        63_072_000..252_288_000 => pair(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

/// An object's metadata, in a version of `meta.k8s.io`.
pub(super) fn partial(object: &Object, version: &str) -> Value {
    let mut partial = Object::default();
    partial.set("kind", "PartialObjectMetadata");
    partial.set("apiVersion", format!("meta.k8s.io/{version}"));
    partial.set("metadata", object.get("metadata").cloned());
    partial.unpack();
    partial.into_value()
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, "0s")]
    #[case(119, "119s")]
    #[case(120, "2m")]
    #[case(150, "2m30s")]
    #[case(600, "10m")]
    #[case(10_799, "179m")]
    #[case(10_860, "3h1m")]
    #[case(28_800, "8h")]
    #[case(172_799, "47h")]
    #[case(176_400, "2d1h")]
    #[case(691_200, "8d")]
    #[case(63_072_000, "2y")]
    #[case(63_158_400, "2y1d")]
    #[case(315_360_000, "10y")]
    fn ages_are_short(#[case] seconds: i64, #[case] expected: &str) {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(age(now - seconds.seconds(), now), expected);
    }

    #[rstest]
    #[case("integer", json!(3), json!(3))]
    #[case("integer", json!(3.7), json!(3))]
    #[case("integer", json!("3"), json!(null))]
    #[case("string", json!(3), json!("3"))]
    #[case("string", json!({"a": [1]}), json!("{\"a\":[1]}"))]
    #[case("string", json!(true), json!("true"))]
    #[case("boolean", json!(true), json!(true))]
    #[case("number", json!(1.5), json!(1.5))]
    #[case("date", json!("2025-12-31T23:59:50Z"), json!("10s"))]
    #[case("date", json!("soon"), json!("<invalid>"))]
    fn a_cell_has_the_type_of_its_column(#[case] kind: &str, #[case] value: Value, #[case] expected: Value) {
        assert_eq!(cell(kind, &value, "2026-01-01T00:00:00Z".parse().unwrap()), expected);
    }
}

//! [`Set`]: a set of fields of one object, and its form on the wire (`fieldsV1`).
//!
//! Upstream: `structured-merge-diff/fieldpath` (`element.go`, `set.go`, `serialize.go`).

use std::{cmp::Ordering, fmt};

use serde_json::{Map, Value};

use crate::base::status::go_quote;

/// One step from a value to a value in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// A member of a map.
    Field(String),
    /// The item of a list that has these members, sorted by name.
    Key(Vec<(String, Scalar)>),
    /// The item of a list with this value.
    Value(Scalar),
    /// The item of a list at this place.
    Index(i64),
}

/// A JSON value with upstream's order: numbers (by value), texts, booleans, lists, maps, null.
#[derive(Clone, Debug)]
pub struct Scalar(pub Value);

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        compare_values(&self.0, &other.0).is_eq()
    }
}

impl Eq for Scalar {}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_values(&self.0, &other.0)
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

/// Upstream's total order of values (`value.Compare`).
pub fn compare_values(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a.as_f64().unwrap_or_default().total_cmp(&b.as_f64().unwrap_or_default()),
        },
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let differing = a.iter().zip(b).map(|(a, b)| compare_values(a, b)).find(|order| order.is_ne());
            differing.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let step = |((ka, va), (kb, vb)): ((&String, &Value), (&String, &Value))| {
                ka.cmp(kb).then_with(|| compare_values(va, vb))
            };
            let differing = a.iter().zip(b).map(step).find(|order| order.is_ne());
            differing.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

/// A text as Go's `encoding/json` writes it.
fn go_json(value: &Value) -> String {
    let text = value.to_string();
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return text;
    }
    let escaped = text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    escaped.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// A value as upstream's paths show it (`value.ToString`).
fn path_text(value: &Value) -> String {
    match value {
        Value::String(text) => go_quote(text),
        Value::Array(items) => format!("[{}]", items.iter().map(path_text).collect::<Vec<_>>().join(",")),
        Value::Object(map) => map.iter().map(|(key, value)| format!("{key}={}", path_text(value))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

impl Element {
    /// A member of a map.
    pub fn field(name: &str) -> Self {
        Self::Field(name.into())
    }

    /// The element's name on the wire: `f:name`, `k:{"name":"x"}`, `v:"x"`, `i:0`.
    pub fn to_wire(&self) -> String {
        match self {
            Self::Field(name) => {
                let mut text = String::with_capacity(name.len() + 2);
                text.push_str("f:");
                text.push_str(name);
                text
            }
            Self::Key(members) => {
                let members: Vec<_> = members
                    .iter()
                    .map(|(name, value)| format!("{}:{}", go_json(&Value::from(name.as_str())), go_json(&value.0)))
                    .collect();
                format!("k:{{{}}}", members.join(","))
            }
            Self::Value(value) => format!("v:{}", go_json(&value.0)),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    /// The element with this name on the wire; `None` for a kind of element that is not known, which upstream skips.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn from_wire(text: &str) -> Result<Option<Self>, String> {
        let (kind, rest) = match text.as_bytes() {
            [kind, b':', ..] => (*kind, &text[2..]),
            [_, _, ..] => return Err(format!("missing colon: {text}")),
            _ => return Err("key must be 2 characters long:".into()),
        };
        Ok(Some(match kind {
            b'f' => Self::Field(rest.into()),
            b'v' => Self::Value(Scalar(serde_json::from_str(rest).map_err(|e| e.to_string())?)),
            b'k' => {
                let map: Map<String, Value> = serde_json::from_str(rest).map_err(|e| e.to_string())?;
                Self::Key(map.into_iter().map(|(name, value)| (name, Scalar(value))).collect())
            }
            b'i' => Self::Index(rest.parse().map_err(|_| format!("parsing {}: invalid syntax", go_quote(rest)))?),
            _ => return Ok(None),
        }))
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(members) => {
                let members: Vec<_> =
                    members.iter().map(|(name, value)| format!("{name}={}", path_text(&value.0))).collect();
                write!(f, "[{}]", members.join(","))
            }
            Self::Value(value) => write!(f, "[={}]", path_text(&value.0)),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A set of fields: a tree in which each node may itself be in the set, whatever of its children is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Sorted by element, each once; none of them is empty.
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    element: Element,
    member: bool,
    children: Set,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }
}

impl Set {
    /// The set of these paths.
    pub fn of(paths: &[&[Element]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(path);
        }
        set
    }

    /// The set of these paths of member names.
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(&path.iter().map(|name| Element::field(name)).collect::<Vec<_>>());
        }
        set
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn find(&self, element: &Element) -> Result<usize, usize> {
        // Sets are mostly built in order.
        match self.nodes.last() {
            Some(last) if last.element < *element => Err(self.nodes.len()),
            None => Err(0),
            Some(_) => self.nodes.binary_search_by(|node| node.element.cmp(element)),
        }
    }

    /// Adds a path; the empty path is nothing.
    pub fn insert(&mut self, path: &[Element]) {
        let Some((first, rest)) = path.split_first() else { return };
        if rest.is_empty() {
            self.add(first.clone(), true, Self::default());
        } else {
            let mut children = Self::default();
            children.insert(rest);
            self.add(first.clone(), false, children);
        }
    }

    /// Adds a node: the element itself where `member`, and what is below it.
    pub fn add(&mut self, element: Element, member: bool, children: Self) {
        if !member && children.is_empty() {
            return;
        }
        match self.find(&element) {
            Ok(at) => {
                let node = &mut self.nodes[at];
                node.member |= member;
                node.children = if node.children.is_empty() { children } else { node.children.union(&children) };
            }
            Err(at) => self.nodes.insert(at, Node { element, member, children }),
        }
    }

    /// Whether the element itself is in the set.
    pub fn has(&self, element: &Element) -> bool {
        self.find(element).is_ok_and(|at| self.nodes[at].member)
    }

    /// Whether the path is in the set.
    pub fn has_path(&self, path: &[Element]) -> bool {
        match path.split_first() {
            None => false,
            Some((last, [])) => self.has(last),
            Some((first, rest)) => self.below(first).is_some_and(|set| set.has_path(rest)),
        }
    }

    /// What is below an element, if anything.
    pub fn below(&self, element: &Element) -> Option<&Self> {
        let node = &self.nodes[self.find(element).ok()?];
        (!node.children.is_empty()).then_some(&node.children)
    }

    /// The elements, whether each is itself in the set, and what is below it.
    pub fn iter(&self) -> impl Iterator<Item = (&Element, bool, &Self)> {
        self.nodes.iter().map(|node| (&node.element, node.member, &node.children))
    }

    /// What is in either set.
    pub fn union(&self, other: &Self) -> Self {
        if self.is_empty() || other.is_empty() {
            return if self.is_empty() { other } else { self }.clone();
        }
        let mut nodes = Vec::with_capacity(self.nodes.len().max(other.nodes.len()));
        let (mut left, mut right) = (self.nodes.iter().peekable(), other.nodes.iter().peekable());
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            match a.element.cmp(&b.element) {
                Ordering::Less => nodes.extend(left.next().cloned()),
                Ordering::Greater => nodes.extend(right.next().cloned()),
                Ordering::Equal => {
                    nodes.push(Node {
                        element: a.element.clone(),
                        member: a.member || b.member,
                        children: a.children.union(&b.children),
                    });
                    left.next();
                    right.next();
                }
            }
        }
        nodes.extend(left.cloned());
        nodes.extend(right.cloned());
        Self { nodes }
    }

    /// What is in both sets.
    pub fn intersection(&self, other: &Self) -> Self {
        let pair = |node: &Node| {
            let other = &other.nodes[other.find(&node.element).ok()?];
            let children = node.children.intersection(&other.children);
            let both = Node { element: node.element.clone(), member: node.member && other.member, children };
            (!both.is_empty()).then_some(both)
        };
        Self { nodes: self.nodes.iter().filter_map(pair).collect() }
    }

    /// What is in this set and not in the other; children stay where only their parent is in the other.
    pub fn difference(&self, other: &Self) -> Self {
        let mut left = self.clone();
        left.subtract(other);
        left
    }

    /// Leaves [`Set::difference`] in place.
    pub fn subtract(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        self.nodes.retain_mut(|node| {
            if let Ok(at) = other.find(&node.element) {
                let other = &other.nodes[at];
                node.member &= !other.member;
                node.children.subtract(&other.children);
            }
            !node.is_empty()
        });
    }

    /// What is in this set and neither in the other nor below something in the other.
    pub fn recursive_difference(&self, other: &Self) -> Self {
        let mut left = self.clone();
        left.subtract_recursively(other);
        left
    }

    /// Leaves [`Set::recursive_difference`] in place.
    pub fn subtract_recursively(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        self.nodes.retain_mut(|node| {
            let Ok(at) = other.find(&node.element) else { return true };
            let other = &other.nodes[at];
            if other.member {
                return false;
            }
            node.children.subtract_recursively(&other.children);
            !node.is_empty()
        });
    }

    /// What has nothing of the set below it.
    pub fn leaves(&self) -> Self {
        let mut leaves = Self::default();
        for node in &self.nodes {
            leaves.add(node.element.clone(), node.member && node.children.is_empty(), node.children.leaves());
        }
        leaves
    }

    /// The paths as upstream's conflicts show and order them: at each level the members, then what is below them.
    pub fn paths(&self) -> Vec<(Vec<Element>, String)> {
        let mut out = Vec::new();
        self.collect_paths(&mut Vec::new(), &mut out);
        out
    }

    fn collect_paths(&self, prefix: &mut Vec<Element>, out: &mut Vec<(Vec<Element>, String)>) {
        for node in self.nodes.iter().filter(|node| node.member) {
            prefix.push(node.element.clone());
            out.push((prefix.clone(), prefix.iter().map(ToString::to_string).collect()));
            prefix.pop();
        }
        for node in &self.nodes {
            prefix.push(node.element.clone());
            node.children.collect_paths(prefix, out);
            prefix.pop();
        }
    }

    /// The `fieldsV1` form.
    pub fn to_wire(&self) -> Value {
        Value::Object(self.to_map(false))
    }

    fn to_map(&self, is_member: bool) -> Map<String, Value> {
        let mut map = Map::new();
        if is_member {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for node in &self.nodes {
            let children = node.children.to_map(node.member && !node.children.is_empty());
            map.insert(node.element.to_wire(), Value::Object(children));
        }
        map
    }

    /// The set in a `fieldsV1` value.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_wire(value: &Value) -> Result<Self, String> {
        Ok(read(value)?.0)
    }
}

/// The children, and whether the node itself is in its parent.
fn read(value: &Value) -> Result<(Set, bool), String> {
    let map = match value {
        Value::Object(map) => map,
        Value::Null => return Ok((Set::default(), true)),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err("fieldsV1 must be made of objects".into());
        }
    };
    let (mut set, mut is_member) = (Set::default(), false);
    for (key, value) in map {
        if key == "." {
            is_member = true;
            continue;
        }
        let Some(element) = Element::from_wire(key)? else { continue };
        let (children, child_is_member) = read(value)?;
        set.add(element, child_is_member, children);
    }
    let is_member = is_member || set.is_empty();
    Ok((set, is_member))
}

#[cfg(test)]
#[path = "set/tests.rs"]
mod tests;

//! What a rule may cost, judged before it runs.
//!
//! Sizes come from the schema's bounds, and where it has none from what fits into a request. Upstream:
//! `cel-go/checker/cost.go`, `apiserver/pkg/cel/library/cost.go`, `apiserver/pkg/cel/common/schemas.go`, and
//! `apiextensions-apiserver/pkg/apis/apiextensions/validation/cel_validation.go`.

use std::{collections::BTreeMap, sync::Arc};

use ::cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::{
    super::{Checks, Node, Type},
    check::{Checked, Kind},
    values,
};
use crate::base::limits;

/// Bytes of the largest request, by which sizes without bounds are judged.
const REQUEST: u64 = limits::BODY_BYTES as u64;

const TEXT: f64 = 0.1;
const REGEX: f64 = 0.25;
/// The longest pattern and text of a named format.
const FORMAT_PATTERN: f64 = 128.0;
const FORMAT_TEXT: u64 = 64;
const NEW_LIST: u64 = 10;
const NEW_MAP: u64 = 30;
const NEW_OBJECT: u64 = 40;

/// A size or a cost: at least, at most.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    min: u64,
    max: u64,
}

impl Range {
    const UNKNOWN: Self = Self { min: 0, max: u64::MAX };
    const NOTHING: Self = Self { min: 0, max: 0 };
    const ONE: Self = Self { min: 1, max: 1 };

    fn fixed(value: u64) -> Self {
        Self { min: value, max: value }
    }

    fn up_to(max: u64) -> Self {
        Self { min: 0, max }
    }

    fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    fn by(self, factor: f64) -> Self {
        // A cast from float to integer saturates, as upstream's does by hand.
        let scaled = |value: u64| (value as f64 * factor).ceil() as u64;
        Self { min: scaled(self.min), max: scaled(self.max) }
    }

    fn or(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// The bytes that a value of this schema takes at least.
fn smallest(node: &Arc<Node>, whole: bool) -> u64 {
    let node = &values::with_type_and_metadata(node, whole);
    if node.int_or_string {
        return 1;
    }
    match node.kind {
        Some(Type::Object) if node.additional.is_none() => {
            let required = node.properties.iter().filter(|(name, child)| {
                node.required.contains(name) && child.default.is_none() && values::is_visible(child)
            });
            2 + required.map(|(name, child)| name.len() as u64 + smallest(child, false) + 4).sum::<u64>()
        }
        Some(Type::String) => match node.format.as_str() {
            "duration" => 3,
            "date" => 12,
            "date-time" => 21,
            _ => 2,
        },
        Some(Type::Boolean) => 4,
        Some(Type::Integer | Type::Number) => 1,
        Some(Type::Array | Type::Object) | None => 2,
    }
}

fn bound(bound: Option<i64>) -> Option<u64> {
    bound.map(|bound| u64::try_from(bound).unwrap_or(0))
}

/// How many items, members or characters a value of this schema has at most.
fn largest(node: &Node) -> u64 {
    let none = Checks::default();
    let checks = node.checks.as_deref().unwrap_or(&none);
    let bytes = bound(checks.max_length).map(|length| length.saturating_mul(4));
    if node.int_or_string {
        return bytes.unwrap_or(REQUEST - 2);
    }
    match node.kind {
        Some(Type::Array) => {
            let item = node.items.as_ref().map_or(2, |items| smallest(items, false));
            bound(checks.max_items).unwrap_or((REQUEST - 2) / (item + 1))
        }
        Some(Type::Object) => node
            .additional
            .as_ref()
            .map_or(0, |child| bound(checks.max_properties).unwrap_or((REQUEST - 2) / (smallest(child, false) + 6))),
        Some(Type::String) => match node.format.as_str() {
            "byte" => bound(checks.max_length).unwrap_or(REQUEST - 2),
            "duration" | "date-time" => 32,
            "date" => 12,
            _ => match bytes {
                Some(bytes) => bytes,
                None if checks.allowed.is_empty() => REQUEST - 2,
                None => {
                    let texts = checks.allowed.iter().filter_map(|value| value.as_str());
                    texts.map(|text| text.len() as u64).max().unwrap_or_default()
                }
            },
        },
        Some(Type::Integer | Type::Number | Type::Boolean) | None => 0,
    }
}

/// How many values of a schema an object has at most; `None` where nothing bounds them.
pub(super) type Cardinality = Option<u64>;

/// The cardinality of a schema's children.
pub(super) fn children(node: &Node, own: Cardinality) -> Cardinality {
    let checks = node.checks.as_deref();
    let each = match node.kind {
        Some(Type::Object) if node.additional.is_some() => bound(checks?.max_properties)?,
        Some(Type::Array) => bound(checks?.max_items)?,
        Some(_) | None => 1,
    };
    Some(own?.saturating_mul(each))
}

/// The cost of a rule for all the values that an object may have of its schema.
pub(super) fn of_all(cost: u64, cardinality: Cardinality, node: &Arc<Node>, whole: bool) -> u64 {
    cost.saturating_mul(cardinality.unwrap_or_else(|| REQUEST / (smallest(node, whole) + 1)))
}

/// The highest cost of one evaluation.
pub(super) fn estimate(expression: &IdedExpr, checked: &Checked, root: &Arc<Node>) -> u64 {
    let mut coster = Coster {
        root,
        checked,
        paths: BTreeMap::new(),
        locals: Vec::new(),
        sizes: BTreeMap::new(),
        entries: BTreeMap::new(),
    };
    coster.cost(expression).max
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    list: bool,
    key: Range,
    value: Range,
}

type Path = Vec<String>;

struct Local {
    name: String,
    path: Path,
    size: Option<Range>,
    entry: Option<Entry>,
}

/// What a function's cost is judged by.
struct Arg<'a> {
    expression: &'a IdedExpr,
    path: Path,
    kind: Kind,
    size: Option<Range>,
}

struct Coster<'a> {
    root: &'a Arc<Node>,
    checked: &'a Checked,
    paths: BTreeMap<u64, Path>,
    locals: Vec<Local>,
    sizes: BTreeMap<u64, Range>,
    entries: BTreeMap<u64, Entry>,
}

/// What cel-go tells apart by overload.
#[derive(Clone, Copy, PartialEq)]
enum Overload {
    AddText,
    AddList,
    InList,
    IndexList,
    IndexMap,
    CompareTexts,
    TextToBytes,
    BytesToText,
    SortTexts,
    Other,
}

impl Coster<'_> {
    fn kind(&self, expression: &IdedExpr) -> Kind {
        self.checked.kinds.get(&expression.id).cloned().unwrap_or(Kind::Dyn)
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|local| local.name == name)
    }

    fn path(&self, expression: &IdedExpr) -> Path {
        if let Expr::Ident(name) = &expression.expr
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&expression.id).cloned().unwrap_or_default()
    }

    /// The size of what a path leads to. Its first step is a variable, whichever: all of them have the rule's own schema.
    fn size_at(&self, path: &[String]) -> Option<Range> {
        let (_, steps) = path.split_first()?;
        let mut at = Arc::clone(self.root);
        for step in steps {
            let next = match step.as_str() {
                "@items" | "@values" => at.items.clone().or_else(|| at.additional.clone())?,
                // a map's key has no bounds of its own
                "@keys" if at.additional.is_some() => Arc::new(Node::default()),
                name => {
                    let seen = values::with_type_and_metadata(&at, false);
                    let mut members = seen.properties.iter();
                    let member = members
                        .find(|(key, child)| values::escape(key).as_deref() == Some(name) && values::is_visible(child));
                    member.filter(|_| seen.additional.is_none())?.1.clone()
                }
            };
            at = next;
        }
        Some(Range::up_to(largest(&at)))
    }

    fn size(&mut self, expression: &IdedExpr) -> Option<Range> {
        if let Some(size) = self.sizes.get(&expression.id) {
            return Some(*size);
        }
        match &expression.expr {
            Expr::Literal(literal) => {
                return Some(Range::fixed(match literal {
                    LiteralValue::String(text) => text.inner().chars().count() as u64,
                    LiteralValue::Bytes(bytes) => bytes.inner().len() as u64,
                    LiteralValue::Boolean(_)
                    | LiteralValue::Double(_)
                    | LiteralValue::Int(_)
                    | LiteralValue::Null
                    | LiteralValue::UInt(_) => 1,
                }));
            }
            Expr::List(list) => return Some(Range::fixed(list.elements.len() as u64)),
            Expr::Map(map) => return Some(Range::fixed(map.entries.len() as u64)),
            _ => {}
        }
        if let Some(size) = self.size_at(&self.path(expression)) {
            self.sizes.insert(expression.id, size);
            return Some(size);
        }
        if is_scalar(&self.kind(expression)) {
            return Some(Range::ONE);
        }
        match &expression.expr {
            Expr::Ident(name) => self.local(name).and_then(|local| local.size),
            _ => None,
        }
    }

    fn size_or_unknown(&mut self, expression: &IdedExpr) -> Range {
        self.size(expression).unwrap_or(Range::UNKNOWN)
    }

    fn entry(&self, expression: &IdedExpr) -> Option<Entry> {
        if let Some(entry) = self.entries.get(&expression.id) {
            return Some(*entry);
        }
        match &expression.expr {
            Expr::Ident(name) => self.local(name).and_then(|local| local.entry),
            _ => None,
        }
    }

    fn cost(&mut self, expression: &IdedExpr) -> Range {
        match &expression.expr {
            Expr::Literal(_) | Expr::Unspecified => Range::NOTHING,
            Expr::Ident(name) => {
                let path = self.local(name).map_or_else(|| vec![name.clone()], |local| local.path.clone());
                self.paths.insert(expression.id, path);
                Range::ONE
            }
            Expr::Select(select) => {
                let operand = self.cost(&select.operand);
                if select.test {
                    return operand;
                }
                let mut path = self.path(&select.operand);
                path.push(select.field.clone());
                self.paths.insert(expression.id, path);
                match self.kind(&select.operand) {
                    Kind::Map(_) | Kind::Object(_) => operand.plus(Range::ONE),
                    _ => operand,
                }
            }
            Expr::List(list) => {
                let mut sum = Range::fixed(NEW_LIST);
                let mut value = Range { min: if list.elements.is_empty() { 0 } else { u64::MAX }, max: 0 };
                for element in &list.elements {
                    sum = sum.plus(self.cost(element));
                    value = value.or(self.size_or_unknown(element));
                }
                self.entries.insert(expression.id, Entry { list: true, key: Range::ONE, value });
                sum
            }
            Expr::Map(map) => {
                let mut sum = Range::fixed(NEW_MAP);
                let start = Range { min: if map.entries.is_empty() { 0 } else { u64::MAX }, max: 0 };
                let (mut key, mut value) = (start, start);
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
                        key = key.or(self.size_or_unknown(&entry.key));
                        value = value.or(self.size_or_unknown(&entry.value));
                    }
                }
                self.entries.insert(expression.id, Entry { list: false, key, value });
                sum
            }
            Expr::Struct(_) => Range::fixed(NEW_OBJECT),
            Expr::Comprehension(_) => self.comprehension(expression),
            Expr::Call(_) => self.call(expression),
        }
    }

    fn push(&mut self, name: &str, path: Path, size: Option<Range>, entry: Option<Entry>) {
        self.locals.push(Local { name: name.to_owned(), path, size, entry });
    }

    fn comprehension(&mut self, expression: &IdedExpr) -> Range {
        let Expr::Comprehension(loops) = &expression.expr else { return Range::NOTHING };
        let start = self.cost(&loops.iter_range).plus(self.cost(&loops.accu_init));
        let (path, entry, size) =
            (self.path(&loops.accu_init), self.entry(&loops.accu_init), self.size(&loops.accu_init));
        self.push(&loops.accu_var, path, size, entry);
        let no_range = matches!(&loops.iter_range.expr, Expr::List(list) if list.elements.is_empty());
        let no_loop = matches!(&loops.loop_cond.expr, Expr::Literal(LiteralValue::Boolean(value)) if !*value.inner());
        if no_range && no_loop {
            // A variable that a macro binds.
            let sum = start.plus(self.cost(&loops.result));
            let (size, entry) = (self.size(&loops.result), self.entry(&loops.result));
            self.locals.pop();
            self.keep(expression.id, size, entry);
            return sum;
        }
        let (entry, path) = (self.entry(&loops.iter_range), self.path(&loops.iter_range));
        let is_list = entry.map_or(matches!(self.kind(&loops.iter_range), Kind::List(_)), |entry| entry.list);
        let step = |name: &str| [path.clone(), vec![name.to_owned()]].concat();
        let mut variables = 2;
        if let Some(second) = &loops.iter_var2 {
            variables = 3;
            let keys = step(if is_list { "@indices" } else { "@keys" });
            self.push(&loops.iter_var, keys, entry.map(|entry| entry.key), None);
            let items = step(if is_list { "@items" } else { "@values" });
            self.push(second, items, entry.map(|entry| entry.value), None);
        } else if is_list {
            self.push(&loops.iter_var, step("@items"), entry.map(|entry| entry.value), None);
        } else {
            self.push(&loops.iter_var, step("@keys"), entry.map(|entry| entry.key), None);
        }
        let each = self.cost(&loops.loop_cond).plus(self.cost(&loops.loop_step));
        let step_entry = self.entry(&loops.loop_step);
        self.locals.truncate(self.locals.len() - (variables - 1));
        let sum = start.plus(self.cost(&loops.result));
        self.locals.pop();
        let rounds = self.size_or_unknown(&loops.iter_range);
        match &loops.accu_init.expr {
            Expr::Literal(_) => {
                let size = self.size(&loops.accu_init);
                self.keep(expression.id, size, None);
            }
            Expr::List(_) | Expr::Map(_) => self.keep(expression.id, Some(rounds), step_entry),
            _ => {}
        }
        sum.plus(rounds.times(each))
    }

    fn keep(&mut self, id: u64, size: Option<Range>, entry: Option<Entry>) {
        if let Some(size) = size {
            self.sizes.insert(id, size);
        }
        if let Some(entry) = entry {
            self.entries.insert(id, entry);
        }
    }

    fn arg<'e>(&mut self, expression: &'e IdedExpr) -> Arg<'e> {
        let mut path = self.path(expression);
        if path.first().is_some_and(|first| first == "@result" || first == "__result__") {
            path.clear();
        }
        Arg { expression, path, kind: self.kind(expression), size: self.size(expression) }
    }

    fn call(&mut self, expression: &IdedExpr) -> Range {
        let Expr::Call(call) = &expression.expr else { return Range::NOTHING };
        if let ("dyn", [inner]) = (call.func_name.as_str(), call.args.as_slice()) {
            let cost = self.cost(inner).plus(Range::ONE);
            let (size, entry) = (self.size(inner), self.entry(inner));
            self.keep(expression.id, size, entry);
            return cost;
        }
        let costs: Vec<Range> = call.args.iter().map(|arg| self.cost(arg)).collect();
        let args: Vec<Arg<'_>> = call.args.iter().map(|arg| self.arg(arg)).collect();
        // `sets.contains` and its like are functions with a dot in their name.
        let spaced = call.target.as_ref().and_then(|target| match &target.expr {
            Expr::Ident(space) if !self.checked.kinds.contains_key(&target.id) => {
                Some(format!("{space}.{}", call.func_name))
            }
            _ => None,
        });
        let (name, target, target_cost) = match (&spaced, &call.target) {
            (Some(full), _) => (full.as_str(), None, Range::NOTHING),
            (None, Some(target)) => {
                let cost = self.cost(target);
                (call.func_name.as_str(), Some(self.arg(target)), cost)
            }
            (None, None) => (call.func_name.as_str(), None, Range::NOTHING),
        };
        let mut cost = Range { min: u64::MAX, max: 0 };
        let mut result: Option<Range> = None;
        for overload in overloads(name, target.as_ref(), &args) {
            let (own, size) = self.function(expression.id, name, overload, target.as_ref(), &args, &costs);
            cost = cost.or(own);
            if let Some(size) = size {
                result = Some(result.map_or(size, |result| result.or(size)));
            }
            let step = match overload {
                Overload::IndexList => Some("@items"),
                Overload::IndexMap => Some("@values"),
                _ => None,
            };
            if let (Some(step), Some(list)) = (step, args.first()) {
                result = self.entry(list.expression).map(|entry| entry.value);
                let path = [self.path(list.expression), vec![step.to_owned()]].concat();
                self.paths.insert(expression.id, path);
            }
            if result.is_none() {
                result = self.size(expression);
            }
        }
        self.keep(expression.id, result, None);
        target_cost.plus(cost)
    }

    /// The cost of a call with its arguments, and the size of what it gives where that is known.
    fn function(
        &mut self,
        id: u64,
        name: &str,
        overload: Overload,
        target: Option<&Arg<'_>>,
        args: &[Arg<'_>],
        costs: &[Range],
    ) -> (Range, Option<Range>) {
        let arguments = costs.iter().copied().fold(Range::NOTHING, Range::plus);
        if let Some((cost, size)) = self.library(name, overload, target, args) {
            return (cost.plus(arguments), size);
        }
        let size = |arg: &Arg<'_>| arg.size.unwrap_or(Range::UNKNOWN);
        match (name, overload, args) {
            ("format", _, [_]) => {
                if let Some(target) = target {
                    return (size(target).by(TEXT).plus(arguments), None);
                }
            }
            (_, Overload::TextToBytes, [text]) => {
                let text = size(text);
                return (text.by(TEXT).plus(arguments), Some(Range { min: text.min, max: text.max.saturating_mul(4) }));
            }
            (_, Overload::BytesToText, [bytes]) => {
                let bytes = size(bytes);
                return (bytes.by(TEXT).plus(arguments), Some(Range { min: bytes.min / 4, max: bytes.max }));
            }
            ("strings.quote", _, [text]) => {
                let text = size(text);
                let quoted = Range { min: text.min + 2, max: text.max.saturating_mul(2).saturating_add(2) };
                return (text.by(TEXT).plus(arguments), Some(quoted));
            }
            ("startsWith" | "endsWith", _, [part]) => return (size(part).by(TEXT).plus(arguments), None),
            (_, Overload::InList, [_, list]) => return (size(list).plus(arguments), None),
            ("matches", _, [pattern]) => {
                if let Some(target) = target {
                    let text = size(target).plus(Range::ONE).by(TEXT);
                    return (text.times(size(pattern).by(REGEX)).plus(arguments), None);
                }
            }
            ("contains", _, [part]) => {
                if let Some(target) = target {
                    return (size(target).by(TEXT).times(size(part).by(TEXT)).plus(arguments), None);
                }
            }
            (operators::LOGICAL_AND | operators::LOGICAL_OR, _, [_, _]) => {
                return (Range { min: costs[0].min, max: costs[0].plus(costs[1]).max }, None);
            }
            (operators::CONDITIONAL, _, [_, then, otherwise]) => {
                let both = size(then).or(size(otherwise));
                let entries = (self.entry(then.expression), self.entry(otherwise.expression));
                if let (Some(a), Some(b)) = entries {
                    let entry = Entry { list: a.list, key: a.key.or(b.key), value: a.value.or(b.value) };
                    self.entries.insert(id, entry);
                }
                return (costs[0].plus(costs[1].or(costs[2])), Some(both));
            }
            (_, Overload::AddText | Overload::AddList, [left, right]) => {
                let both = size(left).plus(size(right));
                if let (Some(a), Some(b)) = (self.entry(left.expression), self.entry(right.expression)) {
                    let entry = Entry { list: a.list, key: a.key.or(b.key), value: a.value.or(b.value) };
                    self.entries.insert(id, entry);
                }
                let own = if overload == Overload::AddList { Range::ONE } else { both.by(TEXT) };
                return (own.plus(arguments), Some(both));
            }
            (_, Overload::CompareTexts, [left, right])
            | (operators::EQUALS | operators::NOT_EQUALS, _, [left, right]) => {
                let max = size(left).max.min(size(right).max);
                let own = Range { min: u64::from(max > 0), max };
                return (own.by(TEXT).plus(arguments), None);
            }
            _ => {}
        }
        (arguments.plus(Range::ONE), None)
    }

    /// Functions of libraries, and their costs without those of their arguments.
    fn library(
        &self,
        name: &str,
        overload: Overload,
        target: Option<&Arg<'_>>,
        args: &[Arg<'_>],
    ) -> Option<(Range, Option<Range>)> {
        let size = |arg: &Arg<'_>| arg.size.unwrap_or(Range::UNKNOWN);
        let plain = |cost: Range| Some((cost, None));
        let allocated = |factor: f64, size: Range| {
            Some((size.by(factor).plus(Range::ONE).plus(Range::fixed(NEW_LIST)), Some(size)))
        };
        let whole = |arg: &Arg<'_>, other: u64| match &arg.expression.expr {
            Expr::Literal(LiteralValue::Int(value)) => u64::try_from(*value.inner()).unwrap_or(other),
            _ => other,
        };
        match (name, target, args) {
            ("sets.contains" | "sets.intersects", None, [a, b]) => plain(size(a).times(size(b)).plus(Range::ONE)),
            ("sets.equivalent", None, [a, b]) => plain(size(a).times(size(b)).by(2.0).plus(Range::ONE)),
            ("slice", Some(list), [from, to]) => {
                let (from, to) = (whole(from, 0), whole(to, size(list).max));
                allocated(1.0, Range::fixed(to.saturating_sub(from)))
            }
            ("lists.range", None, [count]) => allocated(1.0, Range::fixed(whole(count, u64::MAX))),
            ("reverse", Some(list), []) => allocated(1.0, size(list)),
            ("flatten", Some(list), []) => allocated(1.0, size(list)),
            ("flatten", Some(list), [depth]) => allocated(whole(depth, u64::MAX) as f64, size(list)),
            ("distinct", Some(list), []) => allocated(2.0, size(list).times(size(list))),
            ("sort", Some(list), []) => {
                let factor = if overload == Overload::SortTexts { 2.0 + TEXT } else { 2.0 };
                allocated(factor, size(list).times(size(list)))
            }
            ("@sortByAssociatedKeys", Some(_), [keys]) => {
                let texts = matches!(&keys.kind, Kind::List(inner) if matches!(**inner, Kind::Text | Kind::Bytes));
                allocated(if texts { 2.0 + TEXT } else { 2.0 }, size(keys).times(size(keys)))
            }
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", Some(target), _) => {
                plain(match self.element(target) {
                    Some((kind, element)) => {
                        let texts = matches!(kind, Kind::Text | Kind::Bytes);
                        let each = if texts { Range::ONE.plus(element.by(TEXT)) } else { Range::ONE };
                        size(target).times(each)
                    }
                    None => size(target).by(TEXT),
                })
            }
            ("url" | "jsonpatch.escapeKey", None, [text]) => Some((size(text).by(TEXT), Some(size(text)))),
            ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(text), _) => {
                Some((size(text).by(TEXT), Some(size(text))))
            }
            ("replace", Some(text), [old, new, ..]) => {
                Some((size(text).by(2.0 * TEXT), Some(replaced(size(text), size(old), size(new)))))
            }
            ("split", Some(text), _) => {
                let most = args.get(1).map_or(size(text).max, |limit| whole(limit, size(text).max));
                Some((size(text).by(2.0 * TEXT), Some(Range::up_to(most))))
            }
            ("join", Some(list), _) => {
                let items = size(list);
                let mut all = self.element(list).map_or(Range::NOTHING, |(_, element)| items.times(element));
                if let Some(separator) = args.first() {
                    let gaps = Range { min: items.min.saturating_sub(1), max: items.max.saturating_sub(1) };
                    all = all.plus(size(separator).times(gaps));
                }
                Some((all.by(TEXT), Some(all)))
            }
            ("find" | "findAll", Some(text), [pattern, ..]) => {
                let cost = size(text).plus(Range::ONE).by(TEXT).times(size(pattern).by(REGEX));
                Some((cost, Some(Range::up_to(size(text).max))))
            }
            ("ip", Some(_), _) => plain(Range::ONE),
            ("cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver", _, [text, ..]) => {
                plain(size(text).by(TEXT))
            }
            ("ip.isCanonical", _, [text]) => plain(size(text).by(2.0 * TEXT)),
            ("containsIP" | "containsCIDR", Some(_), [other]) => {
                let bytes = Range { min: 4, max: 16 };
                let mut cost = bytes.plus(bytes).by(TEXT);
                if name == "containsCIDR" {
                    cost = cost.plus(bytes.by(TEXT)).plus(Range::ONE);
                }
                if matches!(other.kind, Kind::Text) {
                    cost = cost.plus(size(other).by(TEXT));
                }
                plain(cost)
            }
            ("validate", Some(_), [text]) => plain(size(text).by(TEXT).by(FORMAT_PATTERN * REGEX)),
            (
                "masked"
                | "prefixLength"
                | "family"
                | "isUnspecified"
                | "isLoopback"
                | "isLinkLocalMulticast"
                | "isLinkLocalUnicast"
                | "isGlobalUnicast"
                | "format.named"
                | "sign"
                | "asInteger"
                | "isInteger"
                | "asApproximateFloat"
                | "isGreaterThan"
                | "isLessThan"
                | "compareTo"
                | "add"
                | "sub"
                | "major"
                | "minor"
                | "patch"
                | "getScheme"
                | "getHostname"
                | "getHost"
                | "getPort"
                | "getEscapedPath"
                | "getQuery",
                _,
                _,
            ) => plain(Range::ONE),
            (operators::EQUALS, _, [Arg { kind: Kind::Own(a), .. }, right @ Arg { kind: Kind::Own(b), .. }])
                if a == b =>
            {
                plain(match *a {
                    "kubernetes.NamedFormat" => Range { min: 1, max: FORMAT_TEXT }.by(TEXT),
                    "kubernetes.URL" => Range { min: 1, max: right.size.map_or(1, |size| size.max) }.by(TEXT),
                    _ => Range::ONE,
                })
            }
            _ => None,
        }
    }

    /// What a list holds: kind and size.
    fn element(&self, list: &Arg<'_>) -> Option<(Kind, Range)> {
        let Kind::List(kind) = &list.kind else { return None };
        let mut path = list.path.clone();
        let size = if path.is_empty() {
            None
        } else {
            path.push("@items".into());
            self.size_at(&path)
        };
        Some(((**kind).clone(), size.unwrap_or(Range::UNKNOWN)))
    }
}

fn is_scalar(kind: &Kind) -> bool {
    match kind {
        Kind::Bool | Kind::Double | Kind::Duration | Kind::Int | Kind::Timestamp | Kind::Uint => true,
        Kind::Optional(inner) => is_scalar(inner),
        _ => false,
    }
}

/// The overloads that a call may come to, as far as they differ in cost.
fn overloads(name: &str, target: Option<&Arg<'_>>, args: &[Arg<'_>]) -> Vec<Overload> {
    let may = |arg: &Arg<'_>, wanted: fn(&Kind) -> bool| matches!(arg.kind, Kind::Dyn) || wanted(&arg.kind);
    let all = |wanted: fn(&Kind) -> bool| args.iter().all(|arg| may(arg, wanted));
    let other: fn(&Kind) -> bool =
        |kind| !matches!(kind, Kind::Text | Kind::Bytes | Kind::List(_) | Kind::Map(_) | Kind::Optional(_));
    let text: fn(&Kind) -> bool = |kind| matches!(kind, Kind::Text | Kind::Bytes);
    let list: fn(&Kind) -> bool = |kind| matches!(kind, Kind::List(_));
    let map: fn(&Kind) -> bool = |kind| matches!(kind, Kind::Map(_));
    let mut found = Vec::new();
    let mut add = |fits: bool, overload: Overload| {
        if fits {
            found.push(overload);
        }
    };
    match name {
        operators::ADD => {
            add(all(text), Overload::AddText);
            add(all(list), Overload::AddList);
            add(all(other), Overload::Other);
        }
        operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS => {
            add(all(text), Overload::CompareTexts);
            add(all(other), Overload::Other);
        }
        operators::IN => {
            add(args.get(1).is_some_and(|arg| may(arg, list)), Overload::InList);
            add(args.get(1).is_some_and(|arg| may(arg, map)), Overload::Other);
        }
        operators::INDEX => {
            add(args.first().is_some_and(|arg| may(arg, list)), Overload::IndexList);
            add(args.first().is_some_and(|arg| may(arg, map)), Overload::IndexMap);
        }
        "bytes" => {
            add(args.first().is_some_and(|arg| may(arg, |kind| matches!(kind, Kind::Text))), Overload::TextToBytes);
            add(args.first().is_some_and(|arg| may(arg, |kind| !matches!(kind, Kind::Text))), Overload::Other);
        }
        "string" => {
            add(args.first().is_some_and(|arg| may(arg, |kind| matches!(kind, Kind::Bytes))), Overload::BytesToText);
            add(args.first().is_some_and(|arg| may(arg, |kind| !matches!(kind, Kind::Bytes))), Overload::Other);
        }
        "sort" => {
            let inner = target.map(|target| &target.kind);
            let texts = matches!(inner, Some(Kind::List(inner)) if matches!(**inner, Kind::Text | Kind::Bytes));
            add(texts, Overload::SortTexts);
        }
        _ => {}
    }
    if found.is_empty() {
        found.push(Overload::Other);
    }
    found
}

/// How long a text is after `replace`.
fn replaced(text: Range, old: Range, new: Range) -> Range {
    let (mut count, mut kept) = (Range::NOTHING, Range::NOTHING);
    if old.min == 0 {
        count.max = text.max.saturating_add(1);
        kept.max = text.max;
    } else if new.max <= old.min {
        kept.max = text.max;
    } else {
        count.max = (text.max as f64 / old.min as f64).ceil() as u64;
    }
    if old.max == 0 {
        count.min = text.min.saturating_add(1);
        kept.min = text.min;
    } else if old.max <= new.min {
        kept.min = text.min;
    } else {
        count.min = (text.min as f64 / old.max as f64).ceil() as u64;
    }
    count.times(new).plus(kept)
}

//! Comprehensions with two variables: an item with its index, or a value with its key.
//!
//! They are parsed into cel-go's form, which what checks them and judges their cost reads. The interpreter knows loops of one
//! variable: [`lower`] has it loop over pairs, with the two names bound where an expression of the user's stands.
//!
//! Upstream: `cel-go/ext/comprehensions.go`.

use std::mem;

use ::cel::{
    Env, ExecutionError, ParseError,
    common::{
        ast::{
            CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, ListExpr, LiteralValue,
            MapEntryExpr, MapExpr, operators,
        },
        types::{CelInt, CelList, CelMap, CelMapKey, DYN_TYPE},
        value::{CowVal, Val},
    },
    parser::{Macro, MacroExprHelper},
};

use super::library::{Answer, Args, Registered, elements, fail};

/// What `transformMap` puts its entries together by.
pub(super) const MAP_INSERT: &str = "cel.@mapInsert";

/// Names that no expression can have.
const ACCUMULATOR: &str = "@result";
const PAIR: &str = "@pair";
const PAIRS: &str = "@pairs";
const MERGED: &str = "@merged";

/// Macros, and what they are lowered to.
pub(super) fn functions(env: &mut Env) -> Registered {
    for (name, most) in [
        ("all", 3),
        ("exists", 3),
        ("existsOne", 3),
        ("exists_one", 3),
        ("transformList", 4),
        ("transformMap", 4),
        ("transformMapEntry", 4),
    ] {
        for count in 3..=most {
            env.add_macro(Macro::receiver(name, count, move |helper, target, args| {
                expand(helper, name, target, mem::take(args))
            }))?;
        }
    }
    env.add_overload(PAIRS, PAIRS, vec![DYN_TYPE], pairs)?;
    env.add_overload(MERGED, MERGED, vec![DYN_TYPE], merged)
}

fn expand(
    helper: &mut MacroExprHelper<'_>,
    name: &str,
    target: &mut Option<IdedExpr>,
    args: Vec<IdedExpr>,
) -> Result<Option<IdedExpr>, ParseError> {
    let mut args = args.into_iter();
    let (Some(range), Some(first), Some(second)) = (target.take(), args.next(), args.next()) else { return Ok(None) };
    let second_id = second.id;
    let (iter_var, second) = (variable(helper, first)?, variable(helper, second)?);
    if iter_var == second {
        return Err(helper.new_error(second_id, format!("duplicate variable name: {iter_var}")));
    }
    let Some(last) = args.next_back() else { return Ok(None) };
    let filter = args.next();
    let mut make = |expr: Expr| helper.next_expr(expr);
    let literal = |value: LiteralValue| Expr::Literal(value);
    let whole = |value: i64| literal(LiteralValue::Int(CelInt::from(value)));
    let flag = |value: bool| literal(LiteralValue::Boolean(value.into()));
    let accumulated = || Expr::Ident(ACCUMULATOR.into());
    let call = |name: &str, args: Vec<IdedExpr>| Expr::Call(CallExpr { func_name: name.into(), target: None, args });
    let empty_list = Expr::List(ListExpr::new(Vec::new()));
    let empty_map = Expr::Map(MapExpr { entries: Vec::new() });
    let (start, mut step) = match name {
        "all" => (flag(true), call(operators::LOGICAL_AND, vec![make(accumulated()), last])),
        "exists" => (flag(false), call(operators::LOGICAL_OR, vec![make(accumulated()), last])),
        "existsOne" | "exists_one" => {
            let more = call(operators::ADD, vec![make(accumulated()), make(whole(1))]);
            (whole(0), call(operators::CONDITIONAL, vec![last, make(more), make(accumulated())]))
        }
        "transformList" => {
            let item = make(Expr::List(ListExpr::new(vec![last])));
            (empty_list, call(operators::ADD, vec![make(accumulated()), item]))
        }
        "transformMap" => {
            let key = make(Expr::Ident(iter_var.clone()));
            (empty_map, call(MAP_INSERT, vec![make(accumulated()), key, last]))
        }
        _ => (empty_map, call(MAP_INSERT, vec![make(accumulated()), last])),
    };
    if let Some(filter) = filter {
        step = call(operators::CONDITIONAL, vec![filter, make(step), make(accumulated())]);
    }
    let goes_on = match name {
        "all" => call(operators::NOT_STRICTLY_FALSE, vec![make(accumulated())]),
        "exists" => {
            let not = call(operators::LOGICAL_NOT, vec![make(accumulated())]);
            call(operators::NOT_STRICTLY_FALSE, vec![make(not)])
        }
        _ => flag(true),
    };
    let result = match name {
        "existsOne" | "exists_one" => call(operators::EQUALS, vec![make(accumulated()), make(whole(1))]),
        _ => accumulated(),
    };
    let whole = ComprehensionExpr {
        iter_range: range,
        iter_var,
        iter_var2: Some(second),
        accu_var: ACCUMULATOR.into(),
        accu_init: make(start),
        loop_cond: make(goes_on),
        loop_step: make(step),
        result: make(result),
    };
    Ok(Some(make(Expr::Comprehension(Box::new(whole)))))
}

fn variable(helper: &MacroExprHelper<'_>, expression: IdedExpr) -> Result<String, ParseError> {
    match expression.expr {
        Expr::Ident(name) => Ok(name),
        _ => Err(helper.new_error(expression.id, "argument must be a simple name")),
    }
}

fn bare(expr: Expr) -> IdedExpr {
    IdedExpr { id: 0, expr }
}

fn global(name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    bare(Expr::Call(CallExpr { func_name: name.into(), target: None, args }))
}

/// Makes a loop of two variables one of one variable.
pub(super) fn lower(expression: &mut IdedExpr) {
    let Expr::Comprehension(it) = &mut expression.expr else { return };
    let Some(second) = it.iter_var2.take() else { return };
    let first = mem::replace(&mut it.iter_var, PAIR.into());
    it.iter_range = global(PAIRS, vec![mem::take(&mut it.iter_range)]);
    let makes_map = matches!(it.accu_init.expr, Expr::Map(_));
    if makes_map {
        // Entries are collected, and put together once: a map that grows by one entry a round would be copied in each.
        it.accu_init = bare(Expr::List(ListExpr::new(Vec::new())));
        collect_entries(&mut it.loop_step);
    }
    bind_parts(&mut it.loop_step, &first, &second);
    if makes_map {
        *expression = global(MERGED, vec![mem::take(expression)]);
    }
}

/// `cel.@mapInsert(@result, …)` becomes `@result + […]`.
fn collect_entries(step: &mut IdedExpr) {
    let Expr::Call(call) = &mut step.expr else { return };
    if call.func_name != MAP_INSERT {
        return call.args.iter_mut().for_each(collect_entries);
    }
    let mut args = mem::take(&mut call.args).into_iter();
    let (Some(accumulated), Some(first)) = (args.next(), args.next()) else { return };
    let entry = match args.next() {
        Some(value) => {
            let entry = EntryExpr::MapEntry(MapEntryExpr { key: first, value, optional: false });
            bare(Expr::Map(MapExpr { entries: vec![IdedEntryExpr { id: 0, expr: entry }] }))
        }
        None => first,
    };
    call.func_name = operators::ADD.into();
    call.args = vec![accumulated, bare(Expr::List(ListExpr::new(vec![entry])))];
}

/// Whether a part of a step is the macro's own, and not an expression of the user's.
fn accumulates(part: &IdedExpr) -> bool {
    match &part.expr {
        Expr::Ident(name) => name == ACCUMULATOR,
        Expr::Call(call) => call.target.is_none() && call.args.iter().any(accumulates),
        _ => false,
    }
}

/// Binds the two names around the expressions of the user's in a step.
fn bind_parts(step: &mut IdedExpr, first: &str, second: &str) {
    let Expr::Call(call) = &mut step.expr else { return };
    let appends = call.func_name == operators::ADD;
    for part in &mut call.args {
        let own = accumulates(part);
        match &mut part.expr {
            _ if own => bind_parts(part, first, second),
            Expr::List(list) if appends => list.elements.iter_mut().for_each(|item| bind(item, first, second)),
            _ => bind(part, first, second),
        }
    }
}

fn bind(part: &mut IdedExpr, first: &str, second: &str) {
    let whole = |value: i64| bare(Expr::Literal(LiteralValue::Int(CelInt::from(value))));
    for (index, name) in [(1, second), (0, first)] {
        let of_pair = global(operators::INDEX, vec![bare(Expr::Ident(PAIR.into())), whole(index)]);
        *part = bare(Expr::Comprehension(Box::new(ComprehensionExpr {
            iter_range: bare(Expr::List(ListExpr::new(Vec::new()))),
            iter_var: "#unused".into(),
            iter_var2: None,
            accu_var: name.to_owned(),
            accu_init: of_pair,
            loop_cond: bare(Expr::Literal(LiteralValue::Boolean(false.into()))),
            loop_step: bare(Expr::Ident(name.to_owned())),
            result: mem::take(part),
        })));
    }
}

/// The keys of a map in their order, as which maps are walked here; `None` for what is no map.
pub(super) fn keys<'v>(value: &(dyn Val + 'v)) -> Option<Vec<CelMapKey<'v>>> {
    let map = value.downcast_ref::<CelMap<'_>>()?;
    let mut keys: Vec<CelMapKey<'static>> = map.inner().keys().map(|key| key.clone().into_static()).collect();
    keys.sort();
    Some(keys)
}

fn pairs<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let range = args[0].as_ref();
    let pair = |first: Box<dyn Val + 'v>, second: Box<dyn Val + 'v>| {
        Box::new(CelList::from(vec![first, second])) as Box<dyn Val + 'v>
    };
    let found: Vec<Box<dyn Val + 'v>> = match keys(range) {
        Some(keys) => {
            let Some(map) = range.as_indexer() else { return fail(PAIRS, "no such overload") };
            let entry = |key: &CelMapKey<'v>| {
                Ok::<_, ExecutionError>(pair(key.inner().clone_as_boxed(), map.get(key.inner())?.into_owned()))
            };
            keys.iter().map(entry).collect::<Result<_, _>>()?
        }
        None if range.as_iterable().is_some() => {
            let index = |at: usize| Box::new(CelInt::from(i64::try_from(at).unwrap_or(i64::MAX)));
            elements(range).into_iter().enumerate().map(|(at, item)| pair(index(at), item)).collect()
        }
        None => {
            let got = range.get_type().name().to_owned();
            return Err(ExecutionError::UnexpectedType { got, want: "iterable".into() });
        }
    };
    Ok(CowVal::owned(CelList::from(found)))
}

/// One map of several.
fn merged<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    #[expect(clippy::disallowed_types, reason = "what CelMap is made of")]
    let mut all = std::collections::HashMap::new();
    for part in elements(args[0].as_ref()) {
        let (Some(keys), Some(map)) = (keys(part.as_ref()), part.as_indexer()) else {
            return fail(MERGED, "no such overload");
        };
        for key in keys {
            let value = map.get(key.inner())?.into_owned();
            let shown = match &key {
                CelMapKey::String(text) => text.inner().to_owned(),
                CelMapKey::Int(number) => number.inner().to_string(),
                CelMapKey::UInt(number) => number.inner().to_string(),
                CelMapKey::Bool(flag) => flag.inner().to_string(),
            };
            if all.insert(key, value).is_some() {
                return fail(MERGED, format!("insert failed: key {shown} already exists"));
            }
        }
    }
    Ok(CowVal::owned(CelMap::from(all)))
}

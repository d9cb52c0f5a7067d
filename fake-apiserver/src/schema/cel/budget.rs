//! What the evaluation of expressions may cost: each by itself, and all of one object or policy together.
//!
//! The interpreter counts nothing. So what an expression can repeat or let grow is wrapped in functions of ours, which take
//! from a budget and fail when it is spent: the range of each comprehension pays for all of its rounds before they begin, a
//! sum of texts or lists for its size, a replacement for the most that it may come to. That is close to what cel-go counts,
//! and never much less.
//!
//! Upstream: `apiserver/pkg/apis/cel/config.go`, `cel-go/interpreter/runtimecost.go`.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ::cel::{
    Context, Env, ExecutionError, Program, ResolveResult, Value as CelValue,
    common::{
        ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue},
        types::{CelInt, CelList, CelString, DYN_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
};

use super::{
    comprehensions,
    library::{Answer, Args, Registered},
    patches,
};
use crate::base::limits;

/// What cel-go says of a call that costs too much.
pub(super) const TOO_DEAR: &str = "operation cancelled: actual cost limit exceeded";

/// What upstream says where nothing is left for further expressions.
pub(super) const SPENT: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// Names that no expression can have.
const ROUNDS: &str = "@rounds";
const SIZE: &str = "@size";
const GROWTH: &str = "@growth";
const PRICE: &str = "@price";
const METER: &str = "@meter";

/// Steps that a question to the authorizer is worth.
const CHECK: i64 = 350_000;

/// How many levels of an expression cel-go goes down, at most.
const DEPTH: usize = 250;

/// Functions of what is counted.
pub(super) fn functions(env: &mut Env) -> Registered {
    env.add_overload(ROUNDS, ROUNDS, vec![DYN_TYPE, DYN_TYPE, DYN_TYPE], rounds)?;
    env.add_overload(SIZE, SIZE, vec![DYN_TYPE, DYN_TYPE], size)?;
    env.add_overload(PRICE, PRICE, vec![DYN_TYPE, DYN_TYPE, DYN_TYPE], price)?;
    env.add_overload(GROWTH, GROWTH, vec![DYN_TYPE, DYN_TYPE, DYN_TYPE], growth)
}

/// What is left, for all expressions of an object or policy.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicU64,
    /// What is left of the call that runs.
    call: Meter,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { left: AtomicU64::new(limits::RULES_RUN_COST), call: Meter(Arc::default()) }
    }

    /// Lets the expressions of a context take from this budget.
    pub(super) fn bind(&self, context: &mut Context<'_, '_>) {
        context.add_variable_as_val(METER, Box::new(self.call.clone()));
    }

    pub(super) fn is_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Nothing is run any more.
    pub(super) fn spend(&self) {
        self.left.store(0, Ordering::Relaxed);
    }

    /// Runs an expression; what it took is gone.
    fn metered<T>(&self, run: impl FnOnce() -> T) -> T {
        let before = self.left.load(Ordering::Relaxed).min(limits::RULE_RUN_COST);
        self.call.0.store(before, Ordering::Relaxed);
        let result = run();
        let used = before - self.call.0.load(Ordering::Relaxed);
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(used + 1), Ordering::Relaxed);
        result
    }
}

/// An expression that pays for itself.
#[derive(Debug)]
pub(super) struct Metered(IdedExpr);

impl Metered {
    /// # Errors
    /// cel-go's words for an expression that nests too deeply.
    pub(super) fn new(program: &Program) -> Result<Self, String> {
        if depth(program.expression()) > DEPTH {
            return Err("ERROR: <input>:-1:0: max recursion depth exceeded".into());
        }
        let mut expression = program.expression().clone();
        meter(&mut expression);
        Ok(Self(expression))
    }

    /// Evaluates it in a context that is bound to the budget.
    pub(super) fn run(&self, context: &Context<'_, '_>, budget: &Budget) -> ResolveResult {
        if budget.is_spent() {
            return Err(ExecutionError::function_error(METER, SPENT));
        }
        budget.metered(|| CelValue::resolve(&self.0, context))
    }

    /// As [`Self::run`], for a value that is kept.
    pub(super) fn run_kept(
        &self,
        context: &Context<'static, 'static>,
        budget: &Budget,
    ) -> Result<Arc<dyn Val>, ExecutionError> {
        if budget.is_spent() {
            return Err(ExecutionError::function_error(METER, SPENT));
        }
        budget
            .metered(|| CelValue::resolve_val(&self.0, context).map(|value| Arc::from(value.as_ref().clone_as_boxed())))
    }
}

/// The parts of an expression.
fn parts(expression: &mut Expr) -> Vec<&mut IdedExpr> {
    match expression {
        Expr::Call(call) => call.target.as_deref_mut().into_iter().chain(&mut call.args).collect(),
        Expr::Comprehension(it) => {
            vec![&mut it.iter_range, &mut it.accu_init, &mut it.loop_cond, &mut it.loop_step, &mut it.result]
        }
        Expr::List(list) => list.elements.iter_mut().collect(),
        Expr::Map(map) => map.entries.iter_mut().flat_map(|entry| entry_parts(&mut entry.expr)).collect(),
        Expr::Struct(it) => it.entries.iter_mut().flat_map(|entry| entry_parts(&mut entry.expr)).collect(),
        Expr::Select(select) => vec![&mut select.operand],
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
    }
}

fn entry_parts(entry: &mut EntryExpr) -> Vec<&mut IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&mut field.value],
        EntryExpr::MapEntry(entry) => vec![&mut entry.key, &mut entry.value],
    }
}

/// How deep an expression nests. Conditions that are joined by one operator stand beside each other.
fn depth(expression: &IdedExpr) -> usize {
    let mut deepest = 0;
    let joins = |expr: &Expr| match expr {
        Expr::Call(call) if ["_&&_", "_||_"].contains(&call.func_name.as_str()) => Some(call.func_name.clone()),
        _ => None,
    };
    // An own stack: what is too deep is found here.
    let mut left: Vec<(usize, Option<String>, Expr)> = vec![(1, None, expression.expr.clone())];
    while let Some((level, joined, mut part)) = left.pop() {
        let own = joins(&part);
        let level = if own.is_some() && own == joined { level - 1 } else { level };
        deepest = deepest.max(level);
        left.extend(parts(&mut part).into_iter().map(|part| (level + 1, own.clone(), std::mem::take(&mut part.expr))));
    }
    deepest
}

/// How many steps an expression takes once, without the rounds of the comprehensions in it. It is at least 1.
fn steps(expression: &mut IdedExpr) -> i64 {
    let inner: i64 = match &mut expression.expr {
        Expr::Comprehension(it) => steps(&mut it.iter_range),
        other => parts(other).into_iter().map(steps).sum(),
    };
    inner + 1
}

fn meter(expression: &mut IdedExpr) {
    comprehensions::lower(expression);
    patches::lower(expression);
    parts(&mut expression.expr).into_iter().for_each(meter);
    let own = match &mut expression.expr {
        Expr::Comprehension(it) => {
            let once = steps(&mut it.loop_step) + steps(&mut it.loop_cond);
            let range = std::mem::take(&mut it.iter_range);
            let once = IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::Int(CelInt::from(once))) };
            it.iter_range = call(ROUNDS, vec![range, once]);
            return;
        }
        // What a macro collects is paid for by its rounds; the interpreter knows this form, and does it in place.
        Expr::Call(sum) if matches!(sum.args.first(), Some(IdedExpr { expr: Expr::Ident(name), .. }) if name.starts_with('@')) => {
            false
        }
        Expr::Call(sum) if sum.func_name == "_+_" || sum.func_name == "join" => true,
        Expr::Call(replace) if replace.func_name == "replace" && replace.args.len() >= 2 => {
            if let Some(target) = &mut replace.target {
                let text = std::mem::take(&mut **target);
                **target = call(GROWTH, vec![text, replace.args[1].clone()]);
            }
            false
        }
        // Asking the authorizer has a price of its own (`cel/library/cost.go`): two questions an expression.
        Expr::Call(check) if check.func_name == "check" && check.target.is_some() => {
            let cost = IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::Int(CelInt::from(CHECK))) };
            let check = std::mem::take(expression);
            *expression = call(PRICE, vec![check, cost]);
            return;
        }
        _ => false,
    };
    if own {
        let sum = std::mem::take(expression);
        *expression = call(SIZE, vec![sum]);
    }
}

fn call(name: &str, mut args: Vec<IdedExpr>) -> IdedExpr {
    args.push(IdedExpr { id: 0, expr: Expr::Ident(METER.into()) });
    IdedExpr { id: 0, expr: Expr::Call(CallExpr { func_name: name.into(), target: None, args }) }
}

/// What is left of a call.
#[derive(Clone, Debug)]
struct Meter(Arc<AtomicU64>);

static METER_TYPE: Type = Type::new_unspecified_type("meter");

impl Val for Meter {
    fn get_type(&self) -> &Type {
        &METER_TYPE
    }

    fn cel_type() -> &'static Type {
        &METER_TYPE
    }

    fn equals(&self, _: &dyn Val) -> bool {
        false
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Meter {}

/// Takes from the meter, which is the last of the arguments.
fn take(args: &mut Args<'_, '_>, cost: u64) -> Result<(), ExecutionError> {
    let meter = args.pop();
    let Some(Meter(left)) = meter.as_ref().and_then(|meter| meter.as_ref().downcast_ref::<Meter>()) else {
        return Ok(()); // nobody but `call` writes these calls
    };
    let now = left.load(Ordering::Relaxed);
    if cost > now {
        left.store(0, Ordering::Relaxed);
        return Err(ExecutionError::function_error(METER, TOO_DEAR));
    }
    left.store(now - cost, Ordering::Relaxed);
    Ok(())
}

/// Bytes of a text, items of a list.
fn length(value: &dyn Val) -> u64 {
    if let Some(text) = value.downcast_ref::<CelString<'_>>() {
        return text.inner().len() as u64;
    }
    let mut count = 0;
    if let Some(list) = value.as_iterable() {
        let mut items = list.iter();
        while items.next().is_some() {
            count += 1;
        }
    }
    count
}

fn first<'b, 'v>(mut args: Args<'b, 'v>) -> Answer<'b, 'v> {
    Ok(args.swap_remove(0))
}

fn rounds<'b, 'v>(mut args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let once = args[1].as_ref().downcast_ref::<CelInt>().map_or(1, |once| *once.inner());
    let cost = length(args[0].as_ref()).saturating_mul(once.unsigned_abs());
    take(&mut args, cost)?;
    // A map's keys come in their order, so that what is made of them is the same each time.
    match comprehensions::keys(args[0].as_ref()) {
        Some(keys) => {
            let keys: Vec<Box<dyn Val + 'v>> = keys.iter().map(|key| key.inner().clone_as_boxed()).collect();
            Ok(CowVal::owned(CelList::from(keys)))
        }
        None => first(args),
    }
}

fn price<'b, 'v>(mut args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let cost = args[1].as_ref().downcast_ref::<CelInt>().map_or(1, |cost| cost.inner().unsigned_abs());
    take(&mut args, cost)?;
    first(args)
}

fn size<'b, 'v>(mut args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let cost = length(args[0].as_ref()) / 10;
    take(&mut args, cost)?;
    first(args)
}

/// A text in which each letter may become another text.
fn growth<'b, 'v>(mut args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let cost = length(args[0].as_ref()).saturating_mul(length(args[1].as_ref()).max(1)) / 10;
    take(&mut args, cost)?;
    first(args)
}

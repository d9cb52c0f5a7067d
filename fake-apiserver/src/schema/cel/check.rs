//! Checking the types of a rule before it runs: unknown members, functions and overloads.
//!
//! Small beside cel-go's checker: what it does not know it takes for `dyn`, and lets pass.

use std::{collections::BTreeMap, fmt, sync::Arc};

use ::cel::{
    ParseErrors, Program,
    common::{
        ast::{EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, StructExpr, operators},
        types::CelString,
        value::CowVal,
    },
};

use self::signatures::{GLOBAL, MEMBER, Signature, kind_of};
use super::{
    super::{Node, Type},
    comprehensions::MAP_INSERT,
    patches, values,
};

mod signatures;

/// The type of an expression.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Timestamp,
    Duration,
    Type,
    List(Box<Kind>),
    /// Of keys and values.
    Map(Box<(Kind, Kind)>),
    Object(Arc<Node>),
    /// A type with a name and members that no schema tells of.
    Struct(&'static str, Arc<BTreeMap<String, Kind>>),
    Optional(Box<Kind>),
    Own(&'static str),
    /// What an expression of a mutation makes: `Object`, `Object.spec`, …, or `JSONPatch`.
    Made(Arc<str>),
}

impl Kind {
    /// A map of these values, by texts.
    pub(super) fn texts_to(items: Self) -> Self {
        Self::Map(Box::new((Self::Text, items)))
    }

    pub(super) fn may_be_bool(&self) -> bool {
        matches!(self, Self::Bool | Self::Dyn)
    }

    pub(super) fn may_be_string(&self) -> bool {
        matches!(self, Self::Text | Self::Dyn)
    }

    fn of(node: &Arc<Node>) -> Self {
        if node.int_or_string || !values::is_visible(node) {
            return Self::Dyn;
        }
        match node.kind {
            Some(Type::String) => match node.format.as_str() {
                "byte" => Self::Bytes,
                "date" | "date-time" => Self::Timestamp,
                "duration" => Self::Duration,
                _ => Self::Text,
            },
            Some(Type::Integer) => Self::Int,
            Some(Type::Number) => Self::Double,
            Some(Type::Boolean) => Self::Bool,
            Some(Type::Array) => Self::List(Box::new(node.items.as_ref().map_or(Self::Dyn, Self::of))),
            Some(Type::Object) => match &node.additional {
                Some(child) => Self::texts_to(Self::of(child)),
                None => Self::Object(Arc::clone(node)),
            },
            None => Self::Dyn,
        }
    }

    /// Whether a value of this kind can stand where the other is wanted.
    fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dyn, _) | (_, Self::Dyn) => true,
            (Self::List(a), Self::List(b)) | (Self::Optional(a), Self::Optional(b)) => a.fits(b),
            (Self::Map(a), Self::Map(b)) => a.0.fits(&b.0) && a.1.fits(&b.1),
            (Self::Own(a), Self::Own(b)) => a == b,
            (Self::Made(a), Self::Made(b)) => a == b,
            // null goes with what may be absent
            (Self::Null, other) | (other, Self::Null) => {
                matches!(
                    other,
                    Self::Null
                        | Self::Object(_)
                        | Self::Struct(..)
                        | Self::Timestamp
                        | Self::Duration
                        | Self::Own(_)
                        | Self::Made(_)
                )
            }
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double)
    }

    /// The more telling one of two that fit.
    fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Dyn, other) => other,
            (Self::List(a), Self::List(b)) => Self::List(Box::new(a.join(*b))),
            (Self::Map(a), Self::Map(b)) => Self::Map(Box::new((a.0.join(b.0), a.1.join(b.1)))),
            (this, _) => this,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::Text => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::Type => f.write_str("type(dyn)"),
            Self::List(items) => write!(f, "list({items})"),
            Self::Map(items) => write!(f, "map({}, {})", items.0, items.1),
            Self::Object(_) => f.write_str("object"),
            Self::Optional(inner) => write!(f, "optional_type({inner})"),
            Self::Own(name) | Self::Struct(name, _) => f.write_str(name),
            Self::Made(name) => f.write_str(name),
        }
    }
}

/// What cel-go says of a rule that does not parse.
pub(super) fn syntax_error(source: &str, errors: &ParseErrors) -> String {
    if errors.errors.iter().any(|error| error.msg.contains("Recursion limit of")) {
        return "ERROR: <input>:-1:0: expression recursion limit exceeded: 250".into();
    }
    let texts = errors.errors.iter().map(|error| {
        let (line, column) = error.pos;
        let column = usize::try_from(column).unwrap_or_default().max(1);
        show(source, usize::try_from(line).unwrap_or_default().max(1), column, &error.msg)
    });
    texts.collect::<Vec<_>>().join("\n")
}

fn show(source: &str, line: usize, column: usize, text: &str) -> String {
    let snippet = source.lines().nth(line - 1).unwrap_or_default();
    // what is wide in the text is wide below it
    let mark = |c: Option<char>, narrow, wide| if c.is_some_and(|c| !c.is_ascii()) { wide } else { narrow };
    let mut shown = snippet.chars();
    let dots: String = (1..column).map(|_| mark(shown.next(), '.', '\u{ff0e}')).collect();
    let here = mark(shown.next(), '^', '\u{ff3e}');
    format!("ERROR: <input>:{line}:{column}: {text}\n | {snippet}\n | {dots}{here}")
}

/// What a check found.
#[derive(Debug)]
pub(super) struct Checked {
    /// What the rule evaluates to.
    pub(super) kind: Kind,
    /// The types of its parts, by their ids.
    pub(super) kinds: BTreeMap<u64, Kind>,
}

/// Checks a rule on values of a schema.
pub(super) fn check(program: &Program, source: &str, node: &Arc<Node>, optional_old: bool) -> Result<Checked, String> {
    let this = Kind::of(node);
    let old = if optional_old { Kind::Optional(Box::new(this.clone())) } else { this.clone() };
    check_names(program, source, vec![("self".to_owned(), this), ("oldSelf".to_owned(), old)])
}

/// Checks an expression in which these names are known.
pub(super) fn check_names(program: &Program, source: &str, scope: Vec<(String, Kind)>) -> Result<Checked, String> {
    check_scope(program, source, scope, false)
}

/// As [`check_names`]; `makes` where it may make what a mutation is made of.
pub(super) fn check_scope(
    program: &Program,
    source: &str,
    scope: Vec<(String, Kind)>,
    makes: bool,
) -> Result<Checked, String> {
    let mut checker = Checker {
        program,
        source,
        scope,
        errors: Vec::new(),
        kinds: BTreeMap::new(),
        literals: Vec::new(),
        formats: 0,
        makes,
    };
    let kind = checker.kind(program.expression());
    if checker.errors.is_empty() {
        for (id, text) in std::mem::take(&mut checker.literals) {
            checker.fail(id, &text);
        }
    }
    if checker.errors.is_empty() {
        return Ok(Checked { kind, kinds: checker.kinds });
    }
    checker.errors.sort();
    Err(checker.errors.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("\n"))
}

struct Checker<'a> {
    program: &'a Program,
    source: &'a str,
    scope: Vec<(String, Kind)>,
    /// By offset.
    errors: Vec<(u32, String)>,
    kinds: BTreeMap<u64, Kind>,
    /// What is wrong with literals, which counts where nothing else is wrong.
    literals: Vec<(u64, String)>,
    /// Calls of `format` around this place.
    formats: usize,
    /// Whether objects and patches may be made.
    makes: bool,
}

impl Checker<'_> {
    fn fail(&mut self, id: u64, text: &str) -> Kind {
        let offset = self.program.source_info().offset_for(id).map_or(0, |(start, _)| start);
        let before: String = self.source.chars().take(offset as usize).collect();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        self.errors.push((offset, show(self.source, line, column, text)));
        Kind::Dyn
    }

    fn kind(&mut self, expression: &IdedExpr) -> Kind {
        let kind = self.kind_of(expression);
        self.kinds.insert(expression.id, kind.clone());
        kind
    }

    fn kind_of(&mut self, expression: &IdedExpr) -> Kind {
        let id = expression.id;
        match &expression.expr {
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => Kind::Bool,
                LiteralValue::Bytes(_) => Kind::Bytes,
                LiteralValue::Double(_) => Kind::Double,
                LiteralValue::Int(_) => Kind::Int,
                LiteralValue::Null => Kind::Null,
                LiteralValue::String(_) => Kind::Text,
                LiteralValue::UInt(_) => Kind::Uint,
            },
            Expr::Ident(name) => self.ident(id, name),
            Expr::List(list) => {
                let mut items = None;
                for element in &list.elements {
                    items = Some(self.same_kind(items, element));
                }
                Kind::List(Box::new(items.unwrap_or(Kind::Dyn)))
            }
            Expr::Map(map) => {
                let (mut keys, mut items) = (None, None);
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        keys = Some(self.same_kind(keys, &entry.key));
                        items = Some(self.same_kind(items, &entry.value));
                    }
                }
                Kind::Map(Box::new((keys.unwrap_or(Kind::Dyn), items.unwrap_or(Kind::Dyn))))
            }
            Expr::Select(select) => {
                if let Some(kind) = self.qualified(select) {
                    return kind;
                }
                let operand = self.kind(&select.operand);
                let member = self.member(id, &operand, &select.field);
                if select.test { Kind::Bool } else { member }
            }
            Expr::Comprehension(loops) => {
                let range = self.kind(&loops.iter_range);
                let item = match &range {
                    Kind::List(items) => (**items).clone(),
                    Kind::Map(items) => items.0.clone(),
                    Kind::Dyn => Kind::Dyn,
                    other => {
                        let text = format!(
                            "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                        );
                        self.fail(loops.iter_range.id, &text)
                    }
                };
                let start = self.kind(&loops.accu_init);
                let depth = self.scope.len();
                self.scope.push((loops.accu_var.clone(), start));
                match &loops.iter_var2 {
                    Some(second) => {
                        let (first_kind, second_kind) = match &range {
                            Kind::List(items) => (Kind::Int, (**items).clone()),
                            Kind::Map(items) => (**items).clone(),
                            _ => (Kind::Dyn, Kind::Dyn),
                        };
                        self.scope.push((loops.iter_var.clone(), first_kind));
                        self.scope.push((second.clone(), second_kind));
                    }
                    None => self.scope.push((loops.iter_var.clone(), item)),
                }
                self.kind(&loops.loop_cond);
                let step = self.kind(&loops.loop_step);
                self.scope.truncate(depth);
                self.scope.push((loops.accu_var.clone(), step));
                let result = self.kind(&loops.result);
                self.scope.truncate(depth);
                result
            }
            Expr::Call(call) => match &call.target {
                Some(target) => self.method(id, &call.func_name, target, &call.args),
                None => self.function(id, &call.func_name, &call.args),
            },
            Expr::Struct(made) => self.made(id, made),
            Expr::Unspecified => Kind::Dyn,
        }
    }

    /// A name with a dot in it that stands for a variable (`authorizer.requestResource`).
    fn qualified(&self, select: &SelectExpr) -> Option<Kind> {
        let Expr::Ident(first) = &select.operand.expr else { return None };
        let name = format!("{first}.{}", select.field);
        self.scope.iter().rev().find(|(known, _)| *known == name).map(|(_, kind)| kind.clone())
    }

    fn made(&mut self, id: u64, made: &StructExpr) -> Kind {
        let fields: Vec<_> = made
            .entries
            .iter()
            .filter_map(|entry| match &entry.expr {
                EntryExpr::StructField(field) => Some((entry.id, field)),
                EntryExpr::MapEntry(_) => None,
            })
            .collect();
        let known = self.makes && patches::is_type(&made.type_name);
        for (id, field) in fields {
            let kind = self.kind(&field.value);
            match patches::member(&made.type_name, &field.field).filter(|_| known) {
                None if known => drop(self.fail(id, &format!("undefined field '{}'", field.field))),
                Some(wanted) if !wanted.fits(&kind) => {
                    let text =
                        format!("expected type of field '{}' is '{wanted}' but provided type is '{kind}'", field.field);
                    self.fail(id, &text);
                }
                Some(_) | None => {}
            }
        }
        if !known {
            return self.fail(id, &format!("undeclared reference to '{}' (in container '')", made.type_name));
        }
        Kind::Made(made.type_name.as_str().into())
    }

    /// The kind of a literal's next part, which has to be that of those before it.
    fn same_kind(&mut self, before: Option<Kind>, part: &IdedExpr) -> Kind {
        let kind = self.kind(part);
        match before {
            None => kind,
            Some(before) if before.fits(&kind) => before.join(kind),
            Some(before) => {
                if self.formats == 0 {
                    self.literals.push((part.id, format!("expected type '{before}' but found '{kind}'")));
                }
                Kind::Dyn
            }
        }
    }

    /// Texts that a function reads at run time are read before, where they stand there literally.
    fn literal(&mut self, name: &str, arg: Option<&IdedExpr>) {
        let Some(IdedExpr { id, expr: Expr::Literal(LiteralValue::String(text)) }) = arg else { return };
        let reads = match name {
            "matches" => regex::Regex::new(text.inner()).is_ok(),
            "duration" | "timestamp" => {
                let arguments = vec![CowVal::owned(CelString::from(text.inner().to_owned()))];
                let convert = super::ENV.find_overload(name, &arguments);
                convert.is_none_or(|convert| convert(arguments).is_ok())
            }
            _ => true,
        };
        if !reads {
            self.literals.push((*id, format!("invalid {name} argument")));
        }
    }

    fn ident(&mut self, id: u64, name: &str) -> Kind {
        const TYPES: [&str; 13] = [
            "int",
            "uint",
            "double",
            "bool",
            "string",
            "bytes",
            "list",
            "map",
            "null_type",
            "type",
            "dyn",
            "google.protobuf.Timestamp",
            "google.protobuf.Duration",
        ];
        if let Some((_, kind)) = self.scope.iter().rev().find(|(known, _)| known == name) {
            return kind.clone();
        }
        if TYPES.contains(&name) || name.starts_with('@') || name.starts_with('#') {
            return if TYPES.contains(&name) { Kind::Type } else { Kind::Dyn };
        }
        self.fail(id, &format!("undeclared reference to '{name}' (in container '')"))
    }

    fn member(&mut self, id: u64, operand: &Kind, name: &str) -> Kind {
        match operand {
            Kind::Object(node) => {
                let mut members = node.properties.iter();
                let found = members
                    .find(|(key, child)| values::escape(key).as_deref() == Some(name) && values::is_visible(child));
                match found {
                    Some((_, child)) => Kind::of(child),
                    None => self.fail(id, &format!("undefined field '{name}'")),
                }
            }
            Kind::Struct(_, members) => match members.get(name) {
                Some(kind) => kind.clone(),
                None => self.fail(id, &format!("undefined field '{name}'")),
            },
            Kind::Map(items) => items.1.clone(),
            Kind::Made(kind) => match patches::member(kind, name) {
                Some(kind) => kind,
                None => self.fail(id, &format!("undefined field '{name}'")),
            },
            Kind::Optional(inner) => Kind::Optional(Box::new(self.member(id, inner, name))),
            Kind::Dyn => Kind::Dyn,
            // addresses are opaque to cel-go; the others are objects, whose fields it looks up in vain
            Kind::Own(name) if !name.starts_with("net.") => {
                self.fail(id, &format!("unexpected failed resolution of '{name}'"))
            }
            other => self.fail(id, &format!("type '{other}' does not support field selection")),
        }
    }

    fn method(&mut self, id: u64, name: &str, target: &IdedExpr, args: &[IdedExpr]) -> Kind {
        if let Expr::Ident(namespace) = &target.expr {
            let full = format!("{namespace}.{name}");
            let patches = full == patches::ESCAPE && !self.makes;
            if !patches && GLOBAL.iter().any(|(known, ..)| *known == full) {
                let kinds: Vec<Kind> = args.iter().map(|arg| self.kind(arg)).collect();
                return self.overload(id, &full, GLOBAL, &kinds, false);
            }
        }
        let mut kinds = vec![self.kind(target)];
        // What a text is made of may be mixed.
        let mixes = usize::from(name == "format");
        self.formats += mixes;
        kinds.extend(args.iter().map(|arg| self.kind(arg)));
        self.formats -= mixes;
        self.literal(name, args.first());
        self.overload(id, name, MEMBER, &kinds, true)
    }

    fn function(&mut self, id: u64, name: &str, args: &[IdedExpr]) -> Kind {
        let mut kinds: Vec<Kind> = args.iter().map(|arg| self.kind(arg)).collect();
        match (name, kinds.as_mut_slice()) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, _) => {
                for (arg, kind) in args.iter().zip(&kinds) {
                    if !kind.may_be_bool() {
                        self.fail(arg.id, &format!("expected type 'bool' but found '{kind}'"));
                    }
                }
                Kind::Bool
            }
            (operators::LOGICAL_NOT, [_]) => {
                if kinds.iter().all(Kind::may_be_bool) {
                    Kind::Bool
                } else {
                    self.no_overload(id, name, &kinds, false)
                }
            }
            (operators::NOT_STRICTLY_FALSE, _) => Kind::Bool,
            (operators::CONDITIONAL, [condition, then, otherwise]) => {
                if condition.may_be_bool() && then.fits(otherwise) {
                    then.clone().join(otherwise.clone())
                } else {
                    self.no_overload(id, name, &kinds, false)
                }
            }
            (operators::EQUALS | operators::NOT_EQUALS, [a, b]) => {
                if a.fits(b) {
                    Kind::Bool
                } else {
                    self.no_overload(id, name, &kinds, false)
                }
            }
            (operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS, [a, b]) => {
                let ordered = |kind: &Kind| {
                    kind.is_number()
                        || matches!(
                            kind,
                            Kind::Dyn | Kind::Bool | Kind::Text | Kind::Bytes | Kind::Timestamp | Kind::Duration
                        )
                };
                let comparable = a.fits(b) || (a.is_number() && b.is_number());
                if comparable && ordered(a) && ordered(b) {
                    Kind::Bool
                } else {
                    self.no_overload(id, name, &kinds, false)
                }
            }
            (operators::ADD | operators::SUBSTRACT, [a, b]) => match (&*a, &*b) {
                (Kind::Timestamp, Kind::Timestamp) if name == operators::SUBSTRACT => Kind::Duration,
                (Kind::Timestamp, Kind::Duration) => Kind::Timestamp,
                (Kind::Duration, Kind::Timestamp) if name == operators::ADD => Kind::Timestamp,
                (Kind::Duration, Kind::Duration) => Kind::Duration,
                (Kind::Text | Kind::Bytes | Kind::List(_), _) | (_, Kind::Text | Kind::Bytes | Kind::List(_))
                    if name == operators::ADD && a.fits(b) =>
                {
                    a.clone().join(b.clone())
                }
                _ => self.arithmetic(id, name, &kinds),
            },
            (operators::MULTIPLY | operators::DIVIDE | operators::MODULO, [_, _]) | (operators::NEGATE, [_]) => {
                self.arithmetic(id, name, &kinds)
            }
            (operators::IN, [item, list]) => match list {
                Kind::List(items) if !items.fits(item) => self.no_overload(id, name, &kinds, false),
                Kind::Map(items) if !items.0.fits(item) => self.no_overload(id, name, &kinds, false),
                Kind::List(_) | Kind::Map(_) | Kind::Dyn => Kind::Bool,
                _ => self.no_overload(id, name, &kinds, false),
            },
            (operators::INDEX | operators::OPT_INDEX, [list, index]) => {
                let item = match (&*list, &*index) {
                    (Kind::List(items), Kind::Int | Kind::Uint | Kind::Dyn) => (**items).clone(),
                    (Kind::Map(items), key) if items.0.fits(key) => items.1.clone(),
                    (Kind::Dyn | Kind::Optional(_), _) => Kind::Dyn,
                    _ => return self.no_overload(id, name, &kinds, false),
                };
                if name == operators::OPT_INDEX { Kind::Optional(Box::new(item)) } else { item }
            }
            (operators::OPT_SELECT, [operand, _]) => {
                let field = match args.get(1).map(|arg| &arg.expr) {
                    Some(Expr::Literal(LiteralValue::String(field))) => field.inner().to_owned(),
                    _ => return Kind::Dyn,
                };
                let operand = operand.clone();
                match self.member(id, &operand, &field) {
                    optional @ Kind::Optional(_) => optional,
                    other => Kind::Optional(Box::new(other)),
                }
            }
            (MAP_INSERT, [_, key, item]) => Kind::Map(Box::new((key.clone(), item.clone()))),
            (MAP_INSERT, [before, entry]) => {
                let entry = entry.clone();
                if before.fits(&entry) { before.clone().join(entry) } else { self.no_overload(id, name, &kinds, false) }
            }
            _ if name.starts_with('@') => Kind::Dyn,
            _ => {
                self.literal(name, if name == "matches" { args.get(1) } else { args.first() });
                self.overload(id, name, GLOBAL, &kinds, false)
            }
        }
    }

    fn arithmetic(&mut self, id: u64, name: &str, kinds: &[Kind]) -> Kind {
        let same = kinds.windows(2).all(|pair| pair[0].fits(&pair[1]));
        let numbers = kinds.iter().all(|kind| kind.is_number() || matches!(kind, Kind::Dyn));
        let has_remainder = name != operators::MODULO || !kinds.iter().any(|kind| matches!(kind, Kind::Double));
        if same && numbers && has_remainder {
            return kinds.iter().cloned().reduce(Kind::join).unwrap_or(Kind::Dyn);
        }
        self.no_overload(id, name, kinds, false)
    }

    fn overload(&mut self, id: u64, name: &str, table: &[Signature], kinds: &[Kind], member: bool) -> Kind {
        let mut known = table.iter().filter(|(known, ..)| *known == name).peekable();
        if known.peek().is_none() {
            return self.fail(id, &format!("undeclared reference to '{name}' (in container '')"));
        }
        let fits = |signature: &&Signature| {
            signature.1.chars().count() == kinds.len()
                && signature
                    .1
                    .chars()
                    .zip(kinds)
                    .all(|(letter, kind)| letter == '*' || kind.fits(&kind_of(letter, None)))
        };
        let fitting: Vec<&Signature> = known.filter(fits).collect();
        match fitting.as_slice() {
            [] => self.no_overload(id, name, kinds, member),
            [one] => kind_of(one.2, kinds.first()),
            [one, rest @ ..] if rest.iter().all(|other| other.2 == one.2) => kind_of(one.2, kinds.first()),
            _ => Kind::Dyn,
        }
    }

    fn no_overload(&mut self, id: u64, name: &str, kinds: &[Kind], member: bool) -> Kind {
        let list = |kinds: &[Kind]| kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let applied = match kinds {
            [receiver, args @ ..] if member => format!("{receiver}.({})", list(args)),
            kinds => format!("({})", list(kinds)),
        };
        self.fail(id, &format!("found no matching overload for '{name}' applied to '{applied}'"))
    }
}

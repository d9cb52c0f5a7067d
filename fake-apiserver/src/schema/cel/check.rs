//! Checking the types of a rule before it runs: unknown members, functions and overloads.
//!
//! Small beside cel-go's checker: what it does not know it takes for `dyn`, and lets pass.

use std::{collections::BTreeMap, fmt, sync::Arc};

use ::cel::{
    ParseErrors, Program,
    common::{
        ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators},
        types::CelString,
        value::CowVal,
    },
};

use super::{
    super::{Node, Type},
    values,
};

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
    Map(Box<Kind>),
    Object(Arc<Node>),
    /// A type with a name and members that no schema tells of.
    Struct(&'static str, Arc<BTreeMap<String, Kind>>),
    Optional(Box<Kind>),
    Own(&'static str),
}

impl Kind {
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
                Some(child) => Self::Map(Box::new(Self::of(child))),
                None => Self::Object(Arc::clone(node)),
            },
            None => Self::Dyn,
        }
    }

    /// Whether a value of this kind can stand where the other is wanted.
    fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dyn, _) | (_, Self::Dyn) => true,
            (Self::List(a), Self::List(b)) | (Self::Map(a), Self::Map(b)) | (Self::Optional(a), Self::Optional(b)) => {
                a.fits(b)
            }
            (Self::Own(a), Self::Own(b)) => a == b,
            // null goes with what may be absent
            (Self::Null, other) | (other, Self::Null) => {
                matches!(
                    other,
                    Self::Null | Self::Object(_) | Self::Struct(..) | Self::Timestamp | Self::Duration | Self::Own(_)
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
            (Self::Map(a), Self::Map(b)) => Self::Map(Box::new(a.join(*b))),
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
            Self::Timestamp => f.write_str("google.protobuf.Timestamp"),
            Self::Duration => f.write_str("google.protobuf.Duration"),
            Self::Type => f.write_str("type(dyn)"),
            Self::List(items) => write!(f, "list({items})"),
            Self::Map(items) => write!(f, "map(string, {items})"),
            Self::Object(_) => f.write_str("object"),
            Self::Optional(inner) => write!(f, "optional_type({inner})"),
            Self::Own(name) | Self::Struct(name, _) => f.write_str(name),
        }
    }
}

/// A type in a signature: `s` text, `i` int, `d` double, `b` bool, `x` bytes, `t` timestamp, `u` duration, `y` type,
/// `l` list, `L` list of texts, `I` list of ints, `m` map, `o` optional, `*` any, `e` what the list or optional holds,
/// `=` the same as the receiver, `R` url, `P` ip, `C` cidr, `Q` quantity, `V` semver, `F` format,
/// `N` optional format, `O` optional list of texts.
type Signature = (&'static str, &'static str, char);

/// Functions: name, arguments, result.
const GLOBAL: &[Signature] = &[
    ("size", "s", 'i'),
    ("size", "x", 'i'),
    ("size", "l", 'i'),
    ("size", "m", 'i'),
    ("string", "s", 's'),
    ("string", "i", 's'),
    ("string", "d", 's'),
    ("string", "b", 's'),
    ("string", "x", 's'),
    ("string", "t", 's'),
    ("string", "u", 's'),
    ("string", "P", 's'),
    ("string", "C", 's'),
    ("string", "n", 's'),
    ("int", "i", 'i'),
    ("int", "d", 'i'),
    ("int", "s", 'i'),
    ("int", "t", 'i'),
    ("int", "n", 'i'),
    ("uint", "i", 'n'),
    ("uint", "d", 'n'),
    ("uint", "s", 'n'),
    ("uint", "n", 'n'),
    ("double", "d", 'd'),
    ("double", "i", 'd'),
    ("double", "s", 'd'),
    ("double", "n", 'd'),
    ("bool", "b", 'b'),
    ("bool", "s", 'b'),
    ("bytes", "x", 'x'),
    ("bytes", "s", 'x'),
    ("duration", "s", 'u'),
    ("duration", "u", 'u'),
    ("timestamp", "s", 't'),
    ("timestamp", "t", 't'),
    ("timestamp", "i", 't'),
    ("type", "*", 'y'),
    ("dyn", "*", '*'),
    ("matches", "ss", 'b'),
    ("isURL", "s", 'b'),
    ("url", "s", 'R'),
    ("isIP", "s", 'b'),
    ("ip", "s", 'P'),
    ("ip.isCanonical", "s", 'b'),
    ("isCIDR", "s", 'b'),
    ("cidr", "s", 'C'),
    ("isQuantity", "s", 'b'),
    ("quantity", "s", 'Q'),
    ("isSemver", "s", 'b'),
    ("isSemver", "sb", 'b'),
    ("semver", "s", 'V'),
    ("semver", "sb", 'V'),
    ("optional.of", "*", 'o'),
    ("optional.ofNonZeroValue", "*", 'o'),
    ("optional.none", "", 'o'),
    ("sets.contains", "ll", 'b'),
    ("sets.equivalent", "ll", 'b'),
    ("sets.intersects", "ll", 'b'),
    ("lists.range", "i", 'I'),
    ("format.named", "s", 'N'),
    ("format.dns1123Label", "", 'F'),
    ("format.dns1123Subdomain", "", 'F'),
    ("format.dns1035Label", "", 'F'),
    ("format.qualifiedName", "", 'F'),
    ("format.dns1123LabelPrefix", "", 'F'),
    ("format.dns1123SubdomainPrefix", "", 'F'),
    ("format.dns1035LabelPrefix", "", 'F'),
    ("format.labelValue", "", 'F'),
    ("format.uri", "", 'F'),
    ("format.uuid", "", 'F'),
    ("format.byte", "", 'F'),
    ("format.date", "", 'F'),
    ("format.datetime", "", 'F'),
    ("strings.quote", "s", 's'),
];

/// Methods: name, receiver and arguments, result.
const MEMBER: &[Signature] = &[
    ("size", "s", 'i'),
    ("size", "x", 'i'),
    ("size", "l", 'i'),
    ("size", "m", 'i'),
    ("contains", "ss", 'b'),
    ("startsWith", "ss", 'b'),
    ("endsWith", "ss", 'b'),
    ("matches", "ss", 'b'),
    ("charAt", "si", 's'),
    ("indexOf", "ss", 'i'),
    ("indexOf", "ssi", 'i'),
    ("indexOf", "l*", 'i'),
    ("lastIndexOf", "ss", 'i'),
    ("lastIndexOf", "ssi", 'i'),
    ("lastIndexOf", "l*", 'i'),
    ("lowerAscii", "s", 's'),
    ("upperAscii", "s", 's'),
    ("replace", "sss", 's'),
    ("replace", "sssi", 's'),
    ("split", "ss", 'L'),
    ("split", "ssi", 'L'),
    ("substring", "si", 's'),
    ("substring", "sii", 's'),
    ("trim", "s", 's'),
    ("join", "l", 's'),
    ("join", "ls", 's'),
    ("format", "sl", 's'),
    ("find", "ss", 's'),
    ("findAll", "ss", 'L'),
    ("findAll", "ssi", 'L'),
    ("isSorted", "l", 'b'),
    ("min", "l", 'e'),
    ("max", "l", 'e'),
    ("sum", "l", 'e'),
    ("slice", "lii", '='),
    ("flatten", "l", '*'),
    ("flatten", "li", '*'),
    ("distinct", "l", '='),
    ("reverse", "l", '='),
    ("sort", "l", '='),
    ("@sortByAssociatedKeys", "ll", '='),
    ("getFullYear", "t", 'i'),
    ("getFullYear", "ts", 'i'),
    ("getMonth", "t", 'i'),
    ("getMonth", "ts", 'i'),
    ("getDate", "t", 'i'),
    ("getDate", "ts", 'i'),
    ("getDayOfMonth", "t", 'i'),
    ("getDayOfMonth", "ts", 'i'),
    ("getDayOfWeek", "t", 'i'),
    ("getDayOfWeek", "ts", 'i'),
    ("getDayOfYear", "t", 'i'),
    ("getDayOfYear", "ts", 'i'),
    ("getHours", "t", 'i'),
    ("getHours", "ts", 'i'),
    ("getHours", "u", 'i'),
    ("getMinutes", "t", 'i'),
    ("getMinutes", "ts", 'i'),
    ("getMinutes", "u", 'i'),
    ("getSeconds", "t", 'i'),
    ("getSeconds", "ts", 'i'),
    ("getSeconds", "u", 'i'),
    ("getMilliseconds", "t", 'i'),
    ("getMilliseconds", "ts", 'i'),
    ("getMilliseconds", "u", 'i'),
    ("value", "o", 'e'),
    ("hasValue", "o", 'b'),
    ("orValue", "o*", 'e'),
    ("or", "oo", '='),
    ("getScheme", "R", 's'),
    ("getHost", "R", 's'),
    ("getHostname", "R", 's'),
    ("getPort", "R", 's'),
    ("getEscapedPath", "R", 's'),
    ("getQuery", "R", 'm'),
    ("family", "P", 'i'),
    ("isUnspecified", "P", 'b'),
    ("isLoopback", "P", 'b'),
    ("isLinkLocalMulticast", "P", 'b'),
    ("isLinkLocalUnicast", "P", 'b'),
    ("isGlobalUnicast", "P", 'b'),
    ("containsIP", "CP", 'b'),
    ("containsIP", "Cs", 'b'),
    ("containsCIDR", "CC", 'b'),
    ("containsCIDR", "Cs", 'b'),
    ("ip", "C", 'P'),
    ("masked", "C", 'C'),
    ("prefixLength", "C", 'i'),
    ("isInteger", "Q", 'b'),
    ("asInteger", "Q", 'i'),
    ("sign", "Q", 'i'),
    ("add", "QQ", 'Q'),
    ("add", "Qi", 'Q'),
    ("sub", "QQ", 'Q'),
    ("sub", "Qi", 'Q'),
    ("isLessThan", "QQ", 'b'),
    ("isGreaterThan", "QQ", 'b'),
    ("compareTo", "QQ", 'i'),
    ("isLessThan", "VV", 'b'),
    ("isGreaterThan", "VV", 'b'),
    ("compareTo", "VV", 'i'),
    ("validate", "Fs", 'O'),
    ("major", "V", 'i'),
    ("minor", "V", 'i'),
    ("patch", "V", 'i'),
    // What only admission policies have values for: rules know the names.
    ("path", "As", 'A'),
    ("group", "As", 'A'),
    ("serviceAccount", "Ass", 'A'),
    ("resource", "As", 'A'),
    ("subresource", "As", 'A'),
    ("namespace", "As", 'A'),
    ("name", "As", 'A'),
    ("check", "As", 'A'),
    ("fieldSelector", "As", 'A'),
    ("labelSelector", "As", 'A'),
    ("allowed", "A", 'b'),
    ("reason", "A", 's'),
    ("errored", "A", 'b'),
    ("error", "A", 's'),
];

const OWN: [(char, &str); 7] = [
    ('A', "kubernetes.authorization.Authorizer"),
    ('R', "kubernetes.URL"),
    ('P', "net.IP"),
    ('C', "net.CIDR"),
    ('Q', "kubernetes.Quantity"),
    ('V', "kubernetes.Semver"),
    ('F', "kubernetes.NamedFormat"),
];

fn kind_of(letter: char, receiver: Option<&Kind>) -> Kind {
    match letter {
        's' => Kind::Text,
        'i' => Kind::Int,
        'n' => Kind::Uint,
        'd' => Kind::Double,
        'b' => Kind::Bool,
        'x' => Kind::Bytes,
        't' => Kind::Timestamp,
        'u' => Kind::Duration,
        'y' => Kind::Type,
        'l' => Kind::List(Box::new(Kind::Dyn)),
        'L' => Kind::List(Box::new(Kind::Text)),
        'I' => Kind::List(Box::new(Kind::Int)),
        'N' => Kind::Optional(Box::new(Kind::Own("kubernetes.NamedFormat"))),
        'O' => Kind::Optional(Box::new(Kind::List(Box::new(Kind::Text)))),
        'm' => Kind::Map(Box::new(Kind::Dyn)),
        'o' => Kind::Optional(Box::new(receiver.cloned().unwrap_or(Kind::Dyn))),
        '=' => receiver.cloned().unwrap_or(Kind::Dyn),
        'e' => match receiver {
            Some(Kind::List(inner) | Kind::Optional(inner)) => (**inner).clone(),
            _ => Kind::Dyn,
        },
        other => OWN.iter().find(|(letter, _)| *letter == other).map_or(Kind::Dyn, |(_, name)| Kind::Own(name)),
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
    format!("ERROR: <input>:{line}:{column}: {text}\n | {snippet}\n | {}^", ".".repeat(column - 1))
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
    let mut checker = Checker {
        program,
        source,
        scope,
        errors: Vec::new(),
        kinds: BTreeMap::new(),
        literals: Vec::new(),
        formats: 0,
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
                Kind::Map(Box::new(items.unwrap_or(Kind::Dyn)))
            }
            Expr::Select(select) => {
                let operand = self.kind(&select.operand);
                let member = self.member(id, &operand, &select.field);
                if select.test { Kind::Bool } else { member }
            }
            Expr::Comprehension(loops) => {
                let range = self.kind(&loops.iter_range);
                let item = match &range {
                    Kind::List(items) => (**items).clone(),
                    Kind::Map(_) => Kind::Text,
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
                            Kind::Map(items) => (Kind::Text, (**items).clone()),
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
            Expr::Struct(_) | Expr::Unspecified => Kind::Dyn,
        }
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
            Kind::Map(items) => (**items).clone(),
            Kind::Optional(inner) => Kind::Optional(Box::new(self.member(id, inner, name))),
            Kind::Dyn => Kind::Dyn,
            other => self.fail(id, &format!("type '{other}' does not support field selection")),
        }
    }

    fn method(&mut self, id: u64, name: &str, target: &IdedExpr, args: &[IdedExpr]) -> Kind {
        if let Expr::Ident(namespace) = &target.expr {
            let full = format!("{namespace}.{name}");
            if GLOBAL.iter().any(|(known, ..)| *known == full) {
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
                Kind::List(_) | Kind::Map(_) | Kind::Dyn => Kind::Bool,
                _ => self.no_overload(id, name, &kinds, false),
            },
            (operators::INDEX | operators::OPT_INDEX, [list, index]) => {
                let item = match (&*list, &*index) {
                    (Kind::List(items), Kind::Int | Kind::Uint | Kind::Dyn)
                    | (Kind::Map(items), Kind::Text | Kind::Dyn) => (**items).clone(),
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
        if same && numbers {
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

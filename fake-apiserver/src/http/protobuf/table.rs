//! Which messages there are, read from a table.

use std::{collections::BTreeMap, sync::LazyLock};

/// A line for each kind (`@version kind message`), then one for each message and its members:
///
/// ```text
/// core.v1.Volume name=1:string! =2:^VolumeSource/VolumeSource
///                │    │ │     │      │           └ its name in Go, where that is not the JSON name with a capital
///                │    │ │     │      └ `^` for a struct whose members stand beside the others in JSON, `*` for a pointer,
///                │    │ │     │        `[]` and `{}` for a list and a map by text
///                │    │ │     └ `!` if Go writes it even when empty, `~` if an empty struct is left out
///                │    │ └ a scalar, or a message; one without dots is of the same package
///                │    └ number
///                └ name in JSON
/// ```
///
/// A program over the Go types made it: by reflection, it walks the struct tags `protobuf` and `json` from each kind of
/// `registry/builtin-resources.json` (and what its subresources take), with k8s.io/api, apimachinery,
/// apiextensions-apiserver and kube-aggregator v0.36.3.
const MESSAGES: &str = include_str!("messages.txt");

/// What a member's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    Bytes,
    /// A text in a message; Go reads and writes it as a quantity.
    Quantity,
    /// Seconds since 1970 in a message, RFC 3339 in JSON.
    Time,
    /// The same with microseconds.
    MicroTime,
    IntOrString,
    /// A text of JSON in a message.
    Json,
    /// Another message, by its place in the table.
    Message(usize),
}

/// How often a member's value stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Once; absent, it is the zero value.
    Value,
    /// Once or not at all.
    Pointer,
    /// Any number of times.
    List,
    /// Under a text.
    Map,
    /// Once; its members stand beside the others in JSON.
    Inline,
}

/// A member of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: i32,
    /// Its name in JSON; `""` for the items of a message that is a list in JSON.
    pub(super) name: &'static str,
    /// Its name in Go, as errors have it.
    pub(super) go_name: String,
    pub(super) kind: Type,
    pub(super) shape: Shape,
    /// Whether Go writes it even when empty.
    pub(super) always: bool,
    /// Whether Go leaves an empty struct out.
    pub(super) omit_zero: bool,
}

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    /// Its name in Go, as errors have it.
    pub(super) name: &'static str,
    pub(super) fields: Vec<Field>,
}

/// All messages.
pub(super) struct Table {
    pub(super) messages: Vec<Message>,
    kinds: BTreeMap<(&'static str, &'static str), usize>,
}

impl Table {
    /// The message of a kind.
    pub(super) fn find(&self, api_version: &str, kind: &str) -> Option<usize> {
        self.kinds.get(&(api_version, kind)).copied()
    }

    /// All kinds, as `version kind`.
    #[cfg(test)]
    pub(super) fn kinds(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.kinds.keys().copied()
    }
}

/// The table; it is read once for all clusters of a process.
pub(super) fn table() -> &'static Table {
    static TABLE: LazyLock<Table> = LazyLock::new(|| read().expect("the embedded table is well-formed"));
    &TABLE
}

fn read() -> Option<Table> {
    let lines = || MESSAGES.lines().filter(|line| !line.starts_with('@'));
    let id = |line: &'static str| line.split(' ').next().unwrap_or_default();
    let places: BTreeMap<&str, usize> = lines().enumerate().map(|(place, line)| (id(line), place)).collect();
    let mut kinds = BTreeMap::new();
    for line in MESSAGES.lines().filter_map(|line| line.strip_prefix('@')) {
        let mut words = line.split(' ');
        let key = (words.next()?, words.next()?);
        kinds.insert(key, *places.get(words.next()?)?);
    }
    let messages = lines().map(|line| {
        let (package, name) = id(line).rsplit_once('.')?;
        let fields = line.split(' ').skip(1).map(|text| field(text, package, &places)).collect::<Option<_>>()?;
        Some(Message { name, fields })
    });
    Some(Table { messages: messages.collect::<Option<_>>()?, kinds })
}

fn field(text: &'static str, package: &str, places: &BTreeMap<&str, usize>) -> Option<Field> {
    let (name, rest) = text.split_once('=')?;
    let (number, rest) = rest.split_once(':')?;
    let (rest, go_name) = rest.split_once('/').unwrap_or((rest, ""));
    let (rest, omit_zero) = rest.strip_suffix('~').map_or((rest, false), |rest| (rest, true));
    let (rest, always) = rest.strip_suffix('!').map_or((rest, false), |rest| (rest, true));
    let shapes = [("*", Shape::Pointer), ("[]", Shape::List), ("{}", Shape::Map), ("^", Shape::Inline)];
    let shaped = shapes.into_iter().find_map(|(prefix, shape)| Some((rest.strip_prefix(prefix)?, shape)));
    let (kind, shape) = shaped.unwrap_or((rest, Shape::Value));
    let kind = match kind {
        "string" => Type::String,
        "bool" => Type::Bool,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "double" => Type::Double,
        "bytes" => Type::Bytes,
        "quantity" => Type::Quantity,
        "time" => Type::Time,
        "microtime" => Type::MicroTime,
        "intorstring" => Type::IntOrString,
        "json" => Type::Json,
        message if message.contains('.') => Type::Message(*places.get(message)?),
        message => Type::Message(*places.get(format!("{package}.{message}").as_str())?),
    };
    let mut letters = name.chars();
    let capital = letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str());
    let go_name = if go_name.is_empty() { capital.unwrap_or_default() } else { go_name.to_owned() };
    Some(Field { number: number.parse().ok()?, name, go_name, kind, shape, always, omit_zero })
}

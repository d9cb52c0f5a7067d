//! JSON texts as Go reads them: duplicate members are found, nesting is bounded, and a text that is no JSON gets the error
//! that Go's `encoding/json` gives it, since upstream shows that error to the user.

use std::{cell::RefCell, fmt};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::base::limits;

/// A JSON value with the paths of members that stood there twice.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Parsed {
    /// The value; of two equal members the last one counts.
    pub(super) value: Value,
    /// Paths, as in `spec.containers[0].name`.
    pub(super) duplicates: Vec<String>,
}

/// What a text nested too deeply is refused with.
pub(super) const TOO_DEEP: &str = "exceeded max depth";

/// Reads a text.
///
/// # Errors
/// Go's words for what is wrong with it.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, String> {
    let text = String::from_utf8_lossy(bytes);
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let found = from_deserializer(&mut deserializer).and_then(|parsed| deserializer.end().map(|()| parsed));
    found.map_err(|error| match syntax_error(text.as_bytes()) {
        Some(go) => go,
        None if error.to_string().starts_with(TOO_DEEP) => TOO_DEEP.into(),
        None => error.to_string(),
    })
}

/// Reads a value from any self-describing form.
pub(super) fn from_deserializer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Parsed, D::Error> {
    let found = RefCell::new(Walk::default());
    let value = Seed { walk: &found, depth: 0 }.deserialize(deserializer)?;
    Ok(Parsed { value, duplicates: found.into_inner().duplicates })
}

/// Where the reader stands.
#[derive(Default)]
struct Walk {
    path: Vec<Step>,
    duplicates: Vec<String>,
}

enum Step {
    Member(String),
    Item(usize),
}

impl Walk {
    fn path_to(&self, key: &str) -> String {
        let mut out = String::new();
        for step in &self.path {
            match step {
                Step::Member(key) => {
                    if !out.is_empty() {
                        out.push('.');
                    }
                    out.push_str(key);
                }
                Step::Item(index) => out.push_str(&format!("[{index}]")),
            }
        }
        if out.is_empty() { key.into() } else { format!("{out}.{key}") }
    }
}

/// Deserializes one value at a depth.
struct Seed<'a> {
    walk: &'a RefCell<Walk>,
    depth: usize,
}

impl Seed<'_> {
    fn deeper<E: serde::de::Error>(&self) -> Result<usize, E> {
        if self.depth >= limits::DEPTH { Err(E::custom(TOO_DEEP)) } else { Ok(self.depth + 1) }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut items = Vec::new();
        loop {
            self.walk.borrow_mut().path.push(Step::Item(items.len()));
            let item = access.next_element_seed(Seed { walk: self.walk, depth })?;
            self.walk.borrow_mut().path.pop();
            match item {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut map = Map::new();
        while let Some(Key(key)) = access.next_key()? {
            if map.contains_key(&key) {
                let mut walk = self.walk.borrow_mut();
                let path = walk.path_to(&key);
                if !walk.duplicates.contains(&path) {
                    walk.duplicates.push(path);
                }
            }
            self.walk.borrow_mut().path.push(Step::Member(key.clone()));
            let value = access.next_value_seed(Seed { walk: self.walk, depth })?;
            self.walk.borrow_mut().path.pop();
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// A member's name; YAML's numbers and bools become texts, as upstream's YAML reader makes them.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            Value::Bool(value) => Ok(Self(value.to_string())),
            Value::Number(value) => Ok(Self(value.to_string())),
            Value::Null => Ok(Self("null".into())),
            Value::Array(_) | Value::Object(_) => Err(D::Error::custom("a key must be a text")),
        }
    }
}

/// What Go's scanner says is wrong with a text; `None` if it finds nothing.
fn syntax_error(text: &[u8]) -> Option<String> {
    let mut scanner = Scanner { text, at: 0 };
    match scanner.document() {
        Ok(()) => None,
        Err(Wrong::End) => Some("unexpected end of JSON input".into()),
        Err(Wrong::Byte(why)) => Some(format!("invalid character {} {why}", quoted(scanner.text[scanner.at]))),
        Err(Wrong::Deep) => Some(TOO_DEEP.into()),
    }
}

/// A byte as Go's `quoteChar` shows it: each byte as if it were a Latin-1 character.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".into(),
        b'"' => "'\"'".into(),
        b'\\' => r"'\\'".into(),
        b'\n' => r"'\n'".into(),
        b'\r' => r"'\r'".into(),
        b'\t' => r"'\t'".into(),
        0x07 => r"'\a'".into(),
        0x08 => r"'\b'".into(),
        0x0b => r"'\v'".into(),
        0x0c => r"'\f'".into(),
        0x00..0x20 | 0x7f => format!(r"'\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!(r"'\u{byte:04x}'"),
        byte => format!("'{}'", byte as char),
    }
}

/// Why a scan stopped.
enum Wrong {
    /// The text ended too early.
    End,
    /// The byte at the scanner's position is wrong; Go's words for why.
    Byte(&'static str),
    /// Nested too deeply.
    Deep,
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Result<u8, Wrong> {
        self.text.get(self.at).copied().ok_or(Wrong::End)
    }

    fn space(&mut self) -> Result<u8, Wrong> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.text.get(self.at) {
            self.at += 1;
        }
        self.peek()
    }

    fn document(&mut self) -> Result<(), Wrong> {
        self.value(0)?;
        match self.space() {
            Ok(_) => Err(Wrong::Byte("after top-level value")),
            Err(_) => Ok(()),
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), Wrong> {
        if depth > limits::DEPTH {
            return Err(Wrong::Deep);
        }
        match self.space()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal(&[
                (b'r', "in literal true (expecting 'r')"),
                (b'u', "in literal true (expecting 'u')"),
                (b'e', "in literal true (expecting 'e')"),
            ]),
            b'f' => self.literal(&[
                (b'a', "in literal false (expecting 'a')"),
                (b'l', "in literal false (expecting 'l')"),
                (b's', "in literal false (expecting 's')"),
                (b'e', "in literal false (expecting 'e')"),
            ]),
            b'n' => self.literal(&[
                (b'u', "in literal null (expecting 'u')"),
                (b'l', "in literal null (expecting 'l')"),
                (b'l', "in literal null (expecting 'l')"),
            ]),
            _ => Err(Wrong::Byte("looking for beginning of value")),
        }
    }

    fn literal(&mut self, letters: &[(u8, &'static str)]) -> Result<(), Wrong> {
        for (letter, why) in letters {
            self.at += 1;
            if self.peek()? != *letter {
                return Err(Wrong::Byte(why));
            }
        }
        self.at += 1;
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), Wrong> {
        self.at += 1;
        if self.space()? == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.space()? != b'"' {
                return Err(Wrong::Byte("looking for beginning of object key string"));
            }
            self.string()?;
            if self.space()? != b':' {
                return Err(Wrong::Byte("after object key"));
            }
            self.at += 1;
            self.value(depth + 1)?;
            match self.space()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Wrong::Byte("after object key:value pair")),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), Wrong> {
        self.at += 1;
        if self.space()? == b']' {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            match self.space()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Wrong::Byte("after array element")),
            }
        }
    }

    fn string(&mut self) -> Result<(), Wrong> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => {
                    self.at += 1;
                    match self.peek()? {
                        b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => self.at += 1,
                        b'u' => {
                            for _ in 0..4 {
                                self.at += 1;
                                if !self.peek()?.is_ascii_hexdigit() {
                                    return Err(Wrong::Byte("in \\u hexadecimal character escape"));
                                }
                            }
                            self.at += 1;
                        }
                        _ => return Err(Wrong::Byte("in string escape code")),
                    }
                }
                byte if byte < 0x20 => return Err(Wrong::Byte("in string literal")),
                _ => self.at += 1,
            }
        }
    }

    fn digits(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn number(&mut self) -> Result<(), Wrong> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits(),
            _ => return Err(Wrong::Byte("in numeric literal")),
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            if !self.peek()?.is_ascii_digit() {
                return Err(Wrong::Byte("after decimal point in numeric literal"));
            }
            self.digits();
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            if let b'+' | b'-' = self.peek()? {
                self.at += 1;
            }
            if !self.peek()?.is_ascii_digit() {
                return Err(Wrong::Byte("in exponent of numeric literal"));
            }
            self.digits();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case("{not json", "invalid character 'n' looking for beginning of object key string")]
    #[case("", "unexpected end of JSON input")]
    #[case("{", "unexpected end of JSON input")]
    #[case(r#"{"a":1"#, "unexpected end of JSON input")]
    #[case(r#"{"a" 1}"#, "invalid character '1' after object key")]
    #[case(r#"{"a":1 "b"}"#, "invalid character '\"' after object key:value pair")]
    #[case(r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string")]
    #[case("[1 2]", "invalid character '2' after array element")]
    #[case("[1,]", "invalid character ']' looking for beginning of value")]
    #[case("{} x", "invalid character 'x' after top-level value")]
    #[case("not json", "invalid character 'o' in literal null (expecting 'u')")]
    #[case("tru!", "invalid character '!' in literal true (expecting 'e')")]
    #[case("'a'", r"invalid character '\'' looking for beginning of value")]
    #[case("\"a\nb\"", r"invalid character '\n' in string literal")]
    #[case(r#""\q""#, "invalid character 'q' in string escape code")]
    #[case(r#""\u12x4""#, "invalid character 'x' in \\u hexadecimal character escape")]
    #[case("-x", "invalid character 'x' in numeric literal")]
    #[case("1.x", "invalid character 'x' after decimal point in numeric literal")]
    #[case("1ex", "invalid character 'x' in exponent of numeric literal")]
    #[case("01", "invalid character '1' after top-level value")]
    fn what_is_no_json_gets_the_words_of_go(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(parse(text.as_bytes()).unwrap_err(), expected);
    }

    #[test]
    fn members_that_stand_twice_are_named_by_path_and_the_last_one_counts() {
        let parsed = parse(br#"{"metadata":{"name":"a","name":"b"},"l":[{},{"x":1,"x":2}],"l":[]}"#).unwrap();
        assert_eq!(parsed.duplicates, ["metadata.name", "l[1].x", "l"]);
        assert_eq!(parsed.value, json!({"metadata": {"name": "b"}, "l": []}));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(nested(limits::DEPTH).as_bytes()).is_ok());
        assert_eq!(parse(nested(limits::DEPTH + 1).as_bytes()).unwrap_err(), TOO_DEEP);
        assert_eq!(parse("[".repeat(1_000_000).as_bytes()).unwrap_err(), TOO_DEEP);
    }

    proptest! {
        #[test]
        fn the_scanner_and_the_reader_agree_on_what_is_json(text in r#"[\[\]{}",:0-9a-u\\ .-]{0,12}"#) {
            let reads = serde_json::from_str::<Value>(&text).is_ok();
            prop_assert_eq!(reads, syntax_error(text.as_bytes()).is_none());
        }
    }
}

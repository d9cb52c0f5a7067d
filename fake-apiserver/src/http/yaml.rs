//! YAML bodies, read as upstream reads them: the first document, as the JSON it stands for; and what upstream's reader says
//! of one that it cannot read.
//!
//! Our reader finds the same mistakes, in other words and sometimes at another place: `words` and `line_of` translate.
//! Upstream: `sigs.k8s.io/yaml` over `go.yaml.in/yaml/v2` (`decode.go`, `scannerc.go`, `parserc.go`).

use super::json::{self, Parsed};

/// How often a text is cut and read again: once for its later documents, once for what stands behind the first.
const CUTS: usize = 2;

/// Stack for a text of `limits::DEPTH` levels, with room to spare.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// What stands before the problem where YAML is read for its own sake.
pub(super) const CONVERTING: &str = "error converting YAML to JSON: ";

/// Reads YAML as upstream does.
///
/// # Errors
/// Upstream's words, as far as they are known.
pub(super) fn read(bytes: &[u8]) -> Result<Parsed, String> {
    let text = String::from_utf8_lossy(bytes);
    if text.trim_start().starts_with('{')
        && let Ok(parsed) = json::parse(bytes)
    {
        return Ok(parsed); // kubectl sends JSON in the name of YAML; this reader is the faster one
    }
    let prefix = CONVERTING;
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{85}')) {
        return Err(format!("{prefix}yaml: control characters are not allowed"));
    }
    let mut rest: &str = &text;
    for _ in 0..CUTS {
        match parse(rest) {
            Err(Problem { text: why, line, column }) if why.starts_with("multiple YAML documents") => {
                let mut starts = offsets(rest).take(line).collect::<Vec<_>>();
                starts.reverse();
                let marker = starts.into_iter().find(|at| *at > 0 && rest[*at..].starts_with("---"));
                rest = &rest[..marker.unwrap_or_else(|| offset(rest, line, column))];
            }
            Err(Problem { text: why, line, column }) if why == "misplaced bracket" => {
                rest = &rest[..offset(rest, line, column)];
            }
            result => return result.map_err(|problem| format!("{prefix}{}", problem.words(rest))),
        }
    }
    parse(rest).map_err(|problem| format!("{prefix}{}", problem.words(rest)))
}

fn parse(text: &str) -> Result<Parsed, Problem> {
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        legacy_octal_numbers: true, // `defaultMode: 0400` is 256, as YAML 1.1 and so Go's reader have it
    };
    // The reader takes much of the stack for each level, more than a thread has where it is not optimized.
    stacker::grow(STACK_BYTES, || {
        serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
            json::from_deserializer(deserializer)
        })
    })
    .map_err(|error| Problem::read(&error.to_string()))
}

/// Where lines start.
fn offsets(text: &str) -> impl Iterator<Item = usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1))
}

fn offset(text: &str, line: usize, column: usize) -> usize {
    let start = offsets(text).nth(line.saturating_sub(1)).unwrap_or(text.len());
    let tail = &text[start..];
    start + tail.char_indices().nth(column.saturating_sub(1)).map_or(tail.len(), |(at, _)| at)
}

/// What our reader found, and where, from 1 on.
struct Problem {
    text: String,
    line: usize,
    column: usize,
}

impl Problem {
    fn read(error: &str) -> Self {
        let first = error.lines().next().unwrap_or_default();
        let bare = first.strip_prefix("error: ").unwrap_or(first);
        let placed = bare.strip_prefix("line ").and_then(|rest| {
            let (place, text) = rest.split_once(": ")?;
            let (line, column) = place.split_once(" column ")?;
            Some(Self { text: text.to_owned(), line: line.parse().ok()?, column: column.parse().ok()? })
        });
        placed.unwrap_or_else(|| Self { text: bare.to_owned(), line: 1, column: 1 })
    }

    /// Go's words for it.
    fn words(&self, source: &str) -> String {
        let here = self.line.saturating_sub(1);
        let newlines = source.matches('\n').count();
        let end = newlines + usize::from(!source.ends_with('\n'));
        let scanner = |line: usize, text: &str| match line {
            0 => format!("yaml: {text}"),
            line => format!("yaml: line {}: {text}", line + 1),
        };
        let parser = |line: usize, text: &str| match line {
            0 => format!("yaml: {text}"),
            line => format!("yaml: line {line}: {text}"),
        };
        let text = self.text.as_str();
        match text {
            "unclosed bracket '['" => parser(end, "did not find expected ',' or ']'"),
            "unclosed bracket '{'" => parser(end, "did not find expected ',' or '}'"),
            "illegal placement of ':' indicator" => {
                let opened = source[..offset(source, self.line, self.column)].rfind(['[', '{']);
                let close = if opened.is_some_and(|at| source[at..].starts_with('{')) { '}' } else { ']' };
                parser(here, &format!("did not find expected ',' or '{close}'"))
            }
            "mapping values are not allowed in this context" => scanner(here, text),
            "while scanning a plain scalar, found a tab" => {
                let indented = |line: &&str| line.trim_start_matches(' ').starts_with('\t');
                let below = source.lines().skip(self.line).position(|line| indented(&line)).unwrap_or_default();
                scanner(self.line + below, "found a tab character that violates indentation")
            }
            "unclosed quote" => scanner(newlines, "found unexpected end of stream"),
            "simple key expected ':'" => {
                let is_empty = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
                let next = source.lines().skip(self.line).position(|line| !is_empty(&line));
                scanner(next.map_or(end, |next| self.line + next), "could not find expected ':'")
            }
            "alias references unknown anchor" => {
                let name = source[offset(source, self.line, self.column)..].trim_start_matches('*');
                let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-');
                let name = name.split(ends).next().unwrap_or_default();
                format!("yaml: unknown anchor '{name}' referenced")
            }
            _ if text.starts_with("budget breached: ") => "yaml: document contains excessive aliasing".into(),
            "unsupported YAML major version" => "yaml: found incompatible YAML document".into(),
            "YAML merge value must be mapping or sequence of mappings" => {
                "yaml: map merge requires map or sequence of maps as the value".into()
            }
            _ if text.starts_with("non-finite float") => {
                let nan = text.to_lowercase().contains(".nan");
                let sign = if text.contains("`-") { '-' } else { '+' };
                format!("json: unsupported value: {}", if nan { "NaN".to_owned() } else { format!("{sign}Inf") })
            }
            _ if text.starts_with("tabs disallowed") || text.starts_with("unexpected character") => {
                scanner(here, "found character that cannot start any token")
            }
            _ => match text.split_once(", ") {
                Some((context, what)) if context.starts_with("while parsing a block") => parser(here, what),
                Some((context, what)) if context.starts_with("while ") => scanner(here, what),
                _ => scanner(here, text),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case("a: [1, 2", "line 1: did not find expected ',' or ']'")]
    #[case("a:\n- {b: 1\n", "line 2: did not find expected ',' or '}'")]
    #[case("a: b: c", "mapping values are not allowed in this context")]
    #[case("a: b\n c: d", "line 2: mapping values are not allowed in this context")]
    #[case("a: b\n\tc: d", "line 2: found a tab character that violates indentation")]
    #[case("a:\n\t- b", "line 2: found character that cannot start any token")]
    #[case("a: @x", "found character that cannot start any token")]
    #[case("a: 'unclosed", "found unexpected end of stream")]
    #[case("a: \"b\\q\"", "found unknown escape character")]
    #[case("- a\nb: c", "line 1: did not find expected '-' indicator")]
    #[case("a: 1\nb:\n  c: 2\n d: 3", "line 3: did not find expected key")]
    #[case("a: b\nc", "line 3: could not find expected ':'")]
    #[case("a: |\n b\nc", "line 4: could not find expected ':'")]
    #[case("a: *x", "unknown anchor 'x' referenced")]
    #[case("%YAML 3.0\n---\na: b", "found incompatible YAML document")]
    #[case("a: \u{1}b", "control characters are not allowed")]
    #[case("<<: 1", "map merge requires map or sequence of maps as the value")]
    #[case("a: >-x\n b", "did not find expected comment or line break")]
    fn what_is_no_yaml_gets_the_words_of_go(#[case] text: &str, #[case] expected: &str) {
        let found = read(text.as_bytes()).unwrap_err();
        assert_eq!(found, format!("error converting YAML to JSON: yaml: {expected}"));
    }

    #[rstest]
    #[case("a: 1\n---\nb: 2", json!({"a": 1}))]
    #[case("--- a\n--- b", json!("a"))]
    #[case("{a: b}}", json!({"a": "b"}))]
    #[case("---", json!(null))]
    fn only_the_first_document_counts(#[case] text: &str, #[case] expected: serde_json::Value) {
        assert_eq!(read(text.as_bytes()).unwrap().value, expected);
    }
}

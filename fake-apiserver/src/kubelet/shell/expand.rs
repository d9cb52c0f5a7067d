//! What words become: variables, command substitution, arithmetic, splitting, file names.

use std::sync::{Arc, Mutex};

use super::{
    Io, Out, Run, Shell,
    parse::{Part, Word},
};

/// A piece of an expanded word: its text, and whether quotes protect it from splitting and matching.
struct Piece {
    text: String,
    quoted: bool,
}

impl Shell {
    /// A word as one text: no splitting, no file names.
    pub(super) fn expand_one<'a>(&'a mut self, word: &'a Word, io: &'a Io) -> Run<'a, String> {
        Box::pin(async move {
            let mut text = String::new();
            for part in &word.0 {
                for piece in self.part(part, io).await {
                    text.push_str(&piece.text);
                }
            }
            text
        })
    }

    /// A word as a pattern: what was quoted means itself.
    pub(super) async fn expand_pattern(&mut self, word: &Word, io: &Io) -> String {
        let mut text = String::new();
        for part in &word.0 {
            for piece in self.part(part, io).await {
                text.push_str(&if piece.quoted { escape(&piece.text) } else { piece.text });
            }
        }
        text
    }

    /// Words as a command's arguments.
    pub(super) async fn expand_all(&mut self, words: &[Word], io: &Io) -> Vec<String> {
        let mut all = Vec::new();
        for word in words {
            // Whole fields, each as a pattern; `None` until something (even an empty quotation) stands in it.
            let mut field: Option<String> = None;
            let mut fields = Vec::new();
            for part in &word.0 {
                if let Part::Variable { name, op: None, quoted: true } = part
                    && name == "@"
                {
                    for (at, argument) in self.arguments.iter().enumerate() {
                        if at > 0 {
                            fields.extend(field.take());
                        }
                        field.get_or_insert_default().push_str(&escape(argument));
                    }
                    continue;
                }
                let literal = matches!(part, Part::Text { .. });
                for piece in self.part(part, io).await {
                    if piece.quoted {
                        field.get_or_insert_default().push_str(&escape(&piece.text));
                    } else if literal {
                        field.get_or_insert_default().push_str(&piece.text);
                    } else {
                        for c in piece.text.chars() {
                            if c.is_ascii_whitespace() {
                                fields.extend(field.take());
                            } else {
                                field.get_or_insert_default().push(c);
                            }
                        }
                    }
                }
            }
            fields.extend(field);
            for field in fields {
                all.extend(self.file_names(&field));
            }
        }
        all
    }

    async fn part(&mut self, part: &Part, io: &Io) -> Vec<Piece> {
        let (text, quoted) = match part {
            Part::Text { text, quoted } => {
                let home = !quoted && (text == "~" || text.starts_with("~/"));
                let text =
                    if home { self.variable("HOME").unwrap_or("/root").to_owned() + &text[1..] } else { text.clone() };
                (text, *quoted)
            }
            Part::Length(name) => (self.parameter(name).unwrap_or_default().chars().count().to_string(), true),
            Part::Command { list, quoted } => {
                let buffer = Arc::new(Mutex::new(Vec::new()));
                let mut shell = self.clone();
                let inner = Io { stdout: Out::Memory(buffer.clone()), ..io.clone() };
                shell.list(list, &inner).await;
                self.status = shell.status;
                let data = std::mem::take(&mut *buffer.lock().expect("no panic under this lock"));
                (String::from_utf8_lossy(&data).trim_end_matches('\n').to_owned(), *quoted)
            }
            Part::Arithmetic(word) => {
                let text = self.expand_one(word, io).await;
                let value = Arithmetic { shell: self, text: text.as_bytes(), at: 0 }.value();
                (value.to_string(), true)
            }
            Part::Variable { name, op, quoted } => {
                let value = self.parameter(name);
                let Some((op, word)) = op else {
                    return vec![Piece { text: value.unwrap_or_default(), quoted: *quoted }];
                };
                let set = value.as_ref().is_some_and(|value| !op.starts_with(':') || !value.is_empty());
                let text = match op.trim_start_matches(':') {
                    "-" if set => value.unwrap_or_default(),
                    "-" => self.expand_one(word, io).await,
                    "=" if set => value.unwrap_or_default(),
                    "=" => {
                        let text = self.expand_one(word, io).await;
                        self.set(name, text.clone());
                        text
                    }
                    "+" if set => self.expand_one(word, io).await,
                    "+" => String::new(),
                    "?" if set => value.unwrap_or_default(),
                    "?" => {
                        let text = self.expand_one(word, io).await;
                        let text = if text.is_empty() { "parameter not set".to_owned() } else { text };
                        let name = format!("{}: 1: {name}: {text}", self.name);
                        self.complain(io, &name).await;
                        self.status = 2;
                        String::new()
                    }
                    cut => {
                        let pattern = self.expand_one(word, io).await;
                        trim(&value.unwrap_or_default(), cut, &pattern)
                    }
                };
                (text, *quoted)
            }
        };
        vec![Piece { text, quoted }]
    }

    fn parameter(&self, name: &str) -> Option<String> {
        match name {
            "?" => Some(self.status.to_string()),
            "$" => Some("1".into()),
            "#" => Some(self.arguments.len().to_string()),
            "@" | "*" => Some(self.arguments.join(" ")),
            "-" => Some(String::new()),
            "!" => {
                let last = self.jobs.lock().expect("no panic under this lock").last();
                Some(last.map(|number| number.to_string()).unwrap_or_default())
            }
            "0" => Some(self.name.clone()),
            "HOSTNAME" if self.variable(name).is_none() => Some(self.host.hostname.clone()),
            name => match name.parse::<usize>() {
                Ok(number) => self.arguments.get(number - 1).cloned(),
                Err(_) => self.variable(name).map(str::to_owned),
            },
        }
    }

    /// The files that a pattern means, sorted; the pattern's own text if there are none.
    fn file_names(&self, pattern: &str) -> Vec<String> {
        if !pattern.replace("\\*", "").replace("\\?", "").replace("\\[", "").contains(['*', '?', '[']) {
            return vec![unescape(pattern)];
        }
        let (absolute, rest) = match pattern.strip_prefix('/') {
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        let mut found = vec![if absolute { "/".to_owned() } else { String::new() }];
        for part in rest.split('/') {
            let mut next = Vec::new();
            for base in &found {
                let names = self.fs.list(&self.path(if base.is_empty() { "." } else { base })).unwrap_or_default();
                let hidden = part.starts_with('.');
                for name in names.iter().filter(|name| (hidden || !name.starts_with('.')) && glob(part, name)) {
                    let slash = if base.is_empty() || base.ends_with('/') { "" } else { "/" };
                    next.push(format!("{base}{slash}{name}"));
                }
            }
            found = next;
        }
        if found.is_empty() { vec![unescape(pattern)] } else { found }
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\*?[".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn unescape(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    out
}

/// Whether a text matches a pattern of `*`, `?`, `[…]` and escapes.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
                continue;
            }
            None if t == text.len() => return true,
            None => None,
            Some(_) if t == text.len() => None,
            Some('?') => Some(p + 1),
            Some('[') => set(&pattern, p, text[t]),
            Some('\\') => (pattern.get(p + 1) == Some(&text[t])).then_some(p + 2),
            Some(c) => (*c == text[t]).then_some(p + 1),
        };
        match (step, star) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            (None, Some((at, from))) if from < text.len() => {
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
            (None, _) => return false,
        }
    }
}

/// Whether a character is in the set that begins there; where the pattern goes on if it is.
fn set(pattern: &[char], start: usize, c: char) -> Option<usize> {
    let negated = matches!(pattern.get(start + 1), Some('!' | '^'));
    let mut at = start + 1 + usize::from(negated);
    let first = at;
    let mut found = false;
    loop {
        match pattern.get(at)? {
            ']' if at > first => return (found != negated).then_some(at + 1),
            low => match (pattern.get(at + 1), pattern.get(at + 2)) {
                (Some('-'), Some(high)) if *high != ']' => {
                    found |= (*low..=*high).contains(&c);
                    at += 3;
                }
                _ => {
                    found |= *low == c;
                    at += 1;
                }
            },
        }
    }
}

/// `${name#pattern}` and its kin.
fn trim(value: &str, cut: &str, pattern: &str) -> String {
    let mut ends: Vec<usize> = value.char_indices().map(|(at, _)| at).chain([value.len()]).collect();
    match cut {
        "#" | "##" => {
            if cut == "##" {
                ends.reverse();
            }
            let end = ends.into_iter().find(|end| glob(pattern, &value[..*end]));
            value[end.unwrap_or(0)..].to_owned()
        }
        _ => {
            if cut == "%" {
                ends.reverse();
            }
            let start = ends.into_iter().find(|start| glob(pattern, &value[*start..]));
            value[..start.unwrap_or(value.len())].to_owned()
        }
    }
}

/// Integer arithmetic with the usual precedence; what is wrong counts as 0.
struct Arithmetic<'a> {
    shell: &'a Shell,
    text: &'a [u8],
    at: usize,
}

const LEVELS: [&[&str]; 8] =
    [&["||"], &["&&"], &["|"], &["&"], &["==", "!="], &["<=", ">=", "<", ">"], &["+", "-"], &["*", "/", "%"]];

impl Arithmetic<'_> {
    fn value(&mut self) -> i64 {
        self.level(0, 0)
    }

    fn blanks(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn operator(&mut self, level: usize) -> Option<&'static str> {
        self.blanks();
        let rest = &self.text[self.at..];
        let found = LEVELS[level].iter().find(|op| rest.starts_with(op.as_bytes()))?;
        let doubled = found.len() == 1 && matches!(found, &"|" | &"&") && rest.get(1) == Some(&found.as_bytes()[0]);
        if doubled {
            return None;
        }
        self.at += found.len();
        Some(found)
    }

    fn level(&mut self, level: usize, depth: usize) -> i64 {
        if level == LEVELS.len() {
            return self.atom(depth);
        }
        let mut left = self.level(level + 1, depth);
        while let Some(op) = self.operator(level) {
            let right = self.level(level + 1, depth);
            left = match op {
                "||" => i64::from(left != 0 || right != 0),
                "&&" => i64::from(left != 0 && right != 0),
                "|" => left | right,
                "&" => left & right,
                "==" => i64::from(left == right),
                "!=" => i64::from(left != right),
                "<=" => i64::from(left <= right),
                ">=" => i64::from(left >= right),
                "<" => i64::from(left < right),
                ">" => i64::from(left > right),
                "+" => left.wrapping_add(right),
                "-" => left.wrapping_sub(right),
                "*" => left.wrapping_mul(right),
                "/" => left.checked_div(right).unwrap_or(0),
                _ => left.checked_rem(right).unwrap_or(0),
            };
        }
        left
    }

    fn atom(&mut self, depth: usize) -> i64 {
        self.blanks();
        if depth > super::DEPTH {
            return 0;
        }
        match self.text.get(self.at) {
            Some(b'(') => {
                self.at += 1;
                let value = self.level(0, depth + 1);
                self.blanks();
                self.at += usize::from(self.text.get(self.at) == Some(&b')'));
                value
            }
            Some(b'-') => {
                self.at += 1;
                self.atom(depth + 1).wrapping_neg()
            }
            Some(b'+') => {
                self.at += 1;
                self.atom(depth + 1)
            }
            Some(b'!') => {
                self.at += 1;
                i64::from(self.atom(depth + 1) == 0)
            }
            _ => {
                let start = self.at;
                while self.text.get(self.at).is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_') {
                    self.at += 1;
                }
                let word = String::from_utf8_lossy(&self.text[start..self.at]);
                let number = |text: &str| text.trim().parse::<i64>().ok();
                number(&word).or_else(|| number(self.shell.variable(&word)?)).unwrap_or(0)
            }
        }
    }
}

//! The small shell's grammar: text to a tree. Enough of POSIX for what manifests and tests write.

use std::sync::{Arc, OnceLock};

/// Commands in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct List(pub(super) Vec<Item>);

/// One entry of a list: pipelines joined by `&&` and `||`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) first: Pipeline,
    pub(super) rest: Vec<(Join, Pipeline)>,
    /// Ended by `&`.
    pub(super) background: bool,
}

/// How a pipeline hangs on the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    And,
    Or,
}

/// Commands joined by `|`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pipeline {
    pub(super) negated: bool,
    pub(super) commands: Vec<Command>,
}

/// A command with its redirections.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Command {
    pub(super) body: Body,
    pub(super) redirects: Vec<Redirect>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Body {
    Simple { assigns: Vec<(String, Word)>, words: Vec<Word> },
    Group(List),
    Subshell(List),
    If { arms: Vec<(List, List)>, otherwise: List },
    Loop { until: bool, condition: List, body: List },
    For { name: String, words: Option<Vec<Word>>, body: List },
    Case { word: Word, arms: Vec<(Vec<Word>, List)> },
    Function { name: String, body: Arc<Command> },
}

/// A redirection of one descriptor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Redirect {
    pub(super) fd: u8,
    pub(super) to: To,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum To {
    Read(Word),
    Write(Word),
    Append(Word),
    /// `&>`: both outputs.
    Both(Word),
    Copy(u8),
    Close,
    /// The text of a here-document, known once its line has ended.
    Here(Arc<OnceLock<Word>>),
}

/// A word before expansion.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Word(pub(super) Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    Text { text: String, quoted: bool },
    Variable { name: String, op: Option<(String, Word)>, quoted: bool },
    Length(String),
    Command { list: List, quoted: bool },
    Arithmetic(Word),
}

/// Why a text is no command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ParseError {
    /// More lines are needed.
    Incomplete,
    /// Something stands where it may not.
    Unexpected(String),
}

/// Levels of nesting; bounds the stack.
const DEPTH: usize = 50;

/// Parses a whole text.
pub(super) fn parse(text: &str) -> Result<List, ParseError> {
    let mut parser = Parser { chars: text.chars().collect(), at: 0, here: Vec::new(), depth: 0 };
    let list = parser.list(&[])?;
    match parser.peek() {
        None if parser.here.is_empty() => Ok(list),
        None => Err(ParseError::Incomplete),
        Some(c) => Err(ParseError::Unexpected(c.to_string())),
    }
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    /// Here-documents whose text begins at the next line: delimiter, strip tabs, plain text, and where it goes.
    here: Vec<(String, bool, bool, Arc<OnceLock<Word>>)>,
    depth: usize,
}

const RESERVED: [&str; 14] =
    ["if", "then", "elif", "else", "fi", "while", "until", "for", "do", "done", "case", "esac", "{", "}"];

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn looking_at(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(i, c)| self.chars.get(self.at + i) == Some(&c))
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.looking_at(text);
        if found {
            self.at += text.chars().count();
        }
        found
    }

    fn unexpected<T>(&self) -> Result<T, ParseError> {
        match self.peek() {
            None => Err(ParseError::Incomplete),
            Some('\n') => Err(ParseError::Unexpected("newline".into())),
            Some(c) => Err(ParseError::Unexpected(c.to_string())),
        }
    }

    /// Skips blanks, comments and escaped newlines on this line.
    fn blanks(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r') => self.at += 1,
                Some('\\') if self.looking_at("\\\n") => self.at += 2,
                Some('#') => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn newline(&mut self) -> Result<(), ParseError> {
        self.at += 1;
        for (delimiter, strip, plain, place) in std::mem::take(&mut self.here) {
            let mut body = String::new();
            loop {
                if self.peek().is_none() {
                    return Err(ParseError::Incomplete);
                }
                let mut line = String::new();
                while let Some(c) = self.peek() {
                    self.at += 1;
                    if c == '\n' {
                        break;
                    }
                    line.push(c);
                }
                let line = if strip { line.trim_start_matches('\t') } else { &line };
                if line == delimiter {
                    break;
                }
                body.push_str(line);
                body.push('\n');
            }
            let word = if plain {
                Word(vec![Part::Text { text: body, quoted: true }])
            } else {
                let mut inner = Parser { chars: body.chars().collect(), at: 0, here: Vec::new(), depth: self.depth };
                inner.quoted(None)?
            };
            let _ = place.set(word); // set once: the place was made for this text
        }
        Ok(())
    }

    /// Skips blanks and newlines.
    fn space(&mut self) -> Result<(), ParseError> {
        loop {
            self.blanks();
            if self.peek() != Some('\n') {
                return Ok(());
            }
            self.newline()?;
        }
    }

    /// Whether this reserved word stands here; eats it.
    fn keyword(&mut self, word: &str) -> bool {
        if self.next_is(word) { self.eat(word) } else { false }
    }

    fn next_is(&self, word: &str) -> bool {
        self.looking_at(word)
            && self
                .chars
                .get(self.at + word.chars().count())
                .is_none_or(|c| c.is_whitespace() || ";&|()<>".contains(*c))
    }

    fn expect(&mut self, word: &str) -> Result<(), ParseError> {
        self.space()?;
        if self.keyword(word) { Ok(()) } else { self.unexpected() }
    }

    fn list(&mut self, ends: &[&str]) -> Result<List, ParseError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(ParseError::Unexpected("nesting".into()));
        }
        let mut items = Vec::new();
        loop {
            self.space()?;
            let Some(c) = self.peek() else { break };
            if c == ')' || self.looking_at(";;") || ends.iter().any(|end| self.next_is(end)) {
                break;
            }
            let first = self.pipeline()?;
            let mut rest = Vec::new();
            loop {
                self.blanks();
                let join = if self.eat("&&") {
                    Join::And
                } else if self.eat("||") {
                    Join::Or
                } else {
                    break;
                };
                self.space()?;
                rest.push((join, self.pipeline()?));
            }
            self.blanks();
            let background = !self.looking_at("&&") && self.eat("&");
            items.push(Item { first, rest, background });
            if !background {
                match self.peek() {
                    Some(';') if !self.looking_at(";;") => self.at += 1,
                    Some('\n') => self.newline()?,
                    None => break,
                    Some(')') => break,
                    Some(';') => break,
                    Some(_) if ends.iter().any(|end| self.next_is(end)) => break,
                    Some(_) => return self.unexpected(),
                }
            }
        }
        self.depth -= 1;
        Ok(List(items))
    }

    /// A list that may not be empty.
    fn body(&mut self, ends: &[&str]) -> Result<List, ParseError> {
        let list = self.list(ends)?;
        if list.0.is_empty() { self.unexpected() } else { Ok(list) }
    }

    fn pipeline(&mut self) -> Result<Pipeline, ParseError> {
        let mut negated = false;
        while self.keyword("!") {
            negated = !negated;
            self.blanks();
        }
        let mut commands = vec![self.command()?];
        loop {
            self.blanks();
            if self.looking_at("||") || !self.eat("|") {
                return Ok(Pipeline { negated, commands });
            }
            self.space()?;
            commands.push(self.command()?);
        }
    }

    fn command(&mut self) -> Result<Command, ParseError> {
        self.blanks();
        let body = if self.eat("(") {
            let list = self.body(&[])?;
            if !self.eat(")") {
                return self.unexpected();
            }
            Body::Subshell(list)
        } else if self.keyword("{") {
            let list = self.body(&["}"])?;
            self.expect("}")?;
            Body::Group(list)
        } else if self.keyword("if") {
            self.conditional()?
        } else if self.next_is("while") || self.next_is("until") {
            let until = self.next_is("until");
            self.at += 5;
            let condition = self.body(&["do"])?;
            self.expect("do")?;
            let body = self.body(&["done"])?;
            self.expect("done")?;
            Body::Loop { until, condition, body }
        } else if self.keyword("for") {
            self.for_loop()?
        } else if self.keyword("case") {
            self.case()?
        } else {
            return self.simple();
        };
        let mut redirects = Vec::new();
        loop {
            self.blanks();
            match self.redirect()? {
                Some(redirect) => redirects.push(redirect),
                None => return Ok(Command { body, redirects }),
            }
        }
    }

    fn conditional(&mut self) -> Result<Body, ParseError> {
        let mut arms = Vec::new();
        loop {
            let condition = self.body(&["then"])?;
            self.expect("then")?;
            arms.push((condition, self.body(&["elif", "else", "fi"])?));
            self.space()?;
            if self.keyword("elif") {
                continue;
            }
            let otherwise = if self.keyword("else") { self.body(&["fi"])? } else { List::default() };
            self.expect("fi")?;
            return Ok(Body::If { arms, otherwise });
        }
    }

    fn for_loop(&mut self) -> Result<Body, ParseError> {
        self.blanks();
        let name = self.name();
        if name.is_empty() {
            return self.unexpected();
        }
        self.space()?;
        let words = if self.keyword("in") {
            let mut words = Vec::new();
            loop {
                self.blanks();
                match self.word()? {
                    Some(word) => words.push(word),
                    None => break,
                }
            }
            Some(words)
        } else {
            None
        };
        self.blanks();
        let _ = self.eat(";");
        self.expect("do")?;
        let body = self.body(&["done"])?;
        self.expect("done")?;
        Ok(Body::For { name, words, body })
    }

    fn case(&mut self) -> Result<Body, ParseError> {
        self.blanks();
        let Some(word) = self.word()? else { return self.unexpected() };
        self.expect("in")?;
        let mut arms = Vec::new();
        loop {
            self.space()?;
            if self.keyword("esac") {
                return Ok(Body::Case { word, arms });
            }
            let _ = self.eat("(");
            let mut patterns = Vec::new();
            loop {
                self.blanks();
                let Some(pattern) = self.word()? else { return self.unexpected() };
                patterns.push(pattern);
                self.blanks();
                if !self.eat("|") {
                    break;
                }
            }
            if !self.eat(")") {
                return self.unexpected();
            }
            let body = self.list(&["esac"])?;
            arms.push((patterns, body));
            self.space()?;
            if !self.eat(";;") && !self.next_is("esac") {
                return self.unexpected();
            }
        }
    }

    fn simple(&mut self) -> Result<Command, ParseError> {
        let (mut assigns, mut words, mut redirects) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            self.blanks();
            if let Some(redirect) = self.redirect()? {
                redirects.push(redirect);
                continue;
            }
            if words.is_empty() {
                let start = self.at;
                let name = self.name();
                if !name.is_empty() && self.eat("=") {
                    assigns.push((name, self.word()?.unwrap_or_default()));
                    continue;
                }
                if !name.is_empty() && assigns.is_empty() && self.eat("()") {
                    self.space()?;
                    let body = Arc::new(self.command()?);
                    return Ok(Command { body: Body::Function { name, body }, redirects });
                }
                self.at = start;
                if RESERVED.iter().any(|word| self.next_is(word)) {
                    return self.unexpected();
                }
            }
            match self.word()? {
                Some(word) => words.push(word),
                None => break,
            }
        }
        if assigns.is_empty() && words.is_empty() && redirects.is_empty() {
            return self.unexpected();
        }
        Ok(Command { body: Body::Simple { assigns, words }, redirects })
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
            if name.is_empty() && c.is_ascii_digit() {
                break;
            }
            name.push(c);
            self.at += 1;
        }
        name
    }

    fn redirect(&mut self) -> Result<Option<Redirect>, ParseError> {
        let start = self.at;
        let digit = self.peek().and_then(|c| c.to_digit(10));
        if digit.is_some() {
            self.at += 1;
        }
        let default = |fd: u8| digit.and_then(|d| u8::try_from(d).ok()).unwrap_or(fd);
        let (fd, kind) = if digit.is_none() && self.eat("&>") {
            (1, "&>")
        } else if self.eat(">>") {
            (default(1), ">>")
        } else if self.eat(">&") {
            (default(1), ">&")
        } else if self.eat(">|") || self.eat(">") {
            (default(1), ">")
        } else if self.looking_at("<<") && !self.looking_at("<<<") {
            self.at += 2;
            (default(0), "<<")
        } else if self.eat("<&") {
            (default(0), ">&")
        } else if !self.looking_at("<<<") && self.eat("<") {
            (default(0), "<")
        } else {
            self.at = start;
            return Ok(None);
        };
        let strip = kind == "<<" && self.eat("-");
        self.blanks();
        let Some(word) = self.word()? else { return self.unexpected() };
        let to = match kind {
            "<" => To::Read(word),
            ">" => To::Write(word),
            ">>" => To::Append(word),
            "&>" => To::Both(word),
            ">&" => match word.plain().as_str() {
                "-" => To::Close,
                fd => match fd.parse() {
                    Ok(fd) => To::Copy(fd),
                    Err(_) => return Err(ParseError::Unexpected(fd.into())),
                },
            },
            _ => {
                let place = Arc::new(OnceLock::new());
                let plain = word.0.iter().any(|part| matches!(part, Part::Text { quoted: true, .. }));
                self.here.push((word.plain(), strip, plain, place.clone()));
                To::Here(place)
            }
        };
        Ok(Some(Redirect { fd, to }))
    }

    fn word(&mut self) -> Result<Option<Word>, ParseError> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let flush = |text: &mut String, parts: &mut Vec<Part>| {
            if !text.is_empty() {
                parts.push(Part::Text { text: std::mem::take(text), quoted: false });
            }
        };
        while let Some(c) = self.peek() {
            match c {
                c if c.is_whitespace() || ";&|()<>".contains(c) => break,
                '\\' => {
                    flush(&mut text, &mut parts);
                    self.at += 1;
                    match self.peek() {
                        None => return Err(ParseError::Incomplete),
                        Some('\n') => {}
                        Some(c) => parts.push(Part::Text { text: c.into(), quoted: true }),
                    }
                    self.at += 1;
                }
                '\'' => {
                    flush(&mut text, &mut parts);
                    self.at += 1;
                    let start = self.at;
                    while self.peek().is_some_and(|c| c != '\'') {
                        self.at += 1;
                    }
                    if self.peek().is_none() {
                        return Err(ParseError::Incomplete);
                    }
                    parts.push(Part::Text { text: self.chars[start..self.at].iter().collect(), quoted: true });
                    self.at += 1;
                }
                '"' => {
                    flush(&mut text, &mut parts);
                    self.at += 1;
                    let quoted = self.quoted(Some('"'))?;
                    if quoted.0.is_empty() {
                        parts.push(Part::Text { text: String::new(), quoted: true });
                    }
                    parts.extend(quoted.0);
                }
                '$' | '`' => {
                    flush(&mut text, &mut parts);
                    match self.dollar(false)? {
                        Some(part) => parts.push(part),
                        None => text.push('$'),
                    }
                }
                c => {
                    text.push(c);
                    self.at += 1;
                }
            }
        }
        flush(&mut text, &mut parts);
        Ok(if parts.is_empty() { None } else { Some(Word(parts)) })
    }

    /// The inside of double quotes up to `end`, or of a here-document up to its end.
    fn quoted(&mut self, end: Option<char>) -> Result<Word, ParseError> {
        let mut parts = Vec::new();
        let mut text = String::new();
        loop {
            match self.peek() {
                None if end.is_none() => break,
                None => return Err(ParseError::Incomplete),
                c if c == end => {
                    self.at += 1;
                    break;
                }
                Some('\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some('\n') => self.at += 1,
                        Some(c) if "$`\\".contains(c) || Some(c) == end => {
                            text.push(c);
                            self.at += 1;
                        }
                        _ => text.push('\\'),
                    }
                }
                Some('$' | '`') => match self.dollar(true)? {
                    Some(part) => {
                        if !text.is_empty() {
                            parts.push(Part::Text { text: std::mem::take(&mut text), quoted: true });
                        }
                        parts.push(part);
                    }
                    None => text.push('$'),
                },
                Some(c) => {
                    text.push(c);
                    self.at += 1;
                }
            }
        }
        if !text.is_empty() {
            parts.push(Part::Text { text, quoted: true });
        }
        Ok(Word(parts))
    }

    /// What begins with a dollar sign or a backquote; `None` for a dollar sign that means itself.
    fn dollar(&mut self, quoted: bool) -> Result<Option<Part>, ParseError> {
        if self.eat("`") {
            let mut inner = String::new();
            loop {
                match self.peek() {
                    None => return Err(ParseError::Incomplete),
                    Some('`') => break,
                    Some('\\') if self.chars.get(self.at + 1).is_some_and(|c| "`\\$".contains(*c)) => {
                        inner.push(self.chars[self.at + 1]);
                        self.at += 2;
                    }
                    Some(c) => {
                        inner.push(c);
                        self.at += 1;
                    }
                }
            }
            self.at += 1;
            let mut parser = Self { chars: inner.chars().collect(), at: 0, here: Vec::new(), depth: self.depth };
            return Ok(Some(Part::Command { list: parser.list(&[])?, quoted }));
        }
        self.at += 1;
        if self.eat("((") {
            let start = self.at;
            let mut open = 0;
            loop {
                match self.peek() {
                    None => return Err(ParseError::Incomplete),
                    Some(')') if open == 0 && self.looking_at("))") => break,
                    Some('(') => open += 1,
                    Some(')') => open -= 1,
                    Some(_) => {}
                }
                self.at += 1;
            }
            let inner = self.chars[start..self.at].to_vec();
            self.at += 2;
            let mut parser = Self { chars: inner, at: 0, here: Vec::new(), depth: self.depth };
            return Ok(Some(Part::Arithmetic(parser.quoted(None)?)));
        }
        if self.eat("(") {
            let list = self.list(&[])?;
            return if self.eat(")") { Ok(Some(Part::Command { list, quoted })) } else { self.unexpected() };
        }
        if self.eat("{") {
            if self.looking_at("#") && self.chars.get(self.at + 1) != Some(&'}') {
                self.at += 1;
                let name = self.name();
                return if self.eat("}") { Ok(Some(Part::Length(name))) } else { self.unexpected() };
            }
            let name = self.parameter();
            if name.is_empty() {
                return self.unexpected();
            }
            let op =
                ["##", "%%", ":-", ":=", ":+", ":?", "-", "=", "+", "?", "#", "%"].into_iter().find(|op| self.eat(op));
            let op = match op {
                Some(op) => Some((op.to_owned(), self.quoted(Some('}'))?)),
                None if self.eat("}") => None,
                None => return self.unexpected(),
            };
            return Ok(Some(Part::Variable { name, op, quoted }));
        }
        let name = self.parameter();
        Ok(if name.is_empty() { None } else { Some(Part::Variable { name, op: None, quoted }) })
    }

    fn parameter(&mut self) -> String {
        match self.peek() {
            Some(c) if c.is_ascii_digit() || "?$!#@*-".contains(c) => {
                self.at += 1;
                c.into()
            }
            _ => self.name(),
        }
    }
}

impl Word {
    /// The word's text without expansions.
    pub(super) fn plain(&self) -> String {
        self.0.iter().map(|part| if let Part::Text { text, .. } = part { text.as_str() } else { "" }).collect()
    }
}

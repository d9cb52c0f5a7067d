//! Commands on text: `head`, `grep`, `sort` and such, `echo` and `printf`.

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::io::{AsyncBufReadExt, AsyncReadExt};

use super::{
    super::{Io, Shell},
    Failure,
};
use crate::base::limits;

impl Shell {
    pub(super) async fn filter(&self, name: &str, arguments: &[String], io: &Io) -> Result<i32, Failure> {
        let mut count = 10_usize;
        let mut from_start = false;
        let (mut flags, mut names) = (String::new(), Vec::new());
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.strip_prefix('-') {
                Some(n) if matches!(name, "head" | "tail") && n.starts_with(['n', 'c']) => {
                    flags.extend(n.chars().next());
                    let value = if n.len() > 1 { n[1..].to_owned() } else { rest.next().cloned().unwrap_or_default() };
                    from_start = value.starts_with('+');
                    let value = value.trim_start_matches(['+', '=']);
                    count = value.parse().map_err(|_| format!("invalid number of lines: '{value}'"))?;
                }
                Some(n) if matches!(name, "head" | "tail") && n.parse::<usize>().is_ok() => {
                    count = n.parse().unwrap_or(count);
                }
                Some(letters) if !letters.is_empty() => flags.push_str(letters.trim_start_matches('-')),
                _ => names.push(argument.clone()),
            }
        }
        let pattern = if name == "grep" {
            if names.is_empty() {
                return Err(Failure("usage: grep [-ivcqE] PATTERN [FILE]...".into(), 2));
            }
            let pattern = names.remove(0);
            let pattern = if flags.contains('F') { regex::escape(&pattern) } else { pattern };
            let pattern = if flags.contains('i') { format!("(?i){pattern}") } else { pattern };
            Some(regex::bytes::Regex::new(&pattern).map_err(|_| Failure("Invalid regular expression".into(), 2))?)
        } else {
            None
        };
        // `tail -f /dev/null`: the usual way to keep a container running.
        if name == "tail" && flags.contains('f') {
            std::future::pending::<()>().await;
        }
        if names.is_empty() {
            names.push("-".into());
        }
        let mut status = 0;
        let mut data = Vec::new();
        for file in &names {
            match self.source(file, io) {
                Ok(source) => {
                    let mut source = source.lock().await;
                    if name == "head" && !flags.contains('c') {
                        for _ in 0..count {
                            if source.read_until(b'\n', &mut data).await.unwrap_or(0) == 0 {
                                break;
                            }
                        }
                    } else {
                        let limited = &mut (&mut *source).take(limits::LOG_BYTES as u64);
                        let _ = limited.read_to_end(&mut data).await; // a broken input is at its end
                    }
                }
                Err(error) => {
                    self.complain(io, &format!("{name}: {error}")).await;
                    status = if name == "grep" { 2 } else { 1 };
                }
            }
        }
        let lines: Vec<&[u8]> = data.split_inclusive(|byte| *byte == b'\n').collect();
        let out: Vec<u8> = match name {
            "head" if flags.contains('c') => data[..count.min(data.len())].to_vec(),
            "head" => data.clone(),
            "tail" if flags.contains('c') => data[data.len().saturating_sub(count)..].to_vec(),
            "tail" if from_start => lines.iter().skip(count.saturating_sub(1)).copied().collect::<Vec<_>>().concat(),
            "tail" => lines[lines.len().saturating_sub(count)..].concat(),
            "sort" => {
                let mut lines = lines;
                lines.sort_unstable();
                if flags.contains('r') {
                    lines.reverse();
                }
                if flags.contains('u') {
                    lines.dedup();
                }
                lines.concat()
            }
            "wc" => {
                let words = data.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count();
                let newlines = data.iter().filter(|byte| **byte == b'\n').count();
                let all = [('l', newlines), ('w', words), ('c', data.len())];
                let chosen: Vec<String> = all
                    .iter()
                    .filter(|(letter, _)| flags.is_empty() || flags.contains(*letter))
                    .map(|(_, number)| number.to_string())
                    .collect();
                let file = if names[0] == "-" { String::new() } else { format!(" {}", names[0]) };
                format!("{}{file}\n", chosen.join(" ")).into_bytes()
            }
            "base64" if flags.contains('d') => decode_base64(&data).ok_or_else(|| "invalid input".to_owned())?,
            "base64" => format!("{}\n", STANDARD.encode(&data)).into_bytes(),
            _ => {
                let Some(pattern) = pattern else { return Ok(2) };
                let negated = flags.contains('v');
                let matches: Vec<&[u8]> = lines
                    .into_iter()
                    .filter(|line| pattern.is_match(line.strip_suffix(b"\n").unwrap_or(line)) != negated)
                    .collect();
                if status == 0 && matches.is_empty() {
                    status = 1;
                }
                if flags.contains('q') {
                    return Ok(status);
                }
                if flags.contains('c') { format!("{}\n", matches.len()).into_bytes() } else { matches.concat() }
            }
        };
        self.write(&io.stdout, &out).await?;
        Ok(status)
    }
}

pub(super) fn echo(arguments: &[String]) -> String {
    let mut words = arguments;
    let (mut newline, mut escapes) = (true, false);
    while let Some((first, rest)) = words.split_first() {
        match first.as_str() {
            "-n" => newline = false,
            "-e" => escapes = true,
            "-ne" | "-en" => (newline, escapes) = (false, true),
            _ => break,
        }
        words = rest;
    }
    let text = words.join(" ");
    let text = if escapes { unescape(&text) } else { text };
    if newline { text + "\n" } else { text }
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('a') => out.push('\u{7}'),
            Some('e') => out.push('\u{1b}'),
            Some('0') => {
                let digits: String = chars.clone().take(3).take_while(|c| c.is_digit(8)).collect();
                for _ in 0..digits.len() {
                    chars.next();
                }
                out.push(u8::from_str_radix(&digits, 8).unwrap_or(0) as char);
            }
            Some('\\') => out.push('\\'),
            Some(c) => out.extend(['\\', c]),
            None => out.push('\\'),
        }
    }
    out
}

pub(super) fn printf(arguments: &[String]) -> String {
    let Some((format, mut values)) = arguments.split_first() else { return String::new() };
    let format = unescape(format);
    let mut out = String::new();
    loop {
        let before = values.len();
        let mut chars = format.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut width = String::new();
            while let Some(c) = chars.next_if(|c| c.is_ascii_digit() || "-+. #".contains(*c)) {
                width.push(c);
            }
            let kind = chars.next().unwrap_or('%');
            if kind == '%' {
                out.push('%');
                continue;
            }
            let value = match values.split_first() {
                Some((first, rest)) => {
                    values = rest;
                    first.clone()
                }
                None => String::new(),
            };
            let integer = value.trim().parse::<i64>().unwrap_or(0);
            let text = match kind {
                'd' | 'i' | 'u' => integer.to_string(),
                'x' => format!("{integer:x}"),
                'X' => format!("{integer:X}"),
                'o' => format!("{integer:o}"),
                'c' => value.chars().take(1).collect(),
                'b' => unescape(&value),
                'f' => format!("{:.6}", value.trim().parse::<f64>().unwrap_or(0.0)),
                _ => value,
            };
            let columns = width.trim_start_matches(['-', '+', '0', ' ', '#']).split('.').next().unwrap_or_default();
            let columns: usize = columns.parse().unwrap_or(0).min(limits::STREAM_BYTES);
            match (width.starts_with('-'), width.starts_with('0')) {
                (true, _) => out.push_str(&format!("{text:<columns$}")),
                (_, true) => out.push_str(&format!("{text:0>columns$}")),
                _ => out.push_str(&format!("{text:>columns$}")),
            }
        }
        // The format is used again while arguments are left and it takes some.
        if values.is_empty() || values.len() == before {
            return out;
        }
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Decodes base64; what is no letter of it is skipped if it is white space, and refused if not.
pub(in crate::kubelet) fn decode_base64(data: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(data.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in data {
        if byte.is_ascii_whitespace() || *byte == b'=' {
            continue;
        }
        let value = BASE64.iter().position(|letter| letter == byte)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    Some(out)
}

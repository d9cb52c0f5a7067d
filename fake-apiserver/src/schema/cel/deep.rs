//! Expressions that nest deeply, which what parses and evaluates follows by calling itself: they get a stack of their own.

use std::{panic::resume_unwind, thread};

/// Operators and brackets of an expression that any stack has room for.
const LIGHT: usize = 48;

/// Operators and brackets of an expression, at most. No rule that somebody wrote comes near.
const MOST: usize = 5_000;

/// Bytes of the stack for what is not light, in a build without optimizations. Only what is used of it takes memory.
const STACK: usize = 512 * 1024 * 1024;

/// How deep an expression may nest at most: each operator and each bracket may be a level.
fn weight(source: &str) -> usize {
    source.bytes().filter(|byte| b"+-*/%<>=&|?:.([{!".contains(byte)).count()
}

/// Whether an expression is too large to be looked at.
///
/// # Errors
/// cel-go's words for one that nests too deeply.
pub(super) fn check(source: &str) -> Result<(), String> {
    if weight(source) <= MOST {
        return Ok(());
    }
    Err("ERROR: <input>:-1:0: max recursion depth exceeded".into())
}

/// Works on an expression, on a stack that is large enough for it.
pub(super) fn with_stack<T: Send>(source: &str, work: impl FnOnce() -> T + Send) -> T {
    if weight(source) <= LIGHT {
        return work();
    }
    thread::scope(|scope| match thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work) {
        Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
        Err(error) => panic!("no thread for a large expression: {error}; is a limit on processes reached?"),
    })
}

//! Commands in a shell that gives them their folder and their variables, and by which they are found again.

use std::collections::BTreeMap;

use crate::error::ExecError;

/// The variable by which the processes of one command are found.
pub(super) const TAG: &str = "AGENT_SANDBOX_EXEC";

/// Reads variables from its input, a line of shell for each, until a line with a dot; goes to the folder; becomes the
/// command. `read` takes no byte beyond its line, so that the rest of the input is the command's.
const WRAPPER: &str = "n='\n'; while read -r l; do [ \"$l\" = . ] && break; eval \"$l\"; done; \
    if [ -n \"$1\" ]; then cd \"$1\" || exit 1; fi; \
    if [ \"$2\" = - ]; then shift 2; exec \"$@\" </dev/null; fi; shift 2; exec \"$@\"";

/// The same on a terminal, which would show what it reads: the variables lie in a file, which goes.
const TERMINAL_WRAPPER: &str = "n='\n'; d=$1; export AGENT_SANDBOX_EXEC=\"$3\"; \
    if [ -n \"$2\" ]; then while read -r l; do eval \"$l\"; done < \"$2\"; rm -f \"$2\"; fi; \
    if [ -n \"$d\" ]; then cd \"$d\" || exit 1; fi; shift 3; exec \"$@\"";

/// Sends a signal to every process that has the tag, and says whether there was one. The tag is not in this script's own
/// environment.
pub(super) const KILLER: &str = "f=1; for p in /proc/[0-9]*; do \
    if grep -q \"$2\" \"$p/environ\" 2>/dev/null; then kill -s \"$1\" \"${p#/proc/}\" 2>/dev/null && f=0; fi; done; exit $f";

/// The command that goes to its folder first and gets its variables from its input.
pub(super) fn wrap(command: Vec<String>, cwd: Option<&str>, input: bool) -> Vec<String> {
    let input = if input { "+" } else { "-" };
    let wrapper = ["sh", "-c", WRAPPER, "sh"].map(str::to_owned);
    wrapper.into_iter().chain([folder(cwd), input.to_owned()]).chain(command).collect()
}

/// As [`wrap`], for a command on a terminal, whose variables lie in a file.
pub(super) fn wrap_on_terminal(command: Vec<String>, cwd: Option<&str>, file: &str, tag: &str) -> Vec<String> {
    let wrapper = ["sh", "-c", TERMINAL_WRAPPER, "sh"].map(str::to_owned);
    wrapper.into_iter().chain([folder(cwd), file.to_owned(), tag.to_owned()]).chain(command).collect()
}

/// A folder that is none of `cd`'s options.
fn folder(cwd: Option<&str>) -> String {
    match cwd {
        Some(cwd) if cwd.starts_with('-') => format!("./{cwd}"),
        cwd => cwd.unwrap_or_default().to_owned(),
    }
}

/// Variables as lines of shell.
pub(super) fn preamble(env: &BTreeMap<String, String>) -> Result<String, ExecError> {
    let mut text = String::new();
    for (name, value) in env {
        let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
        let ok = name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit());
        if !ok || value.contains('\0') {
            return Err(ExecError::BadVariable { name: name.clone() });
        }
        let value = value.replace('\'', "'\\''").replace('\n', "'\"$n\"'");
        text.push_str(&format!("export {name}='{value}'\n"));
    }
    Ok(text)
}

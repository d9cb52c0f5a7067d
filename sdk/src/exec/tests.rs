use std::{
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::Utf8Decoder;

#[test]
fn the_status_that_ends_a_command_tells_its_exit_code() {
    let status = |value| exit_code(&serde_json::from_value::<Status>(value).unwrap());
    assert_eq!(status(json!({"status": "Success", "metadata": {}})), Some(0));
    let failed = json!({"status": "Failure", "reason": "NonZeroExitCode",
        "message": "command terminated with non-zero exit code: exit status 42",
        "details": {"causes": [{"reason": "ExitCode", "message": "42"}]}});
    assert_eq!(status(failed), Some(42));
    let refused = json!({"status": "Failure", "reason": "InternalError", "message": "no such program", "code": 500});
    assert_eq!(status(refused), None);
    assert_eq!((signal(137), signal(143), signal(1), signal(128)), (Some(9), Some(15), None, None));
}

proptest! {
    /// P2-20: the predecessor decoded each piece for itself.
    #[test]
    fn text_does_not_depend_on_where_it_was_cut(bytes: Vec<u8>, text: String, at: Vec<prop::sample::Index>) {
        for bytes in [bytes, text.into_bytes()] {
            let mut cuts: Vec<_> = at.iter().map(|at| at.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let mut decoder = Utf8Decoder::default();
            let mut decoded = String::new();
            for pair in cuts.windows(2) {
                decoded.push_str(&decoder.push(&bytes[pair[0]..pair[1]]));
            }
            decoded.push_str(decoder.finish());
            prop_assert_eq!(decoded, String::from_utf8_lossy(&bytes));
        }
    }
}

/// The wrapped command in a shell of this machine, as a kubelet would start it.
fn start(command: &[&str], cwd: Option<&str>, env: &BTreeMap<String, String>, input: Option<&str>, tag: &str) -> Child {
    let command = wrap(command.iter().map(|word| (*word).to_owned()).collect(), cwd, input.is_some());
    for word in &command {
        assert!(env.values().all(|value| value.is_empty() || !word.contains(value)), "{word} goes into the URL");
    }
    let mut child =
        Command::new(&command[0]).args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let text = format!("export {TAG}={tag}\n{}.\n{}", preamble(env).unwrap(), input.unwrap_or_default());
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    child
}

/// P2-1, P2-2: with a folder given, the variables did not reach the command; and they stood in the URL.
#[test]
fn variables_reach_a_command_in_another_folder_and_stand_in_no_url() {
    let env: BTreeMap<String, String> =
        [("TOKEN", "s3cr3t '$HOME' \"`id`\" \\n"), ("TEXT", "  two\nlines\n\n"), ("DOT", ".\n.\n"), ("EMPTY", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
    let print = "pwd; printf '%s|%s|%s|%s|' \"$TOKEN\" \"$TEXT\" \"$DOT\" \"$EMPTY\"; cat";
    let child = start(&["sh", "-c", print], Some("/usr"), &env, Some("the input\n"), "env-test");
    let output = child.wait_with_output().unwrap();
    let wanted = format!("/usr\n{}|{}|{}||the input\n", env["TOKEN"], env["TEXT"], env["DOT"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), wanted);
}

#[test]
fn a_command_without_input_does_not_wait_for_any() {
    let output = start(&["cat"], None, &BTreeMap::new(), None, "no-input-test").wait_with_output().unwrap();
    assert!(output.stdout.is_empty() && output.status.success());
}

#[test]
fn a_variable_that_a_shell_would_not_take_is_refused() {
    for name in ["", "1A", "A B", "A=B", "A;id", "Ä"] {
        let error = preamble(&[(name.to_owned(), "s3cr3t".to_owned())].into()).unwrap_err();
        assert!(matches!(&error, ExecError::BadVariable { name: said } if said == name), "{error}");
        assert!(!format!("{error} {error:?}").contains("s3cr3t"));
    }
    assert!(preamble(&[("A".to_owned(), "\0".to_owned())].into()).is_err());
}

/// P2-3: the predecessor's kill closed the connection, and the process went on.
#[test]
fn a_kill_ends_the_command_and_what_it_has_started() {
    let tag = format!("kill-test-{}", std::process::id());
    let script = "sleep 1000 & echo $!; wait";
    let mut child = start(&["sh", "-c", script], None, &BTreeMap::new(), None, &tag);
    let mut pid = [0; 16];
    let count = child.stdout.as_mut().unwrap().read(&mut pid).unwrap();
    let pid = String::from_utf8_lossy(&pid[..count]).trim().to_owned();
    let kill = |signal: &str| {
        let tag = format!("{TAG}={tag}");
        Command::new("sh").args(["-c", KILLER, "sh", signal, &tag]).status().unwrap().code()
    };
    assert_eq!(kill("TERM"), Some(0));
    assert_eq!(child.wait().unwrap().signal(), Some(15));
    // The pipe ends when its last writer, the grandchild, has gone.
    let mut rest = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{pid}/fd/1")).exists(), "{pid} is gone");
    assert_eq!(kill("KILL"), Some(1), "nobody is left");
}

//! What the small shell makes of a text.

use std::time::Duration;

use rstest::rstest;
use tokio::io::AsyncReadExt;

use super::*;
use crate::kubelet::script::ExecRule;

fn clock() -> Clock {
    Clock::starting_at("2026-01-02T03:04:05Z".parse().unwrap())
}

fn shell(clock: &Clock, rules: Vec<ExecRule>) -> Shell {
    let host = Arc::new(Host { clock: clock.clone(), hostname: "web-0".into(), rules, numbers: Default::default() });
    let env = BTreeMap::from([("HOME".to_owned(), "/root".to_owned()), ("A".to_owned(), "1 2".to_owned())]);
    Shell::new(host, Fs::new("web-0", clock.now()), env, "/", Unknown::NotFound)
}

async fn run_in(shell: &mut Shell, words: &[&str], stdin: &str) -> (String, String, i32) {
    let (out_writer, mut out) = duplex(1 << 20);
    let (err_writer, mut err) = duplex(1 << 20);
    let io = Io {
        stdin: input(std::io::Cursor::new(stdin.as_bytes().to_vec())),
        stdout: output(out_writer),
        stderr: output(err_writer),
    };
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let status = shell.program(&words, &io).await;
    drop(io);
    let (mut stdout, mut stderr) = (String::new(), String::new());
    out.read_to_string(&mut stdout).await.unwrap();
    err.read_to_string(&mut stderr).await.unwrap();
    (stdout, stderr, status)
}

async fn sh(text: &str) -> (String, String, i32) {
    run_in(&mut shell(&clock(), Vec::new()), &["sh", "-c", text], "").await
}

#[rstest]
#[case("echo hello world", "hello world\n")]
#[case("echo -n a; echo b", "ab\n")]
#[case("printf '%s=%d\\n' a 1 b 2", "a=1\nb=2\n")]
#[case("echo $A\"$A\" '$A'", "1 21 2 $A\n")]
#[case("echo \"a  b\"   c", "a  b c\n")]
#[case("false; echo $?", "1\n")]
#[case("true && echo yes || echo no", "yes\n")]
#[case("false && echo yes || echo no", "no\n")]
#[case("! false; echo $?", "0\n")]
#[case("echo one > /tmp/f; echo two >> /tmp/f; cat /tmp/f", "one\ntwo\n")]
#[case("echo in > /tmp/f; cat < /tmp/f", "in\n")]
#[case("printf 'b\\na\\n' | sort | head -n 1", "a\n")]
#[case("cat <<EOF | wc -l\na $A\nb\nEOF", "2\n")]
#[case("cat <<'EOF'\n$A\nEOF", "$A\n")]
#[case("cd /tmp && mkdir -p x/y && cd x/y && pwd", "/tmp/x/y\n")]
#[case("mkdir /tmp/d; touch /tmp/d/b /tmp/d/a; ls /tmp/d; echo /tmp/d/*", "a\nb\n/tmp/d/a /tmp/d/b\n")]
#[case("touch /tmp/f; rm /tmp/f; [ -e /tmp/f ] || echo gone", "gone\n")]
#[case("echo x > /tmp/a; mv /tmp/a /tmp/b; cp /tmp/b /tmp/c; cat /tmp/b /tmp/c", "x\nx\n")]
#[case("for i in 1 2 3; do echo $i; done", "1\n2\n3\n")]
#[case("i=0; while [ $i -lt 3 ]; do i=$((i + 1)); done; echo $i", "3\n")]
#[case("for i in 1 2 3; do [ $i = 2 ] && continue; [ $i = 3 ] && break; echo $i; done", "1\n")]
#[case("if [ -d /tmp ]; then echo dir; else echo none; fi", "dir\n")]
#[case("case abc in x) echo x;; a*) echo a;; esac", "a\n")]
#[case("f() { echo \"$1-$#\"; }; f a b", "a-2\n")]
#[case("echo $(echo inner) `echo old`", "inner old\n")]
#[case("X=1; (X=2; echo $X); echo $X", "2\n1\n")]
#[case("X=y env | grep ^X", "X=y\n")]
#[case("sleep 1000 & kill $!; wait $!; echo $?", "143\n")]
#[case("sleep 1000 & sleep 2000 & kill -9 %2; wait %2; echo $?; kill -0 %1 && echo alive; kill %1", "137\nalive\n")]
#[case("(exit 3) & wait $!; echo $?; kill 12345 2>&1; echo $?", "3\nsh: kill: (12345) - No such process\n1\n")]
#[case("mkdir -p /tmp/d/e; echo hi > /tmp/d/e/f; tar cf - -C /tmp d | tar -xmf - -C /root; cat /root/d/e/f", "hi\n")]
#[case(
    "mkdir /tmp/d; echo x > /tmp/d/f; tar -cf /tmp/t.tar /tmp/d 2>&1; tar tf /tmp/t.tar",
    "tar: Removing leading `/' from member names\ntmp/d/\ntmp/d/f\n"
)]
#[case(
    "tar cf - /none 2>&1 >/dev/null; echo $?",
    "tar: Removing leading `/' from member names\ntar: /none: Cannot stat: No such file or directory\ntar: Exiting with failure status due to previous errors\n2\n"
)]
#[case("echo '  a  b c  ' | { read x y; echo \"<$x><$y>\"; }", "<a><b c>\n")]
#[case("echo 'a:b::c' | { IFS=: read x y z; echo \"<$x><$y><$z>\"; }", "<a><b><:c>\n")]
#[case("echo '  a ' | { IFS= read -r x; echo \"<$x>\"; }", "<  a >\n")]
#[case("printf 'a\\\\b\\\\\\nc\\n' | { read x; echo \"<$x>\"; }", "<abc>\n")]
#[case("printf 'a\\\\b\\n' | { read -r x; echo \"<$x>\"; }", "<a\\b>\n")]
#[case("printf 'no end' | { read x && echo yes; echo \"<$x>\"; }", "<no end>\n")]
#[case("printf 'a\\r\\n' | { read x; printf %s \"$x\" | wc -c; }", "2\n")]
#[case("export Y=z; sh -c 'echo $Y'", "z\n")]
#[case("Y=z; sh -c 'echo [$Y]'", "[]\n")]
#[case("echo ${X:-default} ${#A} ${A%2}x", "default 3 1 x\n")]
#[case("whoami; hostname; uname", "root\nweb-0\nLinux\n")]
#[case("date +%s", "1767323045\n")]
#[case("echo aGVsbG8= | base64 -d", "hello")]
#[case("echo $((2 * (3 + 4) % 5)) $((1 < 2 && 3 != 3))", "4 0\n")]
#[case("{ echo err >&2; } 2>&1 | cat; { echo a; echo b; } | tail -1", "err\nb\n")]
#[case("seq 3 | while read n; do echo n$n; done", "n1\nn2\nn3\n")]
#[case("set -e; false || true; echo on; false; echo never", "on\n")]
#[case("sh -c 'echo $0 $1' name arg", "name arg\n")]
#[case("echo bg & wait; echo done", "bg\ndone\n")]
#[case("# nothing\necho a # comment", "a\n")]
#[case("echo 'it'\"'\"'s'", "it's\n")]
#[tokio::test]
async fn a_text_prints(#[case] text: &str, #[case] expected: &str) {
    let (stdout, stderr, _) = sh(text).await;
    assert_eq!(stdout, expected, "stderr: {stderr}");
}

#[rstest]
#[case("exit 3", 3, "")]
#[case("foo --bar", 127, "sh: 1: foo: not found\n")]
#[case("(exit 4)", 4, "")]
#[case("false | true", 0, "")]
#[case("cat /none", 1, "cat: /none: No such file or directory\n")]
#[case("cd /none", 2, "cd: can't cd to /none: No such file or directory\n")]
#[case("echo x > /none/f", 2, "sh: 1: cannot create /none/f: No such file or directory\n")]
#[case("if true", 2, "sh: 1: Syntax error: end of file unexpected\n")]
#[case("echo )", 2, "sh: 1: Syntax error: \")\" unexpected\n")]
#[case("f() { f; }; f", 2, "f: too deep\n")]
#[tokio::test]
async fn a_text_fails(#[case] text: &str, #[case] code: i32, #[case] expected: &str) {
    let (_, stderr, status) = sh(text).await;
    assert_eq!((status, stderr.as_str()), (code, expected));
}

#[tokio::test]
async fn files_and_directories_stay_between_commands_of_one_container() {
    let mut shell = shell(&clock(), Vec::new());
    run_in(&mut shell, &["sh", "-c", "echo kept > /tmp/f"], "").await;
    let (stdout, _, _) = run_in(&mut shell, &["cat", "/tmp/f"], "").await;
    assert_eq!(stdout, "kept\n");
}

#[tokio::test]
async fn commands_are_read_from_standard_input() {
    let mut shell = shell(&clock(), Vec::new());
    let input = "echo one\nfor i in 2 3\ndo echo $i\ndone\ncat\nrest of the input\n";
    let (stdout, _, status) = run_in(&mut shell, &["sh"], input).await;
    assert_eq!((stdout.as_str(), status), ("one\n2\n3\nrest of the input\n", 0));
}

#[tokio::test]
async fn a_rule_answers_for_its_command_also_inside_the_shell() {
    let rule = ExecRule {
        command: vec!["python".into(), "--version".into()],
        stdout: "Python 3.13\n".into(),
        stderr: String::new(),
        exit_code: 7,
        delay: None,
    };
    let mut shell = shell(&clock(), vec![rule]);
    let (stdout, _, status) = run_in(&mut shell, &["python", "--version", "-v"], "").await;
    assert_eq!((stdout.as_str(), status), ("Python 3.13\n", 7));
    let (stdout, _, _) = run_in(&mut shell, &["sh", "-c", "python --version | wc -l; python"], "").await;
    assert_eq!(stdout, "1\n");
}

#[tokio::test(start_paused = true)]
async fn sleep_takes_time_of_the_clock() {
    let clock = clock();
    let mut shell = shell(&clock, Vec::new());
    run_in(&mut shell, &["sleep", "1.5m"], "").await;
    assert_eq!(clock.now_text(), "2026-01-02T03:05:35Z");
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_ends_the_command_with_130() {
    let clock = clock();
    let mut shell = shell(&clock, Vec::new());
    let interrupt = shell.interrupt();
    let wait = async {
        clock.sleep(Duration::from_secs(1)).await;
        interrupt.notify_one();
    };
    let ((_, _, status), ()) = tokio::join!(run_in(&mut shell, &["sleep", "100"], ""), wait);
    assert_eq!((status, clock.now_text().as_str()), (130, "2026-01-02T03:04:06Z"));
}

#[tokio::test(start_paused = true)]
async fn a_program_that_is_not_known_runs_forever_where_images_bring_their_own() {
    let clock = clock();
    let mut shell = shell(&clock, Vec::new());
    shell.unknown = Unknown::RunsForever;
    let run = run_in(&mut shell, &["sh", "-c", "apt-get update && sleep 1"], "");
    assert_eq!(clock.timeout(Duration::from_secs(3600), run).await, None);
}

#[tokio::test]
async fn output_of_any_length_passes_a_pipe() {
    let (stdout, stderr, _) = sh("seq 100000 | tail -n 1").await;
    assert_eq!((stdout.as_str(), stderr.as_str()), ("100000\n", ""));
}

//! What is left when scenarios have run: a table for people, JUnit XML for CI, Markdown for whoever reads later.

use std::{fmt::Write, time::Duration};

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};

use crate::runner::{Outcome, Run, Verdict};

/// The command that runs one scenario again.
pub fn again(target: &str, name: &str) -> String {
    format!("cargo run --locked -p e2e -- run --target {target} --filter {name}")
}

/// A time to read.
pub fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

fn word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Passed => "passed".into(),
        Verdict::Skipped(why) => format!("skipped: {why}"),
        Verdict::Failed(_) => "FAILED".into(),
    }
}

fn counts(run: &Run) -> String {
    let count = |wanted: fn(&Verdict) -> bool| run.outcomes.iter().filter(|one| wanted(&one.verdict)).count();
    format!(
        "{} passed, {} skipped, {} failed on {} in {}{}",
        count(|verdict| matches!(verdict, Verdict::Passed)),
        count(|verdict| matches!(verdict, Verdict::Skipped(_))),
        count(|verdict| matches!(verdict, Verdict::Failed(_))),
        run.target,
        seconds(run.took),
        if run.interrupted { ", broken off" } else { "" },
    )
}

/// The table of times, and a line that counts.
pub fn table(run: &Run) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["scenario", "outcome", "time"]);
    for Outcome { name, verdict, took, .. } in &run.outcomes {
        table.add_row([(*name).to_owned(), word(verdict), seconds(*took)]);
    }
    if let Some(times) = table.column_mut(2) {
        times.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n{}\n", counts(run))
}

/// What went wrong: steps, error, what there was, and how to run it again.
pub fn failures(run: &Run) -> String {
    let mut text = String::new();
    for (Outcome { name, steps, .. }, why) in run.failures() {
        let _ = writeln!(text, "\n== {name} failed on {}", run.target);
        for (at, step) in steps {
            let _ = writeln!(text, "   {:>9}  {step}", seconds(*at));
        }
        let _ = writeln!(text, "{why}\nRun it again: {}", again(&run.target, name));
    }
    text
}

/// JUnit's XML.
pub fn junit(run: &Run) -> String {
    let count = |wanted: fn(&Verdict) -> bool| run.outcomes.iter().filter(|one| wanted(&one.verdict)).count();
    let (failed, skipped) =
        (count(|one| matches!(one, Verdict::Failed(_))), count(|one| matches!(one, Verdict::Skipped(_))));
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        text,
        "<testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\" skipped=\"{skipped}\" time=\"{:.3}\">",
        xml(&run.target),
        run.outcomes.len(),
        run.took.as_secs_f64(),
    );
    for Outcome { name, verdict, took, steps } in &run.outcomes {
        let (group, test) = name.split_once("::").unwrap_or(("", name));
        let head = format!(
            "  <testcase classname=\"{}.{}\" name=\"{}\" time=\"{:.3}\"",
            xml(&run.target),
            xml(group),
            xml(test),
            took.as_secs_f64()
        );
        let said: String = steps.iter().map(|(at, step)| format!("{}  {step}\n", seconds(*at))).collect();
        let _ = match verdict {
            Verdict::Passed => writeln!(text, "{head}/>"),
            Verdict::Skipped(why) => {
                writeln!(text, "{head}><skipped message=\"{}\"/></testcase>", xml(why))
            }
            Verdict::Failed(why) => writeln!(
                text,
                "{head}><failure message=\"{}\">{}</failure><system-out>{}</system-out></testcase>",
                xml(why.lines().next().unwrap_or_default()),
                xml(why),
                xml(&said),
            ),
        };
    }
    text.push_str("</testsuite>\n");
    text
}

/// Text in XML; what XML cannot hold is replaced.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' | '\r' => out.push(character),
            control if control.is_control() => out.push('\u{FFFD}'),
            other => out.push(other),
        }
    }
    out
}

/// A page of Markdown.
pub fn markdown(run: &Run) -> String {
    let mut text =
        format!("# Scenarios on {}\n\n{}\n\n| scenario | outcome | time |\n|---|---|---|\n", run.target, counts(run));
    for Outcome { name, verdict, took, .. } in &run.outcomes {
        let _ = writeln!(text, "| {name} | {} | {} |", word(verdict).replace('|', "\\|"), seconds(*took));
    }
    for (Outcome { name, steps, .. }, why) in run.failures() {
        let _ = writeln!(text, "\n## {name}\n\n`{}`\n\n```text", again(&run.target, name));
        for (at, step) in steps {
            let _ = writeln!(text, "{:>9}  {step}", seconds(*at));
        }
        let _ = writeln!(text, "{}\n```", why.replace("```", "'''"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        let one = |name, verdict| Outcome {
            name,
            verdict,
            took: Duration::from_millis(1500),
            steps: vec![(Duration::from_millis(20), "creates <it>".into())],
        };
        let outcomes = vec![
            one("a::passes", Verdict::Passed),
            one("a::is_left_out", Verdict::Skipped("the target has no gvisor".into())),
            one("b::fails", Verdict::Failed("it is \"<none>\"\n\u{1}namespace e2e-1".into())),
        ];
        Run { target: "memory".into(), outcomes, took: Duration::from_secs(3), interrupted: false }
    }

    #[test]
    fn ci_reads_what_failed_and_what_was_left_out() {
        let text = junit(&run());
        assert!(
            text.contains(r#"<testsuite name="memory" tests="3" failures="1" skipped="1" time="3.000">"#),
            "{text}"
        );
        assert!(text.contains(r#"<testcase classname="memory.a" name="passes" time="1.500"/>"#), "{text}");
        assert!(text.contains(r#"<failure message="it is &quot;&lt;none&gt;&quot;">"#), "{text}");
        assert!(text.contains("\u{FFFD}namespace e2e-1"), "a character that XML cannot hold is replaced: {text}");
        assert!(text.contains("creates &lt;it&gt;"), "{text}");
    }

    #[test]
    fn a_failure_says_what_was_done_and_how_to_do_it_again() {
        for text in [failures(&run()), markdown(&run())] {
            assert!(text.contains("creates <it>") && text.contains("namespace e2e-1"), "{text}");
            assert!(text.contains("cargo run --locked -p e2e -- run --target memory --filter b::fails"), "{text}");
        }
        assert!(!run().is_good());
        assert!(table(&run()).contains("1 passed, 1 skipped, 1 failed on memory in 3.000 s"));
    }
}

//! The steps whose answers are known to differ. The list may only shrink: a listed step that matches fails, as does an
//! unlisted one that does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
    sync::{LazyLock, Mutex},
};

use crate::{
    case::{Case, folder},
    door::Kind,
    run::Outcome,
};

/// Cases and the numbers of their steps.
pub(crate) type Known = BTreeMap<String, BTreeSet<usize>>;

fn file() -> PathBuf {
    folder().join("known-differences.json")
}

/// The list as it was at the start.
pub(crate) static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let text = fs::read_to_string(file()).expect("known-differences.json");
    serde_json::from_str(&text).expect("known-differences.json maps cases to numbers of steps")
});

/// What `UPDATE` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Update {
    /// Not set: judge.
    No,
    /// `UPDATE=1`: take out what matches now; add nothing.
    Shrink,
    /// `UPDATE=all`: write down what is true, growth included.
    All,
}

impl Update {
    pub(crate) fn asked() -> Self {
        match env::var("UPDATE").as_deref() {
            Err(_) | Ok("" | "0") => Self::No,
            Ok("all") => Self::All,
            Ok(_) => Self::Shrink,
        }
    }
}

/// Writes a case's line anew.
pub(crate) fn update(case: &Case, outcome: &Outcome, how: Update) {
    static WRITING: Mutex<()> = Mutex::new(());
    LazyLock::force(&KNOWN);
    let _alone = WRITING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let text = fs::read_to_string(file()).expect("known-differences.json");
    let mut known: Known = serde_json::from_str(&text).expect("known-differences.json");
    let mut steps: BTreeSet<usize> = outcome.keys().copied().collect();
    if how == Update::Shrink {
        let listed = known.get(&case.id).cloned().unwrap_or_default();
        steps.retain(|step| listed.contains(step));
    }
    known.insert(case.id.clone(), steps);
    known.retain(|_, steps| !steps.is_empty());
    fs::write(file(), render(&known)).expect("a writable known-differences.json");
}

/// One line a case.
fn render(known: &Known) -> String {
    let lines: Vec<String> = known
        .iter()
        .map(|(case, steps)| {
            let steps: Vec<String> = steps.iter().map(usize::to_string).collect();
            format!(" {case:?}: [{}]", steps.join(", "))
        })
        .collect();
    if lines.is_empty() { "{}\n".into() } else { format!("{{\n{}\n}}\n", lines.join(",\n")) }
}

/// How many differences of one step a message shows.
const SHOWN: usize = 8;

/// What is wrong with a case's outcome, given the steps that are listed for it; nothing if it is as listed.
pub(crate) fn complaints(case: &Case, kind: Kind, outcome: &Outcome, listed: &BTreeSet<usize>) -> Vec<String> {
    let door = match kind {
        Kind::Memory => "in memory",
        Kind::Https => "over HTTPS",
    };
    let mut complaints = Vec::new();
    for (step, found) in outcome.iter().filter(|(step, _)| !listed.contains(step)) {
        let mut text = format!("{}, {door}, step {step} is not as recorded:", case.id);
        for difference in found.iter().take(SHOWN) {
            let (pointer, want, got) = (&difference.pointer, &difference.want, &difference.got);
            text.push_str(&format!("\n    {pointer}\n      want {want}\n      got  {got}"));
        }
        if found.len() > SHOWN {
            text.push_str(&format!("\n    and {} more", found.len() - SHOWN));
        }
        complaints.push(text);
    }
    for step in listed.iter().filter(|step| !outcome.contains_key(step)) {
        complaints
            .push(format!("{}, {door}, step {step} matches now: remove it from the list (UPDATE=1 does)", case.id));
    }
    if !complaints.is_empty() {
        complaints.push(format!(
            "  alone: CASE={} cargo test -p fake-apiserver --test conformance {}::",
            case.id,
            case.area.replace('-', "_")
        ));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compare::Difference, json::Json};

    fn case() -> Case {
        Case::parse("area-case", r#"{"name":"case","area":"an-area","steps":[{"path":"/"},{"path":"/"}]}"#)
    }

    fn outcome(steps: &[usize]) -> Outcome {
        let difference = || Difference::new("/kind", &"Pod".into(), &Json::Null);
        steps.iter().map(|step| (*step, vec![difference()])).collect()
    }

    #[test]
    fn an_unlisted_difference_is_told_with_its_place_both_sides_and_how_to_run_it_alone() {
        let text = complaints(&case(), Kind::Memory, &outcome(&[1]), &BTreeSet::new()).join("\n");
        let want = "area-case, in memory, step 1 is not as recorded:\n    /kind\n      want Pod\n      got  null\n  \
                    alone: CASE=area-case cargo test -p fake-apiserver --test conformance an_area::";
        assert_eq!(text, want);
    }

    #[test]
    fn a_listed_step_that_matches_is_to_be_removed() {
        let text = complaints(&case(), Kind::Https, &outcome(&[1]), &BTreeSet::from([0, 1])).join("\n");
        assert!(text.starts_with("area-case, over HTTPS, step 0 matches now: remove it from the list"), "{text}");
    }

    #[test]
    fn what_is_as_listed_is_nothing_to_complain_of() {
        assert!(complaints(&case(), Kind::Memory, &outcome(&[1]), &BTreeSet::from([1])).is_empty());
    }

    #[test]
    fn the_list_is_written_as_it_is_read() {
        let known = Known::from([("a".into(), BTreeSet::from([1, 2])), ("b".into(), BTreeSet::from([0]))]);
        assert_eq!(render(&known), "{\n \"a\": [1, 2],\n \"b\": [0]\n}\n");
        assert_eq!(serde_json::from_str::<Known>(&render(&known)).unwrap(), known);
        assert_eq!(serde_json::from_str::<Known>(&render(&Known::new())).unwrap(), Known::new());
    }
}

//! Answers recorded from a real control plane, held against a cluster through both its doors on virtual time.
//!
//! The cases are in `fixtures/conformance`, where a README tells their origin and form. Each runs in a cluster of its own.
//!
//! - `CASE=crud-bad-names cargo test -p fake-apiserver --test conformance` runs one case.
//! - `UPDATE=1 …` takes the steps that match now out of `known-differences.json`; `UPDATE=all …` writes the list anew.

mod case;
mod compare;
mod door;
mod json;
mod known;
mod normal;
mod run;

use std::{collections::BTreeSet, env};

use crate::{
    case::Case,
    door::Kind,
    known::{KNOWN, Update},
};

macro_rules! areas {
    ($($module:ident: $area:literal),* $(,)?) => {
        /// The areas that have tests.
        const AREAS: &[&str] = &[$($area),*];

        $(mod $module {
            use crate::{door::Kind, judge};

            #[test]
            fn answers_in_memory_as_recorded() {
                judge($area, Kind::Memory);
            }

            #[test]
            fn answers_over_https_as_recorded() {
                judge($area, Kind::Https);
            }
        })*
    };
}

areas! {
    agent_sandbox: "agent-sandbox",
    apply: "apply",
    builtin: "builtin",
    crd: "crd",
    crud: "crud",
    discovery: "discovery",
    identity: "identity",
    lifecycle: "lifecycle",
    lists: "lists",
    patch: "patch",
    tables: "tables",
    watch: "watch",
}

/// Runs the cases of an area, or the one that `CASE` names.
fn judge(area: &str, kind: Kind) {
    let update = Update::asked();
    if update != Update::No && kind == Kind::Https {
        eprintln!("the list is updated by what the in-memory door answers");
        return;
    }
    let chosen = env::var("CASE").ok();
    let mut complaints = Vec::new();
    for case in Case::all() {
        if case.area != area || chosen.as_ref().is_some_and(|chosen| *chosen != case.id) {
            continue;
        }
        let outcome = run::run(&case, kind);
        if update == Update::No {
            let listed = KNOWN.get(&case.id).cloned().unwrap_or_default();
            complaints.extend(known::complaints(&case, kind, &outcome, &listed));
        } else {
            known::update(&case, &outcome, update);
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_area_of_the_cases_has_tests() {
    let areas: BTreeSet<String> = Case::all().into_iter().map(|case| case.area).collect();
    assert_eq!(areas.iter().map(String::as_str).collect::<Vec<_>>(), AREAS);
}

#[test]
fn the_list_of_known_differences_names_judged_steps_of_cases_that_exist() {
    let cases = Case::all();
    for (id, steps) in KNOWN.iter() {
        let case = cases.iter().find(|case| case.id == *id).unwrap_or_else(|| panic!("there is no case {id}"));
        for step in steps {
            assert!(case.steps.get(*step).is_some_and(|step| step.is_judged()), "{id} has no judged step {step}");
        }
    }
}

#[test]
fn the_case_to_run_alone_exists() {
    if let Ok(chosen) = env::var("CASE") {
        assert!(Case::all().iter().any(|case| case.id == chosen), "there is no case {chosen} in fixtures/conformance");
    }
}

/// A small life of an object: read, watched, changed under the eyes of a watch.
const STORY: &str = r#"{
    "name": "story", "area": "crud",
    "steps": [
        {"do": "watch", "id": "w", "path": "/api/v1/namespaces/{ns}/configmaps?watch=true&fieldSelector=metadata.name%3Dc",
         "expect": {"status": 200}},
        {"method": "POST", "path": "/api/v1/namespaces/{ns}/configmaps", "only": ["/data", "/metadata/namespace"],
         "save": {"uid": "/metadata/uid"},
         "body": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"at": "{id}"}},
         "expect": {"status": 201, "type": "application/json",
                    "body": {"/data": {"at": "{id}"}, "/metadata/namespace": "{ns}"}}},
        {"do": "sleep", "seconds": 60},
        {"path": "/api/v1/namespaces/{ns}/configmaps/absent", "only": ["/reason", "/code"],
         "expect": {"status": 404, "type": "application/json", "body": {"/reason": "NotFound", "/code": 404}}},
        {"do": "wait", "path": "/api/v1/namespaces/{ns}/configmaps/c", "until": [["/metadata/uid", "${uid}"]],
         "only": ["/metadata/uid"],
         "expect": {"status": 200, "type": "application/json", "body": {"/metadata/uid": "<uid1>"}}},
        {"do": "events", "id": "w", "count": 1, "ignore": ["object"], "expect": {"events": [{"type": "ADDED"}]}}
    ]
}"#;

#[test]
fn a_case_that_tells_the_truth_has_no_difference_at_either_door() {
    for kind in [Kind::Memory, Kind::Https] {
        assert_eq!(run::run(&Case::parse("story", STORY), kind), run::Outcome::new(), "{kind:?}");
    }
}

#[test]
fn each_lie_in_a_case_is_found_at_its_step_and_place_at_either_door() {
    let lies = [
        (1, "/body/~1data/at", r#"{"/data": {"at": "{id}"}"#, r#"{"/data": {"at": "{ns}"}"#),
        (1, "/status", r#""status": 201"#, r#""status": 200"#),
        (3, "/body/~1reason", r#""/reason": "NotFound""#, r#""/reason": "Found""#),
        (4, "/timedOut", r#"["/metadata/uid", "${uid}"]"#, r#"["/metadata/uid", "other"]"#),
        (5, "/events", r#"[{"type": "ADDED"}]"#, r#"[{"type": "ADDED"}, {"type": "DELETED"}]"#),
    ];
    for (step, pointer, truth, lie) in lies {
        assert!(STORY.contains(truth), "{truth}");
        let case = Case::parse("story", &STORY.replace(truth, lie));
        for kind in [Kind::Memory, Kind::Https] {
            let outcome = run::run(&case, kind);
            let found: Vec<_> =
                outcome.iter().flat_map(|(step, found)| found.iter().map(|d| (*step, d.pointer.as_str()))).collect();
            assert_eq!(found, [(step, pointer)], "{kind:?}");
        }
    }
}

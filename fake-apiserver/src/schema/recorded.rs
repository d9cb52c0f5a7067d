//! Holds schemas against what a real API server answered: the recorded cases beside the workspace, if they are there.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use serde_json::Value;

use super::Schema;

/// `../shared` of the workspace, or of the folder that a worktree's workspace lies in.
fn shared() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent()?.to_owned();
    [root.join("../shared"), root.join("../../shared")].into_iter().find(|path| path.join("conformance/cases").is_dir())
}

fn case(name: &str) -> Option<Value> {
    let Some(shared) = shared() else {
        eprintln!("../shared is missing: {name} is not looked at");
        return None;
    };
    let text = fs::read_to_string(shared.join("conformance/cases").join(name)).expect("the case is there");
    Some(serde_json::from_str(&text).expect("a case is JSON"))
}

/// The error texts behind `is invalid: `, as one text.
fn expected_errors(expect: &Value) -> Option<String> {
    let body = &expect["body"];
    let message = body.get("message").or_else(|| body.get("/message"))?.as_str()?;
    Some(message.split_once(" is invalid: ")?.1.to_owned())
}

fn joined(errors: &[crate::base::FieldError]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    match texts.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

fn crd_schema(body: &Value) -> Option<&Value> {
    (body["kind"] == "CustomResourceDefinition").then(|| &body["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
}

/// Replays definitions and objects; gives how many answers were compared and what differed.
fn replay(name: &str, skip: impl Fn(&str) -> bool) -> (usize, Vec<String>) {
    let Some(case) = case(name) else { return (1, Vec::new()) };
    let mut schemas: BTreeMap<String, Arc<Schema>> = BTreeMap::new();
    let (mut compared, mut differing) = (0, Vec::new());
    let part = |key: &str| case[key].as_array().cloned().unwrap_or_default();
    for (index, step) in part("setup").iter().chain(&part("steps")).enumerate() {
        let body = match &step["body"] {
            Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
            other => other.clone(),
        };
        let expected = expected_errors(&step["expect"]);
        if expected.as_deref().is_some_and(&skip) {
            continue;
        }
        let unordered = step.get("unordered").is_some();
        let found = if let Some(openapi) = crd_schema(&body).filter(|openapi| openapi.is_object()) {
            match Schema::structural(openapi, "spec.validation.openAPIV3Schema") {
                Ok(schema) => {
                    schemas.insert(body["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned(), schema);
                    None
                }
                Err(errors) => Some(joined(&errors)),
            }
        } else if let (Some(schema), "POST") =
            (body["kind"].as_str().and_then(|kind| schemas.get(kind)), step["method"].as_str().unwrap_or_default())
        {
            let mut object = body.clone();
            schema.prune(&mut object);
            schema.default(&mut object);
            let errors = schema.validate(&object, None);
            let spec = &step["expect"]["body"]["spec"];
            if errors.is_empty() && spec.is_object() && spec != &object["spec"] {
                differing.push(format!("{index}: want {spec}, have {}", object["spec"]));
            }
            (!errors.is_empty()).then(|| joined(&errors))
        } else {
            continue;
        };
        if step.get("expect").is_none() {
            continue;
        }
        compared += 1;
        if found != expected && !unordered {
            differing.push(format!("{index}: want {expected:?}\n   have {found:?}"));
        }
    }
    (compared, differing)
}

fn assert_same(name: &str, skip: impl Fn(&str) -> bool) {
    let (compared, differing) = replay(name, skip);
    assert!(compared > 0, "{name} has nothing to compare");
    assert!(differing.is_empty(), "{name}:\n{}", differing.join("\n"));
}

#[test]
fn objects_are_refused_in_the_recorded_words() {
    assert_same("crd-validation-messages.json", |_| false);
    assert_same("crd-defaults-pruning-nulls.json", |_| false);
}

#[test]
fn rules_decide_as_recorded() {
    assert_same("crd-drawn-crd-cel-1.json", |_| false);
}

#[test]
fn definitions_are_refused_in_the_recorded_words() {
    // what other parts of a definition are refused for, and the cost of rules, are not the schema's
    let elsewhere = |text: &str| !text.contains("openAPIV3Schema.") || text.contains("estimated rule cost");
    assert_same("crd-drawn-crd-schema-1.json", elsewhere);
    assert_same("crd-definitions-rejected.json", elsewhere);
}

#[test]
fn agent_sandbox_definitions_compile_and_refuse_as_recorded() {
    let (Some(case), Some(shared)) = (case("agent-sandbox-sandbox-validation.json"), shared()) else { return };
    let mut schemas = BTreeMap::new();
    for entry in fs::read_dir(shared.join("upstream/crds")).expect("the definitions are there") {
        let text = fs::read_to_string(entry.expect("it is readable").path()).expect("it is text");
        let crd: Value = serde_saphyr::from_str(&text).expect("it is YAML");
        let group = crd["spec"]["group"].as_str().unwrap_or_default();
        for version in crd["spec"]["versions"].as_array().into_iter().flatten() {
            let schema = Schema::structural(&version["schema"]["openAPIV3Schema"], "s").expect("it is structural");
            let name = version["name"].as_str().unwrap_or_default();
            let kind = crd["spec"]["names"]["kind"].as_str().unwrap_or_default();
            schemas.insert(format!("{group}/{name} {kind}"), schema);
        }
    }
    for step in case["steps"].as_array().into_iter().flatten() {
        let mut object = step["body"].clone();
        let key = format!(
            "{} {}",
            object["apiVersion"].as_str().unwrap_or_default(),
            object["kind"].as_str().unwrap_or_default()
        );
        let Some(schema) = schemas.get(&key) else { continue };
        schema.prune(&mut object);
        schema.default(&mut object);
        let errors = schema.validate(&object, None);
        match expected_errors(&step["expect"]) {
            // the bound of the scale subresource is not the schema's
            Some(want) if want.contains(", .spec.replicas") => assert!(want.contains(&joined(&errors)), "{want}"),
            Some(want) => assert_eq!(joined(&errors), want),
            None => assert!(errors.is_empty(), "{}", joined(&errors)),
        }
    }
}

/// Objects in an answer: itself, or the items of a list.
fn objects(body: &Value) -> Vec<Value> {
    let text = body.to_string().replace("<time>", "2026-01-02T03:04:05Z");
    let body: Value = serde_json::from_str(&text).expect("only texts changed");
    let kind = body["kind"].as_str().unwrap_or_default();
    match (kind.strip_suffix("List"), body["items"].as_array()) {
        (Some(kind), Some(items)) => items
            .iter()
            .map(|item| {
                let mut item = item.clone();
                item["apiVersion"] = body["apiVersion"].clone();
                item["kind"] = kind.into();
                item
            })
            .collect(),
        _ => vec![body],
    }
}

/// What the server printed went through Go's types: decoding it once more changes nothing.
#[test]
fn decoding_a_recorded_answer_changes_nothing() {
    let Some(shared) = shared() else { return };
    let (mut compared, mut differing) = (0, Vec::new());
    let mut names: Vec<_> = fs::read_dir(shared.join("conformance/cases")).expect("cases").flatten().collect();
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let name = entry.file_name().to_string_lossy().into_owned();
        let case = case(&name).expect("it was listed");
        for (index, step) in case["steps"].as_array().into_iter().flatten().enumerate() {
            for mut object in objects(&step["expect"]["body"]) {
                let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
                let Some(definition) = Schema::definition_of(&text("apiVersion"), &text("kind")) else { continue };
                if step.get("only").is_some() || object.get("metadata").is_none() {
                    continue;
                }
                compared += 1;
                match Schema::builtin(definition).decode(object.clone()) {
                    Ok(decoded) if decoded.value == object && decoded.unknown.is_empty() => {}
                    Ok(mut decoded) => {
                        let members = object.as_object_mut().expect("an object");
                        let same = decoded.value.as_object_mut().expect("an object");
                        members.retain(|key, value| {
                            same.get(key) != Some(value) || {
                                same.remove(key);
                                false
                            }
                        });
                        differing
                            .push(format!("{name} {index}: {:?} {object}\n    {}", decoded.unknown, decoded.value));
                    }
                    Err(error) => differing.push(format!("{name} {index}: {error}")),
                }
            }
        }
    }
    assert!(compared > 100, "there are answers to compare");
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

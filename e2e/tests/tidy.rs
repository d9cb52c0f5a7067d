//! The house rules that a machine can check: who may use whom, how long files get, and that documents point at what
//! exists.
//!
//! The order of the fake's modules is read from ARCHITECTURE.md: the first fenced block of which every line is a number
//! and names, as in
//!
//! ```text
//! 1  base
//! 2  clock | ids
//! ```
//!
//! A module may use those in rows with a lower number, and itself. Modules in one row may not use each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Lines of a file without its tests: explain yourself at the first, split at the second.
const LONG: usize = 400;
const TOO_LONG: usize = 800;

const CRATES: [&str; 4] = ["sdk", "provider", "fake-apiserver", "e2e"];

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// Paths of all files below `dir`, relative to the workspace, sorted. Build output and hidden folders are left out.
fn files(dir: &str, extension: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, extension: &str, into: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(dir) else { return };
        for entry in entries {
            let path = entry.expect("a folder can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    walk(&path, extension, into);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                into.push(path.strip_prefix(workspace()).expect("below the workspace").to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(&workspace().join(dir), extension, &mut found);
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails with all findings at once.
fn none(findings: &[String], rule: &str) {
    assert!(findings.is_empty(), "{rule}\n{}", findings.join("\n"));
}

/// The row of each module.
fn module_order(architecture: &str) -> BTreeMap<String, u32> {
    fn row(line: &str) -> Option<(u32, Vec<String>)> {
        let (number, names) = line.trim().split_once(char::is_whitespace)?;
        let names: Vec<_> = names.split('|').map(|name| name.trim().to_owned()).collect();
        let is_name = |name: &String| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        Some((number.parse().ok()?, names)).filter(|(_, names)| names.iter().all(is_name))
    }
    for block in fenced(architecture) {
        let rows: Option<Vec<_>> = block.lines().filter(|line| !line.trim().is_empty()).map(row).collect();
        if let Some(rows) = rows.filter(|rows| !rows.is_empty()) {
            return rows.into_iter().flat_map(|(row, names)| names.into_iter().map(move |name| (name, row))).collect();
        }
    }
    panic!("ARCHITECTURE.md has no fenced block of numbered rows with module names");
}

/// What stands between the fences of a document.
fn fenced(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            match open.take() {
                Some(block) => blocks.push(block),
                None => open = Some(String::new()),
            }
        } else if let Some(block) = &mut open {
            block.push_str(line);
            block.push('\n');
        }
    }
    blocks
}

/// The top-level modules that a source text names after `crate::`, with the line of each. Comments do not count.
fn used_modules(source: &str) -> Vec<(usize, String)> {
    let mut used = Vec::new();
    let code: Vec<_> = source.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line }).collect();
    let text = code.join("\n");
    for (at, _) in text.match_indices("crate::") {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let line = text[..at].matches('\n').count() + 1;
        let rest = &text[at + "crate::".len()..];
        let heads = match rest.strip_prefix('{') {
            None => vec![rest],
            Some(group) => top_level_items(group),
        };
        for head in heads {
            let name: String = head.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name.starts_with(|c: char| c.is_ascii_lowercase()) {
                used.push((line, name));
            }
        }
    }
    used
}

/// The items of `a, b::{c, d}, e} …`, up to the brace that closes the group.
fn top_level_items(group: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&group[start..at]);
                return items;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items
}

/// A source text up to its unit tests.
fn without_tests(source: &str) -> &str {
    source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

fn is_test(path: &Path) -> bool {
    let in_tests = path.components().any(|part| part.as_os_str() == "tests");
    in_tests || path.file_name().is_some_and(|name| name == "tests.rs")
}

#[test]
fn a_module_of_the_fake_uses_only_modules_in_rows_above_its_own() {
    let order = module_order(&read(Path::new("ARCHITECTURE.md")));
    let source = Path::new("fake-apiserver/src");
    let mut findings = Vec::new();
    let mut modules = BTreeSet::new();
    for path in files("fake-apiserver/src", "rs") {
        let inside = path.strip_prefix(source).expect("below src");
        let first = inside.components().next().expect("a path has a part").as_os_str().to_string_lossy().into_owned();
        let module = first.trim_end_matches(".rs").to_owned();
        if module == "lib" || module == "main" {
            continue;
        }
        modules.insert(module.clone());
        let Some(own) = order.get(&module) else { continue };
        for (line, used) in used_modules(&read(&path)) {
            // A room's tests may need its neighbours to have a world to act in.
            let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
            let from = if is_test { own + 1 } else { *own };
            if used != module && order.get(&used).is_none_or(|row| *row >= from) {
                findings.push(format!("{}:{line}: {module} (row {own}) uses {used}", path.display()));
            }
        }
    }
    let listed: BTreeSet<_> = order.keys().cloned().collect();
    findings.extend(modules.difference(&listed).map(|module| format!("module {module} stands in no row")));
    findings
        .extend(listed.difference(&modules).map(|module| format!("row {} names no module: {module}", order[module])));
    none(&findings, "the order of modules in ARCHITECTURE.md is broken:");
}

#[test]
fn the_reader_of_uses_sees_groups_paths_and_no_comments() {
    let source = "use crate::{\n    base::{names, Object},\n    clock::Clock, Status,\n};\n// crate::cli is no use\n\
                  fn f() -> crate::store::Store { my_crate::x() }\n";
    let names: Vec<_> = used_modules(source).into_iter().map(|(line, name)| format!("{line} {name}")).collect();
    assert_eq!(names, ["1 base", "1 clock", "6 store"]);
}

#[test]
fn the_reader_of_the_order_takes_the_first_block_of_numbered_rows() {
    let order = module_order("```sh\ncargo run\n```\n\n```text\n1  base\n2  clock | ids\n```\n");
    let rows: Vec<_> = order.iter().map(|(name, row)| (name.as_str(), *row)).collect();
    assert_eq!(rows, [("base", 1), ("clock", 2), ("ids", 2)]);
}

#[test]
fn files_are_short_enough_to_read() {
    let mut findings = Vec::new();
    for path in CRATES.iter().flat_map(|name| files(name, "rs")).filter(|path| !is_test(path)) {
        let lines = without_tests(&read(&path)).lines().count();
        if lines > TOO_LONG {
            findings.push(format!("{}: {lines} lines", path.display()));
        } else if lines > LONG {
            println!("long: {}: {lines} lines", path.display());
        }
    }
    none(&findings, &format!("these files have more than {TOO_LONG} lines without their tests; split them:"));
}

#[test]
fn every_source_file_says_what_it_is() {
    let mut findings = Vec::new();
    // A `tests.rs` belongs to the file that declares it, and is about that.
    for path in CRATES.iter().flat_map(|name| files(name, "rs")).filter(|path| !path.ends_with("tests.rs")) {
        let text = read(&path);
        if !text.starts_with("//!") && !text.starts_with("#![doc = include_str!") {
            findings.push(path.display().to_string());
        }
    }
    none(&findings, "these files do not start with a line of `//!`:");
}

#[test]
fn crates_depend_on_each_other_only_as_the_table_allows() {
    // Normal dependencies among ours, then those of tests.
    let table: BTreeMap<&str, (&[&str], &[&str])> = BTreeMap::from([
        ("agent-sandbox-sdk", (&[][..], &["fake-apiserver"][..])),
        ("agent-sandbox-provider", (&["agent-sandbox-sdk", "fake-apiserver"], &[])),
        ("fake-apiserver", (&[], &[])),
        ("e2e", (&["agent-sandbox-sdk", "agent-sandbox-provider", "fake-apiserver"], &[])),
    ]);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline", "--manifest-path"])
        .arg(workspace().join("Cargo.toml"))
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        seen.insert(name.to_owned());
        let Some((normal, test)) = table.get(name) else {
            findings.push(format!("{name} is not in the table"));
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let on = dependency["name"].as_str().expect("a name");
            let allowed = if dependency["kind"] == "dev" { test } else { normal };
            if table.contains_key(on) && !allowed.contains(&on) {
                findings.push(format!("{name} depends on {on} ({})", dependency["kind"]));
            }
        }
    }
    assert!(seen.contains("fake-apiserver"), "the crate under watch is there: {seen:?}");
    none(&findings, "dependencies among our crates:");
}

/// Our documents: those at the top, and the crates' and folders' own.
fn documents() -> Vec<PathBuf> {
    files("", "md").into_iter().filter(|path| !path.starts_with("shared")).collect()
}

#[test]
fn paths_that_documents_name_exist() {
    let tops: Vec<String> = fs::read_dir(workspace())
        .expect("the workspace can be read")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    let mut findings = Vec::new();
    let mut checked = 0;
    for document in documents() {
        for (line, token) in quoted(&read(&document)) {
            let looks_like_a_path = token.chars().all(|c| c.is_ascii_alphanumeric() || "./_-".contains(c));
            let first = token.split('/').next().unwrap_or_default();
            let known = token.contains('/') && tops.iter().any(|top| top == first);
            let source = token.ends_with(".rs") && token.contains('/');
            if !looks_like_a_path || !(known || source) {
                continue;
            }
            checked += 1;
            let beside = document.parent().map(Path::to_owned).unwrap_or_default();
            let roots =
                [PathBuf::new(), beside].into_iter().chain(CRATES.iter().map(|name| Path::new(name).join("src")));
            if !roots.map(|root| workspace().join(root).join(&token)).any(|path| path.exists()) {
                findings.push(format!("{}:{line}: {token}", document.display()));
            }
        }
    }
    assert!(checked > 0, "documents name paths");
    none(&findings, "documents name paths that do not exist:");
}

/// What stands between backticks on one line, outside fenced blocks.
fn quoted(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fence = false;
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fence = !fence;
        } else if !fence {
            found.extend(line.split('`').skip(1).step_by(2).map(|token| (at + 1, token.to_owned())));
        }
    }
    found
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut findings = Vec::new();
    for document in documents() {
        let text = read(&document);
        for (line, target) in links(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let beside = document.parent().map(Path::to_owned).unwrap_or_default();
            let file = if path.is_empty() { document.clone() } else { beside.join(path) };
            if !workspace().join(&file).exists() {
                findings.push(format!("{}:{line}: {target}", document.display()));
            } else if !anchor.is_empty() && !anchors(&read(&file)).contains(anchor) {
                findings.push(format!("{}:{line}: {target}: no such heading", document.display()));
            }
        }
    }
    none(&findings, "links that lead nowhere:");
}

/// The targets of `[text](target)`, outside fenced blocks.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fence = false;
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fence = !fence;
        } else if !fence {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            found.extend(targets.map(|(target, _)| (at + 1, target.to_owned())));
        }
    }
    found
}

/// The anchors that a document's headings make: lower case, words joined by hyphens, no other signs.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_');
            kept.collect::<String>().to_lowercase().replace(' ', "-")
        })
        .collect()
}

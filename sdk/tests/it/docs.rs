//! Every public item has a description (the compiler sees to that), and an example that compiles, or is part of one.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the crate's source").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            into.push(path);
        }
    }
}

/// A public function or type, and the examples in its description.
struct Item {
    at: String,
    name: String,
    is_function: bool,
    has_example: bool,
}

/// The name behind `pub fn`, `pub struct` and the like; whether it is a function's.
fn declared(line: &str) -> Option<(String, bool)> {
    let rest = line.strip_prefix("pub ")?;
    let rest = rest.strip_prefix("async ").or(rest.strip_prefix("const fn ").map(|_| &rest[6..])).unwrap_or(rest);
    let (word, rest) = rest.split_once(' ')?;
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    match word {
        "fn" => Some((name, true)),
        "struct" | "enum" | "trait" => Some((name, false)),
        _ => None,
    }
}

/// The public items of a file and the words of its examples.
fn read(path: &Path, words: &mut BTreeSet<String>) -> Vec<Item> {
    let text = fs::read_to_string(path).expect("a source file");
    let (mut items, mut in_example, mut has_example) = (Vec::new(), false, false);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line == "#[cfg(test)]" {
            break;
        }
        if let Some(doc) = line.strip_prefix("///").or(line.strip_prefix("//!")) {
            if doc.trim().starts_with("```") {
                (in_example, has_example) = (!in_example, true);
            } else if in_example {
                words.extend(doc.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned));
            }
        } else if let Some((name, is_function)) = declared(line) {
            items.push(Item { at: format!("{}:{}", path.display(), number + 1), name, is_function, has_example });
            has_example = false;
        } else if line.is_empty() || line == "}" || line.ends_with(';') {
            has_example = false;
        }
    }
    items
}

#[test]
fn every_public_function_has_an_example_and_every_public_type_is_in_one() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&crate_folder.join("src"), &mut files);
    let mut words = BTreeSet::new();
    let mut items: Vec<Item> = files.iter().flat_map(|file| read(file, &mut words)).collect();
    assert!(items.len() > 100, "only {} items were found", items.len());
    // Written once for all builders: the example of each is at its type.
    items.retain(|item| !(item.is_function && item.at.contains("builders.rs") && words.contains(&item.name)));
    // Sealed, and so nobody's but ours; and what a macro writes.
    items.retain(|item| item.name != "Sealed" && !item.name.is_empty());
    let without = |item: &&Item| !item.has_example && (item.is_function || !words.contains(&item.name));
    let missing: Vec<_> = items.iter().filter(without).map(|item| format!("{} {}", item.at, item.name)).collect();
    assert!(missing.is_empty(), "these have no example:\n{}", missing.join("\n"));
}

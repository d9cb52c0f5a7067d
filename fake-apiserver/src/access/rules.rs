//! One [`Rule`]: what it allows, what it covers, and how it is shown.
//!
//! Upstream: `pkg/apis/rbac/v1/evaluation_helpers.go`, `k8s.io/component-helpers/auth/rbac/validation` (covering) and
//! `pkg/registry/rbac/validation/policy_compact.go`.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Place, What};
use crate::base::{Object, selector::LabelSelector, status::go_quote};

/// A rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Verbs, `*` for all.
    pub verbs: Vec<String>,
    /// API groups, `*` for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// Resources, `pods/log`, `*/scale`, `*` for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Names of objects; none for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Paths that are no resource's, with an asterisk at the end for all that begin so.
    #[serde(skip_serializing_if = "Vec::is_empty", rename = "nonResourceURLs")]
    pub non_resource_urls: Vec<String>,
}

fn has(set: &[String], wanted: &str) -> bool {
    set.iter().any(|element| element == wanted)
}

fn has_or_all(set: &[String], wanted: &str) -> bool {
    set.iter().any(|element| element == "*" || element == wanted)
}

/// Whether a path of a rule takes a path.
fn url_covers(owner: &str, path: &str) -> bool {
    owner == path || owner.ends_with('*') && path.starts_with(owner.trim_end_matches('*'))
}

impl Rule {
    /// The rules of a role.
    pub fn of_role(role: &Object) -> Vec<Self> {
        role.get("rules").and_then(Value::as_array).into_iter().flatten().map(Self::from_value).collect()
    }

    fn from_value(value: &Value) -> Self {
        // A stored role has the types of its schema; nulls in it mean nothing.
        let texts = |key: &str| -> Vec<String> {
            let list = value.get(key).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            verbs: texts("verbs"),
            api_groups: texts("apiGroups"),
            resources: texts("resources"),
            resource_names: texts("resourceNames"),
            non_resource_urls: texts("nonResourceURLs"),
        }
    }

    /// Whether the rule allows the verb there.
    pub fn allows(&self, verb: &str, what: &What<'_>) -> bool {
        if !has_or_all(&self.verbs, verb) {
            return false;
        }
        match what {
            What::Resource(place) => {
                has_or_all(&self.api_groups, place.group)
                    && self.resources.iter().any(|resource| takes(resource, place))
                    && (self.resource_names.is_empty() || has(&self.resource_names, place.name))
            }
            What::Path(path) => self.non_resource_urls.iter().any(|url| url == "*" || url_covers(url, path)),
        }
    }

    /// Single rights: each with one verb and one resource (and name, and group) or one path.
    fn atoms(&self) -> Vec<Self> {
        let one = |text: &String| vec![text.clone()];
        let mut atoms = Vec::new();
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let atom =
                        Self { verbs: one(verb), api_groups: one(group), resources: one(resource), ..Self::default() };
                    if self.resource_names.is_empty() {
                        atoms.push(atom);
                        continue;
                    }
                    for name in &self.resource_names {
                        atoms.push(Self { resource_names: one(name), ..atom.clone() });
                    }
                }
            }
        }
        for url in &self.non_resource_urls {
            for verb in &self.verbs {
                atoms.push(Self { verbs: one(verb), non_resource_urls: one(url), ..Self::default() });
            }
        }
        atoms
    }

    /// Whether the rule covers a single right.
    fn covers(&self, atom: &Self) -> bool {
        let all = |set: &[String], wanted: &[String]| wanted.iter().all(|element| has(set, element));
        let starred = |set: &[String], wanted: &[String]| has(set, "*") || all(set, wanted);
        let resource = |path: &String| {
            let whole = path.split_once('/').map(|(_, sub)| format!("*/{sub}"));
            has(&self.resources, path) || whole.is_some_and(|whole| has(&self.resources, &whole))
        };
        let names = if atom.resource_names.is_empty() {
            self.resource_names.is_empty()
        } else {
            self.resource_names.is_empty() || all(&self.resource_names, &atom.resource_names)
        };
        let url = |path: &String| self.non_resource_urls.iter().any(|own| url_covers(own, path));
        starred(&self.verbs, &atom.verbs)
            && starred(&self.api_groups, &atom.api_groups)
            && (has(&self.resources, "*") || atom.resources.iter().all(resource))
            && names
            && atom.non_resource_urls.iter().all(url)
    }
}

/// Whether a rule's resource takes what is asked for: itself, all, or a subresource of whatever resource.
fn takes(resource: &str, place: &Place<'_>) -> bool {
    if resource == "*" {
        return true;
    }
    match place.subresource {
        "" => resource == place.resource,
        sub => {
            let (of, own) = resource.split_once('/').unwrap_or((resource, ""));
            own == sub && (of == place.resource || of == "*")
        }
    }
}

/// As the message of a refused escalation shows it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verbs, api_groups, resources, resource_names, non_resource_urls } = self;
        let lists = [
            ("APIGroups", api_groups),
            ("Resources", resources),
            ("NonResourceURLs", non_resource_urls),
            ("ResourceNames", resource_names),
            ("Verbs", verbs),
        ];
        let shown = lists.iter().filter(|(_, list)| !list.is_empty());
        let shown: Vec<String> = shown.map(|(name, list)| format!("{name}:{}", go_quotes(list))).collect();
        write!(f, "{{{}}}", shown.join(", "))
    }
}

/// A list as Go's `%q` prints it.
pub(super) fn go_quotes(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|text| go_quote(text)).collect();
    format!("[{}]", quoted.join(" "))
}

/// Everything: who has it may gather other roles.
pub static FULL_AUTHORITY: std::sync::LazyLock<[Rule; 2]> = std::sync::LazyLock::new(|| {
    let all = || vec!["*".to_owned()];
    [
        Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
        Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
    ]
});

/// Groups, resources and names that a rule is about.
type About = (Vec<String>, Vec<String>, Vec<String>);

/// What of the wanted rules the owned ones do not cover, as upstream's message shows it: one text for each resource, in
/// order. Empty where all is covered.
pub fn missing(owned: &[Rule], wanted: &[Rule]) -> Vec<String> {
    let atoms = wanted.iter().flat_map(Rule::atoms);
    let lacking = atoms.filter(|atom| !owned.iter().any(|rule| rule.covers(atom)));
    let mut compact: BTreeMap<About, Rule> = BTreeMap::new();
    let mut texts = Vec::new();
    for atom in lacking {
        if !atom.non_resource_urls.is_empty() {
            texts.push(atom.to_string());
            continue;
        }
        let key = (atom.api_groups.clone(), atom.resources.clone(), atom.resource_names.clone());
        match compact.get_mut(&key) {
            Some(rule) => rule.verbs.extend(atom.verbs),
            None => {
                compact.insert(key, atom);
            }
        }
    }
    texts.extend(compact.values().map(Rule::to_string));
    texts.sort();
    texts.dedup();
    texts
}

/// The selectors of a role that gathers others, `None` for one that does not.
///
/// # Errors
/// The text for a selector that is none.
pub fn selectors(role: &Object) -> Option<Result<Vec<LabelSelector>, String>> {
    let list = role.at(&["aggregationRule"])?.get("clusterRoleSelectors").and_then(Value::as_array);
    Some(list.into_iter().flatten().map(|selector| LabelSelector::from_value(Some(selector))).collect())
}

/// The rules that a gathering role should have: those of all cluster roles that a selector takes, each once, in the order
/// of the selectors and then of the names. Upstream's
/// `pkg/controller/clusterroleaggregation/clusterroleaggregation_controller.go`.
pub fn gather<'a>(
    own: &str,
    selectors: &[LabelSelector],
    roles: impl Iterator<Item = &'a Object> + Clone,
) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for selector in selectors {
        let mut taken: Vec<&Object> =
            roles.clone().filter(|role| role.name() != own && selector.matches_object(role)).collect();
        taken.sort_by_key(|role| role.name());
        for rule in taken.into_iter().flat_map(Rule::of_role) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    rules
}

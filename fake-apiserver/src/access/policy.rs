//! [`Policy`]: all roles and bindings, found by who they concern.
//!
//! Upstream: `pkg/registry/rbac/validation/rule.go`, which looks at every binding for each request; here a user's bindings
//! are looked up by name and groups.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use super::{Attributes, Rule, What, rules::go_quotes};
use crate::base::{
    Object, Status, User,
    user::{MASTERS, account_name},
};

/// Roles and bindings of a cluster.
#[derive(Debug, Default)]
pub struct Policy {
    /// Rules by namespace (`""` for cluster roles) and name.
    roles: BTreeMap<(String, String), Arc<[Rule]>>,
    /// Bindings by namespace (`""` for cluster role bindings) and name.
    bindings: BTreeMap<(String, String), Arc<Binding>>,
    /// Names of the bindings that concern a subject, by namespace.
    concerns: BTreeMap<(String, Subject), BTreeSet<String>>,
}

/// Whom a binding names, as requests know them: service accounts are users by then.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    User(String),
    Group(String),
}

/// A binding as far as it counts here.
#[derive(Debug, PartialEq, Eq)]
struct Binding {
    namespace: String,
    name: String,
    role_kind: String,
    role: String,
    /// Each with the words that upstream describes it by.
    subjects: Vec<(Subject, String)>,
}

/// Why a request is allowed; shown as upstream's reason.
#[derive(Clone, Debug)]
pub enum Grant {
    /// The user may do everything. Upstream gives no reason.
    Master,
    /// A binding gives the right.
    Bound(Arc<BoundBy>),
}

/// A binding and the subject of it by which it concerns a user.
#[derive(Debug)]
pub struct BoundBy {
    binding: Arc<Binding>,
    subject: usize,
}

/// A binding's role that does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleMissing {
    /// Of a kind that binds.
    NotFound {
        /// Plural: `roles` or `clusterroles`.
        resource: &'static str,
        /// Name.
        name: String,
    },
    /// Of a kind that does not.
    Kind(String),
}

impl fmt::Display for RoleMissing {
    /// As the authorizer's cache of roles says it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { resource, name } => {
                write!(f, "{}.{} {name:?} not found", resource.trim_end_matches('s'), super::GROUP)
            }
            Self::Kind(kind) => write!(f, "unsupported role reference kind: {kind:?}"),
        }
    }
}

impl RoleMissing {
    /// As the writer of a binding gets it: upstream's error names the resource of the request, not the role's.
    pub fn status(&self, requested: &str) -> Status {
        match self {
            Self::NotFound { name, .. } => Status::not_found(super::GROUP, requested, name),
            Self::Kind(_) => Status::unexpected(self.to_string()),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Bound(by) = self else { return Ok(()) };
        let BoundBy { binding, subject } = &**by;
        let (kind, place) = match binding.namespace.as_str() {
            "" => ("ClusterRoleBinding", binding.name.clone()),
            namespace => ("RoleBinding", format!("{}/{namespace}", binding.name)),
        };
        let (role_kind, role, whom) = (&binding.role_kind, &binding.role, &binding.subjects[*subject].1);
        write!(f, "RBAC: allowed by {kind} {place:?} of {role_kind} {role:?} to {whom}")
    }
}

impl Binding {
    fn of(object: &Object) -> Self {
        let namespace = object.namespace();
        let subjects = object.get("subjects").and_then(|subjects| subjects.as_array()).into_iter().flatten();
        let subjects = subjects.filter_map(|subject| {
            let text = |key: &str| subject.get(key).and_then(|value| value.as_str()).unwrap_or_default();
            let (kind, name) = (text("kind"), text("name"));
            let known = match kind {
                "User" => Subject::User(name.into()),
                "Group" => Subject::Group(name.into()),
                "ServiceAccount" => {
                    let home = if text("namespace").is_empty() { namespace } else { text("namespace") };
                    let whom = format!("{kind} {:?}", format!("{name}/{home}"));
                    return (!home.is_empty()).then(|| (Subject::User(account_name(home, name)), whom));
                }
                _ => return None,
            };
            Some((known, format!("{kind} {name:?}")))
        });
        Self {
            subjects: subjects.collect(),
            namespace: namespace.into(),
            name: object.name().into(),
            role_kind: object.str_at(&["roleRef", "kind"]).into(),
            role: object.str_at(&["roleRef", "name"]).into(),
        }
    }

    /// The first subject by which the binding concerns a user.
    fn concerns(&self, user: &User) -> Option<usize> {
        self.subjects.iter().position(|(subject, _)| match subject {
            Subject::User(name) => *name == user.name,
            Subject::Group(group) => user.is_in(group),
        })
    }
}

impl Policy {
    /// Puts down what a role or binding is now; `None` if it is gone. `resource` is the plural of its kind.
    pub fn put(&mut self, resource: &str, namespace: &str, name: &str, object: Option<&Object>) {
        let place = (namespace.to_owned(), name.to_owned());
        match resource {
            "roles" | "clusterroles" => match object {
                Some(role) => {
                    self.roles.insert(place, Rule::of_role(role).into());
                }
                None => {
                    self.roles.remove(&place);
                }
            },
            "rolebindings" | "clusterrolebindings" => {
                if let Some(old) = self.bindings.remove(&place) {
                    for (subject, _) in &old.subjects {
                        let key = (place.0.clone(), subject.clone());
                        if let Some(names) = self.concerns.get_mut(&key) {
                            names.remove(name);
                            if names.is_empty() {
                                self.concerns.remove(&key);
                            }
                        }
                    }
                }
                if let Some(object) = object {
                    let binding = Binding::of(object);
                    for (subject, _) in &binding.subjects {
                        let key = (place.0.clone(), subject.clone());
                        self.concerns.entry(key).or_default().insert(name.into());
                    }
                    self.bindings.insert(place, Arc::new(binding));
                }
            }
            _ => {}
        }
    }

    /// The bindings of a namespace (`""` for those of the cluster) that concern a user, by name.
    fn bindings_of(&self, user: &User, namespace: &str) -> Vec<&Arc<Binding>> {
        let mut names: BTreeSet<&String> = BTreeSet::new();
        let user_key = std::iter::once(Subject::User(user.name.clone()));
        for subject in user_key.chain(user.groups.iter().cloned().map(Subject::Group)) {
            names.extend(self.concerns.get(&(namespace.to_owned(), subject)).into_iter().flatten());
        }
        let found = names.into_iter().map(|name| self.bindings.get(&(namespace.to_owned(), name.clone())));
        found.map(|binding| binding.expect("the index names bindings that exist")).collect()
    }

    /// The rules of the role that a binding in a namespace (`""` for a cluster role binding) refers to.
    ///
    /// # Errors
    /// If there is no such role.
    pub fn role(&self, kind: &str, name: &str, namespace: &str) -> Result<Arc<[Rule]>, RoleMissing> {
        let (place, resource) = match kind {
            "Role" => (namespace, "roles"),
            "ClusterRole" => ("", "clusterroles"),
            other => return Err(RoleMissing::Kind(other.into())),
        };
        let rules = self.roles.get(&(place.to_owned(), name.to_owned()));
        rules.cloned().ok_or_else(|| RoleMissing::NotFound { resource, name: name.into() })
    }

    /// Visits what a user has in a namespace (`""`: in the cluster) until `visit` says that it is enough.
    fn visit<T>(
        &self,
        user: &User,
        namespace: &str,
        mut visit: impl FnMut(&Arc<Binding>, Result<&[Rule], RoleMissing>) -> Option<T>,
    ) -> Option<T> {
        let namespaces: &[&str] = if namespace.is_empty() { &[""] } else { &["", namespace] };
        for namespace in namespaces {
            for binding in self.bindings_of(user, namespace) {
                let found = match self.role(&binding.role_kind, &binding.role, namespace) {
                    Ok(rules) => visit(binding, Ok(&rules)),
                    Err(missing) => visit(binding, Err(missing)),
                };
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    /// Whether the request is allowed, and why.
    ///
    /// # Errors
    /// The reason of a refusal, `""` where there is nothing to say but that nothing allows it.
    pub fn authorize(&self, attributes: &Attributes<'_>) -> Result<Grant, String> {
        let Attributes { user, verb, what } = attributes;
        if user.is_in(MASTERS) {
            return Ok(Grant::Master);
        }
        let namespace = match what {
            What::Resource(place) => place.namespace,
            What::Path(_) => "",
        };
        let mut problems = Vec::new();
        let grant = self.visit(user, namespace, |binding, rules| match rules {
            Ok(rules) => rules.iter().any(|rule| rule.allows(verb, what)).then(|| {
                let subject = binding.concerns(user).expect("found by one of its subjects");
                Grant::Bound(Arc::new(BoundBy { binding: binding.clone(), subject }))
            }),
            Err(missing) => {
                problems.push(missing.to_string());
                None
            }
        });
        grant.ok_or_else(|| if problems.is_empty() { String::new() } else { format!("RBAC: {}", aggregate(problems)) })
    }

    /// The rules that a user has in a namespace, and what could not be found out.
    pub fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, Option<String>) {
        let (mut rules, mut problems) = (Vec::new(), Vec::new());
        self.visit(user, namespace, |_, found| -> Option<()> {
            match found {
                Ok(found) => rules.extend_from_slice(found),
                Err(missing) => problems.push(missing.to_string()),
            }
            None
        });
        (rules, (!problems.is_empty()).then(|| aggregate(problems)))
    }

    /// Whether a user has all these rights already, and so may give them to others.
    ///
    /// # Errors
    /// What the user lacks, in upstream's words.
    pub fn confirm(&self, user: &User, namespace: &str, rules: &[Rule]) -> Result<(), String> {
        let (owned, problem) = self.rules_for(user, namespace);
        let lacking = super::missing(&owned, rules);
        if lacking.is_empty() {
            return Ok(());
        }
        let problem = problem.map(|problem| format!("; resolution errors: [{problem}]")).unwrap_or_default();
        let (who, groups) = (&user.name, go_quotes(&user.groups));
        let lacking = lacking.join("\n");
        Err(format!(
            "user {who:?} (groups={groups}) is attempting to grant RBAC permissions not currently held:\n{lacking}{problem}"
        ))
    }
}

/// Several errors in the form of upstream's `NewAggregate`: each text once.
fn aggregate(problems: Vec<String>) -> String {
    let mut texts: Vec<String> = Vec::new();
    for problem in problems {
        if !texts.contains(&problem) {
            texts.push(problem);
        }
    }
    if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) }
}

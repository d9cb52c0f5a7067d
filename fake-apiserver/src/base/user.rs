//! [`User`]: who asks, as authentication tells it.

use std::collections::BTreeMap;

use super::names;

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of all who are known.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of all who are not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The name of who is not known.
pub const ANONYMOUS: &str = "system:anonymous";

const ACCOUNT_PREFIX: &str = "system:serviceaccount:";
const NODE_PREFIX: &str = "system:node:";

/// An authenticated user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// UID, `""` if none.
    pub uid: String,
    /// Groups, `system:authenticated` included.
    pub groups: Vec<String>,
    /// What else is known of the user, such as the pod that a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user of these groups, and of no other.
    pub fn new<S: Into<String>>(name: impl Into<String>, groups: impl IntoIterator<Item = S>) -> Self {
        let groups = groups.into_iter().map(Into::into).collect();
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// Whoever brings no credentials.
    pub fn anonymous() -> Self {
        Self::new(ANONYMOUS, [UNAUTHENTICATED])
    }

    /// Whether the user is of a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The only value of an extra key, `""` where there is none or more than one.
    pub fn extra_value(&self, key: &str) -> &str {
        match self.extra.get(key).map(Vec::as_slice) {
            Some([value]) => value,
            Some(_) | None => "",
        }
    }
}

/// The user name of a service account.
pub fn account_name(namespace: &str, name: &str) -> String {
    format!("{ACCOUNT_PREFIX}{namespace}:{name}")
}

/// The groups that a service account has by its namespace.
pub fn account_groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")]
}

/// Namespace and name of the service account that a user name stands for, if it does.
pub fn as_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(ACCOUNT_PREFIX)?.split_once(':')?;
    let valid = names::name_is_label(namespace, false).is_empty() && names::name_is_subdomain(name, false).is_empty();
    valid.then_some((namespace, name))
}

/// The node that a user name stands for, if it does.
pub fn as_node(user: &str) -> Option<&str> {
    let name = user.strip_prefix(NODE_PREFIX)?;
    names::name_is_subdomain(name, false).is_empty().then_some(name)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("system:serviceaccount:a:b", Some(("a", "b")))]
    #[case("system:serviceaccount:a:b.c", Some(("a", "b.c")))]
    #[case("system:serviceaccount:a:b:c", None)]
    #[case("system:serviceaccount::b", None)]
    #[case("system:serviceaccount:a:", None)]
    #[case("system:serviceaccount:A:b", None)]
    #[case("alice", None)]
    fn a_service_account_is_known_by_its_user_name(#[case] user: &str, #[case] expected: Option<(&str, &str)>) {
        assert_eq!(as_account(user), expected);
        if let Some((namespace, name)) = expected {
            assert_eq!(account_name(namespace, name), user);
        }
    }
}

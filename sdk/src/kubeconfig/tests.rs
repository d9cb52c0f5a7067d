use std::{error::Error as _, fs};

use rstest::rstest;
use tempfile::TempDir;

use super::*;

const TOKEN: &str = "s3cr3t-t0ken";

/// A kubeconfig with a context, a cluster and a user of that name.
fn config(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {name}\n\
         contexts:\n- name: {name}\n  context: {{cluster: {name}, user: {name}, namespace: ns-{name}}}\n\
         clusters:\n- name: {name}\n  cluster: {{server: 'https://{name}.example:6443', certificate-authority-data: eA==}}\n\
         users:\n- name: {name}\n  user: {{token: {TOKEN}}}\n"
    )
}

/// A folder with files, and an environment that knows of none.
struct Files(TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn paths(&self, names: &[&str]) -> Option<OsString> {
        Some(env::join_paths(names.iter().map(|name| self.path(name))).unwrap())
    }
}

fn found(environment: &Environment) -> (Source, String) {
    let access = ConnectOptions::default().find(environment).unwrap();
    (access.source().clone(), access.cluster().server.clone())
}

/// Each place is taken away in turn, and the next one speaks.
#[test]
fn the_five_places_are_asked_in_order() {
    let files = Files::new(&[
        ("given", &config("given")),
        ("k8s", &config("k8s")),
        ("env", &config("env")),
        (".kube/config", &config("home")),
        ("sa/token", TOKEN),
        ("sa/namespace", "pods\n"),
    ]);
    let mut environment = Environment {
        k8s_kubeconfig: files.paths(&["k8s"]),
        kubeconfig: files.paths(&["env"]),
        home: Some(files.path("")),
        service_host: Some("10.96.0.1".into()),
        service_port: Some("6443".into()),
        service_account: Some(files.path("sa")),
    };
    let given = ConnectOptions { kubeconfig: Some(files.path("given")), ..Default::default() };
    assert_eq!(given.find(&environment).unwrap().cluster().server, "https://given.example:6443");
    assert_eq!(found(&environment).1, "https://k8s.example:6443");
    environment.k8s_kubeconfig = Some("".into());
    assert_eq!(found(&environment).1, "https://env.example:6443", "an empty variable is unset");
    environment.kubeconfig = files.paths(&["none"]);
    assert_eq!(found(&environment).1, "https://home.example:6443");
    environment.home = Some(files.path("nowhere"));
    assert_eq!(found(&environment), (Source::InCluster, "https://10.96.0.1:6443".into()));
    assert_eq!(ConnectOptions::default().find(&environment).unwrap().cluster().namespace, "pods");
    environment.service_host = Some("fd00::1".into());
    environment.service_port = None;
    assert_eq!(found(&environment).1, "https://[fd00::1]:443");
    environment.service_host = None;
    let none = ConnectOptions::default().find(&environment).unwrap_err();
    let KubeconfigError::NoneFound { passed_over } = &none else { panic!("{none:?}") };
    assert_eq!(*passed_over, [files.path("none"), files.path("nowhere/.kube/config")]);
    assert!(none.to_string().contains("nowhere/.kube/config"), "{none}");
}

#[test]
fn the_files_of_kubeconfig_are_merged_and_the_first_to_say_something_wins() {
    let files = Files::new(&[("a", &config("a")), ("b", &config("b")), ("a2", &config("a").replace("6443", "1"))]);
    let environment = Environment { kubeconfig: files.paths(&["none", "a", "b", "a2"]), ..Default::default() };
    let access = ConnectOptions::default().find(&environment).unwrap();
    assert_eq!(access.contexts().map(|context| context.name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(access.cluster().server, "https://a.example:6443");
    assert_eq!(*access.source(), Source::Kubeconfig(vec![files.path("a"), files.path("b"), files.path("a2")]));
    let b = ConnectOptions { context: Some("b".into()), ..Default::default() }.find(&environment).unwrap();
    assert_eq!((b.cluster().server.as_str(), b.cluster().namespace.as_str()), ("https://b.example:6443", "ns-b"));
}

#[rstest]
#[case::no_yaml("users: [{token: s3cr3t-t0ken}\n- :", "is invalid: not the YAML of a kubeconfig at line")]
#[case::other_shape("users: {token: s3cr3t-t0ken}", "is invalid: not the YAML of a kubeconfig at line 1")]
#[case::a_text("s3cr3t-t0ken", "is invalid: not the YAML of a kubeconfig")]
#[case::secret_of_another_type("users: [{name: a, user: {token: [s3cr3t-t0ken]}}]", "is invalid: not the YAML")]
#[case::empty("", "has no current context; it knows none")]
#[case::no_current("contexts: [{name: a, context: {cluster: a}}]", "has no current context; it knows a")]
#[case::current_of_nothing(
    "current-context: b\ncontexts: [{name: a, context: {cluster: a}}]",
    "has no context \"b\"; it knows a"
)]
#[case::no_cluster(
    "current-context: a\ncontexts: [{name: a, context: {cluster: c}}]",
    "is for cluster \"c\", which is not in it"
)]
#[case::no_user(
    "current-context: a\ncontexts: [{name: a, context: {cluster: a, user: u}}]\nclusters: [{name: a, cluster: {server: 'https://a'}}]",
    "is for user \"u\", who is not in it"
)]
fn a_bad_file_is_an_error_that_says_what_is_wrong_and_quotes_nothing(#[case] text: &str, #[case] wanted: &str) {
    let files = Files::new(&[("bad", text), (".kube/config", &config("home"))]);
    let environment =
        Environment { kubeconfig: files.paths(&["bad"]), home: Some(files.path("")), ..Default::default() };
    let error = ConnectOptions::default().find(&environment).unwrap_err();
    assert!(error.to_string().contains(wanted), "{error}");
    assert!(error.to_string().contains(&files.path("bad").display().to_string()), "names the file: {error}");
    let mut said = format!("{error:?}");
    let mut next = Some(&error as &dyn std::error::Error);
    while let Some(error) = next {
        said.push_str(&error.to_string());
        next = error.source();
    }
    assert!(!said.contains(TOKEN), "{said}");
}

#[test]
fn a_file_that_was_asked_for_by_name_must_be_there() {
    let files = Files::new(&[(".kube/config", &config("home"))]);
    let home = Environment { home: Some(files.path("")), ..Default::default() };
    let given = ConnectOptions { kubeconfig: Some(files.path("none")), ..Default::default() };
    let variable = Environment { k8s_kubeconfig: files.paths(&["none"]), ..home.clone() };
    for error in [given.find(&home).unwrap_err(), ConnectOptions::default().find(&variable).unwrap_err()] {
        assert!(matches!(&error, KubeconfigError::NotFound { path } if *path == files.path("none")), "{error:?}");
    }
    let folder = ConnectOptions { kubeconfig: Some(files.path(".kube")), ..Default::default() };
    let error = folder.find(&home).unwrap_err();
    assert!(matches!(error, KubeconfigError::Unreadable { .. }) && error.source().is_some(), "{error:?}");
    let tilde = ConnectOptions { kubeconfig: Some("~/.kube/config".into()), ..Default::default() };
    assert_eq!(tilde.find(&home).unwrap_err().to_string(), "kubeconfig ~/.kube/config does not exist");
}

/// P2-22: the predecessor skipped verification on all clusters, or on one that was then not used.
#[tokio::test]
async fn skipping_tls_verification_is_for_the_chosen_cluster_only() {
    let files = Files::new(&[("a", &config("a")), ("b", &config("b"))]);
    let environment = Environment { kubeconfig: files.paths(&["a", "b"]), ..Default::default() };
    let options = ConnectOptions { context: Some("b".into()), skip_tls_verify: true, ..Default::default() };
    let access = options.find(&environment).unwrap();
    assert!(!access.cluster().verifies_tls && access.config().await.unwrap().accept_invalid_certs);
    let flags: Vec<_> =
        access.kubeconfig.clusters.iter().map(|c| c.cluster.as_ref().unwrap().insecure_skip_tls_verify).collect();
    assert_eq!(flags, [None, Some(true)]);
    assert!(!format!("{access:?}").contains(TOKEN));
}

#[tokio::test]
async fn what_a_context_lacks_is_told_when_a_client_is_made() {
    let with = |cluster: &str, user: &str| {
        format!(
            "current-context: a\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n\
             clusters: [{{name: a, cluster: {cluster}}}]\nusers: [{{name: a, user: {user}}}]"
        )
    };
    let cases = [
        (with("{}", "{}"), "context \"a\" cannot be used", "cluster url is missing on selected cluster"),
        (with("{server: 'https://a', certificate-authority: /no/ca}", "{}"), "context \"a\" cannot be used", "/no/ca"),
        (
            with("{server: 'http://a'}", "{exec: {command: /no/plugin, apiVersion: client.authentication.k8s.io/v1}}"),
            "the exec plugin of context \"a\" gave no credentials: it was not started",
            "",
        ),
        (
            with(
                "{server: 'http://a'}",
                "{exec: {command: sh, args: [-c, 'echo s3cr3t-t0ken; exit 3'], apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never}}",
            ),
            "the exec plugin of context \"a\" gave no credentials: it ended with exit status: 3",
            "",
        ),
    ];
    for (text, wanted, cause) in cases {
        let files = Files::new(&[("a", &text)]);
        let options = ConnectOptions { kubeconfig: Some(files.path("a")), ..Default::default() };
        let access = options.find(&Environment::default()).unwrap();
        let Err(error) = access.connect().await else { panic!("a client for {text}") };
        assert!(error.to_string().starts_with(wanted), "{error}");
        assert!(error.source().map(ToString::to_string).unwrap_or_default().contains(cause), "{error:?}");
        assert!(!format!("{error:?}").contains(TOKEN), "{error:?}");
    }
}

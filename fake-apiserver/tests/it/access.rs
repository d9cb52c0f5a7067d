//! Who may do what: stories of people, service accounts and their tokens.

use fake_apiserver::cluster::Cluster;
use http::{Request, header::AUTHORIZATION};
use k8s_openapi::api::{
    authorization::v1::SelfSubjectAccessReview,
    core::v1::{ConfigMap, ServiceAccount},
    rbac::v1::{ClusterRole, RoleBinding},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> String {
    match result {
        Err(kube::Error::Api(status)) if status.code == 403 => status.message,
        other => panic!("no refusal: {other:?}"),
    }
}

async fn bind(client: &Client, role: &str, subject: Value) {
    let bindings: Api<RoleBinding> = Api::default_namespaced(client.clone());
    let binding = json!({
        "metadata": {"name": "b"}, "subjects": [subject],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
    });
    bindings.create(&PostParams::default(), &of(binding)).await.unwrap();
}

async fn send(client: &Client, path: &str, body: Value, headers: &[(&str, &str)]) -> Result<Value, kube::Error> {
    let mut request = Request::post(path).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.request(request.body(body.to_string().into_bytes()).unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn who_is_given_a_role_may_what_it_says_until_it_is_taken_away() {
    let cluster = Cluster::builder().kubelet(false).sandbox_controllers(false).start().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client_as("alice", &["devs"]));
    let refused = r#"configmaps is forbidden: User "alice" cannot list resource "configmaps" in API group "" in the namespace "default""#;
    assert_eq!(refusal(maps.list(&ListParams::default()).await), refused);

    let group = json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "devs"});
    bind(&cluster.client(), "view", group).await;
    maps.list(&ListParams::default()).await.unwrap();
    let map: ConfigMap = of(json!({"metadata": {"name": "a"}}));
    assert!(refusal(maps.create(&PostParams::default(), &map).await).contains("cannot create resource"));
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client_as("alice", &["devs"]));
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}});
    let status = reviews.create(&PostParams::default(), &of(review)).await.unwrap().status.unwrap();
    let reason = r#"RBAC: allowed by RoleBinding "b/default" of ClusterRole "view" to Group "devs""#;
    assert_eq!((status.allowed, status.reason.as_deref()), (true, Some(reason)));

    let bindings: Api<RoleBinding> = Api::default_namespaced(cluster.client());
    bindings.delete("b", &DeleteParams::default()).await.unwrap();
    assert_eq!(refusal(maps.list(&ListParams::default()).await), refused);
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_gives_others_more_than_they_have() {
    let cluster = Cluster::builder().kubelet(false).sandbox_controllers(false).start().await.unwrap();
    bind(&cluster.client(), "admin", json!({"kind": "User", "name": "ann"})).await;
    let bindings: Api<RoleBinding> = Api::default_namespaced(cluster.client_as("ann", &[]));
    let give = |role: &str| -> RoleBinding {
        of(json!({
            "metadata": {"name": role}, "subjects": [{"kind": "User", "name": "bob"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        }))
    };
    bindings.create(&PostParams::default(), &give("edit")).await.unwrap();
    let message = refusal(bindings.create(&PostParams::default(), &give("system:node-proxier")).await);
    let start = "rolebindings.rbac.authorization.k8s.io \"system:node-proxier\" is forbidden: user \"ann\" \
                 (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n";
    assert!(message.starts_with(start), "{message}");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_role_that_gathers_others_follows_them() {
    let cluster = Cluster::builder().kubelet(false).sandbox_controllers(false).start().await.unwrap();
    let roles: Api<ClusterRole> = Api::all(cluster.client());
    let rule = json!([{"verbs": ["get"], "apiGroups": ["x.io"], "resources": ["things"]}]);
    let part = json!({"metadata": {"name": "part", "labels": {"gather": "me"}}, "rules": rule});
    let whole = json!({
        "metadata": {"name": "whole"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"gather": "me"}}]},
    });
    roles.create(&PostParams::default(), &of(whole)).await.unwrap();
    roles.create(&PostParams::default(), &of(part)).await.unwrap();
    let filled = async {
        while roles.get("whole").await.unwrap().rules.unwrap_or_default().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    cluster.clock().timeout(std::time::Duration::from_secs(10), filled).await.expect("the rules are gathered");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_account_comes_with_its_token_while_it_lives() {
    let cluster = Cluster::builder().kubelet(false).sandbox_controllers(false).start().await.unwrap();
    let client = cluster.client();
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    let robot = of(json!({"metadata": {"name": "robot"}}));
    accounts.create(&PostParams::default(), &robot).await.unwrap();
    let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
    let answer = send(&client, path, json!({"spec": {"expirationSeconds": 600}}), &[]).await.unwrap();
    let bearer = format!("Bearer {}", answer["status"]["token"].as_str().unwrap());
    let headers = [(AUTHORIZATION.as_str(), bearer.as_str())];
    let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let who = send(&client, whoami, json!({}), &headers).await.unwrap();
    assert_eq!(who["status"]["userInfo"]["username"], "system:serviceaccount:default:robot");
    assert_eq!(who["status"]["userInfo"]["groups"][1], "system:serviceaccounts:default");

    let code = |result: Result<Value, kube::Error>| match result {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("no refusal: {other:?}"),
    };
    cluster.clock().sleep(std::time::Duration::from_secs(600 + 59)).await;
    assert!(send(&client, whoami, json!({}), &headers).await.is_ok(), "a minute's leeway");
    cluster.clock().sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(code(send(&client, whoami, json!({}), &headers).await), 401);

    let answer = send(&client, path, json!({}), &[]).await.unwrap();
    let bearer = format!("Bearer {}", answer["status"]["token"].as_str().unwrap());
    let headers = [(AUTHORIZATION.as_str(), bearer.as_str())];
    assert!(send(&client, whoami, json!({}), &headers).await.is_ok());
    accounts.delete("robot", &DeleteParams::default()).await.unwrap();
    assert_eq!(code(send(&client, whoami, json!({}), &headers).await), 401);
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_administrator_may_ask_in_somebody_elses_name_and_others_may_not() {
    let cluster = Cluster::builder().kubelet(false).sandbox_controllers(false).start().await.unwrap();
    let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let headers = [("impersonate-user", "bob"), ("impersonate-group", "devs")];
    let who = send(&cluster.client(), whoami, json!({}), &headers).await.unwrap();
    assert_eq!(who["status"]["userInfo"], json!({"username": "bob", "groups": ["devs", "system:authenticated"]}));
    let message = refusal(send(&cluster.client_as("alice", &[]), whoami, json!({}), &headers).await);
    assert_eq!(
        message,
        "selfsubjectreviews.authentication.k8s.io is forbidden: User \"alice\" cannot impersonate-on:user-info:create \
         resource \"selfsubjectreviews\" in API group \"authentication.k8s.io\" at the cluster scope"
    );
    cluster.shutdown().await;
}

//! Bearer tokens: those of service accounts, which the server issues and knows again, and those named at the start.
//!
//! Upstream: `pkg/registry/core/serviceaccount/storage/token.go`, `pkg/serviceaccount/claims.go` and `jwt.go`.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Body, Caller, Registry, Target, builtin, decode, signer, signer::Signer};
use crate::{
    base::{
        FieldError, Object, Status, Stored, User,
        status::go_quote,
        user::{AUTHENTICATED, account_groups, account_name},
    },
    clock::time_text,
    fields,
};

/// Who issues tokens, and whom they are for if nothing else is said: the server itself.
pub const AUDIENCE: &str = "https://kubernetes.default.svc";

/// How far a client's clock may be off, and how long a deleted object still counts. Upstream's `jwt.DefaultLeeway`.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// The lifetime that the `ServiceAccount` admission asks for, and how long such a token of a pod is good for really:
/// upstream's `WarnOnlyBoundTokenExpirationSeconds` and `ExpirationExtensionSeconds`.
const POD_TOKEN_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;

/// How long a token is good for if nothing else is said.
const DEFAULT_SECONDS: i64 = 3600;

/// Whom a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The user, with the group of all who are known.
    pub user: User,
    /// Those of the wanted audiences that the token is for.
    pub audiences: Vec<String>,
}

/// An object that a token is bound to, as its claims name it.
#[derive(Clone, Copy)]
struct Bound<'a> {
    name: &'a str,
    uid: &'a str,
}

impl<'a> Bound<'a> {
    fn of(claims: &'a Value, key: &str) -> Option<Self> {
        let object = claims["kubernetes.io"].get(key).filter(|object| !object.is_null())?;
        let text = |key: &str| object[key].as_str().unwrap_or_default();
        Some(Self { name: text("name"), uid: text("uid") })
    }
}

impl Registry {
    fn signer(&self) -> &Signer {
        self.0.signer.get_or_init(Signer::generate)
    }

    /// Accepts a token for a user.
    pub fn add_token(&self, token: &str, user: User) {
        self.0.tokens.lock().expect("no panic under this lock").insert(token.into(), user);
    }

    /// The public key of the tokens, as a JSON Web Key Set.
    pub fn key_set(&self) -> Value {
        self.signer().key_set()
    }

    /// Whom a bearer token stands for, to these audiences; without any, to the server.
    ///
    /// # Errors
    /// Why it stands for nobody, in upstream's words.
    pub fn authenticate(&self, token: &str, audiences: Option<&[String]>) -> Result<Known, String> {
        let invalid = || "invalid bearer token".to_owned();
        let own = [AUDIENCE.to_owned()];
        let wanted = audiences.unwrap_or(&own);
        let named = self.0.tokens.lock().expect("no panic under this lock").get(token).cloned();
        if let Some(user) = named {
            let audiences = common(&own, wanted);
            return if audiences.is_empty() { Err(invalid()) } else { Ok(Known { user, audiences }) };
        }
        if signer::claims(token).is_none_or(|claims| claims["iss"] != AUDIENCE) {
            return Err(invalid());
        }
        self.issued(token, wanted).map_err(|why| format!("[{}, {why}]", invalid()))
    }

    /// Whom a token of this issuer stands for.
    fn issued(&self, token: &str, wanted: &[String]) -> Result<Known, String> {
        let claims = self.signer().verify(token)?;
        let of: Vec<String> =
            claims["aud"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let audiences = common(&of, wanted);
        if audiences.is_empty() {
            let show = |list: &[String]| list.iter().map(|text| go_quote(text)).collect::<Vec<_>>().join(" ");
            let (of, wanted) = (show(&of), show(wanted));
            return Err(format!("token audiences [{of}] is invalid for the target audiences [{wanted}]"));
        }
        Ok(Known { user: self.account_of(&claims)?, audiences })
    }

    /// The service account of verified claims, if it and what the token is bound to are still there.
    fn account_of(&self, claims: &Value) -> Result<User, String> {
        const INVALIDATED: &str = "service account token has been invalidated";
        let now = self.clock().now();
        let time =
            |key: &str| Timestamp::from_second(claims[key].as_i64().unwrap_or_default()).unwrap_or(Timestamp::MAX);
        if now.saturating_add(LEEWAY).is_ok_and(|soon| soon < time("nbf")) {
            return Err("service account token is not valid yet".into());
        }
        if now.saturating_sub(LEEWAY).is_ok_and(|before| before > time("exp")) {
            return Err("service account token has expired".into());
        }
        let namespace = claims["kubernetes.io"]["namespace"].as_str().unwrap_or_default();
        let account = Bound::of(claims, "serviceaccount").ok_or("service account token has no service account")?;
        let Some(live) = self.look("serviceaccounts", namespace, account.name) else {
            return Err(format!("serviceaccounts {} not found", go_quote(account.name)));
        };
        if live.uid() != account.uid {
            let (live, claimed) = (live.uid(), account.uid);
            return Err(format!("service account UID ({live}) does not match claim ({claimed})"));
        }
        if is_gone(&live, now) {
            return Err(format!("service account {namespace}/{} has been deleted", account.name));
        }
        let pod = Bound::of(claims, "pod");
        let node = Bound::of(claims, "node");
        let bound = [
            (Bound::of(claims, "secret"), "secrets", namespace, "secret UID", "secret"),
            (pod, "pods", namespace, "pod UID", "pod"),
            (node.filter(|_| pod.is_none()), "nodes", "", "node UID", "node"),
        ];
        for (bound, bucket, namespace, uid, kind) in bound {
            let Some(bound) = bound else { continue };
            let live = self.look(bucket, namespace, bound.name).ok_or(INVALIDATED)?;
            if live.uid() != bound.uid {
                let (live, claimed) = (live.uid(), bound.uid);
                return Err(format!("{uid} ({live}) does not match service account {kind} ref claim ({claimed})"));
            }
            if is_gone(&live, now) {
                return Err(INVALIDATED.into());
            }
        }
        let mut extra = BTreeMap::new();
        let mut add = |key: &str, value: &str| {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        };
        if let Some(pod) = pod {
            add("pod-name", pod.name);
            add("pod-uid", pod.uid);
        }
        if let Some(id) = claims["jti"].as_str().filter(|id| !id.is_empty()) {
            add("credential-id", &format!("JTI={id}"));
        }
        if let Some(node) = node {
            add("node-name", node.name);
            if !node.uid.is_empty() {
                add("node-uid", node.uid);
            }
        }
        let mut groups = account_groups(namespace);
        groups.push(AUTHENTICATED.into());
        Ok(User { name: account_name(namespace, account.name), uid: account.uid.into(), groups, extra })
    }

    /// `serviceaccounts/NAME/token`.
    pub(super) fn request_token(&self, target: &Target, caller: &Caller, body: Body) -> Result<Arc<Stored>, Status> {
        const GROUP: &str = "authentication.k8s.io";
        let (namespace, name) = (target.namespace.as_str(), target.name.as_str());
        let invalid = |of: &str, error: FieldError| Status::invalid(GROUP, "TokenRequest", of, &[error]);
        let resource = builtin::token_request();
        let mut request = decode::decode(resource, &self.catalog(), caller, body)?;
        if request.at(&["spec", "expirationSeconds"]).is_none_or(Value::is_null) {
            request.set_at(&["spec", "expirationSeconds"], DEFAULT_SECONDS);
        }
        let writer = self.writer(target, caller, request.api_version().to_owned());
        fields::track(None, &mut request, resource.schema(), &writer.borrowed());
        for (key, own, what) in [("name", name, "name"), ("namespace", namespace, "namespace")] {
            let given = request.str_at(&["metadata", key]);
            if !given.is_empty() && given != own {
                let why = format!("must match the service account {what} if specified");
                return Err(invalid(name, FieldError::invalid(&format!("metadata.{key}"), &given.into(), &why)));
            }
        }
        let account = self.look("serviceaccounts", namespace, name).ok_or_else(|| target.not_found())?;
        let given = request.uid().to_owned();
        if !given.is_empty() && given != account.uid() {
            let why = format!(
                "the UID in the token request ({given}) does not match the UID of the service account ({})",
                account.uid()
            );
            return Err(Status::conflict(GROUP, "TokenRequest", name, &why));
        }
        let now = self.clock().now();
        let metadata = request.metadata_mut();
        for (key, value) in [("name", name), ("namespace", namespace), ("uid", account.uid())] {
            metadata.insert(key.into(), value.into());
        }
        metadata.insert("creationTimestamp".into(), time_text(now).into());
        let mut spec = request.get("spec").cloned().unwrap_or_else(|| json!({}));
        if spec["audiences"].as_array().is_none_or(Vec::is_empty) {
            spec["audiences"] = json!([AUDIENCE]);
        }
        let seconds = spec["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
        let wrong = |why: &str| invalid("", FieldError::invalid("spec.expirationSeconds", &seconds.into(), why));
        if seconds < 10 * 60 {
            return Err(wrong("may not specify a duration less than 10 minutes"));
        }
        if seconds > 1 << 32 {
            return Err(wrong("may not specify a duration larger than 2^32 seconds"));
        }

        let mut kubernetes = json!({
            "namespace": namespace, "serviceaccount": {"name": name, "uid": account.uid()},
        });
        let of_pod = self.bind_token(namespace, name, &spec["boundObjectRef"], &mut kubernetes)?;
        let mut lifetime = seconds;
        let for_server = spec["audiences"].as_array().is_some_and(|list| list.iter().all(|one| one == AUDIENCE));
        if of_pod && seconds == POD_TOKEN_SECONDS && for_server {
            kubernetes["warnafter"] = (now.as_second() + seconds).into();
            lifetime = EXTENDED_SECONDS;
        }
        let claims = json!({
            "aud": spec["audiences"], "exp": now.as_second() + lifetime, "iat": now.as_second(), "iss": AUDIENCE,
            "jti": self.ids().uid(), "kubernetes.io": kubernetes, "nbf": now.as_second(),
            "sub": account_name(namespace, name),
        });
        let until = now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
        let status = json!({"token": self.signer().sign(&claims), "expirationTimestamp": time_text(until)});
        if spec.get("boundObjectRef").is_none() {
            spec["boundObjectRef"] = Value::Null;
        }
        request.set("spec", spec);
        request.set("status", status);
        Ok(Arc::new(Stored::new(request)))
    }

    /// Adds to a token's claims what it is bound to; whether that is a pod.
    fn bind_token(
        &self,
        namespace: &str,
        account: &str,
        reference: &Value,
        claims: &mut Value,
    ) -> Result<bool, Status> {
        if reference.is_null() {
            return Ok(false);
        }
        let text = |key: &str| reference[key].as_str().unwrap_or_default();
        let (kind, version, name) = (text("kind"), text("apiVersion"), text("name"));
        let (group, version) = crate::base::names::split_api_version(version);
        let (resource, home, key) = match (group, kind) {
            ("", "Pod") => ("pods", namespace, "pod"),
            ("", "Secret") => ("secrets", namespace, "secret"),
            ("", "Node") => ("nodes", "", "node"),
            _ => {
                let message = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
                return Err(Status::bad_request(message));
            }
        };
        let object = self.look(resource, home, name).ok_or_else(|| Status::not_found("", resource, name))?;
        if kind == "Pod" && object.str_at(&["spec", "serviceAccountName"]) != account {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {} to pod running with different serviceaccount name.",
                go_quote(account)
            )));
        }
        if !text("uid").is_empty() && text("uid") != object.uid() {
            let why = format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been \
                 deleted and then recreated",
                text("uid")
            );
            return Err(Status::conflict(group, kind, name, &why));
        }
        claims[key] = json!({"name": object.name(), "uid": object.uid()});
        let node = if kind == "Pod" { object.str_at(&["spec", "nodeName"]) } else { "" };
        if !node.is_empty() {
            claims["node"] = match self.look("nodes", "", node) {
                Some(live) => json!({"name": node, "uid": live.uid()}),
                None => json!({"name": node}),
            };
        }
        Ok(kind == "Pod")
    }
}

/// Those of a token's audiences that are wanted.
fn common(of: &[String], wanted: &[String]) -> Vec<String> {
    of.iter().filter(|one| wanted.contains(one)).cloned().collect()
}

/// Whether an object's deletion lies back so far that tokens no longer count on it.
fn is_gone(object: &Object, now: Timestamp) -> bool {
    let deleted: Option<Timestamp> = object.str_at(&["metadata", "deletionTimestamp"]).parse().ok();
    deleted.is_some_and(|deleted| now.saturating_sub(LEEWAY).is_ok_and(|before| deleted < before))
}

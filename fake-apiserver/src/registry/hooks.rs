//! Webhooks of admission: asked before a write is committed, on what it would store. Whoever makes the calls is handed in.
//!
//! Upstream: `apiserver/pkg/admission/plugin/webhook/mutating/dispatcher.go`, `validating/dispatcher.go`, and
//! `kube-aggregator/pkg/apiserver/resolvers.go`.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use base64::Engine;
use futures::future::{BoxFuture, join_all};
use serde_json::Value;

use super::{Caller, Registry, Target, decode};
use crate::{
    admission::{
        Operation,
        webhooks::{self, Answer, Call, Hook},
    },
    base::{
        Object, Status, Stored, patch,
        status::go_quote,
        value::{get, has, int, items, text},
    },
};

/// A webhook that is to be called.
#[derive(Clone, Debug)]
pub struct WebhookCall {
    /// Its URL.
    pub url: String,
    /// Host and port to connect to, if not the URL's; `Err` for what cannot be reached, and why.
    pub endpoint: Option<Result<String, String>>,
    /// Certificates that it is trusted by, PEM.
    pub ca: Vec<u8>,
    /// How long it may take.
    pub timeout: Duration,
    /// What it is sent.
    pub body: Value,
}

/// Calls webhooks: gives their answer, or why there is none in the words of Go's HTTP client.
#[derive(Clone)]
pub struct WebhookClient(pub Arc<CallWebhook>);

/// The function in a [`WebhookClient`].
pub type CallWebhook = dyn Fn(WebhookCall) -> BoxFuture<'static, Result<Value, String>> + Send + Sync;

impl fmt::Debug for WebhookClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookClient")
    }
}

/// What a webhook is asked about.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) target: &'a Target,
    pub(super) caller: &'a Caller,
    pub(super) operation: Operation,
    pub(super) name: &'a str,
    pub(super) old: Option<&'a Object>,
}

impl Registry {
    /// Lets webhooks be called by this client; without one no webhook can be reached.
    pub fn call_webhooks_by(&self, client: WebhookClient) {
        let _ = self.0.webhooks.set(client); // the first one stays
    }

    fn hooks(&self, mutating: bool, target: &Target) -> Vec<Hook> {
        let gvr = &target.resource.gvr;
        self.with_view(|view| webhooks::hooks(view, mutating, &gvr.group, &gvr.resource))
    }

    /// Lets the mutating policies and webhooks change an object, one after the other.
    ///
    /// # Errors
    /// What the first that refuses says; 500 for one that cannot be asked and must be.
    pub(super) async fn mutate(&self, question: Question<'_>, object: &mut Object) -> Result<(), Status> {
        let hooks = self.hooks(true, question.target);
        let (mut asked, mut again) = (BTreeSet::new(), BTreeSet::new());
        let mut policies = None;
        let mut changed_once = false;
        for round in 0..2 {
            let before = object.clone();
            let (mutated, wanting) = self.mutate_by_policies(question, object, policies.as_ref()).await?;
            if round == 1 && *object != before {
                again.extend(std::mem::take(&mut asked));
            }
            let made_by_policies = object.clone();
            changed_once |= mutated;
            for (index, hook) in hooks.iter().enumerate() {
                if round == 1 && !again.contains(&index) {
                    continue;
                }
                let Some(answer) = self.ask_hook(hook, question, Some(object)).await? else { continue };
                let changed = self.apply(hook, &answer, question, object).await?;
                if changed {
                    changed_once = true;
                    again.extend(std::mem::take(&mut asked));
                }
                if hook.may_be_called_again() {
                    asked.insert(index);
                }
            }
            if round == 1 || !changed_once {
                return Ok(());
            }
            // the plugins that change objects see what webhooks made of it, and these what the plugins made of that
            let before = object.clone();
            self.admit(question.target, question.operation, question.old, object)?;
            if *object != before {
                again.extend(std::mem::take(&mut asked));
            }
            let concerned = mutated || *object != made_by_policies;
            policies = Some(if concerned { wanting } else { BTreeSet::new() });
        }
        Ok(())
    }

    /// Asks the mutating webhooks about a deletion, which they cannot change.
    pub(super) async fn mutate_deletion(&self, question: Question<'_>) -> Result<(), Status> {
        for hook in self.hooks(true, question.target) {
            if let Some((_, Answer { patch: Value::Array(patch), .. })) = self.ask_hook(&hook, question, None).await?
                && !patch.is_empty()
            {
                return Err(Status::internal(format!(
                    "admission webhook {} attempted to modify the object, which is not supported for this operation",
                    go_quote(hook.name())
                )));
            }
        }
        Ok(())
    }

    /// Asks the validating webhooks, all at once.
    ///
    /// # Errors
    /// As [`Registry::mutate`].
    pub(super) async fn ask_webhooks(&self, question: Question<'_>, object: Option<&Object>) -> Result<(), Status> {
        let hooks = self.hooks(false, question.target);
        if hooks.is_empty() {
            return Ok(());
        }
        let answers = join_all(hooks.iter().map(|hook| self.ask_hook(hook, question, object))).await;
        answers.into_iter().try_for_each(|answer| answer.map(|_| ()))
    }

    /// Asks one webhook; `None` where it is not concerned, or cannot be asked and need not be.
    async fn ask_hook(
        &self,
        hook: &Hook,
        question: Question<'_>,
        object: Option<&Object>,
    ) -> Result<Option<(Call, Answer)>, Status> {
        let uid = self.ids().uid();
        let call = self.with_asked(question, object, |asked, view| hook.call(asked, view, &uid)).await?;
        let Some(call) = call else { return Ok(None) };
        let answer = self.call(hook, call.review.clone()).await;
        let answer = answer.and_then(|review| {
            hook.read(&uid, &review).map_err(|why| {
                if why.starts_with("received ") { why } else { format!("received invalid webhook response: {why}") }
            })
        });
        match answer {
            Ok(answer) => {
                answer.warnings.iter().for_each(|warning| question.caller.warnings.add(warning));
                match answer.refusal {
                    Some(refusal) => Err(refusal),
                    None => Ok(Some((call, answer))),
                }
            }
            Err(why) if hook.fails_open() => {
                tracing::warn!(webhook = hook.name(), why, "a webhook cannot be asked; the request passes");
                Ok(None)
            }
            Err(why) => Err(Status::internal(format!("failed calling webhook {}: {why}", go_quote(hook.name())))),
        }
    }

    async fn call(&self, hook: &Hook, body: Value) -> Result<Value, String> {
        let answer = self.call_webhook(hook.name(), hook.client_config(), hook.timeout(), body).await;
        answer.map_err(|why| {
            if why.starts_with("could not get REST client") { why } else { format!("failed to call webhook: {why}") }
        })
    }

    /// Calls the webhook that a client configuration leads to; rules know it by its name.
    ///
    /// # Errors
    /// Why there is no answer, in the words of Go's client.
    pub(super) async fn call_webhook(
        &self,
        name: &str,
        config: &Value,
        timeout: Duration,
        body: Value,
    ) -> Result<Value, String> {
        let call = self.webhook_call(config, timeout, body);
        if !call.ca.is_empty() && !String::from_utf8_lossy(&call.ca).contains("-----BEGIN CERTIFICATE") {
            return Err(
                "could not get REST client: unable to load root certificates: unable to parse bytes as PEM block"
                    .into(),
            );
        }
        let url = call.url.clone();
        let answer = match self.0.webhooks.get() {
            _ if self.rules().is_webhook_down(name) => {
                let why = format!("Post {}: dial tcp: connect: connection refused", go_quote(&url));
                Some(Err(why))
            }
            Some(client) => self.clock().timeout(timeout, client.0(call)).await,
            None => Some(Err("no client".into())),
        };
        answer.unwrap_or_else(|| Err(format!("Post {}: context deadline exceeded", go_quote(&url))))
    }

    /// Where a client configuration leads to.
    fn webhook_call(&self, config: &Value, timeout: Duration, body: Value) -> WebhookCall {
        let ca = base64::engine::general_purpose::STANDARD.decode(text(config, "caBundle")).unwrap_or_default();
        let (base, endpoint) = if has(config, "service") {
            let service = get(config, "service");
            let (namespace, name) = (text(service, "namespace"), text(service, "name"));
            let port = int(service, "port").unwrap_or(443);
            let url = format!("https://{name}.{namespace}.svc:{port}{}", text(service, "path"));
            (url, Some(self.endpoint(namespace, name, port)))
        } else {
            (text(config, "url").to_owned(), None)
        };
        let rootless = base.strip_prefix("https://").is_some_and(|rest| !rest.contains('/'));
        let url = format!("{base}{}?timeout={}s", if rootless { "/" } else { "" }, timeout.as_secs());
        WebhookCall { url, endpoint, ca, timeout, body }
    }

    /// Upstream's `ResolveCluster`; nobody is behind the address of a service here.
    fn endpoint(&self, namespace: &str, name: &str, port: i64) -> Result<String, String> {
        let found = self.look("services", namespace, name);
        let service = found.ok_or_else(|| format!("service {} not found", go_quote(name)))?;
        let address = service.str_at(&["spec", "clusterIP"]);
        match service.str_at(&["spec", "type"]) {
            "ExternalName" => Ok(format!("{}:{port}", service.str_at(&["spec", "externalName"]))),
            "ClusterIP" if address == "None" => Err("cannot route to service with ClusterIP \"None\"".into()),
            _ => {
                let spec = service.get("spec").unwrap_or(&Value::Null);
                if !items(spec, "ports").iter().any(|item| int(item, "port") == Some(port)) {
                    return Err(format!("no service port {port} found for service {}", go_quote(name)));
                }
                Err(format!("dial tcp {address}:{port}: connect: connection refused"))
            }
        }
    }

    /// Applies a webhook's patch; whether it changed something.
    async fn apply(
        &self,
        hook: &Hook,
        (call, answer): &(Call, Answer),
        question: Question<'_>,
        object: &mut Object,
    ) -> Result<bool, Status> {
        if answer.patch.as_array().is_none_or(Vec::is_empty) {
            return Ok(false);
        }
        let resource = &question.target.resource;
        let before = call.review["request"]["object"].clone();
        let patched = patch::json(&before, &answer.patch).map_err(|error| Status::internal(error.message))?;
        if patched == before {
            return Ok(false);
        }
        let wrong = || Status::internal(format!("webhook {} made no object", go_quote(hook.name())));
        let shown = if resource.custom.is_some() {
            patched
        } else {
            resource.schema().decode(patched).map_err(Status::internal)?.value
        };
        let mut new = Object::from_value(shown).ok_or_else(wrong)?;
        if call.seen_as.gvr != resource.gvr {
            new = self.view(resource, &Arc::new(Stored::new(new))).await?.object().clone();
        }
        new.pack(); // as every object on its way is
        decode::default(resource, &mut new);
        let changed = new != *object;
        *object = new;
        Ok(changed)
    }
}

//! A [`RequestInfo`] becomes a call of the registry or of discovery, and its result an answer. No opinion about objects.
//!
//! Upstream: `k8s.io/apiserver/pkg/endpoints/handlers`, `endpoints/installer.go` (which paths there are) and
//! `apiextensions-apiserver/pkg/apiserver/customresource_handler.go` (the same for custom kinds).

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use serde_json::{Value, json};

use super::{
    Api, Incoming, Lost,
    auth::{self, Asked},
    body::{self, Expected, Form},
    control, documents, impersonate, json,
    metrics::{self, Labels},
    negotiate::{self, Answer, Route, Shape},
    path::{RequestInfo, ResourcePath, Verb},
    proxy,
    query::{Query, Writing, dry_run_error},
    respond::{self, Response},
    streams,
    table::{self, Include, Table},
    watch, yaml,
};
use crate::{
    access::Attributes,
    base::{
        Gvr, Object, Status, Stored, names,
        status::{go_quote, json_kind},
    },
    registry::{Body, Caller, DeleteOptions, Deleted, Fault, Patch, Resource, Target, User, Warnings},
    rule, sandbox,
};

/// Answers a request. `connection` is the user of the connection, if that says it already.
///
/// # Errors
/// If a rule wants no answer.
pub(super) async fn handle(
    api: &Arc<Api>,
    connection: Option<&User>,
    request: hyper::Request<Incoming>,
) -> Result<Response, Lost> {
    let accept = header(request.headers(), header::ACCEPT).to_owned();
    let (info, query) =
        (RequestInfo::parse(request.uri().path()), Query::parse(request.uri().query().unwrap_or_default()));
    let verb = match &info {
        RequestInfo::Resource(path) => Verb::of(request.method(), path, query.flag("watch").unwrap_or_default()),
        _ => None,
    };
    let apply = body::media_type(request.headers()) == "application/apply-patch+yaml";
    let labels = Labels::of(&info, request.method(), verb, apply, !query.dry_run().is_empty());
    let clock = api.registry.clock();
    let start = clock.now();
    let response = match answer(api, connection, request, Read { info, verb, query }).await {
        Ok(response) => response,
        Err(Fault::Refused(status)) => refusal(&status, &accept),
        Err(Fault::Lost) => return Err(Lost),
    };
    if let Some(labels) = labels {
        let millis = clock.now().duration_since(start).as_millis();
        api.metrics.count(labels, response.status().as_u16(), i64::try_from(millis).unwrap_or(i64::MAX));
    }
    Ok(response)
}

/// What a request's method and address say.
struct Read {
    info: RequestInfo,
    verb: Option<Verb>,
    query: Query,
}

fn refusal(status: &Status, accept: &str) -> Response {
    let yaml = negotiate::negotiate(accept, Route::Custom).is_ok_and(|answer| answer.yaml);
    respond::status(status, yaml)
}

fn header(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

async fn answer(
    api: &Arc<Api>,
    connection: Option<&User>,
    request: hyper::Request<Incoming>,
    read: Read,
) -> Result<Response, Fault> {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let Read { info, verb, query } = read;
    let user = auth::authenticate(&api.registry, connection, request.headers())?;
    let asked = Asked::of(&method, &path, &info, &query);
    let user = match impersonate::wanted(request.headers())? {
        Some(wanted) => api.modes.become_user(&api.registry, wanted, &asked.by(&user, &info))?,
        None => user,
    };
    api.registry.permit(&asked.by(&user, &info))?;
    if let RequestInfo::Resource(resource) = &info
        && resource.gvr == Gvr::new("", "v1", "pods")
        && streams::UPGRADED.contains(&resource.subresource.as_str())
    {
        // A WebSocket is asked for with GET, and does what POST does (`pkg/registry/core/pod/rest/authorize.go`).
        let create = Attributes { verb: "create", ..asked.by(&user, &info) };
        let allowed = api.registry.authorize(&create).map(drop);
        allowed.map_err(|reason| Status::forbidden("", "pods", &resource.name, &reason))?;
    }
    match info {
        RequestInfo::Resource(resource) => {
            let call = rule::Call {
                verb: asked.verb(),
                group: &resource.gvr.group,
                resource: &resource.gvr.resource,
                subresource: &resource.subresource,
                namespace: &resource.namespace,
                name: &resource.name,
                user: &user.name,
            };
            let served = serve(api, &resource, verb, query, user.clone(), request);
            api.registry.under_rules(&call, served).await
        }
        RequestInfo::Control(path) => Ok(control::answer(api, &user, &method, &path, request.into_body()).await?),
        RequestInfo::Metrics if matches!(method, Method::GET | Method::HEAD) => {
            let mut text = api.metrics.text(&api.registry);
            if let Some((counted, road)) = &api.sandboxes {
                text.push_str(&sandbox::metrics_text(&counted.families(road).await?));
            }
            Ok(respond::bytes(200, metrics::CONTENT_TYPE, text))
        }
        info => {
            let headers = request.headers().clone();
            let answer = documents::answer(api, &info, &headers, &query)?;
            // upstream gives most documents to whatever method asks for them, and misses what is not there first
            let only_read =
                matches!(info, RequestInfo::CoreVersions | RequestInfo::Version { .. } | RequestInfo::ServerVersion);
            if only_read && !matches!(method, Method::GET | Method::HEAD) && answer.status().is_success() {
                return Err(Status::method_not_allowed().into());
            }
            Ok(answer)
        }
    }
}

/// Serves a resource, with the warnings that belong to it.
async fn serve(
    api: &Arc<Api>,
    resource: &ResourcePath,
    verb: Option<Verb>,
    query: Query,
    user: User,
    request: hyper::Request<Incoming>,
) -> Result<Response, Status> {
    let found = find(api, request.method(), resource, verb)?;
    let Found::Serve(target, verb) = found else { return Ok(respond::page_not_found()) };
    let warnings = Warnings::default();
    if let Some(text) = target.resource.deprecation() {
        warnings.add(text); // whatever comes of the request, and before all that does
    }
    let accept = header(request.headers(), header::ACCEPT).to_owned();
    let call = Call { api, target, verb, query, user, warnings: warnings.clone() };
    let answered = call.answer(request).await;
    let warnings = warnings.take();
    if warnings.is_empty() {
        return answered;
    }
    let mut response = answered.unwrap_or_else(|status| refusal(&status, &accept));
    respond::warn(&mut response, &warnings);
    Ok(response)
}

/// What serves a path.
enum Found {
    /// A resource.
    Serve(Target, Verb),
    /// Nobody: Go's mux says so.
    Nobody,
}

/// The resource behind a path and what is asked of it.
fn find(api: &Arc<Api>, method: &Method, path: &ResourcePath, verb: Option<Verb>) -> Result<Found, Status> {
    let (catalog, gvr) = (api.registry.catalog(), &path.gvr);
    let Some(resource) = catalog.find(&gvr.group, &gvr.version, &gvr.resource) else {
        let builtin = catalog.all().any(|resource| resource.gvr.group == gvr.group && resource.custom.is_none());
        return if builtin { Err(Status::no_such_resource()) } else { Ok(Found::Nobody) };
    };
    let sub = path.subresource.as_str();
    let serves = |verb: Verb| resource.serves(sub, verb.name());
    let custom = resource.custom.is_some();
    // A namespaced kind has one path without a namespace: the collection over all of them. A cluster-wide kind has no
    // path with a namespace.
    let across = resource.namespaced && path.namespace.is_empty();
    let misplaced = !resource.namespaced && !path.namespace.is_empty() || across && !path.name.is_empty();
    if misplaced {
        return if custom { Ok(Found::Nobody) } else { Err(Status::no_such_resource()) };
    }
    if custom {
        if !sub.is_empty() && !resource.subresources.contains_key(sub) {
            return Err(Status::not_found(&gvr.group, &gvr.resource, &path.name));
        }
        let refused = || {
            let asked = verb.map_or_else(|| method.as_str().to_ascii_lowercase(), |verb| verb.name().into());
            Status {
                message: format!("{asked} is not supported on resources of kind \"{gvr}\""),
                details: Some(crate::base::status::Details {
                    group: gvr.group.clone(),
                    kind: gvr.resource.clone(),
                    ..Default::default()
                }),
                ..Status::method_not_allowed()
            }
        };
        let verb = verb.filter(|verb| serves(*verb)).ok_or_else(refused)?;
        if across && !matches!(verb, Verb::List | Verb::Watch) {
            return Ok(Found::Nobody);
        }
        if !fits(verb, path) {
            return Err(refused());
        }
        return Ok(Found::Serve(target(resource, path), verb));
    }
    let routes = ALL.into_iter().filter(|verb| serves(*verb) && fits(*verb, path));
    let routes: Vec<Verb> = routes.filter(|verb| !across || matches!(verb, Verb::List | Verb::Watch)).collect();
    match verb {
        _ if routes.is_empty() => Err(Status::no_such_resource()),
        // What it means is for whom it is passed on to.
        verb if sub == "proxy" => Ok(Found::Serve(target(resource, path), verb.unwrap_or(Verb::Get))),
        Some(verb) if routes.contains(&verb) => Ok(Found::Serve(target(resource, path), verb)),
        Some(_) | None => Err(Status::method_not_allowed()),
    }
}

const ALL: [Verb; 8] =
    [Verb::Get, Verb::List, Verb::Watch, Verb::Create, Verb::Update, Verb::Patch, Verb::Delete, Verb::DeleteCollection];

/// Whether a verb goes with a path that has a name, or with one that has none.
fn fits(verb: Verb, path: &ResourcePath) -> bool {
    if path.name.is_empty() {
        return !verb.wants_name();
    }
    match verb {
        Verb::Watch => path.subresource.is_empty(),
        Verb::Create => !path.subresource.is_empty(),
        verb => verb.wants_name(),
    }
}

fn target(resource: &Arc<Resource>, path: &ResourcePath) -> Target {
    Target {
        resource: resource.clone(),
        namespace: path.namespace.clone(),
        name: path.name.clone(),
        subresource: path.subresource.clone(),
    }
}

/// A request to a resource.
struct Call<'a> {
    api: &'a Arc<Api>,
    target: Target,
    verb: Verb,
    query: Query,
    user: User,
    /// What the answer will warn of.
    warnings: Warnings,
}

impl Call<'_> {
    async fn answer(self, request: hyper::Request<Incoming>) -> Result<Response, Status> {
        if &*self.target.resource.bucket == "pods" && streams::STREAMS.contains(&self.target.subresource.as_str()) {
            return streams::handle(&self.api.streams, request, &self.target, self.query.pairs()).await;
        }
        if self.target.subresource == "proxy" {
            return proxy::handle(&self.api.streams, request, &self.target).await;
        }
        let form = self.accepted(request.headers())?;
        let (parts, content) = request.into_parts();
        let headers = parts.headers;
        match self.verb {
            Verb::Get => {
                let version = self.query.get("resourceVersion").unwrap_or_default();
                let object = self.api.registry.get(&self.target, version).await?;
                self.show(200, &form, &object, gzip(&headers))
            }
            Verb::List => self.list(&form, gzip(&headers)).await,
            Verb::Watch => self.watch(form).await,
            Verb::Create => self.create(&form, &headers, content).await,
            Verb::Update => self.update(&form, &headers, content).await,
            Verb::Patch => self.patch(&form, &headers, content).await,
            Verb::Delete => self.delete(&form, &headers, content).await,
            Verb::DeleteCollection => self.delete_collection(&form, &headers, content).await,
        }
    }

    fn accepted(&self, headers: &HeaderMap) -> Result<Answer, Status> {
        let route = match self.verb {
            _ if self.target.resource.custom.is_some() => Route::Custom,
            Verb::List | Verb::Watch => Route::Collection,
            Verb::Get | Verb::Create | Verb::Update | Verb::Patch | Verb::Delete | Verb::DeleteCollection => {
                Route::Item
            }
        };
        negotiate::negotiate(header(headers, header::ACCEPT), route)
    }

    fn include(&self) -> Result<Include, Status> {
        match self.query.get("includeObject").unwrap_or_default() {
            "" | "Metadata" => Ok(Include::Metadata),
            "None" => Ok(Include::None),
            "Object" => Ok(Include::Object),
            other => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {}: must be 'Metadata', \
                     'Object', 'None', or empty",
                go_quote(other)
            ))),
        }
    }

    /// An object in the form that was negotiated.
    fn show(&self, code: u16, form: &Answer, object: &Arc<Stored>, gzip: bool) -> Result<Response, Status> {
        let status = object.kind() == "Status" && object.api_version() == "v1";
        match &form.shape {
            Shape::Whole => {}
            _ if status => {}
            Shape::Table(version) => {
                let metadata = json!({"resourceVersion": object.resource_version()});
                let table = Table::new(&self.target.resource, version, self.include()?);
                let now = self.api.registry.clock().now();
                let value = table.render(metadata, std::iter::once(object.object()), now, true);
                return Ok(respond::value(code, form.yaml, &value));
            }
            Shape::Partial(version) => {
                return Ok(respond::value(code, form.yaml, &table::partial(object, version)));
            }
            Shape::PartialList(_) => {
                let message = "you requested PartialObjectMetadataList, but the requested object is not a list";
                return Err(Status::not_acceptable(format!("{message} ({})", self.go_type(false))));
            }
        }
        if gzip && !form.yaml {
            return Ok(respond::compress(code, object.json()));
        }
        Ok(respond::stored(code, form.yaml, object))
    }

    /// The Go type that upstream's messages name.
    fn go_type(&self, list: bool) -> String {
        let resource = &self.target.resource;
        let kind = if list { &resource.list_kind } else { &resource.kind };
        match (&resource.custom, list) {
            (Some(_), true) => "*unstructured.UnstructuredList".into(),
            (Some(_), false) => "*unstructured.Unstructured".into(),
            (None, _) => {
                let package = resource.gvr.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
                format!("*{package}.{kind}")
            }
        }
    }

    fn show_list(&self, form: &Answer, list: &crate::registry::List, gzip: bool) -> Result<Response, Status> {
        let resource = &self.target.resource;
        let value = match &form.shape {
            Shape::Whole => {
                let json = respond::list(resource, list);
                let plain = !gzip || form.yaml;
                return Ok(if plain { respond::encoded(200, form.yaml, json) } else { respond::compress(200, json) });
            }
            Shape::Table(version) => {
                let table = Table::new(resource, version, self.include()?);
                let rows = list.items.iter().map(|item| item.object());
                table.render(respond::list_metadata(list), rows, self.api.registry.clock().now(), true)
            }
            Shape::Partial(_) => {
                let message = "you requested PartialObjectMetadata, but the requested object is a list";
                return Err(Status::not_acceptable(format!("{message} ({})", self.go_type(true))));
            }
            Shape::PartialList(version) => json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": respond::list_metadata(list),
                "items": list.items.iter().map(|item| table::partial(item, version)).collect::<Vec<_>>(),
            }),
        };
        Ok(respond::value(200, form.yaml, &value))
    }

    async fn list(&self, form: &Answer, gzip: bool) -> Result<Response, Status> {
        let list = self.api.registry.list(&self.target, &self.query.list_options()?).await?;
        self.show_list(form, &list, gzip)
    }

    async fn watch(&self, form: Answer) -> Result<Response, Status> {
        let options = self.query.list_options()?;
        if form.yaml {
            return Err(Status::not_acceptable(
                "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
            ));
        }
        let include = self.include()?;
        let gvr = &self.target.resource.gvr;
        let watched = self.api.registry.rules().watched(&rule::Call {
            verb: "watch",
            group: &gvr.group,
            resource: &gvr.resource,
            subresource: "",
            namespace: &self.target.namespace,
            name: &self.target.name,
            user: &self.user.name,
        });
        let watcher = self.api.registry.watch(&self.target, &options).await?.subject_to(watched);
        let timeout = self.query.int("timeoutSeconds")?.unwrap_or_default();
        let (resource, clock) = (self.target.resource.clone(), self.api.registry.clock().clone());
        let stop = self.api.stop.clone();
        Ok(watch::Stream::new(watcher, resource, form.shape, include, clock, timeout, stop).into_response())
    }

    fn caller(&self, headers: &HeaderMap, writing: Writing) -> Result<(Caller, bool), Status> {
        let options = self.query.write_options(writing, header(headers, header::USER_AGENT))?;
        let caller = Caller {
            user: self.user.clone(),
            guarded: true,
            manager: options.manager,
            dry_run: options.dry_run,
            validation: options.validation,
            warnings: self.warnings.clone(),
            duplicates: Vec::new(),
        };
        Ok((caller, options.force))
    }

    /// The object in the body of a request.
    async fn body(&self, headers: &HeaderMap, content: Incoming) -> Result<Body, Status> {
        let (form, bytes) = (body::form(headers)?, body::read(content).await?);
        let resource = &self.target.resource;
        let own = resource.api_version();
        let expected = match resource.subresources.get(&self.target.subresource) {
            Some(sub) if !sub.version.is_empty() => {
                let api_version = names::api_version(&sub.group, &sub.version);
                let expected = Expected { api_version: &api_version, kind: &sub.kind, custom: false };
                return body::object(form, &bytes, expected);
            }
            Some(sub) => Expected { api_version: &own, kind: &sub.kind, custom: resource.custom.is_some() },
            None => Expected { api_version: &own, kind: &resource.kind, custom: resource.custom.is_some() },
        };
        body::object(form, &bytes, expected)
    }

    async fn create(&self, form: &Answer, headers: &HeaderMap, content: Incoming) -> Result<Response, Status> {
        let (caller, _) = self.caller(headers, Writing::Create)?;
        let body = self.body(headers, content).await?;
        let object = self.api.registry.create(&self.target, &caller, body).await;
        self.written(form, object.map(|object| (object, true)))
    }

    async fn update(&self, form: &Answer, headers: &HeaderMap, content: Incoming) -> Result<Response, Status> {
        let (caller, _) = self.caller(headers, Writing::Update)?;
        let body = self.body(headers, content).await?;
        self.written(form, self.api.registry.update(&self.target, &caller, body).await)
    }

    async fn patch(&self, form: &Answer, headers: &HeaderMap, content: Incoming) -> Result<Response, Status> {
        let media_type = body::media_type(headers);
        let custom = self.target.resource.custom.is_some();
        let writing = match media_type.as_str() {
            "application/apply-patch+yaml" => Writing::Apply,
            "application/json-patch+json" | "application/merge-patch+json" => Writing::Patch,
            "application/strategic-merge-patch+json" if !custom => Writing::Patch,
            _ if custom => {
                return Err(Status::unsupported_media_type(
                    "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                ));
            }
            _ => return Err(Status::unsupported_patch_type()),
        };
        let (mut caller, force) = self.caller(headers, writing)?;
        let bytes = body::read(content).await?;
        let patch = if writing == Writing::Apply {
            let parsed =
                yaml::read(&bytes).map_err(|why| Status::bad_request(format!("error decoding YAML: {why}")))?;
            let value = match parsed.value {
                Value::Null => Value::Object(Default::default()),
                value @ Value::Object(_) => value,
                other => {
                    return Err(Status::bad_request(format!(
                        "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {} into \
                         Go value of type map[string]interface {{}}",
                        json_kind(&other)
                    )));
                }
            };
            Patch::Apply { body: Body { value, duplicates: parsed.duplicates }, force }
        } else {
            let parsed = match json::parse(&bytes) {
                Ok(parsed) => parsed,
                Err(why) => {
                    // The object comes first: where there is none, nobody looks at the patch.
                    self.api.registry.get(&self.target, "").await?;
                    let strategic = media_type == "application/strategic-merge-patch+json";
                    let preface = if strategic { "" } else { "error decoding patch: " };
                    return Err(Status::bad_request(format!("{preface}{why}")));
                }
            };
            caller.duplicates = parsed.duplicates;
            let value = parsed.value;
            match media_type.as_str() {
                "application/json-patch+json" => Patch::Json(value),
                "application/merge-patch+json" => Patch::Merge(value),
                _ => Patch::Strategic(value),
            }
        };
        self.written(form, self.api.registry.patch(&self.target, &caller, patch).await)
    }

    /// The answer to a write: the object.
    fn written(&self, form: &Answer, result: Result<(Arc<Stored>, bool), Status>) -> Result<Response, Status> {
        result.and_then(|(object, created)| self.show(if created { 201 } else { 200 }, form, &object, false))
    }

    /// Options of a deletion: of the body, or of the query if there is none.
    async fn delete_options(&self, headers: &HeaderMap, content: Incoming) -> Result<(Caller, DeleteOptions), Status> {
        let bytes = body::read(content).await?;
        let (options, dry_run) = if bytes.is_empty() {
            let text = |key| self.query.get(key).map(str::to_owned);
            let options = DeleteOptions {
                grace_period_seconds: self.query.int("gracePeriodSeconds")?,
                uid: None,
                resource_version: None,
                propagation: text("propagationPolicy"),
                orphan_dependents: self.query.flag("orphanDependents"),
            };
            (options, self.query.dry_run())
        } else {
            delete_options(body::form(headers)?, &bytes)?
        };
        if let Some(error) = dry_run_error(&dry_run) {
            return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &[error]));
        }
        let warnings = self.warnings.clone();
        let dry_run = !dry_run.is_empty();
        let caller = Caller { user: self.user.clone(), dry_run, warnings, ..Caller::default() };
        Ok((caller, options))
    }

    async fn delete(&self, form: &Answer, headers: &HeaderMap, content: Incoming) -> Result<Response, Status> {
        let (caller, options) = self.delete_options(headers, content).await?;
        let deleted = self.api.registry.delete(&self.target, &caller, &options).await;
        // Upstream's answer to an old client that asked for its dependents to go too.
        let accepted = matches!(deleted, Ok(Deleted::Waiting(_))) && options.orphan_dependents == Some(false);
        let result = deleted.map(|deleted| match deleted {
            Deleted::Gone { last } => {
                let gvr = &self.target.resource.gvr;
                let status = Status::deleted(&gvr.group, &gvr.resource, last.name(), last.uid());
                Arc::new(Stored::new(status))
            }
            Deleted::Waiting(object) => object,
        });
        let mut response = self.written(form, result.map(|object| (object, false)))?;
        if accepted {
            *response.status_mut() = http::StatusCode::ACCEPTED;
        }
        Ok(response)
    }

    async fn delete_collection(
        &self,
        form: &Answer,
        headers: &HeaderMap,
        content: Incoming,
    ) -> Result<Response, Status> {
        let list = self.query.list_options()?;
        let (caller, options) = self.delete_options(headers, content).await?;
        let deleted = self.api.registry.delete_collection(&self.target, &caller, &list, &options).await?;
        self.show_list(form, &deleted, false)
    }
}

fn gzip(headers: &HeaderMap) -> bool {
    negotiate::takes_gzip(header(headers, header::ACCEPT_ENCODING))
}

/// `DeleteOptions` as a body has them, with the values of `dryRun`.
fn delete_options(form: Form, bytes: &Bytes) -> Result<(DeleteOptions, Vec<String>), Status> {
    let value = Object::from_value(body::options(form, bytes)?).unwrap_or_default();
    fn wrong<T>(path: &str, found: &Value, wanted: &str) -> Result<T, Status> {
        let found = json_kind(found);
        let message =
            format!("json: cannot unmarshal {found} into Go struct field DeleteOptions.{path} of type {wanted}");
        Err(Status::bad_request(message))
    }
    let text = |path: &[&str], wanted: &str| match value.at(path) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => wrong(&path.join("."), other, wanted),
    };
    let grace = match value.get("gracePeriodSeconds") {
        None | Some(Value::Null) => None,
        Some(Value::Number(number)) if number.is_i64() => number.as_i64(),
        Some(other) => return wrong("gracePeriodSeconds", other, "int64"),
    };
    let orphan = match value.get("orphanDependents") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(orphan)) => Some(*orphan),
        Some(other) => return wrong("orphanDependents", other, "bool"),
    };
    let dry_run = match value.get("dryRun") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(values)) => {
            values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect()
        }
        Some(other) => return wrong("dryRun", other, "[]string"),
    };
    let options = DeleteOptions {
        grace_period_seconds: grace,
        uid: text(&["preconditions", "uid"], "types.UID")?,
        resource_version: text(&["preconditions", "resourceVersion"], "string")?,
        propagation: text(&["propagationPolicy"], "v1.DeletionPropagation")?,
        orphan_dependents: orphan,
    };
    Ok((options, dry_run))
}

//! Between the versions of a custom kind: from what is stored to what a request asks for, and back.
//!
//! A definition says who converts. With strategy `None` only `apiVersion` changes; a webhook that somebody in this process
//! answers for ([`Registry::answer_conversions`]) is a function; any other is asked over the network ([`webhook`]).
//!
//! What converts is a function everywhere, so that the rules that need it stay functions themselves. Where a webhook has to
//! be asked first, [`Registry::converting`] runs the step, asks for what it lacked, and runs it again.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/conversion`.

mod webhook;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::Value;

use self::webhook::Webhook;
use super::{Registry, Resource, decode, write::OwnedWriter};
use crate::{
    base::{Converter, Object, Status, Stored, limits, names},
    fields::{self, Versions},
    kinds,
};

/// Who converts between the versions of a custom kind, where that is more than another `apiVersion`.
#[derive(Clone, Debug)]
pub(super) enum Conversion {
    /// A function of this process.
    Function(Converter),
    /// A webhook.
    Webhook(Arc<Webhook>),
}

/// Converts an object to an `apiVersion`; the error is the whole message of the answer.
pub(super) type Convert<'a> = dyn Fn(&Object, &str) -> Result<Object, String> + Send + Sync + 'a;

/// What a webhook said, and what it is still to be asked, while one step of a request is run.
#[derive(Debug, Default)]
pub(super) struct Asked(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By the object's text and the `apiVersion` that is wanted.
    known: BTreeMap<(String, String), Result<Object, String>>,
    wanted: Vec<(Object, String)>,
}

impl Asked {
    fn with<T>(&self, call: impl FnOnce(&mut State) -> T) -> T {
        call(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the webhook made of an object; an error that is of no account where it is yet to be asked.
    fn convert(&self, object: &Object, version: &str) -> Result<Object, String> {
        let is_bare = object.as_map().keys().all(|key| key == "apiVersion" || key == "kind");
        if object.api_version() == version || is_bare {
            return rename(object, version); // upstream asks about nothing empty either
        }
        let object = unpacked(object);
        self.with(|state| {
            let key = (object.to_value().to_string(), version.to_owned());
            if let Some(known) = state.known.get(&key) {
                return known.clone();
            }
            state.wanted.push((object, key.1));
            Err("the webhook is yet to be asked".into())
        })
    }

    /// Asks for what was wanted, each version by itself; `false` where nothing was.
    async fn ask(&self, registry: &Registry, webhook: &Webhook) -> bool {
        let wanted = self.with(|state| std::mem::take(&mut state.wanted));
        if wanted.is_empty() {
            return false;
        }
        let mut batches: BTreeMap<(String, String), BTreeMap<String, Object>> = BTreeMap::new();
        for (object, to) in wanted {
            let batch = batches.entry((object.api_version().to_owned(), to)).or_default();
            batch.insert(object.to_value().to_string(), object);
        }
        for ((_, to), objects) in batches {
            let objects: Vec<_> = objects.into_iter().collect();
            for objects in objects.chunks(limits::CONVERSION_BATCH) {
                let sent: Vec<_> = objects.iter().map(|(_, object)| object.clone()).collect();
                let answers = webhook.convert(registry, &sent, &to).await;
                let packed = answers.into_iter().map(|answer| {
                    answer.map(|mut object| {
                        object.pack();
                        object
                    })
                });
                let keys = objects.iter().map(|(text, _)| (text.clone(), to.clone()));
                self.with(|state| state.known.extend(keys.zip(packed)));
            }
        }
        true
    }
}

/// How often a step is run again for conversions that it asks for one after the other.
const ROUNDS: usize = 16;

impl Registry {
    /// Lets a function answer for the conversion webhook behind a service, for definitions that are served from now on.
    pub fn answer_conversions(&self, namespace: &str, service: &str, converter: Converter) {
        let mut converters = self.0.converters.lock().expect("no panic under this lock");
        converters.insert((namespace.into(), service.into()), converter);
    }

    /// Who converts as a definition's spec asks for.
    pub(super) fn conversion(&self, spec: &Value) -> Option<Conversion> {
        let conversion = &spec["conversion"];
        if conversion["strategy"] != "Webhook" {
            return None;
        }
        let service = &conversion["webhook"]["clientConfig"]["service"];
        let text = |key: &str| service[key].as_str().unwrap_or_default().to_owned();
        let converters = self.0.converters.lock().expect("no panic under this lock");
        match converters.get(&(text("namespace"), text("name"))) {
            Some(function) => Some(Conversion::Function(*function)),
            None => Some(Conversion::Webhook(Arc::new(Webhook::new(spec)))),
        }
    }

    /// The versions of a kind whose conversion is more than another `apiVersion`; `asked` is for those of a webhook.
    pub(super) fn versions(&self, resource: &Resource, asked: &Arc<Asked>) -> Option<Versions> {
        let convert: fields::Convert = match resource.custom.as_ref()?.conversion.as_ref()? {
            Conversion::Function(function) => {
                let function = *function;
                Arc::new(move |object, version| by_function(function, object, version))
            }
            Conversion::Webhook(_) => {
                let asked = asked.clone();
                Arc::new(move |object, version| asked.convert(object, version))
            }
        };
        let catalog = self.catalog();
        let others = catalog.all().filter(|other| other.bucket == resource.bucket);
        let schemas = others.map(|other| (other.api_version(), other.schema().clone())).collect();
        Some(Versions { convert, schemas })
    }

    /// Runs a step of a request that converts objects of a kind. Where a webhook converts, the step may run more than once:
    /// it must do nothing but make its result.
    pub(super) async fn converting<T: Send>(
        &self,
        resource: &Resource,
        mut step: impl FnMut(&Convert<'_>) -> T + Send,
    ) -> T {
        match resource.custom.as_ref().and_then(|custom| custom.conversion.as_ref()) {
            None => step(&rename),
            Some(Conversion::Function(function)) => {
                step(&|object, version| by_function(*function, object, version).map_err(|why| failed(object, &why)))
            }
            Some(Conversion::Webhook(webhook)) => {
                let asked = Asked::default();
                self.until_known(webhook, &asked, || step(&|object, version| asked.convert(object, version))).await
            }
        }
    }

    async fn until_known<T: Send>(&self, webhook: &Webhook, asked: &Asked, mut step: impl FnMut() -> T + Send) -> T {
        let mut result = step();
        for _ in 0..ROUNDS {
            if !asked.ask(self, webhook).await {
                break;
            }
            result = step();
        }
        result
    }

    /// Records ownership ([`fields::track`]), as the writer.
    pub(super) async fn track(
        &self,
        resource: &Resource,
        live: Option<&Object>,
        new: &mut Object,
        writer: &OwnedWriter,
    ) {
        match webhook_of(resource) {
            None => fields::track(live, new, resource.schema(), &writer.borrowed()),
            Some(webhook) => {
                let step = || {
                    let mut new = new.clone();
                    fields::track(live, &mut new, resource.schema(), &writer.borrowed());
                    new
                };
                *new = self.until_known(webhook, writer.asked(), step).await;
            }
        }
    }

    /// Server-side apply ([`fields::apply`]), as the writer.
    pub(super) async fn merge_applied(
        &self,
        resource: &Resource,
        live: Option<&Object>,
        applied: &Object,
        writer: &OwnedWriter,
        force: bool,
    ) -> Result<Object, Status> {
        let step = || fields::apply(live, applied, resource.schema(), &writer.borrowed(), force);
        match webhook_of(resource) {
            None => step(),
            Some(webhook) => self.until_known(webhook, writer.asked(), step).await,
        }
    }

    /// An object of the resource's version as it is to be stored.
    ///
    /// # Errors
    /// 500 where the conversion fails.
    pub(super) async fn to_storage(&self, resource: &Resource, object: Object) -> Result<Object, Status> {
        let Some(custom) = resource.custom.as_ref().filter(|_| !resource.is_stored_version()) else {
            return Ok(object);
        };
        let version = names::api_version(&resource.gvr.group, &custom.storage_version);
        let stored = self.converting(resource, |convert| convert(&object, &version)).await;
        let mut stored = stored.map_err(Status::unexpected)?;
        let catalog = self.catalog();
        // Upstream prunes and fills in defaults by the stored version whenever it reads, which nobody can tell from this.
        if let Some(storage) = catalog.find(&resource.gvr.group, &custom.storage_version, &resource.gvr.resource) {
            let mut value = stored.into_value();
            storage.schema().prune(&mut value);
            stored = Object::from_value(value).unwrap_or_default();
            decode::default(storage, &mut stored);
        }
        Ok(stored)
    }

    /// A stored object as a version of its resource shows it.
    ///
    /// # Errors
    /// 500 where the conversion fails.
    pub(super) async fn view(&self, resource: &Resource, stored: &Arc<Stored>) -> Result<Arc<Stored>, Status> {
        if is_shown_as_stored(resource, stored) {
            return Ok(stored.clone());
        }
        self.converting(resource, |convert| view(resource, stored, convert)).await
    }

    /// As [`Self::view`], for all objects of a list. Where the stored objects of a version were never readable, the list is
    /// refused as upstream's watch cache, which never came up, refuses it; `cached` is whether the list comes from there.
    pub(super) async fn view_all(
        &self,
        resource: &Resource,
        stored: Vec<Arc<Stored>>,
        cached: bool,
    ) -> Result<Vec<Arc<Stored>>, Status> {
        let Some(custom) = &resource.custom else {
            return stored.iter().map(|one| view(resource, one, &rename)).collect();
        };
        let all = |convert: &Convert<'_>| -> Vec<_> { stored.iter().map(|one| view(resource, one, convert)).collect() };
        let shown: Result<Vec<_>, _> = self.converting(resource, all).await.into_iter().collect();
        match shown {
            Ok(shown) => {
                custom.readable.note();
                Ok(shown)
            }
            Err(error) if cached && custom.conversion.is_some() && !custom.readable.is_noted() => {
                let (version, kind) = (resource.api_version(), &resource.kind);
                let message = &error.message;
                Err(Status::initializing(&format!("failed to list {version}, Kind={kind}: {message}")))
            }
            Err(error) => Err(error),
        }
    }

    /// As [`Self::view`], for the answer to a deletion that has been carried out: what cannot be converted is shown as it is.
    pub(super) async fn view_of_deleted(&self, resource: &Resource, stored: Arc<Stored>) -> Arc<Stored> {
        self.view(resource, &stored).await.unwrap_or(stored)
    }
}

/// Whether the objects of a version could be read once; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Readable(Arc<AtomicBool>);

impl Readable {
    fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_noted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn webhook_of(resource: &Resource) -> Option<&Webhook> {
    match resource.custom.as_ref()?.conversion.as_ref()? {
        Conversion::Function(_) => None,
        Conversion::Webhook(webhook) => Some(webhook),
    }
}

/// Whether an object needs neither conversion nor newer defaults to be shown.
pub(super) fn is_shown_as_stored(resource: &Resource, stored: &Stored) -> bool {
    let redefault = resource.custom.as_ref().is_some_and(|custom| custom.redefined);
    !redefault && stored.api_version() == resource.api_version()
}

/// A stored object as a version of its resource shows it.
pub(super) fn view(resource: &Resource, stored: &Arc<Stored>, convert: &Convert<'_>) -> Result<Arc<Stored>, Status> {
    if is_shown_as_stored(resource, stored) {
        return Ok(stored.clone());
    }
    let version = resource.api_version();
    let current = stored.api_version() == version;
    let mut object = stored.object().clone();
    match &resource.custom {
        None if resource.kind == "Event" => kinds::convert_event(&mut object, &version),
        None if resource.kind == "HorizontalPodAutoscaler" => kinds::convert_autoscaler(&mut object, &version),
        None => object.set("apiVersion", version),
        Some(custom) => {
            if !current {
                object = convert(&object, &version).map_err(Status::unexpected)?;
            }
            if custom.conversion.is_some() && !current {
                let mut value = object.into_value();
                resource.schema().prune(&mut value);
                object = Object::from_value(value).unwrap_or_default();
            }
            if current || custom.conversion.is_none() {
                decode::default(resource, &mut object);
            }
        }
    }
    Ok(Arc::new(Stored::new(object)))
}

/// The conversion of strategy `None`.
fn rename(object: &Object, version: &str) -> Result<Object, String> {
    let mut object = object.clone();
    object.set("apiVersion", version);
    Ok(object)
}

fn by_function(function: Converter, object: &Object, version: &str) -> Result<Object, String> {
    if object.api_version() == version {
        return Ok(object.clone());
    }
    let mut converted = function(vec![unpacked(object)], version)?;
    let (Some(new), true) = (converted.pop(), converted.is_empty()) else {
        return Err("expected 1 converted object".into());
    };
    restore(object, new)
}

/// Who converts sees what a client would.
fn unpacked(object: &Object) -> Object {
    let mut object = object.clone();
    object.unpack();
    object
}

/// A converted object with the metadata that it had; labels and annotations are the converter's to change.
///
/// Upstream: `restoreObjectMeta`.
fn restore(old: &Object, mut new: Object) -> Result<Object, String> {
    let given = new.metadata().cloned().ok_or("missing metadata in converted object")?;
    let kept = old.metadata().cloned().unwrap_or_default().into_iter();
    let kept = kept.filter(|(key, _)| key != "labels" && key != "annotations");
    let free = given.into_iter().filter(|(key, value)| (key == "labels" || key == "annotations") && !value.is_null());
    *new.metadata_mut() = kept.chain(free).collect();
    Ok(new)
}

/// What kind of object a message speaks of.
fn type_text(object: &Object) -> String {
    format!("{}, Kind={}", object.api_version(), object.kind())
}

fn failed(object: &Object, why: &str) -> String {
    format!("conversion webhook for {} failed: {why}", type_text(object))
}

//! Between the versions of a custom kind: from what is stored to what a request asks for, and back.
//!
//! A definition says who converts. With strategy `None` only `apiVersion` changes; a webhook that somebody in this process
//! answers for ([`Registry::answer_conversions`]) is a function. Whoever calls webhooks over the network does it behind
//! the same type.

use std::sync::Arc;

use serde_json::Value;

use super::{Custom, Registry, Resource, decode};
use crate::{
    base::{Converter, Object, Status, Stored, names},
    fields::Versions,
    kinds,
};

impl Registry {
    /// Lets a function answer for the conversion webhook behind a service, for definitions that are served from now on.
    pub fn answer_conversions(&self, namespace: &str, service: &str, converter: Converter) {
        let mut converters = self.0.converters.lock().expect("no panic under this lock");
        converters.insert((namespace.into(), service.into()), converter);
    }

    /// Who answers for the conversion that a definition's spec asks for.
    pub(super) fn converter(&self, spec: &Value) -> Option<Converter> {
        let conversion = &spec["conversion"];
        let service = conversion["webhook"]["clientConfig"]["service"].as_object()?;
        if conversion["strategy"] != "Webhook" {
            return None;
        }
        let text = |key: &str| service.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let converters = self.0.converters.lock().expect("no panic under this lock");
        converters.get(&(text("namespace"), text("name"))).copied()
    }

    /// The versions of a kind whose conversion is more than another `apiVersion`.
    pub(super) fn versions(&self, resource: &Resource) -> Option<Versions> {
        let converter = resource.custom.as_ref()?.converter?;
        let catalog = self.catalog();
        let others = catalog.all().filter(|other| other.bucket == resource.bucket);
        let schemas = others.map(|other| (other.api_version(), other.schema().clone())).collect();
        Some(Versions { converter, schemas })
    }

    /// An object of the resource's version as it is to be stored.
    ///
    /// # Errors
    /// 500 where the conversion fails.
    pub(super) fn to_storage(&self, resource: &Resource, object: Object) -> Result<Object, Status> {
        let Some(custom) = resource.custom.as_ref().filter(|_| !resource.is_stored_version()) else {
            return Ok(object);
        };
        let mut stored = convert(custom, object, &names::api_version(&resource.gvr.group, &custom.storage_version))?;
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
}

/// A stored object as a version of its resource shows it.
///
/// # Errors
/// 500 where the conversion fails.
pub(super) fn view(resource: &Resource, stored: &Arc<Stored>) -> Result<Arc<Stored>, Status> {
    let version = resource.api_version();
    let current = stored.api_version() == version;
    let redefault = resource.custom.as_ref().is_some_and(|custom| custom.redefined);
    if current && !redefault {
        return Ok(stored.clone());
    }
    let mut object = stored.object().clone();
    match &resource.custom {
        None if resource.kind == "Event" => kinds::convert_event(&mut object, &version),
        None => object.set("apiVersion", version),
        Some(custom) => {
            object = convert(custom, object, &version)?;
            if current || custom.converter.is_none() {
                decode::default(resource, &mut object);
            }
        }
    }
    Ok(Arc::new(Stored::new(object)))
}

/// As [`view`], for the answer to a deletion that has been carried out: what cannot be converted is shown as it is.
pub(super) fn view_of_deleted(resource: &Resource, stored: &Arc<Stored>) -> Arc<Stored> {
    view(resource, stored).unwrap_or_else(|_| stored.clone())
}

fn convert(custom: &Custom, mut object: Object, version: &str) -> Result<Object, Status> {
    let Some(converter) = custom.converter.filter(|_| object.api_version() != version) else {
        object.set("apiVersion", version);
        return Ok(object);
    };
    let (group, from) = names::split_api_version(object.api_version());
    let fail = |why: &str| {
        let kind = object.kind();
        Status::unexpected(format!("conversion webhook for {group}/{from}, Kind={kind} failed: {why}"))
    };
    let metadata = object.metadata().cloned().unwrap_or_default();
    let mut sent = object.clone();
    sent.unpack(); // who converts sees what a client would
    let mut converted = converter(vec![sent], version).map_err(|why| fail(&why))?;
    let (Some(mut new), true) = (converted.pop(), converted.is_empty()) else {
        return Err(fail("expected 1 converted object"));
    };
    // Upstream's `restoreObjectMeta`: a webhook has no say in the rest.
    let given = new.metadata().cloned().unwrap_or_default();
    let kept = metadata.into_iter().filter(|(key, _)| key != "labels" && key != "annotations");
    let free = given.into_iter().filter(|(key, _)| key == "labels" || key == "annotations");
    *new.metadata_mut() = kept.chain(free).collect();
    Ok(new)
}

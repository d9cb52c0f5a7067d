//! Reading: get, list by pages, watch.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{GeneralPurpose, general_purpose::NO_PAD},
};
use serde_json::Value;

use super::{List, ListOptions, Registry, Resource, Target, WatchEvent, decode};
use crate::{
    base::{
        FieldError, Object, Status, Stored,
        selector::{FieldSelector, LabelSelector},
        status::go_quote,
    },
    clock::Clock,
    kinds,
    store::{Entry, Event, TooOld, Watch},
};

/// How often a watch that asked for bookmarks gets one. Upstream sends them about once a minute.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// What an object must be for a list or watch to show it.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    name: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
    rules: &'static kinds::Rules,
    resource: Arc<Resource>,
}

impl Selection {
    pub(super) fn new(target: &Target, options: &ListOptions) -> Result<Self, Status> {
        let labels = LabelSelector::parse(&options.label_selector).map_err(Status::bad_request)?;
        let fields = FieldSelector::parse(&options.field_selector).map_err(Status::bad_request)?;
        let resource = &target.resource;
        let custom = resource.custom.as_ref().map(|custom| custom.selectable.as_slice()).unwrap_or_default();
        let rules = kinds::rules(&resource.gvr.group, &resource.kind);
        kinds::check_fields(rules, &fields, custom).map_err(Status::bad_request)?;
        let name = (!target.name.is_empty()).then(|| target.name.clone());
        Ok(Self { name, labels, fields, rules, resource: resource.clone() })
    }

    /// Whether any selector was given; a list then does not tell how many items remain.
    pub(super) fn is_everything(&self) -> bool {
        self.name.is_none() && self.labels.is_empty() && self.fields.is_empty()
    }

    pub(super) fn matches(&self, object: &Object) -> bool {
        self.name.as_deref().is_none_or(|name| name == object.name())
            && (self.labels.is_empty() || self.labels.matches(&object.labels()))
            && (self.fields.is_empty() || self.fields.matches(|label| kinds::field_value(self.rules, object, label)))
    }
}

/// Where a list or watch starts.
fn parse_version(text: &str) -> Result<Option<u64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let number = text.parse().map_err(|_| format!("strconv.ParseUint: parsing {}: invalid syntax", go_quote(text)));
    number.map(Some)
}

/// Upstream's `ValidateListOptions` (`k8s.io/apimachinery/pkg/apis/meta/internalversion/validation`).
fn check_options(options: &ListOptions, watch: bool) -> Result<(), Status> {
    const MATCH: &str = "resourceVersionMatch";
    let matching = options.resource_version_match.as_str();
    let given = Value::from(matching);
    let mut errors = Vec::new();
    if watch {
        if options.send_initial_events.is_some() && matching != "NotOlderThan" {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            errors.push(FieldError::forbidden(MATCH, why));
        }
        if !matching.is_empty() {
            if options.send_initial_events.is_none() {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.push(FieldError::forbidden(MATCH, why));
            }
            if matching != "NotOlderThan" {
                errors.push(FieldError::not_supported(MATCH, &given, &["NotOlderThan"]));
            }
            if !options.continue_token.is_empty() {
                let why = "resourceVersionMatch is forbidden when continue is provided";
                errors.push(FieldError::forbidden(MATCH, why));
            }
        }
    } else {
        if !matching.is_empty() {
            if options.resource_version.is_empty() {
                let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                errors.push(FieldError::forbidden(MATCH, why));
            }
            if !options.continue_token.is_empty() {
                let why = "resourceVersionMatch is forbidden when continue is provided";
                errors.push(FieldError::forbidden(MATCH, why));
            }
            if !["Exact", "NotOlderThan"].contains(&matching) {
                errors.push(FieldError::not_supported(MATCH, &given, &["Exact", "NotOlderThan", ""]));
            }
            if matching == "Exact" && options.resource_version == "0" {
                let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                errors.push(FieldError::forbidden(MATCH, why));
            }
        }
        if options.send_initial_events.is_some() {
            let why = "sendInitialEvents is forbidden for list";
            errors.push(FieldError::forbidden("sendInitialEvents", why));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", "ListOptions", "", &errors)) }
}

/// Base64 as Go's `RawURLEncoding` reads and writes it.
const TOKENS: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// Where a page ended: the state to go on from, and the key after which.
struct Continue {
    revision: u64,
    after: String,
}

impl Continue {
    fn encode(&self) -> String {
        let Self { revision, after } = self;
        let text = serde_json::json!({"v": "meta.k8s.io/v1", "rv": revision, "start": after}).to_string();
        TOKENS.encode(text)
    }

    fn decode(token: &str) -> Result<Self, Status> {
        let bad = |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = TOKENS.decode(token).map_err(|error| bad(&error.to_string()))?;
        if let Some(first) = bytes.first().filter(|first| **first != b'{') {
            let shown = match first {
                0x20..0x7f => format!("'{}'", *first as char),
                first => format!("'\\u{first:04x}'"),
            };
            return Err(bad(&format!("invalid character {shown} looking for beginning of value")));
        }
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| bad(&error.to_string()))?;
        match (value["rv"].as_u64(), value["start"].as_str()) {
            (Some(revision), Some(after)) => Ok(Self { revision, after: after.into() }),
            _ => Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")),
        }
    }
}

/// The order of keys as text: namespace and name.
fn place(object: &Object) -> String {
    format!("{}\0{}", object.namespace(), object.name())
}

impl Registry {
    /// One object.
    ///
    /// # Errors
    /// 404; 504 for a `resource_version` that does not exist yet, 400 for one that is no number.
    pub async fn get(&self, target: &Target, resource_version: &str) -> Result<Arc<Stored>, Status> {
        if target.subresource == "scale" {
            return self.get_scale(target);
        }
        let (current, entry) = self.0.store.get(&target.key());
        if let Some(asked) = parse_version(resource_version)
            .map_err(|why| bad_version(resource_version, &why))?
            .filter(|asked| *asked > current)
        {
            return Err(Status::too_large_resource_version(asked, current));
        }
        let entry = entry.ok_or_else(|| target.not_found())?;
        Ok(view(&target.resource, &entry.value))
    }

    /// The objects of a collection.
    ///
    /// # Errors
    /// 400 and 422 for options that are wrong, 410 for a page or version that is no longer kept.
    pub async fn list(&self, target: &Target, options: &ListOptions) -> Result<List, Status> {
        check_options(options, false)?;
        let selection = Selection::new(target, options)?;
        let namespace = (!target.namespace.is_empty()).then_some(target.namespace.as_str());
        let bucket = &*target.resource.bucket;
        let version =
            parse_version(&options.resource_version).map_err(|why| bad_version(&options.resource_version, &why))?;

        let mut after = None;
        let (revision, entries) = if !options.continue_token.is_empty() {
            if version.is_some_and(|version| version > 0) {
                return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
            }
            let token = Continue::decode(&options.continue_token)?;
            let entries = self.0.store.list_at(bucket, namespace, token.revision.min(self.revision()));
            let entries = entries.map_err(|_| expired_page(self.revision(), &token.after))?;
            after = Some(token.after);
            (token.revision, entries)
        } else {
            let exact = options.resource_version_match == "Exact"
                || (options.limit > 0 && options.resource_version_match.is_empty());
            match version {
                Some(version) if version > self.revision() => {
                    return Err(Status::too_large_resource_version(version, self.revision()));
                }
                Some(version) if version > 0 && exact => {
                    let entries = self.0.store.list_at(bucket, namespace, version);
                    (version, entries.map_err(|TooOld { oldest }| Status::too_old(version, oldest))?)
                }
                Some(_) | None => self.0.store.list(bucket, namespace),
            }
        };
        Ok(page(&selection, revision, entries, after.as_deref(), options.limit))
    }

    /// The changes of a collection (or, with a name, of one object).
    ///
    /// # Errors
    /// As for a list; a version that is no longer kept shows as an error event in the stream.
    pub async fn watch(&self, target: &Target, options: &ListOptions) -> Result<Watcher, Status> {
        check_options(options, true)?;
        let selection = Selection::new(target, options)?;
        let version = parse_version(&options.resource_version).map_err(|why| {
            Status::unexpected(format!(
                "resourceVersion: Invalid value: {}: {why}",
                go_quote(&options.resource_version)
            ))
        })?;
        let current = self.revision();
        if let Some(asked) = version.filter(|version| *version > current) {
            return Err(Status::too_large_resource_version(asked, current));
        }
        let namespace = (!target.namespace.is_empty()).then_some(target.namespace.as_str());
        let bucket = &target.resource.bucket;
        let initial = match options.send_initial_events {
            Some(initial) => initial,
            None => version.is_none_or(|version| version == 0),
        };
        let mut pending = VecDeque::new();
        let start = if initial {
            let (revision, entries) = self.0.store.list(bucket, namespace);
            let selected = entries.iter().filter(|entry| selection.matches(&entry.value));
            pending.extend(selected.map(|entry| WatchEvent::Added(view(&target.resource, &entry.value))));
            if options.send_initial_events == Some(true) && options.allow_bookmarks {
                pending.push_back(WatchEvent::Bookmark(revision, true));
            }
            revision
        } else {
            version.filter(|version| *version > 0).unwrap_or(current)
        };
        let watch = match self.0.store.watch(bucket, namespace, start) {
            Ok(watch) => Some(watch),
            Err(TooOld { oldest }) => {
                pending.push_back(WatchEvent::Error(Status::too_old(start, oldest)));
                None
            }
        };
        let next_bookmark = options.allow_bookmarks.then(|| self.clock().now() + BOOKMARK_EVERY);
        Ok(Watcher { selection, pending, watch, clock: self.clock().clone(), next_bookmark })
    }
}

fn bad_version(text: &str, why: &str) -> Status {
    let error = format!("invalid resource version: resourceVersion: Invalid value: {}: {why}", go_quote(text));
    Status::bad_request(error)
}

fn expired_page(revision: u64, after: &str) -> Status {
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a new \
                   list without the continue parameter, or use the continue token in this response to retrieve the \
                   remainder of the results. Continuing with the provided token results in an inconsistent list - \
                   objects that were created, modified, or deleted between the time the first chunk was returned and \
                   now may show up in the list.";
    let mut status = Status::expired(message);
    status.continue_token = Continue { revision, after: after.into() }.encode();
    status
}

fn page(selection: &Selection, revision: u64, entries: Vec<Entry>, after: Option<&str>, limit: i64) -> List {
    let mut rest = entries.into_iter().filter(|entry| {
        after.is_none_or(|after| place(&entry.value).as_str() > after) && selection.matches(&entry.value)
    });
    let mut items: Vec<Arc<Stored>> = Vec::new();
    let limit = usize::try_from(limit).unwrap_or(0);
    let mut next = None;
    for entry in rest.by_ref() {
        if limit > 0 && items.len() == limit {
            next = Some(entry);
            break;
        }
        items.push(entry.value);
    }
    let mut list = List { items: Vec::new(), revision, continue_token: String::new(), remaining: None };
    if next.is_some() {
        let after = items.last().map(|last| place(last)).unwrap_or_default();
        list.continue_token = Continue { revision, after }.encode();
        list.remaining = selection.is_everything().then(|| 1 + rest.count() as u64);
    }
    list.items = items.into_iter().map(|item| view(&selection.resource, &item)).collect();
    list
}

/// A stored object as a version of its resource shows it.
pub(super) fn view(resource: &Resource, stored: &Arc<Stored>) -> Arc<Stored> {
    let version = resource.api_version();
    let current = stored.api_version() == version;
    let redefault = resource.custom.as_ref().is_some_and(|custom| custom.redefined);
    if current && !redefault {
        return stored.clone();
    }
    let mut object = stored.object().clone();
    object.set("apiVersion", version);
    if resource.custom.is_some() {
        decode::default(resource, &mut object);
    }
    Arc::new(Stored::new(object))
}

/// A running watch.
#[derive(Debug)]
pub struct Watcher {
    selection: Selection,
    /// What is to be handed out before the log is read on.
    pending: VecDeque<WatchEvent>,
    /// The cursor; `None` once the watch has ended.
    watch: Option<Watch>,
    clock: Clock,
    next_bookmark: Option<jiff::Timestamp>,
}

impl Watcher {
    /// The next events, at least one; `None` when the watch has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Vec<WatchEvent>> {
        loop {
            if !self.pending.is_empty() {
                return Some(self.pending.drain(..).collect());
            }
            let watch = self.watch.as_mut()?;
            let bookmark = async {
                match self.next_bookmark {
                    Some(time) => self.clock.sleep_until(time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                events = watch.next() => match events {
                    Ok(events) => {
                        let shown = events.iter().filter_map(|event| self.selection.event(event));
                        let shown: Vec<_> = shown.collect();
                        self.pending.extend(shown);
                    }
                    Err(TooOld { oldest }) => {
                        let seen = watch.seen();
                        self.watch = None;
                        self.pending.push_back(WatchEvent::Error(Status::too_old(seen, oldest)));
                    }
                },
                () = bookmark => {
                    self.next_bookmark = Some(self.clock.now() + BOOKMARK_EVERY);
                    self.pending.push_back(WatchEvent::Bookmark(watch.seen(), false));
                }
            }
        }
    }
}

impl Selection {
    /// What a watcher with this selection sees of a change: what comes to match is added, what ceases to is deleted.
    fn event(&self, event: &Event) -> Option<WatchEvent> {
        let before = event.old.as_ref().filter(|old| self.matches(&old.value));
        let now = !event.deleted && self.matches(&event.value);
        match (before, now) {
            (None, false) => None,
            (None, true) => Some(WatchEvent::Added(view(&self.resource, &event.value))),
            (Some(_), true) => Some(WatchEvent::Modified(view(&self.resource, &event.value))),
            (Some(_), false) if event.deleted => Some(WatchEvent::Deleted(view(&self.resource, &event.value))),
            (Some(old), false) => {
                // The watcher knows the object as it was when it still matched, but at the version of this change.
                let mut object = old.value.object().clone();
                object.metadata_mut().insert("resourceVersion".into(), event.revision.to_string().into());
                Some(WatchEvent::Deleted(view(&self.resource, &Arc::new(Stored::new(object)))))
            }
        }
    }
}

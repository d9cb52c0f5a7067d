//! Reading: get, list by pages, watch.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{GeneralPurpose, general_purpose::NO_PAD},
};
use serde_json::Value;

use super::{
    List, ListOptions, Registry, Resource, Target, WatchEvent,
    convert::{self, Convert},
};
use crate::{
    base::{
        FieldError, Object, Status, Stored,
        selector::{FieldSelector, LabelSelector},
        status::go_quote,
    },
    clock::{Alarm, Clock},
    kinds,
    rule::{Ending, Watched},
    store::{Event, Page, Range, TooOld, Watch},
};

/// How often a watch that asked for bookmarks gets one. Upstream sends them about once a minute.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// How long a watch waits before it tries again to convert what it cannot show.
const CONVERT_AGAIN: Duration = Duration::from_secs(1);

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

    /// Whether fields can be told only from what clients are shown: where versions are converted, the stored one may have
    /// them elsewhere.
    fn judges_what_is_shown(&self) -> bool {
        let converts = self.resource.custom.as_ref().is_some_and(|custom| custom.conversion.is_some());
        converts && !self.fields.is_empty()
    }

    /// Whether a stored object is selected, as far as it can be told from that.
    pub(super) fn matches(&self, object: &Object) -> bool {
        // Events are stored as either group wrote them, and named by the fields of the one that is asked.
        let other = !self.fields.is_empty() && self.resource.custom.is_none() && object.kind() == "Event";
        let mut converted = None;
        if other && object.api_version() != self.resource.api_version() {
            kinds::convert_event(converted.insert(object.clone()), &self.resource.api_version());
        }
        let object = converted.as_ref().unwrap_or(object);
        self.name.as_deref().is_none_or(|name| name == object.name())
            && self.labels.matches_object(object)
            && (self.judges_what_is_shown() || self.matches_fields(object))
    }

    fn matches_fields(&self, object: &Object) -> bool {
        self.fields.is_empty() || self.fields.matches(|label| kinds::field_value(self.rules, object, label))
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
            return self.get_scale(target).await;
        }
        let (current, entry) = self.0.store.get(&target.key());
        if let Some(asked) = parse_version(resource_version)
            .map_err(|why| bad_version(resource_version, &why))?
            .filter(|asked| *asked > current)
        {
            return Err(Status::too_large_resource_version(asked, current));
        }
        let entry = entry.ok_or_else(|| target.not_found())?;
        self.view(&target.resource, &entry.value).await
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

        let mut range = Range { namespace, limit: usize::try_from(options.limit).unwrap_or(0), ..Range::default() };
        let mut shown_at = None;
        let token = match options.continue_token.as_str() {
            "" => None,
            _ if version.is_some_and(|version| version > 0) => {
                return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
            }
            token => Some(Continue::decode(token)?),
        };
        if let Some(Continue { revision, after }) = &token {
            (range.at, shown_at) = (Some((*revision).min(self.revision())), Some(*revision));
            range.after = Some(after.split_once('\0').unwrap_or((after, "")));
        } else {
            let exact = options.resource_version_match == "Exact"
                || (options.limit > 0 && options.resource_version_match.is_empty());
            match version {
                Some(version) if version > self.revision() => {
                    return Err(Status::too_large_resource_version(version, self.revision()));
                }
                Some(version) if version > 0 && exact => (range.at, shown_at) = (Some(version), Some(version)),
                Some(_) | None => {}
            }
        }
        // What must be shown to be judged is cut to the page's length afterwards.
        let limit = if selection.judges_what_is_shown() { std::mem::take(&mut range.limit) } else { 0 };
        let page = self.0.store.page(bucket, &range, &|object| selection.matches(object));
        let page = page.map_err(|TooOld { oldest }| match &token {
            Some(token) => expired_page(self.revision(), &token.after),
            None => Status::too_old(range.at.unwrap_or_default(), oldest),
        })?;
        let revision = shown_at.unwrap_or(page.revision);
        let mut list = List { items: Vec::new(), revision, continue_token: String::new(), remaining: None };
        let mut rest = page.rest;
        let mut last = page.entries.last().map(|last| place(&last.value));
        let stored: Vec<_> = page.entries.into_iter().map(|entry| entry.value).collect();
        // Pages and exact versions do not come from upstream's cache.
        let cached = token.is_none() && range.at.is_none() && (options.limit == 0 || version == Some(0));
        list.items = self.view_all(&target.resource, stored, cached).await?;
        if selection.judges_what_is_shown() {
            list.items.retain(|shown| selection.matches_fields(shown));
            if limit > 0 && list.items.len() > limit {
                rest = list.items.len() - limit;
                list.items.truncate(limit);
                last = list.items.last().map(|last| place(last));
            }
        }
        if rest > 0 {
            list.continue_token = Continue { revision, after: last.unwrap_or_default() }.encode();
            list.remaining = selection.is_everything().then_some(rest as u64);
        }
        Ok(list)
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
            let range = Range { namespace, ..Range::default() };
            let page = self.0.store.page(bucket, &range, &|object| selection.matches(object));
            let Page { revision, entries, .. } = page.expect("the present is never too old");
            let stored = entries.into_iter().map(|entry| entry.value).collect();
            let mut shown = self.view_all(&target.resource, stored, true).await?;
            if selection.judges_what_is_shown() {
                shown.retain(|shown| selection.matches_fields(shown));
            }
            pending.extend(shown.into_iter().map(WatchEvent::Added));
            if options.send_initial_events == Some(true) && options.allow_bookmarks {
                pending.push_back(WatchEvent::Bookmark(revision, true));
            }
            revision
        } else {
            version.filter(|version| *version > 0).unwrap_or(current)
        };
        let name = (!target.name.is_empty()).then_some(target.name.as_str());
        let watch = match self.0.store.watch(bucket, namespace, name, start) {
            Ok(watch) => Some(watch),
            Err(TooOld { oldest }) => {
                pending.push_back(WatchEvent::Error(Status::too_old(start, oldest)));
                None
            }
        };
        let clock = self.clock().clone();
        let bookmark = options.allow_bookmarks.then(|| clock.alarm(clock.now() + BOOKMARK_EVERY));
        Ok(Watcher {
            registry: self.clone(),
            selection,
            unread: Vec::new(),
            pending,
            watch,
            clock,
            bookmark,
            watched: None,
            broken: None,
        })
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

/// A running watch.
#[derive(Debug)]
pub struct Watcher {
    registry: Registry,
    selection: Selection,
    /// What is to be converted before it is handed out.
    unread: Vec<Event>,
    /// What is to be handed out before the log is read on.
    pending: VecDeque<WatchEvent>,
    /// The cursor; `None` once the watch has ended.
    watch: Option<Watch>,
    clock: Clock,
    /// When the next bookmark is due, if any were asked for.
    bookmark: Option<Alarm>,
    /// Asked whether rules end the watch.
    watched: Option<Watched>,
    /// Where a rule broke the watch off: the event, if there was one, that was to be handed out.
    broken: Option<Option<WatchEvent>>,
}

impl Watcher {
    /// Lets rules end the watch.
    #[must_use]
    pub fn subject_to(self, watched: Watched) -> Self {
        Self { watched: Some(watched), ..self }
    }

    /// Whether a rule has broken the watch off, and the event that it was to hand out then; asked once, at the end.
    pub fn broken(&mut self) -> Option<Option<WatchEvent>> {
        self.broken.take()
    }

    /// What is pending, up to where a rule ends the watch.
    fn hand_out(&mut self) -> Option<Vec<WatchEvent>> {
        // What a watch ends with is handed out whatever the rules say.
        let watched = self.watched.as_mut().filter(|_| self.watch.is_some());
        let Some(watched) = watched else { return Some(self.pending.drain(..).collect()) };
        let mut events = Vec::with_capacity(self.pending.len());
        let mut ending = None;
        while !self.pending.is_empty() && ending.is_none() {
            ending = watched.ending();
            if ending.is_none() {
                events.extend(self.pending.pop_front());
                watched.handed_out(1);
            }
        }
        if let Some(ending) = ending {
            self.end(ending);
            events.append(&mut self.pending.drain(..).collect());
        }
        (!events.is_empty()).then_some(events)
    }

    /// Ends the watch, before what is pending.
    fn end(&mut self, ending: Ending) {
        let seen = self.watch.take().map_or(0, |watch| watch.seen());
        let next = self.pending.pop_front();
        self.pending.clear();
        match ending {
            Ending::Cut => {}
            Ending::Broken => self.broken = Some(next),
            Ending::Expired => self.pending.push_back(WatchEvent::Error(Status::too_old(seen, seen + 1))),
        }
    }

    /// The next events, at least one; `None` when the watch has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Vec<WatchEvent>> {
        loop {
            if !self.pending.is_empty() {
                return self.hand_out();
            }
            if !self.unread.is_empty() {
                self.convert_unread().await;
                continue;
            }
            let watch = self.watch.as_mut()?;
            let rules = async {
                match &mut self.watched {
                    Some(watched) => watched.changed().await,
                    None => std::future::pending().await,
                }
            };
            let bookmark = async {
                match &mut self.bookmark {
                    Some(due) => due.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                events = watch.next() => match events {
                    Ok(events) => self.unread = events,
                    Err(TooOld { oldest }) => {
                        let seen = watch.seen();
                        self.watch = None;
                        self.pending.push_back(WatchEvent::Error(Status::too_old(seen, oldest)));
                    }
                },
                () = bookmark => {
                    self.bookmark = Some(self.clock.alarm(self.clock.now() + BOOKMARK_EVERY));
                    self.pending.push_back(WatchEvent::Bookmark(watch.seen(), false));
                }
                () = rules => {
                    if let Some(ending) = self.watched.as_mut().and_then(Watched::ending) {
                        self.end(ending);
                    }
                }
            }
        }
    }
}

impl Watcher {
    /// Hands on what was read. Where it cannot be converted the watch waits, as upstream's cache does, until it can.
    async fn convert_unread(&mut self) {
        let Self { registry, selection, unread, .. } = self;
        let step = |convert: &Convert<'_>| -> Result<Vec<WatchEvent>, Status> {
            unread.iter().filter_map(|event| selection.event(event, convert).transpose()).collect()
        };
        match registry.converting(&selection.resource, step).await {
            Ok(events) => {
                self.pending.extend(events);
                self.unread.clear();
            }
            Err(error) => {
                let resource = &self.selection.resource;
                tracing::warn!(?resource, error = error.message, "a watch waits for a conversion");
                self.clock.sleep(CONVERT_AGAIN).await;
            }
        }
    }
}

impl Selection {
    /// What a watcher with this selection sees of a change: what comes to match is added, what ceases to is deleted.
    fn event(&self, event: &Event, convert: &Convert<'_>) -> Result<Option<WatchEvent>, Status> {
        let selects = |stored: &Arc<Stored>| -> Result<bool, Status> {
            Ok(self.matches(stored)
                && (!self.judges_what_is_shown()
                    || self.matches_fields(&*convert::view(&self.resource, stored, convert)?)))
        };
        let before = match &event.old {
            Some(old) if selects(&old.value)? => Some(old),
            Some(_) | None => None,
        };
        let now = !event.deleted && selects(&event.value)?;
        let shown = |stored: &Arc<Stored>, of: fn(Arc<Stored>) -> WatchEvent| {
            convert::view(&self.resource, stored, convert).map(|shown| Some(of(shown)))
        };
        match (before, now) {
            (None, false) => Ok(None),
            (None, true) => shown(&event.value, WatchEvent::Added),
            (Some(_), true) => shown(&event.value, WatchEvent::Modified),
            (Some(_), false) if event.deleted => shown(&event.value, WatchEvent::Deleted),
            (Some(old), false) => {
                // The watcher knows the object as it was when it still matched, but at the version of this change.
                let mut object = old.value.object().clone();
                object.metadata_mut().insert("resourceVersion".into(), event.revision.to_string().into());
                shown(&Arc::new(Stored::new(object)), WatchEvent::Deleted)
            }
        }
    }
}

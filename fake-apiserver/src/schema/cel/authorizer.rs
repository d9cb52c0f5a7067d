//! `authorizer`: expressions of admission ask whether somebody may do something.
//!
//! Upstream: `apiserver/pkg/cel/library/authz.go`.

use std::{any::Any, fmt, sync::Arc};

use ::cel::{
    Env, ExecutionError,
    common::{
        traits::Indexer,
        types::{CelBool, CelString, STRING_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
};

use super::library::{Answer, Args, Registered, fail};
use crate::base::{
    User,
    access::{Attributes, Authorize, Place, What},
    names,
    user::{AUTHENTICATED, account_groups, account_name},
};

static AUTHORIZER: Type = Type::new_unspecified_type("kubernetes.authorization.Authorizer");
static PATH_CHECK: Type = Type::new_unspecified_type("kubernetes.authorization.PathCheck");
static GROUP_CHECK: Type = Type::new_unspecified_type("kubernetes.authorization.GroupCheck");
static RESOURCE_CHECK: Type = Type::new_unspecified_type("kubernetes.authorization.ResourceCheck");
static DECISION: Type = Type::new_unspecified_type("kubernetes.authorization.Decision");

/// A resource, as an expression names it step by step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Named {
    pub(super) group: String,
    pub(super) resource: String,
    pub(super) subresource: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Nothing is asked yet; with what the request itself is about.
    Start(Named),
    Path(String),
    Group(String),
    Resource(Named),
    /// The answer: `Ok` if allowed, both with the reason.
    Decision(Result<String, String>),
}

/// `authorizer`, and what its methods give.
#[derive(Clone)]
pub(super) struct Asker {
    authorize: Authorize,
    user: Arc<User>,
    step: Step,
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").field("user", &self.user.name).field("step", &self.step).finish_non_exhaustive()
    }
}

impl Asker {
    pub(super) fn new(authorize: Authorize, user: User, request: Named) -> Self {
        Self { authorize, user: Arc::new(user), step: Step::Start(request) }
    }

    fn at(&self, step: Step) -> Self {
        Self { step, ..self.clone() }
    }

    fn ask(&self, verb: &str) -> Option<Result<String, String>> {
        let what = match &self.step {
            Step::Path(path) => What::Path(path),
            Step::Resource(Named { group, resource, subresource, namespace, name }) => {
                What::Resource(Place { group, resource, subresource, namespace, name })
            }
            Step::Start(_) | Step::Group(_) | Step::Decision(_) => return None,
        };
        Some((self.authorize)(&Attributes { user: &self.user, verb, what }))
    }
}

impl Val for Asker {
    fn get_type(&self) -> &Type {
        match self.step {
            Step::Start(_) => &AUTHORIZER,
            Step::Path(_) => &PATH_CHECK,
            Step::Group(_) => &GROUP_CHECK,
            Step::Resource(_) => &RESOURCE_CHECK,
            Step::Decision(_) => &DECISION,
        }
    }

    fn cel_type() -> &'static Type {
        &AUTHORIZER
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        matches!(self.step, Step::Start(_)).then_some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.downcast_ref::<Self>().is_some_and(|other| self.user == other.user && self.step == other.step)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Asker {}

/// `authorizer.requestResource`, which upstream declares as a variable with a dot in its name.
impl Indexer for Asker {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        match (&self.step, index.downcast_ref::<CelString<'_>>().map(CelString::inner)) {
            (Step::Start(request), Some("requestResource")) => {
                Ok(CowVal::owned(self.at(Step::Resource(request.clone()))))
            }
            (_, name) => Err(ExecutionError::no_such_key(name.unwrap_or_default())),
        }
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(CowVal::into_owned)
    }
}

fn asker<'a>(args: &'a Args<'_, '_>) -> Result<&'a Asker, ExecutionError> {
    match args.first().and_then(|value| value.as_ref().downcast_ref::<Asker>()) {
        Some(asker) => Ok(asker),
        None => fail("authorizer", "no such overload"),
    }
}

fn text<'a>(args: &'a Args<'_, '_>, index: usize) -> &'a str {
    args.get(index).and_then(|value| value.as_ref().downcast_ref::<CelString<'_>>()).map_or("", CelString::inner)
}

fn path<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let path = text(&args, 1);
    if path.trim().is_empty() {
        return fail("path", "path must not be empty");
    }
    Ok(CowVal::owned(asker(&args)?.at(Step::Path(path.to_owned()))))
}

fn group<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    Ok(CowVal::owned(asker(&args)?.at(Step::Group(text(&args, 1).to_owned()))))
}

fn service_account<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let (namespace, name) = (text(&args, 1), text(&args, 2));
    if !names::name_is_subdomain(name, false).is_empty() {
        return fail("serviceAccount", "Invalid service account name");
    }
    if !names::name_is_label(namespace, false).is_empty() {
        return fail("serviceAccount", "Invalid service account namespace");
    }
    let mut groups = account_groups(namespace);
    groups.push(AUTHENTICATED.into());
    let user = Arc::new(User::new(account_name(namespace, name), groups));
    let before = asker(&args)?;
    Ok(CowVal::owned(Asker { user, ..before.at(Step::Start(Named::default())) }))
}

fn resource<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let (asker, resource) = (asker(&args)?, text(&args, 1));
    if resource.trim().is_empty() {
        return fail("resource", "resource must not be empty");
    }
    let Step::Group(group) = &asker.step else { return fail("resource", "no such overload") };
    let named = Named { group: group.clone(), resource: resource.to_owned(), ..Named::default() };
    Ok(CowVal::owned(asker.at(Step::Resource(named))))
}

fn narrowed<'b, 'v>(args: &Args<'b, 'v>, set: fn(&mut Named, String)) -> Answer<'b, 'v> {
    let asker = asker(args)?;
    let Step::Resource(named) = &asker.step else { return fail("authorizer", "no such overload") };
    let mut named = named.clone();
    set(&mut named, text(args, 1).to_owned());
    Ok(CowVal::owned(asker.at(Step::Resource(named))))
}

fn subresource<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    narrowed(&args, |named, text| named.subresource = text)
}

fn namespace<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    narrowed(&args, |named, text| named.namespace = text)
}

fn name<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    narrowed(&args, |named, text| named.name = text)
}

/// Roles do not look at selectors: who may list may list all.
fn selector<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    narrowed(&args, |_, _| {})
}

fn check<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let asker = asker(&args)?;
    match asker.ask(text(&args, 1)) {
        Some(decision) => Ok(CowVal::owned(asker.at(Step::Decision(decision)))),
        None => fail("check", "no such overload"),
    }
}

fn decision<'a>(args: &'a Args<'_, '_>) -> Result<&'a Result<String, String>, ExecutionError> {
    match &asker(args)?.step {
        Step::Decision(decision) => Ok(decision),
        _ => fail("authorizer", "no such overload"),
    }
}

fn allowed<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    Ok(CowVal::owned(CelBool::from(decision(&args)?.is_ok())))
}

fn reason<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let (Ok(reason) | Err(reason)) = decision(&args)?;
    Ok(CowVal::owned(CelString::from(reason.clone())))
}

/// Roles always have an answer; only a webhook that authorizes could fail.
fn errored<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    decision(&args)?;
    Ok(CowVal::owned(CelBool::from(false)))
}

fn error<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    decision(&args)?;
    Ok(CowVal::owned(CelString::from(String::new())))
}

pub(super) fn functions(env: &mut Env) -> Registered {
    let text = || vec![STRING_TYPE];
    let (authorizer, resource_check) = (|| AUTHORIZER.to_owned(), || RESOURCE_CHECK.to_owned());
    env.add_member_overload("path", "authorizer_path", authorizer(), text(), path)?;
    env.add_member_overload("group", "authorizer_group", authorizer(), text(), group)?;
    let two_texts = vec![STRING_TYPE, STRING_TYPE];
    env.add_member_overload("serviceAccount", "authorizer_serviceaccount", authorizer(), two_texts, service_account)?;
    env.add_member_overload("resource", "groupcheck_resource", GROUP_CHECK.to_owned(), text(), resource)?;
    env.add_member_overload("subresource", "resourcecheck_subresource", resource_check(), text(), subresource)?;
    env.add_member_overload("namespace", "resourcecheck_namespace", resource_check(), text(), namespace)?;
    env.add_member_overload("name", "resourcecheck_name", resource_check(), text(), name)?;
    env.add_member_overload("fieldSelector", "authorizer_fieldselector", resource_check(), text(), selector)?;
    env.add_member_overload("labelSelector", "authorizer_labelselector", resource_check(), text(), selector)?;
    env.add_member_overload("check", "pathcheck_check", PATH_CHECK.to_owned(), text(), check)?;
    env.add_member_overload("check", "resourcecheck_check", resource_check(), text(), check)?;
    env.add_member_overload("allowed", "decision_allowed", DECISION.to_owned(), vec![], allowed)?;
    env.add_member_overload("reason", "decision_reason", DECISION.to_owned(), vec![], reason)?;
    env.add_member_overload("errored", "decision_errored", DECISION.to_owned(), vec![], errored)?;
    env.add_member_overload("error", "decision_error", DECISION.to_owned(), vec![], error)
}

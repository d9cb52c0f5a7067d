//! Expressions of admission: they see a request, not a value of a schema.
//!
//! See `apiserver/pkg/admission/plugin/cel` (`compile.go`, `activation.go`, `composition.go`).

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex},
};

use ::cel::{
    Context, ExecutionError, Program, Value as CelValue,
    common::{
        ast::{Expr, IdedExpr},
        traits::Indexer,
        types::{CelString, STRING_TYPE, Type as CelType},
        value::{CowVal, StaticVal, Val},
    },
};
use serde_json::Value;

use super::{
    ENV,
    authorizer::{Asker, Named},
    budget::{self, Budget, Metered},
    check::{self, Kind},
    deep, go_error,
    patches::{self, Made},
    values,
};
use crate::base::{
    User,
    access::{Authorize, Place},
};

/// How many compiled expressions are kept; beyond, all are forgotten and compiled anew when needed.
const KEPT: usize = 4096;

/// What an expression is to evaluate to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A bool.
    Bool,
    /// A text: a message, which may not ask the authorizer.
    Message,
    /// A text, or null for none.
    TextOrNull,
    /// An object to merge.
    Object,
    /// A list of patches.
    Patches,
}

/// What expressions may name, when they are checked.
#[derive(Debug)]
pub struct Scope {
    names: Vec<(String, Kind)>,
    variables: Option<BTreeMap<String, Kind>>,
}

fn structure(name: &'static str, members: &[(&str, Kind)]) -> Kind {
    Kind::Struct(name, Arc::new(members.iter().map(|(name, kind)| ((*name).to_owned(), kind.clone())).collect()))
}

/// Upstream's `BuildRequestType`.
fn request() -> Kind {
    let texts = || Kind::List(Box::new(Kind::Text));
    let named = |name, last| structure(name, &[("group", Kind::Text), ("version", Kind::Text), (last, Kind::Text)]);
    let kind = named("kubernetes.GroupVersionKind", "kind");
    let resource = named("kubernetes.GroupVersionResource", "resource");
    let user = structure(
        "kubernetes.UserInfo",
        &[("username", Kind::Text), ("uid", Kind::Text), ("groups", texts()), ("extra", Kind::texts_to(texts()))],
    );
    structure(
        "kubernetes.AdmissionRequest",
        &[
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", Kind::Text),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", Kind::Text),
            ("name", Kind::Text),
            ("namespace", Kind::Text),
            ("operation", Kind::Text),
            ("userInfo", user),
            ("dryRun", Kind::Bool),
            ("options", Kind::Dyn),
        ],
    )
}

/// Upstream's `BuildNamespaceType`; `UID` is its spelling.
fn namespace() -> Kind {
    let texts = || Kind::List(Box::new(Kind::Text));
    let labels = || Kind::texts_to(Kind::Text);
    let metadata = structure(
        "kubernetes.NamespaceMetadata",
        &[
            ("name", Kind::Text),
            ("generateName", Kind::Text),
            ("namespace", Kind::Text),
            ("labels", labels()),
            ("annotations", labels()),
            ("UID", Kind::Text),
            ("creationTimestamp", Kind::Timestamp),
            ("deletionGracePeriodSeconds", Kind::Int),
            ("deletionTimestamp", Kind::Timestamp),
            ("generation", Kind::Int),
            ("resourceVersion", Kind::Text),
            ("finalizers", texts()),
        ],
    );
    let condition = structure(
        "kubernetes.NamespaceCondition",
        &[
            ("status", Kind::Text),
            ("type", Kind::Text),
            ("lastTransitionTime", Kind::Timestamp),
            ("message", Kind::Text),
            ("reason", Kind::Text),
        ],
    );
    let status = [("conditions", Kind::List(Box::new(condition))), ("phase", Kind::Text)];
    structure(
        "kubernetes.Namespace",
        &[
            ("metadata", metadata),
            ("spec", structure("kubernetes.NamespaceSpec", &[("finalizers", texts())])),
            ("status", structure("kubernetes.NamespaceStatus", &status)),
        ],
    )
}

impl Scope {
    /// `object`, `oldObject`, `request`, `namespaceObject`, `authorizer`, and `params` where the policy has a kind of those.
    pub fn new(params: bool) -> Self {
        static REQUEST: LazyLock<Kind> = LazyLock::new(request);
        static NAMESPACE: LazyLock<Kind> = LazyLock::new(namespace);
        let mut names = vec![
            ("object".to_owned(), Kind::Dyn),
            ("oldObject".to_owned(), Kind::Dyn),
            ("namespaceObject".to_owned(), NAMESPACE.clone()),
            ("request".to_owned(), REQUEST.clone()),
        ];
        if params {
            names.push(("params".to_owned(), Kind::Dyn));
        }
        Self { names, variables: None }
    }

    /// Declares a variable by its expression, for those that come after it.
    ///
    /// # Errors
    /// What is wrong with the expression; the variable is declared all the same.
    pub fn declare(&mut self, name: &str, source: &str) -> Result<(), String> {
        let checked = self.kind(source, true, false);
        let kind = checked.clone().unwrap_or(Kind::Dyn);
        self.variables.get_or_insert_default().insert(name.to_owned(), kind);
        checked.map(|_| ())
    }

    /// Checks an expression.
    ///
    /// # Errors
    /// Upstream's text: `compilation failed: …`, `must evaluate to bool but got …`.
    pub fn check(&self, source: &str, wanted: Wanted) -> Result<(), String> {
        let makes = matches!(wanted, Wanted::Object | Wanted::Patches);
        let kind = self.kind(source, wanted != Wanted::Message, makes)?;
        let shown = if matches!(kind, Kind::Null) { "null_type".to_owned() } else { kind.to_string() };
        match (wanted, &kind) {
            (Wanted::Bool, Kind::Bool)
            | (Wanted::Message | Wanted::TextOrNull, Kind::Text)
            | (Wanted::TextOrNull, Kind::Null) => Ok(()),
            (Wanted::Object, Kind::Made(name)) if **name == *"Object" => Ok(()),
            (Wanted::Patches, Kind::List(items)) if matches!(&**items, Kind::Made(name) if **name == *"JSONPatch") => {
                Ok(())
            }
            (Wanted::Bool, _) => Err(format!("must evaluate to bool but got {shown}")),
            (Wanted::Message, _) => Err(format!("must evaluate to string but got {shown}")),
            (Wanted::TextOrNull, _) => Err(format!("must evaluate to one of [string null_type] but got {shown}")),
            (Wanted::Object, _) => Err(format!("must evaluate to Object but got {shown}")),
            (Wanted::Patches, _) => Err(format!("must evaluate to list(JSONPatch) but got {shown}")),
        }
    }

    fn kind(&self, source: &str, asks: bool, makes: bool) -> Result<Kind, String> {
        let program = compile(source)?;
        let mut names = self.names.clone();
        if let Some(variables) = &self.variables {
            let members = Arc::new(variables.clone());
            names.push(("variables".to_owned(), Kind::Struct("kubernetes.variables", members)));
        }
        if asks {
            names.push(("authorizer".to_owned(), Kind::Own("kubernetes.authorization.Authorizer")));
            let check = Kind::Own("kubernetes.authorization.ResourceCheck");
            names.push(("authorizer.requestResource".to_owned(), check));
        }
        let checked = deep::with_stack(source, || check::check_scope(&program.program, source, names, makes));
        checked.map(|checked| checked.kind).map_err(|text| format!("compilation failed: {text}"))
    }
}

/// An expression as it is checked, and as it is run.
#[derive(Debug)]
struct Compiled {
    program: Program,
    metered: Metered,
}

/// Compiles an expression, or finds it among those that were compiled before.
fn compile(source: &str) -> Result<Arc<Compiled>, String> {
    static COMPILED: Mutex<BTreeMap<String, Arc<Compiled>>> = Mutex::new(BTreeMap::new());
    if let Some(program) = COMPILED.lock().expect("no panic under this lock").get(source) {
        return Ok(program.clone());
    }
    deep::check(source).map_err(|why| format!("compilation failed: {why}"))?;
    let compiled = deep::with_stack(source, || {
        let program = ENV.compile(source).map_err(|errors| check::syntax_error(source, &errors))?;
        let metered = Metered::new(&program)?;
        Ok(Compiled { program, metered })
    });
    let program = Arc::new(compiled.map_err(|why: String| format!("compilation failed: {why}"))?);
    let mut kept = COMPILED.lock().expect("no panic under this lock");
    if kept.len() >= KEPT {
        kept.clear();
    }
    kept.insert(source.to_owned(), program.clone());
    Ok(program)
}

/// What an expression gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A bool.
    Bool(bool),
    /// A text.
    Text(String),
    /// Null.
    Null,
    /// Something else.
    Other,
}

/// What each variable gave.
type Evaluated = BTreeMap<String, Result<Arc<dyn Val>, String>>;

/// What expressions see, when they are evaluated.
pub struct Bindings {
    context: Context<'static, 'static>,
    variables: Evaluated,
    budget: Budget,
}

impl Bindings {
    /// Values by name.
    pub fn new(values: &[(&str, &Value)]) -> Self {
        let mut context = Context::with_env(Arc::clone(&ENV));
        for (name, value) in values {
            context.add_variable_as_val((*name).to_owned(), values::any(value));
        }
        let budget = Budget::new();
        budget.bind(&mut context);
        Self { context, variables: BTreeMap::new(), budget }
    }

    /// Lets expressions ask what a user may do, who sends a request about a resource.
    pub fn authorizer(&mut self, authorize: Authorize, user: User, request: Place<'_>) {
        let Place { group, resource, subresource, namespace, name } = request;
        let named = Named {
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
        };
        self.context.add_variable_as_val("authorizer", Box::new(Asker::new(authorize, user, named)));
    }

    /// Evaluates a variable, for the expressions that come after it. Upstream does so when the variable is first asked
    /// for: as expressions change nothing, only an error could tell, and that shows where the variable is asked for.
    pub fn define(&mut self, name: &str, source: &str) {
        let value = match compile(source) {
            Err(why) => Err(format!("composited variable \"{name}\" fails to compile: {why}")),
            Ok(program) => deep::with_stack(source, || match program.metered.run_kept(&self.context, &self.budget) {
                Ok(value) => Ok(value),
                Err(error) => Err(format!(
                    "composited variable \"{name}\" fails to evaluate: {}",
                    self.text_of(program.program.expression(), &error)
                )),
            }),
        };
        self.variables.insert(name.to_owned(), value);
        let variables = Variables(Arc::new(self.variables.clone()));
        self.context.add_variable_as_val("variables", Box::new(variables));
    }

    /// What cel-go says of an error in values whose types are not known beforehand.
    fn text_of(&self, expression: &IdedExpr, error: &ExecutionError) -> String {
        match error {
            ExecutionError::NoSuchOverload(error) if error.function() == "_._" => match self.unselectable(expression) {
                Some(field) => format!("no such key: {field}"),
                None => "no such overload".into(),
            },
            ExecutionError::NoSuchOverload(_)
            | ExecutionError::UnsupportedBinaryOperator(..)
            | ExecutionError::UnexpectedType { .. }
            | ExecutionError::ValuesNotComparable(..)
            | ExecutionError::UnsupportedTargetType { .. }
            | ExecutionError::UnsupportedIndex(..) => "no such overload".into(),
            other => go_error(other),
        }
    }

    /// The first member that is selected of what has no members, which the error itself does not tell.
    fn unselectable(&self, expression: &IdedExpr) -> Option<String> {
        let first = |parts: &[IdedExpr]| parts.iter().find_map(|part| self.unselectable(part));
        match &expression.expr {
            Expr::Select(select) => self.unselectable(&select.operand).or_else(|| {
                let operand = CelValue::resolve_val(&select.operand, &self.context).ok()?;
                operand.as_ref().as_indexer().is_none().then(|| select.field.clone())
            }),
            Expr::Call(call) => {
                call.target.as_ref().and_then(|target| self.unselectable(target)).or_else(|| first(&call.args))
            }
            Expr::List(list) => first(&list.elements),
            _ => None,
        }
    }

    /// Evaluates an expression.
    ///
    /// # Errors
    /// Upstream's text: `expression '…' resulted in error: no such key: …`.
    pub fn evaluate(&self, source: &str) -> Result<Answer, String> {
        self.run(source, |program| match program.metered.run(&self.context, &self.budget)? {
            CelValue::Bool(flag) => Ok(Answer::Bool(flag)),
            CelValue::String(text) => Ok(Answer::Text(text.to_string())),
            CelValue::Null => Ok(Answer::Null),
            _ => Ok(Answer::Other),
        })
    }

    /// Evaluates an expression that makes an object to merge.
    ///
    /// # Errors
    /// As [`Self::evaluate`]; `type mismatch: …` where an object in it has another type than its place.
    pub fn make_object(&self, source: &str) -> Result<Value, String> {
        let value = self.run(source, |program| program.metered.run_kept(&self.context, &self.budget))?;
        match value.downcast_ref::<Made>() {
            Some(made) => made.clone().object(),
            None => {
                let got = value.get_type().name();
                Err(format!("unsupported return type from ApplyConfiguration expression: {got}"))
            }
        }
    }

    /// Evaluates an expression that makes the operations of a JSON patch.
    ///
    /// # Errors
    /// As [`Self::make_object`].
    pub fn make_operations(&self, source: &str) -> Result<Vec<Value>, String> {
        let value = self.run(source, |program| program.metered.run_kept(&self.context, &self.budget))?;
        patches::operations(value.as_ref())
    }

    fn run<T: Send>(
        &self,
        source: &str,
        work: impl FnOnce(&Compiled) -> Result<T, ExecutionError> + Send,
    ) -> Result<T, String> {
        let program = compile(source).map_err(|why| format!("compilation error: {why}"))?;
        deep::with_stack(source, || work(&program)).map_err(|error| {
            let text = self.text_of(program.program.expression(), &error);
            if text == budget::SPENT { text } else { format!("expression '{source}' resulted in error: {text}") }
        })
    }
}

/// `variables`: what each gave.
#[derive(Clone, Debug)]
struct Variables(Arc<Evaluated>);

static VARIABLES: CelType = CelType::new_unspecified_type("kubernetes.variables");

impl Val for Variables {
    fn get_type(&self) -> &CelType {
        &VARIABLES
    }

    fn cel_type() -> &'static CelType {
        &VARIABLES
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn equals(&self, _: &dyn Val) -> bool {
        false
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Variables {}

impl Indexer for Variables {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let Some(name) = index.downcast_ref::<CelString<'_>>() else {
            let got = index.get_type().name().to_owned();
            return Err(ExecutionError::UnexpectedType { got, want: STRING_TYPE.name().to_owned() });
        };
        match self.0.get(name.inner()) {
            Some(Ok(value)) => Ok(CowVal::Owned(value.clone_as_boxed())),
            Some(Err(why)) => Err(ExecutionError::function_error("variables", why)),
            None => Err(ExecutionError::no_such_key(name.inner())),
        }
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(CowVal::into_owned)
    }
}

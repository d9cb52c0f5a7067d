//! Settings over HTTP.

use axum::extract::State;
use serde_json::{Map, Value, json};

use super::{
    App,
    envelope::{Answer, Answered, Body, Params, bad},
};
use crate::{
    Code, Error, paths, settings,
    shape::{Field, Kind, required},
};

pub(super) const QUERY: &[(&str, &str)] = &[("keys", "which, with commas between; default all")];

pub(super) const BODY: &[Field] = &[required("settings", Kind::Any, "values by key; null forgets one")];

/// `GET /api/settings`.
pub(super) async fn read(State(app): State<App>, params: Params) -> Answered {
    let keys: Option<Vec<&str>> = params.get("keys").map(|keys| keys.split(',').map(str::trim).collect());
    Answer::ok(json!({"settings": settings::stored(&app.store, keys.as_deref())?}))
}

/// `PUT /api/settings`. The provider is chosen again; `GET /api/sandbox/provider` tells what came of it.
pub(super) async fn write(State(app): State<App>, body: Body) -> Answered {
    let mut body = body.object()?;
    let values = match body.remove("settings") {
        Some(Value::Object(values)) => values,
        Some(_) => return Err(bad("settings", "must be an object")),
        None => return Err(bad("settings", "is missing")),
    };
    if let Some(name) = body.keys().next() {
        return Err(bad(name.chars().take(100).collect::<String>(), "is not known; known is settings"));
    }
    check_path(&values)?;
    settings::write(&app.store, &values)?;
    app.agents.configure(app.store.read(settings::Settings::read)?.configure(&app.base));
    app.selection.reconsider();
    Answer::done()
}

/// A path that would be refused later is refused now. The file may still come.
fn check_path(values: &Map<String, Value>) -> Result<(), Error> {
    let path = values.get(settings::KUBERNETES).and_then(|value| value.get("kubeConfigPath")).and_then(Value::as_str);
    let Some(path) = path.filter(|path| !path.is_empty()) else { return Ok(()) };
    match paths::kubeconfig(path, std::env::home_dir().as_deref()) {
        Err(error) if error.code() == Code::InvalidKubeconfigPath => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

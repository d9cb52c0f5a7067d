//! The cluster in the hand of a test that is another process: rules, the clock, and what there is. These paths are no
//! Kubernetes API; they are for members of `system:masters` alone.
//!
//! | method and path below `/fake.agent-sandbox/v1` | what it does |
//! |---|---|
//! | `GET /rules` | the rules in force, with how often each did something |
//! | `POST /rules` | puts a rule in force; its form is [`crate::rule`]'s |
//! | `DELETE /rules/ID` | takes it away |
//! | `GET /controllers` | the names by which rules pause and restart controllers |
//! | `GET /clock` | the time, and the next one that somebody waits for |
//! | `POST /clock/advance` | moves the clock: `{"seconds": 60}` |
//! | `POST /settle` | waits until nothing more happens without time or input; 504 after `{"limitSeconds": 30}` |
//! | `GET /dump` | what there is, as a text |

use std::{sync::Arc, time::Duration};

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api, Incoming, body, dump,
    respond::{self, Response},
};
use crate::{
    base::{Status, User, user::MASTERS},
    rule::Rule,
};

/// The first segment of the paths: no API group, as those stand below `/apis`.
pub(super) const ROOT: &str = "fake.agent-sandbox";

/// The farthest that one request moves the clock: ten years.
const FARTHEST: f64 = 10.0 * 366.0 * 86_400.0;

/// How long a settling may take if nothing is said, and at most.
const SETTLE: f64 = 30.0;
const LONGEST_SETTLE: f64 = 600.0;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Advance {
    seconds: f64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Settle {
    limit_seconds: Option<f64>,
}

fn read<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, Status> {
    let text = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(text).map_err(|error| Status::bad_request(format!("the body cannot be read: {error}")))
}

fn seconds(given: f64, most: f64, member: &str) -> Result<Duration, Status> {
    let fits = given.is_finite() && (0.0..=most).contains(&given);
    let duration = Duration::try_from_secs_f64(given).ok().filter(|_| fits);
    duration.ok_or_else(|| Status::bad_request(format!("{member:?} must be from 0 to {most}, not {given}")))
}

/// Answers a request below the root.
///
/// # Errors
/// 403 for who is no administrator, 404 and 405 for what there is not, 400 for a body that does not fit, 504 for a cluster
/// that does not settle.
pub(super) async fn answer(
    api: &Arc<Api>,
    user: &User,
    method: &Method,
    path: &[String],
    content: Incoming,
) -> Result<Response, Status> {
    if !user.groups.iter().any(|group| group == MASTERS) {
        let message = format!("User {:?} cannot control this cluster: only members of {MASTERS} can", user.name);
        return Err(Status { message, ..Status::forbidden("", "", "", "") });
    }
    let (registry, clock) = (&api.registry, api.registry.clock());
    let shown = |value: Value| respond::value(200, false, &value);
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match (method.as_str(), path.as_slice()) {
        ("GET", ["v1", "rules"]) => Ok(shown(json!({"rules": registry.rules().list()}))),
        ("POST", ["v1", "rules"]) => {
            let bytes = body::read(content).await?;
            let text = str::from_utf8(&bytes).map_err(|_| Status::bad_request("the rule is no text of JSON"))?;
            let rule: Rule = text.parse().map_err(|why| Status::bad_request(format!("this is no rule: {why}")))?;
            let guard = registry.rules().try_install(rule.clone()).map_err(Status::bad_request)?;
            Ok(respond::value(201, false, &json!({"id": guard.keep(), "hits": 0, "rule": rule})))
        }
        ("DELETE", ["v1", "rules", id]) => {
            let gone = id.parse().is_ok_and(|id| registry.rules().uninstall(id));
            let missing =
                || Status { message: format!("there is no rule {id:?}"), ..Status::not_found("", "rules", id) };
            gone.then(|| shown(json!({"id": id.parse::<u64>().unwrap_or_default()}))).ok_or_else(missing)
        }
        ("GET", ["v1", "controllers"]) => Ok(shown(json!({"controllers": registry.rules().controllers()}))),
        ("GET", ["v1", "clock"]) => Ok(shown(time(api))),
        ("POST", ["v1", "clock", "advance"]) => {
            let Advance { seconds: given } = read(&body::read(content).await?)?;
            clock.advance(seconds(given, FARTHEST, "seconds")?).await;
            Ok(shown(time(api)))
        }
        ("POST", ["v1", "settle"]) => {
            let Settle { limit_seconds } = read(&body::read(content).await?)?;
            let limit = seconds(limit_seconds.unwrap_or(SETTLE), LONGEST_SETTLE, "limitSeconds")?;
            if clock.settle(limit).await {
                return Ok(shown(time(api)));
            }
            let text = dump::dump(registry).await;
            let message = format!("something still happens after {limit:?}\n{text}");
            Err(Status::received(504, "Timeout", message))
        }
        ("GET", ["v1", "dump"]) => Ok(respond::text(200, dump::dump(registry).await)),
        (_, ["v1", "rules" | "controllers" | "clock" | "settle" | "dump", ..]) => Err(Status::method_not_allowed()),
        _ => Ok(respond::page_not_found()),
    }
}

fn time(api: &Api) -> Value {
    let clock = api.registry.clock();
    json!({"now": clock.now(), "next": clock.next_deadline()})
}

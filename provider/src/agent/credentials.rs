//! The secret that agents open their model with: where it comes from, and how it is kept out of everything that is shown.
//!
//! It reaches the sandbox in the input of the start command alone: no command line, URL, pod specification or file of ours has it.

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::{Code, Error, records::ApiKey, store::Writer};

/// The service whose key agents use.
const SERVICE: &str = "anthropic";

/// Variables of the application that may hold the key, in order.
const VARIABLES: [&str; 2] = ["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY"];

/// What stands where a secret stood.
const REDACTED: &str = "[redacted]";

/// Shorter ones are not looked for: they would be found everywhere. No real key is as short.
const SHORTEST: usize = 8;

/// The agents' key: the stored one, else the application's environment.
///
/// # Errors
/// [`Code::ApiKeyNotConfigured`] if there is none, [`Code::StoreFailed`].
pub(super) fn find(tx: &Writer) -> Result<SecretString, Error> {
    let stored = tx.get::<ApiKey>(SERVICE)?.map(|key| key.value);
    let set = |name: &str| std::env::var(name).ok();
    let found = stored.into_iter().chain(VARIABLES.into_iter().filter_map(set)).find(|key| !key.trim().is_empty());
    let found = found.ok_or_else(|| {
        let message = format!(
            "agents need an API key of {SERVICE}: store one in the settings, or set {}",
            VARIABLES.join(" or ")
        );
        Error::new(Code::ApiKeyNotConfigured, message)
    })?;
    Ok(found.trim().to_owned().into())
}

/// Takes a secret out of what an agent prints.
pub(super) struct Redactor(SecretString);

impl Redactor {
    pub(super) fn new(secret: SecretString) -> Self {
        Self(secret)
    }

    /// The text without the secret.
    pub(super) fn text(&self, text: String) -> String {
        let secret = self.0.expose_secret();
        if secret.len() >= SHORTEST && text.contains(secret) { text.replace(secret, REDACTED) } else { text }
    }

    /// The value without the secret, also in its members' names.
    pub(super) fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(members) => {
                members.into_iter().map(|(name, value)| (self.text(name), self.value(value))).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        }
    }
}

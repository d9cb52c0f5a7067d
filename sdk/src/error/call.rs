//! [`CallError`]: why a call to the API server has no good answer, and what to do about it.

use std::{error::Error as StdError, fmt, io, time::Duration};

use kube::{client::UpgradeConnectionError, core::Status, runtime::watcher};

use crate::kubeconfig::plugin_failure;

/// How long one call may take, with all its repetitions. An API server gives up a request after 60 seconds by itself, so
/// who says nothing for longer is not there any more.
const PATIENCE: Duration = Duration::from_secs(75);

/// How much of an answer that is none is quoted, in characters.
const QUOTE: usize = 120;

/// Answers that a server gives when it is busy, is being started, or lost a race inside.
const RETRYABLE_CODES: [u16; 6] = [408, 429, 500, 502, 503, 504];

/// Why a call to the API server has no good answer. The text says what to do where that is not the server's to say.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::CallError;
/// use kube::core::Status;
///
/// let busy = Status::failure("too many requests", "TooManyRequests").with_code(429);
/// let error = CallError::from(kube::Error::Api(Box::new(busy)));
/// assert_eq!(error.to_string(), "the server said: too many requests (429 TooManyRequests)");
/// assert!(error.is_retryable());
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The API server refused, in its own words.
    #[error("the server said: {} ({} {})", .0.message, .0.code, .0.reason)]
    Refused(Box<Status>),

    /// Nobody answers at the server's address.
    #[error("no connection to the API server: is the cluster up, and the kubeconfig's address of it right?{}", deepest(.0))]
    Unreachable(#[source] Box<kube::Error>),

    /// The two do not agree on TLS: an unknown or expired certificate, one of another name, or no TLS at all.
    #[error(
        "no trusted connection to the API server: check the kubeconfig's certificate-authority, the server's name and \
         this machine's clock, and that the port speaks TLS{}", deepest(.0)
    )]
    Untrusted(#[source] Box<kube::Error>),

    /// The connection was lost before the answer was whole. Whether the server has done what was asked is not known.
    #[error("the connection was lost before the answer was whole; whether the server acted is not known")]
    Interrupted(#[source] Box<kube::Error>),

    /// No answer in time. Whether the server has done what was asked is not known.
    #[error("no answer within {after:?}; whether the server acted is not known")]
    TimedOut {
        /// How long was waited.
        after: Duration,
    },

    /// Something answered that is no API server: a proxy, a login page, a redirect.
    #[error("no API server answered{}: is there a proxy between, or is the address another service's?{quote}", code_text(*code))]
    NotTheServer {
        /// The HTTP status, where it is known.
        code: Option<u16>,
        /// How the answer begins, or what is wrong with it.
        quote: Quote,
    },

    /// The user's credentials were not found. What a plugin printed is left out: it may be one.
    #[error("no credentials for the API server: {why}")]
    NoCredentials {
        /// Why.
        why: String,
    },

    /// Anything else.
    #[error("the call was not made")]
    Other(#[source] Box<kube::Error>),
}

impl CallError {
    /// Whether the same call may succeed if made again: the server was busy, or could not be reached.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// assert!(agent_sandbox_sdk::CallError::TimedOut { after: Duration::from_secs(75) }.is_retryable());
    /// ```
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(status) => RETRYABLE_CODES.contains(&status.code),
            Self::NotTheServer { code, .. } => code.is_some_and(|code| RETRYABLE_CODES.contains(&code)),
            Self::Unreachable(_) | Self::Interrupted(_) | Self::TimedOut { .. } | Self::NoCredentials { .. } => true,
            Self::Untrusted(_) | Self::Other(_) => false,
        }
    }

    /// The API server's own answer, if it gave one.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// assert!(agent_sandbox_sdk::CallError::TimedOut { after: Duration::from_secs(75) }.status().is_none());
    /// ```
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Refused(status) => Some(status),
            _ => None,
        }
    }

    /// How long a busy server asks to be left alone.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::CallError;
    /// use kube::core::Status;
    /// use serde_json::json;
    ///
    /// let busy = json!({"message": "busy", "reason": "TooManyRequests", "code": 429, "details": {"retryAfterSeconds": 30}});
    /// let busy: Status = serde_json::from_value(busy)?;
    /// let error = CallError::from(kube::Error::Api(Box::new(busy)));
    /// assert_eq!(error.retry_after().map(|time| time.as_secs()), Some(30));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.status()?.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }

    /// Whether the API server says that there is no such thing; a proxy's page for that does not count.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status().is_some_and(Status::is_not_found)
    }

    /// Whether a watch may go on by itself: it begins anew where it has fallen behind.
    pub(crate) fn is_watch_retryable(&self) -> bool {
        self.status().is_some_and(|status| status.code == 410) || self.is_retryable()
    }
}

/// How an answer begins that is none of an API server, or what is wrong with it: on one line, and not much of it.
///
/// # Examples
/// ```
/// assert_eq!(agent_sandbox_sdk::Quote::default().to_string(), "");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quote(String);

impl Quote {
    fn of(text: &str) -> Self {
        let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((end, _)) = words.char_indices().nth(QUOTE) {
            words.truncate(end);
            words.push('…');
        }
        Self(words)
    }
}

impl fmt::Display for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", self.0) }
    }
}

fn code_text(code: Option<u16>) -> String {
    code.map(|code| format!(" but HTTP {code}")).unwrap_or_default()
}

/// The first cause, which is the one that says something: connection refused, certificate expired.
fn deepest(error: &kube::Error) -> String {
    causes(error).last().map(|cause| format!(" ({cause})")).unwrap_or_default()
}

fn causes(error: &kube::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    // An I/O error tells what it wraps in that one's words, and has only that one's source as its source.
    fn next<'a>(error: &&'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
        let error: &'a (dyn StdError + 'static) = *error;
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn StdError + 'static)).or_else(|| error.source())
    }
    std::iter::successors(Some(error as &(dyn StdError + 'static)), next)
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => answer(status),
            kube::Error::SerdeError(error) => not_json(&error),
            kube::Error::FromUtf8(_) => Self::NotTheServer { code: None, quote: Quote::of("its answer is no text") },
            kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code)) => {
                Self::NotTheServer { code: Some(code.as_u16()), quote: Quote::default() }
            }
            kube::Error::UpgradeConnection(UpgradeConnectionError::GetPendingUpgrade(_))
            | kube::Error::HyperError(_)
            | kube::Error::ReadEvents(_) => Self::Interrupted(Box::new(error)),
            kube::Error::UpgradeConnection(error) => {
                Self::NotTheServer { code: None, quote: Quote::of(&error.to_string()) }
            }
            kube::Error::Auth(error) => {
                let why = plugin_failure(&error).unwrap_or_else(|| "they could not be read".into());
                Self::NoCredentials { why }
            }
            kube::Error::Service(_) => of_transport(error),
            error => Self::Other(Box::new(error)),
        }
    }
}

impl From<watcher::Error> for CallError {
    fn from(error: watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(source)
            | watcher::Error::WatchStartFailed(source)
            | watcher::Error::WatchFailed(source) => source.into(),
            watcher::Error::WatchError(status) => answer(status),
            watcher::Error::NoResourceVersion => {
                Self::NotTheServer { code: None, quote: Quote::of("its objects have no resourceVersion") }
            }
        }
    }
}

/// kube-rs makes a Status of any answer with a code of an error.
fn answer(mut status: Box<Status>) -> CallError {
    if status.code == 0 {
        return CallError::NotTheServer { code: None, quote: Quote::of("its answer is an error of another shape") };
    }
    if status.reason != "Failed to parse error data" {
        return CallError::Refused(status);
    }
    // API servers say a few things in plain text: that they are busy, that no such path is served.
    let text = status.message.trim_start();
    if text.starts_with(['<', '{']) || (status.code == 400 && text.contains("HTTPS server")) {
        return CallError::NotTheServer { code: Some(status.code), quote: Quote::of(text) };
    }
    status.message = Quote::of(text).0;
    status.reason = match status.code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "Unknown",
    }
    .into();
    CallError::Refused(status)
}

/// A parser's words quote what it read, which may be an object with secrets: only the place is told.
fn not_json(error: &serde_json::Error) -> CallError {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "its answer ends too early",
        serde_json::error::Category::Data => "its answer is JSON of another shape",
        serde_json::error::Category::Io | serde_json::error::Category::Syntax => "its answer is no JSON",
    };
    let quote = Quote::of(&format!("{what}: line {}, column {}", error.line(), error.column()));
    CallError::NotTheServer { code: None, quote }
}

/// By what the operating system and TLS say underneath.
fn of_transport(error: kube::Error) -> CallError {
    let kinds: Vec<_> =
        causes(&error).filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind).collect();
    let any = |wanted: &[io::ErrorKind]| kinds.iter().any(|kind| wanted.contains(kind));
    // rustls wraps its own errors so.
    if any(&[io::ErrorKind::InvalidData]) {
        return CallError::Untrusted(Box::new(error));
    }
    let lost = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::UnexpectedEof];
    // Where no connection came about there is an I/O error, and it says that one was not made.
    if kinds.is_empty() || any(&lost) {
        return CallError::Interrupted(Box::new(error));
    }
    CallError::Unreachable(Box::new(error))
}

/// The answer to a call, in time.
pub(crate) async fn answered<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer.map_err(CallError::from),
        Err(_) => Err(CallError::TimedOut { after: PATIENCE }),
    }
}

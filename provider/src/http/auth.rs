//! Who may come in: programs with a bearer token, people with a cookie that the token was given for.
//!
//! The token stands in a file for its owner alone; the store has a hash with a salt. A cookie is good for some hours, in
//! this process only, and for writing only from a page of this server.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{
    extract::{Form, FromRequest, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{Html, IntoResponse, Redirect, Response},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{hmac, rand::SecureRandom};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{App, envelope::in_time, page};
use crate::{
    Code, Error,
    store::{Record, Store},
};

/// The cookie of a person who has shown the token.
const COOKIE: &str = "agentpane_session";
/// How long a cookie is good.
const LOGIN: Duration = Duration::from_secs(12 * 60 * 60);
/// Logins at once; the oldest goes when there are more.
const MAX_LOGINS: usize = 100;
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Bytes of a token in a file, at least: what can be guessed is no token.
const MIN_TOKEN_TEXT: usize = 20;
/// The only token's id in the store.
const TOKEN_ID: &str = "api";

/// What the store knows of the token.
#[derive(Serialize, Deserialize)]
struct TokenHash {
    id: String,
    salt: String,
    hash: String,
}

impl Record for TokenHash {
    const TABLE: &'static str = "tokens";

    fn id(&self) -> &str {
        &self.id
    }
}

/// Checks credentials.
pub struct Auth {
    salt: hmac::Key,
    hash: Vec<u8>,
    /// Cookies by the hash of their value, with the time at which each is over.
    logins: Mutex<BTreeMap<Vec<u8>, Instant>>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").finish_non_exhaustive()
    }
}

impl Auth {
    /// Takes the token that stands in the file. If there is no file, what the store knows goes on to hold; if the store
    /// knows nothing either, a token is made and the file with it.
    ///
    /// # Errors
    /// [`Code::StoreFailed`] if the file cannot be read or written, or holds no good token.
    pub fn open(store: &Store, file: &Path) -> Result<Self, Error> {
        let failed = |what: &str, error: io::Error| {
            let message = format!("the token file {} cannot be {what}: {error}", file.display());
            Error::new(Code::StoreFailed, message)
        };
        let token = match fs::read_to_string(file) {
            Ok(text) => Some(SecretString::from(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("read", error)),
        };
        let known = store.read(|tx| tx.get::<TokenHash>(TOKEN_ID))?;
        let token = match (token, known) {
            (Some(token), _) if token.expose_secret().len() < MIN_TOKEN_TEXT => {
                let message = format!("the token in {} has less than {MIN_TOKEN_TEXT} letters", file.display());
                return Err(Error::new(Code::StoreFailed, message));
            }
            (Some(token), _) => token,
            (None, Some(known)) => return Self::of(&known),
            (None, None) => {
                let token = random()?;
                write_new(file, token.expose_secret()).map_err(|error| failed("written", error))?;
                token
            }
        };
        Self::with_token(store, &token)
    }

    /// Takes this token, in the place of an earlier one.
    ///
    /// # Errors
    /// [`Code::StoreFailed`].
    pub fn with_token(store: &Store, token: &SecretString) -> Result<Self, Error> {
        let salt = random()?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, salt.expose_secret().as_bytes());
        let hash = STANDARD.encode(hmac::sign(&key, token.expose_secret().as_bytes()));
        let known = TokenHash { id: TOKEN_ID.into(), salt: salt.expose_secret().into(), hash };
        store.write(|tx| tx.put(&known))?;
        Self::of(&known)
    }

    fn of(known: &TokenHash) -> Result<Self, Error> {
        let hash = STANDARD.decode(&known.hash).map_err(|error| {
            Error::new(Code::StoreFailed, "the token's hash in the store is damaged").because(error)
        })?;
        let salt = hmac::Key::new(hmac::HMAC_SHA256, known.salt.as_bytes());
        Ok(Self { salt, hash, logins: Mutex::default() })
    }

    /// Whether it is the token. How long that takes does not depend on how much of it is right.
    fn is_token(&self, token: &str) -> bool {
        hmac::verify(&self.salt, token.as_bytes(), &self.hash).is_ok()
    }

    fn login_key(&self, cookie: &str) -> Vec<u8> {
        hmac::sign(&self.salt, cookie.as_bytes()).as_ref().to_vec()
    }

    fn is_login(&self, cookie: &str) -> bool {
        let key = self.login_key(cookie);
        let logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        logins.get(&key).is_some_and(|until| *until > Instant::now())
    }

    fn log_in(&self) -> Result<SecretString, Error> {
        let cookie = random()?;
        let key = self.login_key(cookie.expose_secret());
        let now = Instant::now();
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        logins.retain(|_, until| *until > now);
        if logins.len() >= MAX_LOGINS {
            let oldest = logins.iter().min_by_key(|(_, until)| **until).map(|(key, _)| key.clone());
            oldest.and_then(|key| logins.remove(&key));
        }
        logins.insert(key, now + LOGIN);
        Ok(cookie)
    }

    fn log_out(&self, cookie: &str) {
        let key = self.login_key(cookie);
        self.logins.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// Lets a request in, or says why not.
    fn check(&self, request: &Request) -> Result<(), Error> {
        let headers = request.headers();
        if let Some(given) = headers.get(header::AUTHORIZATION) {
            let bearer = given.to_str().ok().and_then(|text| text.split_once(' '));
            let token =
                bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
            // Who shows a bad token is not let in by a good cookie: it would hide the mistake.
            return if token.is_some_and(|token| self.is_token(token)) {
                Ok(())
            } else {
                Err(Error::new(Code::Unauthorized, "the Authorization header has no valid bearer token"))
            };
        }
        match cookie(headers) {
            Some(cookie) if self.is_login(cookie) => same_origin(request),
            Some(_) => Err(Error::new(Code::Unauthorized, "the session is over: log in again")),
            None => Err(Error::new(
                Code::Unauthorized,
                "credentials are needed: send 'Authorization: Bearer TOKEN', with the token of the server's token file",
            )),
        }
    }
}

/// A cookie comes along whoever made the page that sends it. What changes something must come from a page of ours.
fn same_origin(request: &Request) -> Result<(), Error> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(());
    }
    let headers = request.headers();
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = text(header::ORIGIN).and_then(|origin| origin.parse::<Uri>().ok());
    let origin = origin.as_ref().and_then(Uri::authority).map(|authority| authority.as_str().to_ascii_lowercase());
    let host = text(header::HOST).map(str::to_ascii_lowercase);
    if host.is_some() && origin == host {
        return Ok(());
    }
    let message = "a change with a cookie must come from a page of this server (the Origin header says otherwise)";
    Err(Error::new(Code::Forbidden, message))
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value).next()
}

/// Lets nobody without credentials past, but to routes that are open. A person gets the page to log in on.
pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    if super::is_open(request.uri().path()) {
        return next.run(request).await;
    }
    match app.auth.check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) if error.code() == Code::Unauthorized && page::is_for_people(&request) => login_page(""),
        Err(error) => {
            let mut response = error.into_response();
            if response.status() == StatusCode::UNAUTHORIZED {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}

fn login_page(message: &'static str) -> Response {
    (StatusCode::UNAUTHORIZED, Html(page::login(message))).into_response()
}

/// What the form of the login page sends.
#[derive(Deserialize)]
struct Login {
    token: String,
}

/// `POST /login`: a cookie for the token.
pub(super) async fn log_in(State(app): State<App>, request: Request) -> Response {
    if request.headers().contains_key(header::ORIGIN) && same_origin(&request).is_err() {
        return login_page("The form must be sent from a page of this server.");
    }
    let login = match in_time(Form::<Login>::from_request(request, &())).await {
        Ok(Ok(Form(login))) => login,
        Ok(Err(_)) => return login_page("Enter the token."),
        Err(error) => return error.into_response(),
    };
    if !app.auth.is_token(login.token.trim()) {
        return login_page("That is not the token.");
    }
    let cookie = match app.auth.log_in() {
        Ok(cookie) => cookie,
        Err(error) => return error.into_response(),
    };
    set_cookie(cookie.expose_secret(), LOGIN.as_secs(), "/settings/sandbox")
}

/// `POST /logout`: the cookie is no longer good.
pub(super) async fn log_out(State(app): State<App>, headers: HeaderMap) -> Response {
    if let Some(cookie) = cookie(&headers) {
        app.auth.log_out(cookie);
    }
    set_cookie("", 0, "/settings/sandbox")
}

fn set_cookie(value: &str, seconds: u64, then: &str) -> Response {
    let text = format!("{COOKIE}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}");
    let mut response = Redirect::to(then).into_response();
    match HeaderValue::from_str(&text) {
        Ok(mut header) => {
            header.set_sensitive(true);
            response.headers_mut().insert(header::SET_COOKIE, header);
            response
        }
        Err(error) => Error::new(Code::Internal, "no cookie could be made").because(error).into_response(),
    }
}

fn random() -> Result<SecretString, Error> {
    let mut bytes = [0; TOKEN_BYTES];
    let filled = ring::rand::SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Error::new(Code::Internal, "this machine gives no random numbers"))?;
    Ok(SecretString::from(URL_SAFE_NO_PAD.encode(bytes)))
}

/// Writes a file that is not there yet, for its owner alone.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_first_start_makes_a_token_for_its_owner_alone_and_the_store_has_its_hash_only() {
        let folder = tempfile::tempdir().unwrap();
        let (store, file) = (Store::open(folder.path().join("store.redb")).unwrap(), folder.path().join("token"));
        let auth = Auth::open(&store, &file).unwrap();
        let token = fs::read_to_string(&file).unwrap().trim().to_owned();
        assert!(auth.is_token(&token) && !auth.is_token("another") && !auth.is_token(""));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        fs::remove_file(&file).unwrap();
        let again = Auth::open(&store, &file).unwrap();
        assert!(again.is_token(&token), "a token that was put away still holds");
        assert!(!file.exists());
        let known = store.read(|tx| tx.get::<TokenHash>(TOKEN_ID)).unwrap().unwrap();
        assert!(!format!("{}{}", known.salt, known.hash).contains(&token));
    }

    #[test]
    fn a_token_file_that_is_given_takes_the_place_of_the_token_before() {
        let folder = tempfile::tempdir().unwrap();
        let (store, file) = (Store::in_memory().unwrap(), folder.path().join("token"));
        let first = SecretString::from("a-token-that-was-there-before");
        Auth::with_token(&store, &first).unwrap();
        fs::write(&file, "a-token-of-the-operator\n").unwrap();
        let auth = Auth::open(&store, &file).unwrap();
        assert!(auth.is_token("a-token-of-the-operator") && !auth.is_token(first.expose_secret()));

        fs::write(&file, "short").unwrap();
        let error = Auth::open(&store, &file).unwrap_err();
        assert!(!error.message().contains("short") && error.message().contains("less than 20"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_ends_after_its_hours_or_by_logging_out() {
        let store = Store::in_memory().unwrap();
        let auth = Auth::with_token(&store, &SecretString::from("the token of this test")).unwrap();
        let (one, two) = (auth.log_in().unwrap(), auth.log_in().unwrap());
        assert!(auth.is_login(one.expose_secret()) && !auth.is_login("made up"));
        auth.log_out(two.expose_secret());
        assert!(!auth.is_login(two.expose_secret()));
        tokio::time::advance(LOGIN).await;
        assert!(!auth.is_login(one.expose_secret()));
    }
}

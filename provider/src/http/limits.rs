//! Every limit of the HTTP API, and the one that counts: requests per caller and minute.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::Instant;

use super::{App, envelope::too_large};
use crate::{Code, Error, listener::Caller};

/// Bytes of a body; 413 beyond. A plan or a prompt is far smaller.
pub(super) const MAX_BODY_BYTES: usize = 1024 * 1024;
/// How long a body may take to arrive; 408 beyond.
pub(super) const BODY_TIME: Duration = Duration::from_secs(30);
/// Bytes of path and query; 414 beyond.
pub(super) const MAX_URI_BYTES: usize = 4096;
/// Bytes of an id; 400 beyond.
pub(super) const MAX_ID_BYTES: usize = 100;
/// Requests of one address to `/api` in one minute, if nothing else is said; 429 beyond.
pub const DEFAULT_RATE: u32 = 200;
/// How long requests are counted together.
pub(super) const RATE_WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are counted at once. When there are more, the one that came first is forgotten.
const MAX_COUNTED: usize = 10_000;
/// Streams that are open at once; 429 beyond.
pub(super) const MAX_STREAMS: usize = 1000;
/// How long a stream is open. Then the client comes again, and goes on where it was; one that is gone does not.
pub(super) const STREAM_TIME: Duration = Duration::from_secs(60 * 60);
/// Time between two signs of life on a stream on which nothing happens.
pub(super) const PING: Duration = Duration::from_secs(15);
/// Entries of a page, if nothing else is said.
pub(super) const PAGE: u64 = 50;
/// Entries of a page at most.
pub(super) const MAX_PAGE: u64 = 1000;

/// Requests per address.
#[derive(Debug)]
pub(super) struct Rate {
    /// Per address and window; 0 for any number.
    limit: u32,
    counted: Mutex<BTreeMap<IpAddr, Window>>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    requests: u32,
}

impl Rate {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, counted: Mutex::default() }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// How long to wait, if there were too many.
    fn count(&self, address: IpAddr) -> Result<(), Duration> {
        if self.limit == 0 {
            return Ok(());
        }
        let now = Instant::now();
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.len() >= MAX_COUNTED && !counted.contains_key(&address) {
            counted.retain(|_, window| now.duration_since(window.began) < RATE_WINDOW);
            let oldest = counted.iter().min_by_key(|(_, window)| window.began).map(|(address, _)| *address);
            if let Some(oldest) = oldest.filter(|_| counted.len() >= MAX_COUNTED) {
                counted.remove(&oldest);
            }
        }
        let window = counted.entry(address).or_insert(Window { began: now, requests: 0 });
        let age = now.duration_since(window.began);
        if age >= RATE_WINDOW {
            *window = Window { began: now, requests: 0 };
        } else if window.requests >= self.limit {
            return Err(RATE_WINDOW - age);
        }
        window.requests += 1;
        Ok(())
    }
}

/// Refuses what is too long, too large or too often, before anything else looks at it.
pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    match check(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check(app: &App, request: &Request) -> Result<(), Error> {
    let uri = request.uri();
    let length = uri.path().len() + uri.query().map_or(0, str::len);
    if length > MAX_URI_BYTES {
        return Err(Error::new(Code::UriTooLong, format!("path and query have at most {MAX_URI_BYTES} bytes")));
    }
    let announced = request.headers().get(header::CONTENT_LENGTH).map(HeaderValue::to_str);
    if announced.and_then(Result::ok).and_then(|text| text.parse().ok()).is_some_and(|n: usize| n > MAX_BODY_BYTES) {
        return Err(too_large());
    }
    if uri.path().starts_with("/api/") || uri.path() == "/login" {
        app.rate.count(address(request)).map_err(|wait| {
            let seconds = wait.as_secs() + 1;
            let message = format!("too many requests: try again in {seconds} s");
            Error::new(Code::RateLimited, message).with("retryAfterSeconds", seconds)
        })?;
    }
    Ok(())
}

/// Who is at the other end of the connection. A header that says otherwise is not believed: anyone can write one.
fn address(request: &Request) -> IpAddr {
    let info = request.extensions().get::<ConnectInfo<Caller>>();
    info.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |ConnectInfo(Caller(address))| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(number))
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_its_number_of_requests_each_minute() {
        let rate = Rate::new(2);
        let (a, b) = (address(1), address(2));
        assert!(rate.count(a).is_ok() && rate.count(a).is_ok());
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(rate.count(a), Err(Duration::from_secs(40)));
        assert!(rate.count(b).is_ok(), "another is not to suffer");
        tokio::time::advance(Duration::from_secs(40)).await;
        assert!(rate.count(a).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_addresses_come_so_many_are_remembered() {
        let rate = Rate::new(1);
        for number in 0..(u32::try_from(MAX_COUNTED).unwrap() + 50) {
            rate.count(address(number)).unwrap();
        }
        assert!(rate.counted.lock().unwrap().len() <= MAX_COUNTED);
    }
}

//! When a request is sent again, by the clients that this crate makes itself.
//!
//! kube-rs would wait for as long as a server asks, and send a creation again that a gateway gave up: this waits for
//! seconds at most, and repeats only what the server surely has not done or what changes nothing.

use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode, header::RETRY_AFTER};
use kube::client::Body;
use tower::{BoxError, retry::Policy};

/// How often a request is sent again.
const AGAIN: u32 = 4;

/// The first wait where the server names none; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait that a server may ask for. Who asks for a longer one is not waited for: the caller hears of it.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Counts the repetitions of one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patience {
    sent_again: u32,
}

impl Patience {
    /// How long to wait before the request is sent again; `None` if its answer is for the caller.
    ///
    /// As client-go does (`rest/with_retry.go`), any request is repeated that a server is too busy for and says until
    /// when. What gateways say of a server that does not answer counts only for requests that change nothing.
    fn wait(&self, method: &Method, status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
        if self.sent_again >= AGAIN {
            return None;
        }
        let asked =
            headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let is_busy = status == StatusCode::TOO_MANY_REQUESTS || (status.is_server_error() && asked.is_some());
        let changes_nothing = [Method::GET, Method::HEAD].contains(method);
        let is_away = matches!(status.as_u16(), 502..=504) && changes_nothing;
        (is_busy || is_away)
            .then(|| asked.unwrap_or(FIRST_WAIT * 2_u32.pow(self.sent_again)))
            .filter(|wait| *wait <= LONGEST_WAIT)
    }
}

impl<B> Policy<Request<Body>, Response<B>, BoxError> for Patience {
    type Future = tokio::time::Sleep;

    fn retry(
        &mut self,
        request: &mut Request<Body>,
        answer: &mut Result<Response<B>, BoxError>,
    ) -> Option<Self::Future> {
        let answer = answer.as_ref().ok()?;
        let wait = self.wait(request.method(), answer.status(), answer.headers())?;
        self.sent_again += 1;
        Some(tokio::time::sleep(wait))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        let mut copy = Request::new(request.body().try_clone()?);
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        Some(copy)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use rstest::rstest;
    use tower::{ServiceBuilder, ServiceExt, retry::RetryLayer};

    use super::*;

    /// How often a server hears of a request that it always answers alike, and how long the caller waits.
    async fn heard(method: Method, code: u16, retry_after: Option<&'static str>) -> (u32, Duration) {
        let heard = Arc::new(AtomicU32::new(0));
        let counted = heard.clone();
        let server = tower::service_fn(move |_: Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let mut answer = Response::builder().status(code);
            if let Some(seconds) = retry_after {
                answer = answer.header(RETRY_AFTER, seconds);
            }
            async move { Ok::<_, BoxError>(answer.body(()).unwrap()) }
        });
        let started = tokio::time::Instant::now();
        let request = Request::builder().method(method).uri("/").body(Body::empty()).unwrap();
        let client = ServiceBuilder::new().layer(RetryLayer::new(Patience::default())).service(server);
        assert_eq!(client.oneshot(request).await.unwrap().status(), code);
        (heard.load(Ordering::Relaxed), started.elapsed())
    }

    #[rstest]
    #[case::asked_to_wait(Method::POST, 429, Some("2"), 5, 8000)]
    #[case::busy_without_a_word(Method::POST, 429, None, 5, 1500)]
    #[case::asked_for_too_much(Method::GET, 429, Some("3600"), 1, 0)]
    #[case::no_number(Method::GET, 429, Some("Fri, 31 Dec 1999 23:59:59 GMT"), 5, 1500)]
    #[case::a_change_that_may_have_been_made(Method::POST, 504, None, 1, 0)]
    #[case::a_change_that_was_not_made(Method::POST, 503, Some("1"), 5, 4000)]
    #[case::a_gateway_without_a_server(Method::GET, 502, None, 5, 1500)]
    #[case::a_server_that_fails(Method::GET, 500, None, 1, 0)]
    #[case::refused(Method::GET, 403, Some("1"), 1, 0)]
    #[tokio::test(start_paused = true)]
    async fn what_may_be_repeated_is_and_not_for_ever(
        #[case] method: Method,
        #[case] code: u16,
        #[case] retry_after: Option<&'static str>,
        #[case] times: u32,
        #[case] millis: u128,
    ) {
        let (heard, waited) = heard(method, code, retry_after).await;
        // A timer of tokio is exact to the millisecond, and late by one.
        assert_eq!((heard, waited.as_millis() / 100), (times, millis / 100), "{waited:?}");
    }
}

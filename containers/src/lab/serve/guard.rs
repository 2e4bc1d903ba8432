//! Who may talk to the lab's page. It runs programs as the user who started it, so a page of another site that the same
//! browser shows must not reach it: not by its own requests (Origin), and not by a name that is made to mean this machine
//! (Host, DNS rebinding).

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::net::{IpAddr, SocketAddr};

/// Bytes of a token; twice as many hexadecimal digits.
const TOKEN: usize = 16;
const COOKIE: &str = "inception-lab";

/// What the page may load: its own files, nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The rules of one server.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Where it listens.
    pub address: SocketAddr,
    token: Option<String>,
}

impl Guard {
    pub fn new(address: SocketAddr, token: Option<String>) -> Guard {
        Guard { address, token }
    }

    /// A new token, by the kernel's random numbers.
    pub fn make_token() -> Result<String, getrandom::Error> {
        let mut bytes = [0; TOKEN];
        getrandom::fill(&mut bytes)?;
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// What to open in the browser.
    pub fn link(&self) -> String {
        let token = self.token.as_ref().map_or_else(String::new, |token| format!("?token={token}"));
        format!("http://{}/{token}", self.address)
    }

    /// A name could have been made to mean this machine by anybody; numbers and `localhost` could not.
    fn is_own_host(&self, host: &str) -> bool {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, port),
            _ => (host, "80"),
        };
        if port != self.address.port().to_string() {
            return false;
        }
        let number = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let loopback_only = self.address.ip().is_loopback();
        name == "localhost" || number.is_ok_and(|number| number.is_loopback() || !loopback_only)
    }

    /// Why the request is refused; none where it is not.
    fn refusal(&self, method: &Method, headers: &HeaderMap) -> Option<&'static str> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let host = text(header::HOST).unwrap_or_default();
        if !self.is_own_host(host) {
            return Some("this Host is not served");
        }
        let origin = text(header::ORIGIN);
        if origin.is_some_and(|origin| origin != format!("http://{host}")) {
            return Some("requests of other origins are refused");
        }
        // Browsers say where a request comes from; `none` is the address bar.
        let site = headers.get("sec-fetch-site").map(|value| value.to_str().unwrap_or("?"));
        let is_own = matches!(site, None | Some("same-origin" | "none"));
        // A link elsewhere may lead here.
        let opens = method == Method::GET && text(header::ACCEPT).is_some_and(|types| types.contains("text/html"));
        if !is_own && !opens {
            return Some("requests of other sites are refused");
        }
        let is_json = text(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json"));
        // Forms of other sites can't send this, and scripts only after they have asked, which is refused.
        (method != Method::GET && !is_json).then_some("only JSON is taken")
    }

    fn has_cookie(&self, headers: &HeaderMap, token: &str) -> bool {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let name = self.cookie_name();
        let values = cookies.flat_map(|line| line.split("; ")).filter_map(|cookie| cookie.split_once('='));
        values.filter(|(found, _)| *found == name).any(|(_, value)| is_same(value, token))
    }

    /// Cookies do not know ports: two labs on one machine must not take each other's.
    fn cookie_name(&self) -> String {
        format!("{COOKIE}-{}", self.address.port())
    }
}

/// Takes the same time wherever they differ.
fn is_same(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().zip(other.bytes()).fold(0, |all, (one, other)| all | (one ^ other)) == 0
}

fn token_in(uri: &Uri) -> Option<&str> {
    uri.query()?.split('&').find_map(|part| part.strip_prefix("token="))
}

/// Refuses what is not the user's own page; adds the headers that every answer has.
pub async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = guarded(&guard, request, next).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn guarded(guard: &Guard, request: Request, next: Next) -> Response {
    if let Some(why) = guard.refusal(request.method(), request.headers()) {
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let Some(token) = &guard.token else { return next.run(request).await };
    if guard.has_cookie(request.headers(), token) {
        return next.run(request).await;
    }
    if request.method() == Method::GET && token_in(request.uri()).is_some_and(|found| is_same(found, token)) {
        // The address bar and the history keep no token.
        let cookie = format!("{}={token}; HttpOnly; SameSite=Strict; Path=/", guard.cookie_name());
        return (StatusCode::SEE_OTHER, [(header::SET_COOKIE, cookie), (header::LOCATION, "/".into())]).into_response();
    }
    (StatusCode::UNAUTHORIZED, "open the address that `inception lab serve` has printed, with its token")
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(address: &str) -> Guard {
        Guard::new(address.parse().unwrap(), None)
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn hosts() {
        let own = guard("127.0.0.1:8090");
        for host in ["127.0.0.1:8090", "localhost:8090", "[::1]:8090"] {
            assert!(own.is_own_host(host), "{host}");
        }
        for host in
            ["", "evil.example:8090", "127.0.0.1", "127.0.0.1:80", "localhost.evil.example:8090", "192.0.2.1:8090"]
        {
            assert!(!own.is_own_host(host), "{host}");
        }
        let open = guard("192.0.2.1:8090");
        assert!(open.is_own_host("192.0.2.1:8090") && !open.is_own_host("evil.example:8090"));
    }

    #[test]
    fn origins_and_sites() {
        let own = guard("127.0.0.1:8090");
        let refusal = |method: Method, pairs: &[(&'static str, &str)]| {
            let mut all = vec![("host", "127.0.0.1:8090")];
            all.extend(pairs);
            own.refusal(&method, &headers(&all)).is_some()
        };
        let json = ("content-type", "application/json");
        assert!(!refusal(Method::GET, &[]));
        assert!(!refusal(
            Method::POST,
            &[json, ("origin", "http://127.0.0.1:8090"), ("sec-fetch-site", "same-origin")]
        ));
        assert!(refusal(Method::POST, &[json, ("origin", "http://evil.example")]));
        assert!(refusal(Method::POST, &[json, ("origin", "null")]));
        assert!(refusal(Method::POST, &[json, ("origin", "http://localhost:8090")]));
        assert!(refusal(Method::POST, &[("content-type", "text/plain")]));
        assert!(refusal(Method::POST, &[json, ("sec-fetch-site", "same-site")]));
        assert!(refusal(Method::GET, &[("sec-fetch-site", "cross-site"), ("accept", "*/*")]));
        // A link to the page, from elsewhere.
        assert!(!refusal(Method::GET, &[("sec-fetch-site", "cross-site"), ("accept", "text/html,*/*")]));
    }

    #[test]
    fn tokens() {
        let token = Guard::make_token().unwrap();
        assert_eq!(token.len(), 2 * TOKEN);
        assert_ne!(token, Guard::make_token().unwrap());
        let guard = Guard::new("127.0.0.1:8090".parse().unwrap(), Some(token.clone()));
        let has = |cookie: &str| guard.has_cookie(&headers(&[("cookie", cookie)]), &token);
        assert!(has(&format!("a=b; inception-lab-8090={token}")));
        assert!(!has(&format!("inception-lab-8091={token}")) && !has("inception-lab-8090=") && !has(""));
        assert_eq!(token_in(&"/?a=b&token=xy".parse().unwrap()), Some("xy"));
    }
}

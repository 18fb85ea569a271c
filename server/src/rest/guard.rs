//! Which requests a loopback server takes: those of programs on this machine, not those of web pages that a browser
//! on this machine shows.
//!
//! Nobody is asked who they are yet, so being on the machine is the permission, and a browser lends it to every page it
//! shows. Two headers, which pages cannot forge, tell: `Origin` says which page asks, and `Host` says under which name
//! the page knows us: a name of its own that it made resolve to 127.0.0.1 (DNS rebinding) is not one of ours. Beyond
//! loopback (`insecure_no_auth`) names are the operator's, and nothing is checked here.
//!
//! A request without these headers comes from no browser and is taken.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use crate::grpc;

/// The layer around both adapters.
pub(crate) async fn local_callers(request: Request, next: Next) -> Response {
    let Err(detail) = check(request.uri(), request.headers()) else {
        return next.run(request).await;
    };
    if super::is_grpc(request.headers()) {
        return grpc::foreign_origin(detail);
    }
    Problem::refused(StatusCode::FORBIDDEN, "foreign_origin", detail).into_response()
}

/// The reason to refuse.
fn check(uri: &Uri, headers: &HeaderMap) -> Result<(), String> {
    let text = |name| headers.get(name).map(|v| v.to_str().unwrap_or("?"));
    // HTTP/2 says it in the URI (`:authority`), HTTP/1 in a header.
    let host = uri.authority().map(|a| a.as_str()).or(text(header::HOST));
    if let Some(host) = host
        && !is_local(host)
    {
        return Err(format!(
            "a server on loopback is addressed as localhost or by IP address, got {host:?}"
        ));
    }
    match text(header::ORIGIN) {
        Some(origin) if host.is_none() || origin.strip_prefix("http://") != host => Err(format!(
            "a server on loopback takes no requests of web pages, got one of {origin:?}"
        )),
        _ => Ok(()),
    }
}

/// `localhost`, or an IP address, with or without a port.
fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn programs_are_taken_and_foreign_pages_are_not() {
        let taken = |host: &'static str, origin: &'static str| {
            let given = [(header::HOST, host), (header::ORIGIN, origin)];
            let given = given.into_iter().filter(|(_, value)| !value.is_empty());
            let headers = given.map(|(name, value)| (name, HeaderValue::from_static(value)));
            check(&Uri::from_static("/api/v1/collections"), &headers.collect()).is_ok()
        };
        for host in [
            "",
            "127.0.0.1:7700",
            "127.0.0.1",
            "[::1]:7700",
            "localhost:7700",
            "LOCALHOST",
        ] {
            assert!(taken(host, ""), "{host}");
        }
        assert!(taken("localhost:7700", "http://localhost:7700"));
        for host in [
            "evil.example:7700",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "a b",
            "?",
        ] {
            assert!(!taken(host, ""), "{host}");
        }
        for origin in ["https://evil.example", "http://localhost:3000", "null"] {
            assert!(!taken("localhost:7700", origin), "{origin}");
        }
        assert!(
            check(
                &Uri::from_static("http://evil.example/cairn.v1.Points/Get"),
                &HeaderMap::new()
            )
            .is_err()
        );
    }
}

//! One JSON request over HTTP/1.1, for the demo: what any program without a client library would send.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::Failure;

/// Posts `body` to `path` and gives back the answer; anything but 200 is a failure that shows the server's words.
pub(super) async fn post(to: SocketAddr, path: &str, body: &Value) -> Result<Value, Failure> {
    let failed = |what: &str, e: &dyn std::fmt::Display| Failure::new(format!("POST http://{to}{path}: {what}: {e}"));
    let stream = TcpStream::connect(to).await.map_err(|e| failed("connect", &e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| failed("handshake", &e))?;
    let driver = tokio::spawn(connection);
    let request = Request::post(path)
        .header(header::HOST, to.to_string())
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|e| failed("request", &e))?;
    let response = sender.send_request(request).await.map_err(|e| failed("send", &e))?;
    let status = response.status();
    let bytes = response
        .into_body()
        .collect()
        .await
        .map_err(|e| failed("answer", &e))?
        .to_bytes();
    drop(sender);
    driver.abort();
    if !status.is_success() {
        return Err(failed(status.as_str(), &String::from_utf8_lossy(&bytes)));
    }
    serde_json::from_slice(&bytes).map_err(|e| failed("answer is no JSON", &e))
}

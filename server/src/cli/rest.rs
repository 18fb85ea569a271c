//! JSON requests over one HTTP/1.1 connection: what any program without a client library would send. The demo shows it, and
//! `cairn eval` sends queries that people write as JSON.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::Failure;

/// A server, and the connection to it once there was a request. Requests are sent one after the other.
pub(super) struct Rest {
    host: String,
    timeout: Duration,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Rest {
    /// Nothing is sent yet. `url` is that of the command line: scheme, host and port.
    pub(super) fn new(url: &str, timeout: Duration) -> Result<Self, Failure> {
        let uri: Uri = url
            .parse()
            .map_err(|e| Failure::usage(format!("{url:?} is no URL: {e}")))?;
        let host = match (uri.scheme_str(), uri.host()) {
            (Some("http"), Some(host)) => format!("{host}:{}", uri.port_u16().unwrap_or(80)),
            _ => return Err(Failure::usage(format!("a URL is http://host:port, got {url:?}"))),
        };
        Ok(Self {
            host,
            timeout,
            sender: None,
        })
    }

    /// Posts `body` to `path` and gives back the answer; anything but 200 is a failure that shows the server's words.
    pub(super) async fn post(&mut self, path: &str, body: &Value) -> Result<Value, Failure> {
        let (host, timeout) = (self.host.clone(), self.timeout);
        let answered = tokio::time::timeout(timeout, self.exchange(path, body)).await;
        answered.unwrap_or_else(|_| {
            let ms = timeout.as_millis();
            Err(Failure::new(format!(
                "POST http://{host}{path}: no answer within {ms} ms"
            )))
        })
    }

    async fn exchange(&mut self, path: &str, body: &Value) -> Result<Value, Failure> {
        let host = self.host.clone();
        let failed =
            |what: &str, e: &dyn std::fmt::Display| Failure::new(format!("POST http://{host}{path}: {what}: {e}"));
        let request = Request::post(path)
            .header(header::HOST, &host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|e| failed("request", &e))?;
        let sender = self.connected().await?;
        let response = sender.send_request(request).await.map_err(|e| failed("send", &e))?;
        let status = response.status();
        let bytes = response.into_body().collect().await;
        let bytes = bytes.map_err(|e| failed("answer", &e))?.to_bytes();
        if !status.is_success() {
            return Err(failed(status.as_str(), &String::from_utf8_lossy(&bytes)));
        }
        serde_json::from_slice(&bytes).map_err(|e| failed("answer is no JSON", &e))
    }

    /// The open connection, or a new one if there is none or the server has closed it.
    async fn connected(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, Failure> {
        if let Some(sender) = &mut self.sender
            && sender.ready().await.is_err()
        {
            self.sender = None;
        }
        if self.sender.is_none() {
            let stream = TcpStream::connect(&self.host)
                .await
                .map_err(|e| Failure::unreachable(&format!("{}: {e}", self.host)))?;
            // A request is one small write, which must not wait for the answer to the one before.
            let _ = stream.set_nodelay(true);
            let (sender, connection) = handshake(TokioIo::new(stream))
                .await
                .map_err(|e| Failure::unreachable(&format!("{}: {e}", self.host)))?;
            // Ends when the sender is dropped.
            tokio::spawn(connection);
            self.sender = Some(sender);
        }
        self.sender
            .as_mut()
            .ok_or_else(|| Failure::new("there is no connection"))
    }
}

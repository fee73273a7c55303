//! As much of an HTTP client as the story needs.

use std::net::SocketAddr;

use nodestorage::error::BoxError;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) struct Client {
    pub(crate) server: SocketAddr,
}

impl Client {
    pub(crate) async fn get(&self, path: &str) -> Result<(u16, Value), BoxError> {
        self.send(&format!("GET {path} HTTP/1.1"), "").await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        body: &Value,
        key: Option<&str>,
    ) -> Result<(u16, Value), BoxError> {
        let key = key.map_or(String::new(), |key| format!("\r\nIdempotency-Key: {key}"));
        let head = format!("POST {path} HTTP/1.1\r\nContent-Type: application/json{key}");
        self.send(&head, &body.to_string()).await
    }

    async fn send(&self, head: &str, body: &str) -> Result<(u16, Value), BoxError> {
        let mut stream = TcpStream::connect(self.server).await?;
        let length = body.len();
        let request = format!(
            "{head}\r\nHost: chat\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("half an answer")?;
        let status = head.split(' ').nth(1).ok_or("no status")?;
        Ok((status.parse()?, serde_json::from_str(body)?))
    }
}

//! Reading and writing objects as plain JSON, for the few things that the master itself makes.

use anyhow::{Context as _, Result};
use http::{Method, Request};
use kube::Client;
use serde_json::Value;

/// The JSON of one object's path, or `None` when it does not exist.
pub async fn get(client: &Client, path: &str) -> Result<Option<Value>> {
    match send(client, Method::GET, path, None).await {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error).with_context(|| format!("GET {path}")),
    }
}

/// Creates an object below a collection's path. `false` when its name is taken.
pub async fn create(client: &Client, path: &str, object: &Value) -> Result<bool> {
    match send(client, Method::POST, path, Some(object)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(false),
        Err(error) => Err(error).with_context(|| format!("POST {path}")),
    }
}

pub async fn replace(client: &Client, path: &str, object: &Value) -> Result<()> {
    let replaced = send(client, Method::PUT, path, Some(object)).await;
    replaced.map(drop).with_context(|| format!("PUT {path}"))
}

/// `false` when there was nothing to delete.
pub async fn delete(client: &Client, path: &str) -> Result<bool> {
    match send(client, Method::DELETE, path, None).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error).with_context(|| format!("DELETE {path}")),
    }
}

async fn send(client: &Client, method: Method, path: &str, body: Option<&Value>) -> Result<Value, kube::Error> {
    let body = body.map(serde_json::to_vec).transpose().map_err(kube::Error::SerdeError)?.unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::ACCEPT, "application/json")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(kube::Error::HttpError)?;
    client.request(request).await
}

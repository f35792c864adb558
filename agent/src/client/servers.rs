//! The API servers of one cluster: any of them serves.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::ClientConfig;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::connector::{ConnectError, Server, ServerError};
use super::race::{Attempt, race};

/// How long a server that does not answer holds up the next one.
const HEAD_START: Duration = Duration::from_secs(1);

/// One API server or several; never none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Servers {
    first: Server,
    others: Vec<Server>,
}

impl Servers {
    /// The one that is asked first.
    #[must_use]
    pub fn first(&self) -> &Server {
        &self.first
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Server> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// As `node.yaml` has it.
    #[must_use]
    pub fn urls(&self) -> String {
        self.iter().map(|server| format!("https://{server}")).collect::<Vec<_>>().join(",")
    }
}

impl Serialize for Servers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.urls())
    }
}

impl<'de> Deserialize<'de> for Servers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl From<Server> for Servers {
    fn from(first: Server) -> Self {
        Self { first, others: Vec::new() }
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Servers {
    type Err = ServerError;

    /// Addresses as [`Server`] takes them, with commas in between.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = text.split(',').map(|one| one.trim().parse::<Server>());
        let first = all.next().unwrap_or_else(|| text.parse())?;
        Ok(Self { first, others: all.collect::<Result<_, _>>()? })
    }
}

/// Connects to whichever answers, beginning with the one that did last.
#[derive(Debug, Clone)]
pub(super) struct Failover {
    servers: Servers,
    /// The place of the one that answered last.
    last: Arc<AtomicUsize>,
}

impl Failover {
    pub(super) fn new(servers: Servers) -> Self {
        Self { servers, last: Arc::default() }
    }

    pub(super) async fn connect(&self, config: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, ConnectError> {
        let last = self.last.load(Ordering::Relaxed);
        let places = self.servers.iter().enumerate();
        let (before, from) = places.partition::<Vec<_>, _>(|(place, _)| *place < last);
        let attempts = from.into_iter().chain(before).map(|(place, server)| -> Attempt<'_, _, _> {
            Box::pin(async move { Ok((place, server.connect(Arc::clone(config)).await?)) })
        });
        let (place, stream) = race(attempts.collect(), HEAD_START)
            .await
            .unwrap_or_else(|| Err(ConnectError::Timeout(self.servers.first.clone())))?;
        if self.last.swap(place, Ordering::Relaxed) != place
            && let Some(server) = self.servers.iter().nth(place)
        {
            tracing::info!(%server, "another API server of the cluster is used from now on");
        }
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_they_are_written() {
        let servers: Servers = "10.0.0.1, https://[fd00::1]:8443/,m.example:443".parse().unwrap();
        assert_eq!(servers.to_string(), "10.0.0.1:6443,[fd00::1]:8443,m.example:443");
        assert_eq!(servers.urls().parse::<Servers>().unwrap(), servers);
        assert_eq!(servers.first().to_string(), "10.0.0.1:6443");
        for text in ["", ",", "10.0.0.1,", "10.0.0.1,user@host"] {
            assert!(text.parse::<Servers>().is_err(), "{text:?}");
        }
    }
}

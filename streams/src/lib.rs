//! The streaming protocols behind `kubectl exec`, `attach` and `port-forward`.
//!
//! Clients of today speak WebSocket (`v5.channel.k8s.io`, KEP-4006), older ones SPDY/3.1; container runtimes serve SPDY/3.1. The API
//! server turns the first into the second ([`bridge`]), so that what reaches a node is SPDY whoever asked.
//!
//! | file | does |
//! |---|---|
//! | `spdy/frame` | SPDY/3.1 frames, bytes in and out, pure |
//! | `spdy/headers` | header blocks with their shared compression state |
//! | `spdy/connection` | one connection and its streams, as a client |
//! | `upgrade` | asking a server to switch protocols |
//! | `websocket` | accepting a WebSocket and choosing its subprotocol |
//! | `connections` | a server's connections: how many, and for how long they may be idle |
//! | `listen` | listening at a port, for both families of addresses |
//! | `bridge` | WebSocket channels <-> SPDY streams; SPDY tunnelled through a WebSocket |

pub mod bridge;
pub mod connections;
pub mod listen;
pub mod spdy;
pub mod upgrade;
pub mod websocket;

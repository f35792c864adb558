//! What can go wrong, with the namespace, link or route that it went wrong for.

use std::io;
use std::path::PathBuf;

use crate::socket::Failure;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation on the network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A namespace could not be opened, created, entered or removed.
    #[error("{action} network namespace {path:?}")]
    Namespace {
        /// What was tried.
        action: &'static str,
        /// The namespace's path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The path exists but is not a network namespace.
    #[error("{0:?} is not a network namespace")]
    NotANamespace(PathBuf),
    /// A netlink socket could not be opened.
    #[error("open netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel refused a request.
    #[error("{action} {subject}")]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// The link, address or route.
        subject: String,
        /// Why it was refused.
        source: io::Error,
    },
    /// No netlink answer, or one that is none.
    #[error("{action} {subject}: {reason}")]
    Protocol {
        /// What was tried.
        action: &'static str,
        /// The link, address or route.
        subject: String,
        /// What was wrong with the answer.
        reason: String,
    },
    /// No link of this name.
    #[error("link {0:?} does not exist")]
    NoSuchLink(String),
    /// A link of this name exists, but it is not what is needed.
    #[error("link {name:?} exists but is not a {wanted}")]
    WrongLinkKind {
        /// The link.
        name: String,
        /// The kind that was needed.
        wanted: &'static str,
    },
    /// A sysctl could not be read or written.
    #[error("sysctl {key}")]
    Sysctl {
        /// The key, with slashes.
        key: String,
        /// Why it failed.
        source: io::Error,
    },
    /// An nftables transaction or dump failed.
    #[error("nftables {action} {subject}")]
    Nft {
        /// What was tried.
        action: &'static str,
        /// The table or set.
        subject: String,
        /// Why it was refused.
        source: nlink::Error,
    },
    /// The ruleset was changed by someone else between the read and the commit: read again, then try again.
    #[error("nftables ruleset changed meanwhile")]
    NftConflict,
    /// Connection tracking entries could not be listed or deleted.
    #[error("conntrack {action}")]
    Conntrack {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: nlink::Error,
    },
    /// The helper thread that enters a namespace could not be started, or died.
    #[error("namespace thread")]
    Thread(#[source] io::Error),
}

impl Error {
    /// Whether the kernel said that the thing does not exist.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NoSuchLink(_) => true,
            Self::Namespace { source, .. } | Self::Kernel { source, .. } | Self::Sysctl { source, .. } => {
                source.kind() == io::ErrorKind::NotFound
                    || [nix::libc::ENODEV, nix::libc::ESRCH, nix::libc::EADDRNOTAVAIL]
                        .map(Some)
                        .contains(&source.raw_os_error())
            }
            Self::Nft { source, .. } => source.is_not_found(),
            _ => false,
        }
    }

    /// Whether the kernel said that the thing exists already.
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::Kernel { source, .. } if source.kind() == io::ErrorKind::AlreadyExists)
    }

    /// Wraps what came of `action` on `subject` in an rtnetlink conversation.
    pub(crate) fn netlink(action: &'static str, subject: impl ToString, failure: Failure) -> Self {
        let subject = subject.to_string();
        let reason = match failure {
            Failure::Refused(errno) => {
                return Self::Kernel { action, subject, source: io::Error::from_raw_os_error(errno) };
            }
            Failure::Socket(error) => error.to_string(),
            Failure::Torn => "it changed each time it was read".to_owned(),
        };
        Self::Protocol { action, subject, reason }
    }

    /// Wraps what nlink reported about `action` on `subject`.
    pub(crate) fn nft(action: &'static str, subject: impl ToString, source: nlink::Error) -> Self {
        if source.is_restart() {
            return Self::NftConflict;
        }
        Self::Nft { action, subject: subject.to_string(), source }
    }
}

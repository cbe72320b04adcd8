//! What the proxy asks the node: names and reach.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use thiserror::Error;

/// A boxed answer to [`Resolve::resolve`].
pub type Resolving<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, ResolveError>> + Send + 'a>>;

/// The overlay's names and the addresses that belong to it.
///
/// The proxy and the forwards decide with it where a connection may go: nothing outside the overlay
/// is ever dialled, and no name is handed to the host's resolver.
pub trait Resolve: Send + Sync + 'static {
    /// Finds the overlay addresses of `name` (no trailing dot needed, any case), best first.
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a>;

    /// Whether `address` lies in the overlay and may be dialled.
    fn reaches(&self, address: IpAddr) -> bool;
}

/// Why a name has no overlay address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ResolveError {
    /// The name belongs to the overlay, and nothing bears it.
    #[error("no device or service has this name")]
    NotFound,
    /// The name does not belong to the overlay.
    #[error("the name is outside the private network")]
    Outside,
    /// The answer could not be had now.
    #[error("the name could not be resolved now")]
    Unavailable,
}

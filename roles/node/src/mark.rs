//! The mark on everything that goes underneath.

use std::{io, os::fd::AsFd};

use socket2::{Domain, SockRef, Socket, Type};
use tracing::debug;

/// A firewall mark, by which the host's rules tell what belongs underneath from what belongs into a
/// tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark(Option<u32>);

impl Mark {
    /// The mark, 0 for none, if this process may set one.
    pub(crate) fn permitted(mark: u32) -> Self {
        let wanted = Self(Some(mark).filter(|mark| *mark != 0));
        // Asking for the capability would not do: it has to be held over this network namespace.
        let tried =
            Socket::new(Domain::IPV4, Type::DGRAM, None).and_then(|one| wanted.put_on(&one));
        match tried {
            Ok(()) => wanted,
            Err(error) => {
                debug!(%error, "what goes underneath has no mark");
                Self(None)
            }
        }
    }

    /// Marks all that a socket sends from now on.
    pub(crate) fn put_on(self, socket: &impl AsFd) -> io::Result<()> {
        match self.0 {
            Some(mark) => SockRef::from(socket).set_mark(mark),
            None => Ok(()),
        }
    }

    /// The number, if there is a mark.
    pub(crate) fn number(self) -> Option<u32> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use platform::process::may_administer_network;

    #[test]
    fn a_mark_is_set_where_that_is_allowed_and_left_out_elsewhere() {
        let mark = Mark::permitted(0x53);
        assert!(mark.number().is_some() || !may_administer_network());
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        mark.put_on(&socket).expect("it is permitted");
        let found = SockRef::from(&socket).mark().expect("anybody may read it");
        assert_eq!(found, mark.number().unwrap_or(0));
        assert_eq!(Mark::permitted(0), Mark::default());
    }
}

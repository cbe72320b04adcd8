//! What the crate promises, through its public interface.

#[cfg(test)]
mod invites;
#[cfg(test)]
mod membership;
#[cfg(test)]
mod names_and_addresses;
#[cfg(test)]
mod records;
#[cfg(test)]
mod revocation;
#[cfg(test)]
mod statements;
#[cfg(test)]
mod world;

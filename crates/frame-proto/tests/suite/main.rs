//! What the crate promises, through its public interface.

#[cfg(test)]
mod ends;
#[cfg(test)]
mod header;
#[cfg(test)]
mod hop;
#[cfg(test)]
mod offload;
#[cfg(test)]
mod session;

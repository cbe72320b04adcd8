//! Keys, ids, delegations, certificates, bindings, revocation, signed records, addresses and invites.

#![forbid(unsafe_code)]

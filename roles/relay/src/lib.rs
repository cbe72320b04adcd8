//! The relay: WebSocket listener and STUN around the relay machine.

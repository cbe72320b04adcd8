//! WebSocket over TCP and TLS: dialling, listening and pinning.

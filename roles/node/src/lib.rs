//! The node: event loop, data threads and local API around the engine.

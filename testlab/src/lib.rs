//! Simulator, namespace lab and interoperability peers.

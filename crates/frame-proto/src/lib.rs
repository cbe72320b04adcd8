//! ShadowMesh frames: codec, end-to-end sealing and hop protection.

#![forbid(unsafe_code)]

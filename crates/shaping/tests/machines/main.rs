//! Presets, and machines that mean no good, on a virtual clock.

mod hostile;
mod link;
mod presets;
mod random;

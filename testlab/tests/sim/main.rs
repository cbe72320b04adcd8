//! Whole networks on a virtual clock.

mod clocks;
mod hostile;
mod outages;
mod paths;
mod plain;
mod records;
mod surroundings;
mod world;

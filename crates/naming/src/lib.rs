//! Private names: zone answers and query routing.

#![forbid(unsafe_code)]

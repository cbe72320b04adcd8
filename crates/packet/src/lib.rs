//! Views of IP, TCP, UDP and ICMP packets, checksums, segmentation and coalescing.

#![forbid(unsafe_code)]

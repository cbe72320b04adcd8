//! Whole networks on a virtual clock.

mod batches;
mod censors;
mod circuits;
mod clocks;
mod counting;
mod crossing;
mod fronts;
mod homes;
mod hostile;
mod openings;
mod outages;
mod packet_sizes;
mod paths;
mod plain;
mod quality;
mod reasons;
mod records;
mod scatter;
mod streams_only;
mod surroundings;
mod turn;
mod udp_relays;
mod winners;
mod world;

//! Load for a relay, ours, iroh's or a TURN server, and what is seen of it at the ends.
//!
//! All kinds get the same load by the same code: one connection that sends and one that receives for each pair, the same TCP, TLS and
//! WebSocket library with the same settings where they speak it, and the same sockets for UDP, frames made one by one and written in batches of the same
//! size, and one runtime on whatever processors this process may use. They differ in the handshake and in what is around a payload: `member` speaks as
//! the program's own client does, by its own machine, and `circuit` asks it for circuits over UDP; `iroh` is as much of iroh-relay's protocol as sending
//! and receiving takes; `turn` is the program's own client of TURN servers, with an allocation at each end.
//!
//! - `relay_load serve ADDRESS tcp|tls|udp` is the relay role with one network and its limits as shipped.
//! - `relay_load rate ours|iroh|turn ADDRESS tcp|tls|udp PROCESS PAIRS BYTES` looks for the highest rate at which hardly a frame is lost, and prints
//!   what it saw of it as JSON; `PROCESS` is the relay, of which processor time is read.
//! - `relay_load bulk`, with the same, prints what the relay carries when each sender has so much under way as a TCP flow may have.
//! - `relay_load idle ours|iroh|turn ADDRESS tcp|tls|udp FROM TO` makes the connections from one number to before another, joins pairs, says `connected` and stays.
//!
//! `make bench TABLES=relay` runs all of them.

#![forbid(unsafe_code)]

mod bulk;
mod circuit;
mod datagrams;
mod iroh;
mod member;
mod peer;
mod rate;
mod turn;
mod web;
mod wire;

use std::io::Write;
use std::net::SocketAddr;
use std::ops::Range;

use relay::{Relay, RelayConfig};
use tokio::task::JoinSet;
use websocket::{Listener, ServerCertificate, generate_key};

use crate::peer::{Kind, Peer};
use crate::wire::{Target, Way};

/// Handshakes at a time: fewer than strangers have room at a relay.
const AT_A_TIME: usize = 64;

#[tokio::main]
async fn main() {
    // As the program does that is measured.
    let _ = platform::process::raise_open_files();
    platform::process::keep_freed_memory();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["serve", address, way] => serve(address.parse().expect("an address"), way.into()).await,
        ["rate", kind, address, way, process, pairs, bytes] => {
            let (pairs, bytes) = (number(pairs), number(bytes));
            let target = Target::new(address, way.into());
            let peers = connect(kind.into(), &target, 0..2 * pairs).await;
            say(&rate::highest(peers, bytes, process).await.to_string());
        }
        ["bulk", kind, address, way, process, pairs, bytes] => {
            let (pairs, bytes) = (number(pairs), number(bytes));
            let target = Target::new(address, way.into());
            let peers = connect(kind.into(), &target, 0..2 * pairs).await;
            say(&bulk::carried(peers, bytes, process).await.to_string());
        }
        ["idle", kind, address, way, from, to] => {
            let target = Target::new(address, way.into());
            let mut peers = connect(kind.into(), &target, number(from)..number(to)).await;
            for pair in peers.chunks_exact_mut(2) {
                let [one, other] = pair else { continue };
                Peer::join(one, other).await;
            }
            let _staying: Vec<_> =
                peers.into_iter().map(|peer| tokio::spawn(peer.idle())).collect();
            say("connected");
            std::future::pending().await
        }
        _ => panic!("relay_load serve|rate|bulk|idle, with what `make bench` gives them"),
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

fn say(text: &str) {
    writeln!(std::io::stdout(), "{text}").expect("standard output is open");
}

/// A relay of this program in a process of its own.
async fn serve(address: SocketAddr, way: Way) {
    let certificate = (way == Way::Tls).then(|| {
        ServerCertificate::self_signed(&generate_key(), vec!["localhost".to_owned()])
            .expect("a good name")
    });
    let listener = Listener::bind(address, certificate).await.expect("a free port");
    let stun = (way == Way::Udp).then_some(address).into_iter().collect();
    let relay = Relay::start(RelayConfig { stun, ..RelayConfig::default() }).expect("a free port");
    relay.add_network(member::network().served());
    relay.listen(listener);
    say("listening");
    std::future::pending().await
}

/// Connections of these numbers, in order.
async fn connect(kind: Kind, target: &Target, numbers: Range<usize>) -> Vec<Peer> {
    let (mut peers, mut running) = (Vec::new(), JoinSet::new());
    for index in numbers {
        if running.len() == AT_A_TIME {
            peers.extend(running.join_next().await.map(|peer| peer.expect("it connects")));
        }
        let target = target.clone();
        running.spawn(async move { (index, Peer::connect(kind, &target, index).await) });
    }
    while let Some(peer) = running.join_next().await {
        peers.push(peer.expect("it connects"));
    }
    peers.sort_by_key(|(index, _)| *index);
    peers.into_iter().map(|(_, peer)| peer).collect()
}

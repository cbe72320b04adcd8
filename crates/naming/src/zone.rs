//! What one network has to say about names and addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::NameError;
use crate::label::{parse_label, parse_relative};
use crate::reverse::Block;

/// The top-level name of everything here (RFC 9476).
pub(crate) const TOP: &str = "alt";

/// The names of one network.
///
/// Add devices first: an address keeps the first name that it gets for the way back.
#[derive(Debug, Clone)]
pub struct Zone {
    network: String,
    blocks: Vec<Block>,
    /// Addresses by labels from the top down, so that what lies below a name follows it.
    hosts: BTreeMap<Vec<String>, Vec<IpAddr>>,
    names: BTreeMap<IpAddr, Vec<String>>,
}

/// What a name inside the private name space stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// These addresses, IPv6 first.
    Addresses(Vec<IpAddr>),
    /// It is under `.alt` and nobody bears it.
    NoSuchName,
    /// It is not under `.alt`.
    Outside,
}

/// What exists at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node<'a> {
    /// The zone itself.
    Apex,
    /// A name with addresses.
    Host(&'a [IpAddr]),
    /// A name without anything that has names below it (RFC 4592 section 2.2.2).
    Empty,
    /// Nothing at all.
    Missing,
}

/// What exists at a reverse name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReverseNode<'a> {
    Apex,
    /// The labels of the name, from the top down.
    Pointer(&'a [String]),
    Empty,
    Missing,
}

impl Zone {
    /// The empty zone `<network>.alt`.
    pub fn new(network: &str) -> Result<Self, NameError> {
        Ok(Self {
            network: parse_label(network)?,
            blocks: Vec::new(),
            hosts: BTreeMap::new(),
            names: BTreeMap::new(),
        })
    }

    /// Takes charge of the way back from the addresses of a prefix.
    pub fn add_prefix(&mut self, address: IpAddr, length: u8) -> Result<(), NameError> {
        self.blocks.push(Block::of_prefix(address, length).ok_or(NameError::Prefix)?);
        Ok(())
    }

    /// Gives `name` these addresses besides those that it has. The name may be of several labels,
    /// and may be written with or without `.<network>.alt`.
    pub fn add_host(&mut self, name: &str, addresses: &[IpAddr]) -> Result<(), NameError> {
        let labels = parse_relative(self.relative(name))?;
        for &address in addresses {
            self.names.entry(address).or_insert_with(|| labels.clone());
        }
        let host = self.hosts.entry(labels).or_default();
        host.extend_from_slice(addresses);
        host.sort_by_key(|address| (address.is_ipv4(), *address));
        host.dedup();
        Ok(())
    }

    /// The network's name.
    #[must_use]
    pub fn network(&self) -> &str {
        &self.network
    }

    fn relative<'a>(&self, name: &'a str) -> &'a str {
        let name = name.trim_end_matches('.');
        let suffix_length = self.network.len() + TOP.len() + 2;
        let Some(split) = name.len().checked_sub(suffix_length) else { return name };
        match name.split_at_checked(split) {
            Some((relative, suffix))
                if suffix.eq_ignore_ascii_case(&format!(".{}.{TOP}", self.network)) =>
            {
                relative
            }
            Some(_) | None => name,
        }
    }

    /// Looks up labels below the zone, in lower case and from the top down.
    pub(crate) fn node(&self, labels: &[String]) -> Node<'_> {
        if labels.is_empty() {
            return Node::Apex;
        }
        if let Some(addresses) = self.hosts.get(labels) {
            return Node::Host(addresses);
        }
        let next = self.hosts.range(labels.to_vec()..).next();
        if next.is_some_and(|(name, _)| name.starts_with(labels)) {
            return Node::Empty;
        }
        Node::Missing
    }

    /// The prefix of this zone that `block` lies in.
    pub(crate) fn block_around(&self, block: &Block) -> Option<&Block> {
        self.blocks.iter().find(|own| own.contains(block))
    }

    pub(crate) fn reverse_node(&self, block: &Block) -> ReverseNode<'_> {
        if self.blocks.contains(block) {
            return ReverseNode::Apex;
        }
        if let Some(address) = block.address() {
            return self
                .names
                .get(&address)
                .map_or(ReverseNode::Missing, |labels| ReverseNode::Pointer(labels));
        }
        if self.names.keys().any(|&address| block.contains_address(address)) {
            return ReverseNode::Empty;
        }
        ReverseNode::Missing
    }
}

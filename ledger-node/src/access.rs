//! The one place where every call passes and where identity and role are decided.
//!
//! **What it is.** [`Access::decide`] says who calls and whether they may. For now a caller is known by the network it comes from:
//! trusted networks (loopback, unless configured) may do everything, all others nothing. Tokens and roles will be decided here.
//!
//! **Owns** that decision, for gRPC and HTTP alike. **Must never** be bypassed by a handler, or say *no* without saying why.
//! **Read next**: [`crate::grpc`], [`crate::http`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// What a call wants to do, as far as roles will tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Right {
    /// Read stock, reservations, the feed, routing.
    Read,
    /// Reserve, extend, confirm, release, fence, return, place; claims, reports and facts of workers too, until there are roles.
    Order,
    /// Products, offers, sales, receive, adjust, allot.
    Stock,
    /// The cluster itself.
    Operate,
    /// Readiness in detail, metrics, status.
    Observe,
    /// Whether the node lives and is ready: one word, for probes, which come from anywhere.
    Probe,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// For logs.
    pub name: &'static str,
}

/// The caller may not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "calls from {from} are refused: only trusted networks may call ({trusted}); hint: call from there, or set access.trusted on the node"
)]
pub struct Denied {
    from: IpAddr,
    trusted: String,
}

/// The rules of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    trusted: Vec<Network>,
}

impl Access {
    /// With these networks trusted.
    pub fn new(trusted: Vec<Network>) -> Self {
        Self { trusted }
    }

    /// Whether an address lies in a trusted network.
    pub fn trusts(&self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        self.trusted.iter().any(|network| network.contains(from))
    }

    /// Whether a peer may do something, and who it is.
    ///
    /// # Errors
    /// [`Denied`], with what would help.
    pub fn decide(&self, peer: SocketAddr, right: Right) -> Result<Identity, Denied> {
        let from = peer.ip().to_canonical();
        if self.trusts(from) {
            return Ok(Identity { name: "trusted-network" });
        }
        if right == Right::Probe {
            return Ok(Identity { name: "probe" });
        }
        Err(Denied { from, trusted: self.named() })
    }

    /// Whether a peer may connect from an address at all; who it is, the handshake finds out.
    ///
    /// # Errors
    /// Why not, for this node's log, with what would help.
    pub fn decide_peer(&self, from: SocketAddr) -> Result<(), String> {
        let address = from.ip().to_canonical();
        if self.trusted.iter().any(|network| network.contains(address)) {
            return Ok(());
        }
        Err(format!("only trusted networks may connect ({}); hint: set access.trusted on this node", self.named()))
    }

    fn named(&self) -> String {
        self.trusted.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

/// A range of addresses, as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The loopback networks.
    pub fn loopback() -> Vec<Self> {
        vec![
            Self { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 },
            Self { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
        ]
    }

    /// Several, separated by commas.
    ///
    /// # Errors
    /// What is allowed.
    pub fn list(text: &str) -> Result<Vec<Self>, String> {
        text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::parse).collect()
    }

    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, bits: u32| {
            let drop = bits - u32::from(self.prefix);
            drop == bits || a >> drop == b >> drop
        };
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => same(u32::from(net).into(), u32::from(ip).into(), 32),
            (IpAddr::V6(net), IpAddr::V6(ip)) => same(net.into(), ip.into(), 128),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let what =
            || format!("{text:?} is no network; write it as 10.0.0.0/8 or fd00::/8, several with commas between");
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| what())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), |prefix| prefix.parse().map_err(|_| what()))?;
        if prefix > longest {
            return Err(what());
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().expect("an address"), 4_000)
    }

    #[test]
    fn loopback_is_trusted_and_nothing_else_is() {
        let access = Access::new(Network::loopback());
        for ok in ["127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1"] {
            assert!(access.decide(peer(ok), Right::Order).is_ok(), "{ok}");
            assert_eq!(access.decide_peer(peer(ok)), Ok(()), "{ok}");
        }
        for no in ["10.0.0.1", "128.0.0.1", "::2", "192.168.0.1", "::ffff:10.0.0.1"] {
            let denied = access.decide(peer(no), Right::Order).expect_err(no);
            assert!(denied.to_string().contains("access.trusted"), "{denied}");
            let closed = access.decide_peer(peer(no)).expect_err(no);
            assert!(closed.contains("127.0.0.0/8") && closed.contains("access.trusted"), "{closed}");
            assert!(access.decide(peer(no), Right::Probe).is_ok(), "probes come from anywhere");
        }
    }

    #[test]
    fn networks_are_read_as_people_write_them() {
        let nets = Network::list("10.0.0.0/8, fd00::/8,192.168.1.7").expect("three networks");
        assert!(nets[0].contains("10.200.3.4".parse().expect("an address")));
        assert!(!nets[0].contains("11.0.0.1".parse().expect("an address")));
        assert!(nets[1].contains("fdab::1".parse().expect("an address")));
        assert_eq!(nets[2].to_string(), "192.168.1.7/32");
        assert!("0.0.0.0/0".parse::<Network>().expect("everything").contains("8.8.8.8".parse().expect("an address")));
        for bad in ["10.0.0.0/33", "ten/8", "10.0.0.0/-1", "/"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}

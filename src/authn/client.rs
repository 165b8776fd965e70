//! The client address of a password, as the throttle counts it.
//!
//! The one rule: it is an IPv4 address or an IPv6 network of 64 bits (NIST SP 800-63B, 5.2.2, asks for limits of that
//! kind), together with the web origin of the page that sent the request, where the page belongs to another site. So a
//! hostile page in a browser spends its own allowance, never that of the people behind the same address.

use std::net::IpAddr;

use fedgate_core::network::client_network;

/// The client address of a request: its address, and the page of another site that sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientAddress {
    ip: Option<IpAddr>,
    page: SendingPage,
}

/// Whether the configuration names a foreign origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignOrigin {
    /// The configuration names it, for example a portal.
    Named,
    /// The configuration does not name it.
    Unnamed,
}

/// The page that sent a request. Origins are stored as hashes, so that a client cannot choose how much memory they
/// take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum SendingPage {
    /// A page of the gateway's own origin, or no page: programs send no `Origin`.
    #[default]
    Own,
    /// A page of a foreign origin that the configuration names.
    Named(u64),
    /// A page of another foreign origin.
    Foreign(u64),
    /// All pages of unnamed foreign origins together; they share one allowance.
    AnyForeign,
}

impl From<Option<IpAddr>> for ClientAddress {
    fn from(ip: Option<IpAddr>) -> Self {
        Self { ip, page: SendingPage::Own }
    }
}

impl ClientAddress {
    /// The same address, for a request that a page of a foreign `origin` sent.
    #[must_use]
    pub fn on_page_of(self, origin: &[u8], named: ForeignOrigin) -> Self {
        // A hash has a fixed size, and the client chooses the length of an origin.
        let hash = short_hash(&[origin]);
        let page = match named {
            ForeignOrigin::Named => SendingPage::Named(hash),
            ForeignOrigin::Unnamed => SendingPage::Foreign(hash),
        };
        Self { page, ..self }
    }

    /// The key of the throttle; none for a client without an address (on a Unix socket).
    pub(super) fn source(self) -> Option<ClientSource> {
        self.ip.map(|ip| ClientSource { network: client_network(ip), page: self.page })
    }
}

/// The size of a client address, or none, for another process.
pub(super) const SOURCE_BYTES: usize = 1 + 16 + 1 + 8;

/// A client address as a key of the throttle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ClientSource {
    network: IpAddr,
    page: SendingPage,
}

impl ClientSource {
    /// The key that all unnamed foreign origins at one address share, if this is one of them. An attacker can have any
    /// number of origins; without the shared key, each would bring its own allowance.
    pub(super) fn shared(self) -> Option<Self> {
        match self.page {
            SendingPage::Foreign(_) => Some(Self { page: SendingPage::AnyForeign, ..self }),
            SendingPage::Own | SendingPage::Named(_) | SendingPage::AnyForeign => None,
        }
    }

    /// The owner of hashing work: pages of unnamed origins count as one, as in [`ClientSource::shared`].
    pub(super) fn in_common(self) -> Self {
        self.shared().unwrap_or(self)
    }

    /// The address alone, without the page.
    pub(super) fn without_page(self) -> Self {
        Self { page: SendingPage::Own, ..self }
    }

    /// The IPv4 address or IPv6 network.
    pub(super) fn network(self) -> IpAddr {
        self.network
    }

    /// For another process: the kind of address, the address, the kind of page, and its origin.
    pub(super) fn to_bytes(source: Option<Self>) -> [u8; SOURCE_BYTES] {
        let (kind, address) = match source.map(|source| source.network) {
            None => (0, 0),
            Some(IpAddr::V4(address)) => (4, u128::from(u32::from(address))),
            Some(IpAddr::V6(address)) => (6, u128::from(address)),
        };
        let (page, origin) = match source.map(|source| source.page).unwrap_or_default() {
            SendingPage::Own => (0, 0),
            SendingPage::Named(origin) => (1, origin),
            SendingPage::Foreign(origin) => (2, origin),
            SendingPage::AnyForeign => (3, 0),
        };
        let mut bytes = [0; SOURCE_BYTES];
        let parts = [kind].into_iter().chain(address.to_le_bytes()).chain([page]).chain(origin.to_le_bytes());
        bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        bytes
    }

    /// What [`ClientSource::to_bytes`] made; none if it makes no such bytes.
    pub(super) fn from_bytes(bytes: &[u8; SOURCE_BYTES]) -> Option<Option<Self>> {
        let ([kind], rest) = bytes.split_first_chunk::<1>()?;
        let (address, rest) = rest.split_first_chunk::<16>()?;
        let ([page], origin) = rest.split_first_chunk::<1>()?;
        let address = u128::from_le_bytes(*address);
        let network = match kind {
            0 => None,
            4 => Some(IpAddr::from(u32::try_from(address).ok()?.to_be_bytes())),
            6 => Some(IpAddr::from(address.to_be_bytes())),
            _ => return None,
        };
        let origin = u64::from_le_bytes(origin.try_into().ok()?);
        let page = match page {
            0 => SendingPage::Own,
            1 => SendingPage::Named(origin),
            2 => SendingPage::Foreign(origin),
            3 => SendingPage::AnyForeign,
            _ => return None,
        };
        let source = network.map(|network| Self { network, page });
        // Each client address has one encoding, and is one that a request may have.
        let is_one = source.is_none_or(|source| client_network(source.network) == source.network);
        (is_one && Self::to_bytes(source) == *bytes).then_some(source)
    }

    /// A number that identifies the client address. For IPv6 it is the network; for IPv4 the address, within a range
    /// of IPv6 multicast, which never sends. For foreign pages it is a hash.
    pub(super) fn number(self) -> u64 {
        let number = match self.network {
            IpAddr::V4(address) => 0xffff_ffff << 32 | u64::from(u32::from(address)),
            IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
        };
        match self.page {
            SendingPage::Own => number,
            SendingPage::Named(origin) => short_hash(&[b"named", &number.to_le_bytes(), &origin.to_le_bytes()]),
            SendingPage::Foreign(origin) => short_hash(&[b"foreign", &number.to_le_bytes(), &origin.to_le_bytes()]),
            SendingPage::AnyForeign => short_hash(&[b"any", &number.to_le_bytes()]),
        }
    }
}

/// The first 64 bits of a BLAKE3 hash.
pub(super) fn short_hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    parts.iter().for_each(|part| {
        hasher.update(part);
    });
    u64::from_le_bytes(hasher.finalize().as_bytes().first_chunk().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_page_is_another_client_address_and_unnamed_ones_share_one_more() {
        let home = ClientAddress::from(Some([192, 0, 2, 1].into()));
        let pages = [
            home,
            home.on_page_of(b"https://a.example", ForeignOrigin::Unnamed),
            home.on_page_of(b"https://b.example", ForeignOrigin::Unnamed),
            home.on_page_of(b"https://a.example", ForeignOrigin::Named),
            home.on_page_of(b"https://b.example", ForeignOrigin::Named),
            ClientAddress::from(Some([192, 0, 2, 2].into())).on_page_of(b"https://a.example", ForeignOrigin::Unnamed),
        ]
        .map(|client| client.source().unwrap());
        let shared = pages.map(ClientSource::shared);
        assert_eq!([shared[0], shared[3], shared[4]], [None; 3], "named origins and programs share nothing");
        assert!(shared[1].is_some() && shared[1] == shared[2] && shared[1] != shared[5]);
        assert_eq!(shared[1].unwrap().shared(), None);
        let in_common = pages.map(ClientSource::in_common);
        assert_eq!((in_common[1], in_common[2]), (shared[1].unwrap(), shared[1].unwrap()));
        assert_eq!([in_common[0], in_common[3], in_common[4]], [pages[0], pages[3], pages[4]]);
        assert!(pages[..5].iter().all(|page| page.without_page() == pages[0]) && pages[5].without_page() != pages[0]);
        let all: Vec<ClientSource> = pages.into_iter().chain(shared[1]).collect();
        for (i, one) in all.iter().enumerate() {
            for (j, other) in all.iter().enumerate() {
                assert_eq!(one == other, i == j, "{i} {j}");
                assert_eq!(one.number() == other.number(), i == j, "{i} {j}");
            }
        }
        assert_eq!(ClientAddress::from(None).on_page_of(b"https://a.example", ForeignOrigin::Unnamed).source(), None);
        let network = ClientAddress::from(Some("2001:db8::1".parse().unwrap())).source();
        for source in all.into_iter().map(Some).chain([None, network]) {
            let bytes = ClientSource::to_bytes(source);
            assert_eq!(ClientSource::from_bytes(&bytes), Some(source));
            let others = (0..bytes.len()).map(|place| {
                let mut other = bytes;
                other[place] ^= 0x80;
                ClientSource::from_bytes(&other)
            });
            assert!(others.flatten().all(|other| other != source), "each has one encoding");
        }
    }
}

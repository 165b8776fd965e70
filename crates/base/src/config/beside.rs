//! The section `[beside]`: listeners for other proxies, which ask about the requests that they hold, and for services.
//!
//! The one rule: each listener is for one style of asking, and only those that the section names may ask.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::Deserialize;

use super::check::ValueCheck;
use super::error::ConfigError;
use super::section::section;
use super::tls::fingerprint;
use fedgate_core::admission::ProxyStyle;

/// The listeners for other proxies, and who may ask there.
#[derive(Debug, Clone, Default)]
pub struct BesideConfig {
    /// The listeners.
    pub listeners: Vec<BesideListen>,
    /// Listeners for services that ask by the Authorization API of AuthZEN.
    pub authzen: Vec<SocketAddr>,
    /// The proxies and services that may ask.
    pub askers: ProxyAskers,
}

/// A listener for the proxies of one style.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BesideListen {
    /// Its address.
    pub address: SocketAddr,
    /// The style of its proxies.
    pub style: ProxyStyle,
}

/// The proxies that may ask.
#[derive(Debug, Clone, Default)]
pub struct ProxyAskers {
    /// Their networks.
    pub networks: Vec<IpNet>,
    /// The SHA-256 fingerprints of their certificates. If there are any, the listeners speak TLS, and each proxy shows
    /// one of these.
    pub certificates: Vec<[u8; 32]>,
}

section!(BesideSection {
    nginx: Vec<String> = vec![],
    traefik: Vec<String> = vec![],
    caddy: Vec<String> = vec![],
    haproxy: Vec<String> = vec![],
    envoy: Vec<String> = vec![],
    authzen: Vec<String> = vec![],
    networks: Vec<String> = vec!["127.0.0.1".into(), "::1".into()],
    certificates: Vec<String> = vec![],
});

impl BesideConfig {
    /// The addresses of all listeners: those for proxies, then those for services.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.address).chain(self.authzen.iter().copied()).collect()
    }

    /// Whether the listeners speak TLS.
    pub fn has_tls(&self) -> bool {
        !self.addresses().is_empty() && !self.askers.certificates.is_empty()
    }
}

impl ProxyAskers {
    /// Whether a proxy at this address, with this certificate, may ask.
    pub fn may_ask(&self, address: Option<IpAddr>, certificate: Option<&[u8; 32]>) -> bool {
        let is_near = address.is_some_and(|address| {
            let address = address.to_canonical();
            self.networks.iter().any(|network| network.contains(&address))
        });
        let is_shown = || certificate.is_some_and(|shown| self.certificates.contains(shown));
        is_near && (self.certificates.is_empty() || is_shown())
    }
}

impl BesideSection {
    pub(super) fn check(self, check: &ValueCheck<'_>, asks_clients: bool) -> Result<BesideConfig, ConfigError> {
        let mut listeners = vec![];
        for style in ProxyStyle::ALL {
            let texts = match style {
                ProxyStyle::Nginx => &self.nginx,
                ProxyStyle::Traefik => &self.traefik,
                ProxyStyle::Caddy => &self.caddy,
                ProxyStyle::Haproxy => &self.haproxy,
                ProxyStyle::Envoy => &self.envoy,
            };
            let addresses = check.sockets(&format!("beside.{}", style.name()), texts)?;
            listeners.extend(addresses.into_iter().map(|address| BesideListen { address, style }));
        }
        let authzen = check.sockets("beside.authzen", &self.authzen)?;
        let network = |text: &String| {
            let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            let remedy = "write networks such as 10.20.0.0/16, or addresses such as ::1";
            network.map_err(|_| check.fault("beside.networks", format!("holds `{text}`"), remedy))
        };
        let networks = self.networks.iter().map(network).collect::<Result<Vec<_>, _>>()?;
        if networks.is_empty() && !(listeners.is_empty() && authzen.is_empty()) {
            let remedy = "name the addresses of the proxies that may ask, such as 127.0.0.1";
            return Err(check.fault("beside.networks", "is empty", remedy));
        }
        let certificate = |text: &String| {
            let remedy = "write the 64 hex digits of `openssl x509 -in FILE -noout -fingerprint -sha256`";
            fingerprint(text).ok_or_else(|| check.fault("beside.certificates", format!("holds `{text}`"), remedy))
        };
        let certificates = self.certificates.iter().map(certificate).collect::<Result<Vec<_>, _>>()?;
        // Without that, no proxy would be asked for its certificate.
        if !certificates.is_empty() && !asks_clients {
            let remedy = "set that to \"optional\" or \"required\", and name the proxies' authority in `tls.client_ca`";
            let problem = "names certificates, and `tls.client_certificates` is off";
            return Err(check.fault("beside.certificates", problem, remedy));
        }
        Ok(BesideConfig { listeners, authzen, askers: ProxyAskers { networks, certificates } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_may_ask_from_a_named_network_and_with_a_named_certificate_where_any_is_named() {
        let near = ProxyAskers { networks: vec!["10.0.0.0/8".parse().unwrap()], certificates: vec![] };
        let [inside, mapped, outside] =
            ["10.1.2.3", "::ffff:10.1.2.3", "192.0.2.1"].map(|text| text.parse::<IpAddr>().ok());
        assert!(near.may_ask(inside, None) && near.may_ask(mapped, None));
        assert!(!near.may_ask(outside, None) && !near.may_ask(None, None));
        let shown = ProxyAskers { certificates: vec![[1; 32]], ..near };
        assert!(shown.may_ask(inside, Some(&[1; 32])));
        assert!(!shown.may_ask(inside, None) && !shown.may_ask(inside, Some(&[2; 32])));
        assert!(!shown.may_ask(outside, Some(&[1; 32])));
        assert!(!ProxyAskers::default().may_ask(inside, None));
    }
}

//! Which addresses may be asked: not ones inside our own network, unless they are named.
//!
//! A URL comes from a partner; where it leads is checked twice. A literal address is checked before a client is handed
//! out, and a name is checked in the resolver, on the very addresses that are then connected to: a name that changes
//! between check and connect changes nothing.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// Why an address is not asked, or an entry is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// An address that nobody named.
    #[error(
        "`{host}` is at {ip}, {kind}; nothing was sent there. If that is right, the operator lists `{host}` or {ip} \
         among the hosts that may be asked"
    )]
    Refused {
        /// The host in the URL.
        host: String,
        /// Where it is.
        ip: IpAddr,
        /// What is wrong with that.
        kind: Kind,
    },
    /// An entry of the operator's list that is neither a host, an address nor a network.
    #[error("`{0}` is not a host name, an address or a network such as 10.0.0.0/8")]
    Entry(String),
}

/// What kind of place an address is (IANA special-purpose registries; RFC 6890).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anybody's, on the internet.
    Public,
    /// This machine.
    Loopback,
    /// A private network, carrier-grade NAT included.
    Private,
    /// Where no partner's connector ever is: link-local (cloud metadata), unspecified, multicast, reserved,
    /// documentation, and IPv4 in IPv6 clothes.
    Special,
}

impl Kind {
    /// What kind of place this is.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => Self::of_v6(ip),
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        match ip.octets() {
            [127, ..] => Self::Loopback,
            [10, ..] | [192, 168, ..] => Self::Private,
            [172, b, ..] if b & 0xf0 == 16 => Self::Private,
            [100, b, ..] if b & 0xc0 == 64 => Self::Private,
            // this network; link-local; IETF; 6to4 relay; documentation; benchmarks; multicast and above
            [0, ..] | [169, 254, ..] | [192, 0, 0 | 2, _] | [192, 88, 99, _] => Self::Special,
            [198, 51, 100, _] | [203, 0, 113, _] | [198, 18 | 19, ..] => Self::Special,
            [a, ..] if a >= 224 => Self::Special,
            _ => Self::Public,
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        match ip.segments() {
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Loopback,
            [a, ..] if a & 0xfe00 == 0xfc00 => Self::Private,
            // NAT64 (RFC 6052): as good as the address within
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
                match Self::of_v4(Ipv4Addr::new(a, b, c, d)) {
                    Self::Public => Self::Public,
                    _ => Self::Special,
                }
            }
            // Teredo, ORCHID and the like; documentation; 6to4
            [0x2001, b, ..] if b < 0x200 || b == 0xdb8 => Self::Special,
            [0x2002, ..] => Self::Special,
            [0x3fff, b, ..] if b < 0x1000 => Self::Special,
            [a, ..] if a & 0xe000 == 0x2000 => Self::Public,
            // ::, ::ffff:a.b.c.d, link-local, site-local, multicast, everything unassigned
            _ => Self::Special,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "a public address",
            Self::Loopback => "this machine itself",
            Self::Private => "a private address",
            Self::Special => "a link-local, reserved or disguised address",
        })
    }
}

/// The operator's list, and what one peer's statement names.
#[derive(Clone)]
pub struct AddressGuard {
    operator: Arc<[Entry]>,
    stated: Vec<Stated>,
    lookup: Arc<Lookup>,
}

/// How a name becomes addresses.
type Lookup = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// Wherever this name leads.
    Host(String),
    /// All addresses that agree with this one in so many leading bits.
    Network(IpAddr, u8),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stated {
    /// The literal address.
    Address(IpAddr),
    /// `localhost`, or a name below it (RFC 6761 §6.3).
    Localhost(String),
}

impl AddressGuard {
    /// A guard with the operator's list: host names, addresses, or networks in CIDR notation.
    pub fn new<I>(allowed: I) -> Result<Self, GuardError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let operator = allowed.into_iter().map(|entry| Entry::parse(entry.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { operator, ..Self::default() })
    }

    /// This guard with another way to resolve names than the system's.
    pub fn looking_up<F>(self, lookup: F) -> Self
    where
        F: Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync + 'static,
    {
        Self { lookup: Arc::new(lookup), ..self }
    }

    /// This guard for one peer, whose pinned statement has these endpoints. A literal loopback or private address in
    /// them is named; a *name* isn't excused: whoever pairs sees the name, not where it will lead.
    pub fn for_endpoints(&self, endpoints: &[String]) -> Self {
        let stated = endpoints
            .iter()
            .filter_map(|endpoint| Url::parse(endpoint).ok())
            .filter_map(|url| {
                let host = host(&url)?;
                match host.parse::<IpAddr>() {
                    Ok(ip) => Some(Stated::Address(ip)),
                    Err(_) if host == "localhost" || host.ends_with(".localhost") => Some(Stated::Localhost(host)),
                    Err(_) => None,
                }
            })
            .collect();
        Self { stated, ..self.clone() }
    }

    /// Whether `ip` may be asked under the name `host` (for a literal address, its text).
    pub fn allow(&self, host: &str, ip: IpAddr) -> Result<(), GuardError> {
        let kind = Kind::of(ip);
        let named = match kind {
            Kind::Public => true,
            Kind::Loopback => self.states(host, ip, true),
            Kind::Private => self.states(host, ip, false),
            // a statement can be replaced by a newer one without the operator: it can't name these
            Kind::Special => false,
        };
        if named || self.operator.iter().any(|entry| entry.matches(host, ip)) {
            return Ok(());
        }
        Err(GuardError::Refused { host: host.to_owned(), ip, kind })
    }

    /// Checks a URL's host where it is a literal address; a name is the resolver's to check.
    pub fn allow_literal(&self, url: &Url) -> Result<(), GuardError> {
        match host(url) {
            Some(host) => match host.parse() {
                Ok(ip) => self.allow(&host, ip),
                Err(_) => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// A resolver that gives only addresses which may be asked.
    pub fn resolver(self) -> GuardedResolver {
        GuardedResolver(Arc::new(self))
    }

    fn states(&self, host: &str, ip: IpAddr, loopback: bool) -> bool {
        self.stated.iter().any(|stated| match stated {
            Stated::Address(address) => *address == ip,
            Stated::Localhost(name) => loopback && name.eq_ignore_ascii_case(host),
        })
    }
}

impl Default for AddressGuard {
    fn default() -> Self {
        Self { operator: Arc::default(), stated: Vec::new(), lookup: Arc::new(|host| Box::pin(system_lookup(host))) }
    }
}

impl fmt::Debug for AddressGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressGuard").field("operator", &self.operator).field("stated", &self.stated).finish()
    }
}

impl Entry {
    fn parse(text: &str) -> Result<Self, GuardError> {
        let wrong = || GuardError::Entry(text.chars().take(100).collect());
        let text = text.trim();
        if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok(Self::Network(ip, bits(ip)));
        }
        if let Some((ip, prefix)) = text.split_once('/') {
            let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
            let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
            return if prefix <= bits(ip) { Ok(Self::Network(ip, prefix)) } else { Err(wrong()) };
        }
        let name = !text.is_empty()
            && text.len() <= 253
            && !text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        if name { Ok(Self::Host(text.trim_end_matches('.').to_ascii_lowercase())) } else { Err(wrong()) }
    }

    fn matches(&self, host: &str, ip: IpAddr) -> bool {
        match self {
            Self::Host(name) => name.eq_ignore_ascii_case(host.trim_end_matches('.')),
            Self::Network(IpAddr::V4(net), prefix) => match ip {
                IpAddr::V4(ip) => (net.to_bits() ^ ip.to_bits()).leading_zeros() >= u32::from(*prefix),
                IpAddr::V6(_) => false,
            },
            Self::Network(IpAddr::V6(net), prefix) => match ip {
                IpAddr::V6(ip) => (net.to_bits() ^ ip.to_bits()).leading_zeros() >= u32::from(*prefix),
                IpAddr::V4(_) => false,
            },
        }
    }
}

const fn bits(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The host, an IPv6 address without its brackets.
fn host(url: &Url) -> Option<String> {
    url.host_str().map(|host| host.trim_start_matches('[').trim_end_matches(']').to_owned())
}

/// Resolves names; gives only addresses that the guard allows, and an error that says so where none is left.
pub struct GuardedResolver(Arc<AddressGuard>);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, host) = (self.0.clone(), name.as_str().to_owned());
        let found = (guard.lookup)(host.clone());
        Box::pin(async move {
            let mut refused = None;
            let mut allowed = Vec::new();
            for ip in found.await? {
                match guard.allow(&host, ip) {
                    Ok(()) => allowed.push(SocketAddr::new(ip, 0)),
                    Err(error) => refused = Some(error),
                }
            }
            match refused {
                Some(error) if allowed.is_empty() => Err(error.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

async fn system_lookup(host: String) -> io::Result<Vec<IpAddr>> {
    Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSIDE: [&str; 30] = [
        "127.0.0.1",
        "127.255.0.3",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "2001:0:1::1",
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "100.127.255.255",
        "169.254.169.254",
        "fe80::1",
        "fec0::1",
        "fd00:ec2::254",
        "ff02::1",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.0.8",
        "198.18.0.1",
        "203.0.113.7",
        "2001:db8::1",
    ];
    const OUTSIDE: [&str; 8] = [
        "8.8.8.8",
        "172.15.0.1",
        "172.32.0.1",
        "100.63.0.1",
        "100.128.0.1",
        "11.0.0.1",
        "2606:4700::1111",
        "64:ff9b::808:808",
    ];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn guard(allowed: &[&str]) -> AddressGuard {
        AddressGuard::new(allowed).unwrap()
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn an_address_inside_is_refused_unless_the_operator_names_it() {
        for text in INSIDE {
            let refused = guard(&[]).allow("partner.example", ip(text)).unwrap_err();
            assert!(refused.to_string().contains("partner.example"), "{refused}");
            assert_ne!(Kind::of(ip(text)), Kind::Public, "{text}");
            assert_eq!(guard(&["partner.example"]).allow("PARTNER.example.", ip(text)), Ok(()), "{text} by name");
            assert_eq!(guard(&[text]).allow("partner.example", ip(text)), Ok(()), "{text} by address");
            assert!(guard(&["other.example", "9.9.9.9"]).allow("partner.example", ip(text)).is_err(), "{text}");
        }
        for text in OUTSIDE {
            assert_eq!(guard(&[]).allow("partner.example", ip(text)), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_network_names_its_addresses_and_no_others() {
        let guard = guard(&["10.20.0.0/16", "fd12::/16"]);
        for (text, fine) in [
            ("10.20.255.1", true),
            ("10.21.0.1", false),
            ("fd12::7", true),
            ("fd13::7", false),
            ("::ffff:10.20.0.1", false),
        ] {
            assert_eq!(guard.allow("h", ip(text)).is_ok(), fine, "{text}");
        }
    }

    #[test]
    fn the_list_takes_hosts_addresses_and_networks_only() {
        for fine in ["partner.internal", "node_1", "10.0.0.1", "[::1]", "10.0.0.0/8", "fd00::/8"] {
            assert!(AddressGuard::new([fine]).is_ok(), "{fine}");
        }
        for wrong in
            ["", "https://x", "a b", "10.0.0.0/33", "10.0.0.0/-1", "x/8", "2130706433", "127.1", "*", "é.example"]
        {
            assert_eq!(AddressGuard::new([wrong]).unwrap_err(), GuardError::Entry(wrong.into()), "{wrong}");
        }
    }

    #[test]
    fn a_statement_names_literal_addresses_but_not_where_names_lead() {
        let stated = |endpoint: &str| guard(&[]).for_endpoints(&[endpoint.to_owned()]);
        assert!(stated("https://127.0.0.1:8443").allow("127.0.0.1", ip("127.0.0.1")).is_ok());
        assert!(stated("https://10.0.0.7:8443").allow("10.0.0.7", ip("10.0.0.7")).is_ok());
        assert!(stated("https://[fd00::7]:8443").allow("fd00::7", ip("fd00::7")).is_ok());
        assert!(stated("https://localhost:8443").allow("localhost", ip("::1")).is_ok());
        assert!(stated("https://localhost:8443").allow("localhost", ip("10.0.0.1")).is_err());
        assert!(stated("https://10.0.0.7:8443").allow("10.0.0.8", ip("10.0.0.8")).is_err());
        assert!(stated("https://partner.example").allow("partner.example", ip("127.0.0.1")).is_err());
        assert!(stated("https://partner.example").allow("partner.example", ip("10.0.0.7")).is_err());
        for special in ["https://169.254.169.254", "https://0.0.0.0", "https://[::ffff:127.0.0.1]", "https://[fe80::1]"]
        {
            let host = host(&url(special)).unwrap();
            assert!(stated(special).allow(&host, ip(&host)).is_err(), "{special}: only the operator can name it");
            assert!(guard(&[&host]).for_endpoints(&[special.into()]).allow(&host, ip(&host)).is_ok(), "{special}");
        }
    }

    #[test]
    fn a_literal_address_is_known_in_every_spelling() {
        for text in [
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0177.0.0.1/",
            "https://127.1/",
            "https://[::1]/",
            "https://[::ffff:7f00:1]/",
            "https://%31%32%37.0.0.1/",
            "https://１２７.0.0.1/",
            "https://user@127.0.0.1/",
            "https://169.254.169.254/latest/meta-data",
        ] {
            assert!(guard(&[]).allow_literal(&url(text)).is_err(), "{text}");
        }
        assert!(guard(&[]).allow_literal(&url("https://partner.example/")).is_ok(), "the resolver's to check");
        assert!(guard(&["127.0.0.0/8"]).allow_literal(&url("https://2130706433/")).is_ok());
    }

    async fn resolved(guard: AddressGuard, found: &'static [&'static str]) -> Result<Vec<IpAddr>, String> {
        let guard = guard.looking_up(move |_| Box::pin(async move { Ok(found.iter().map(|at| ip(at)).collect()) }));
        let addresses = guard.resolver().resolve("partner.example".parse().unwrap()).await;
        addresses.map(|addresses| addresses.map(|address| address.ip()).collect()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_resolves_to_nothing() {
        for text in INSIDE {
            let found: &'static [&'static str] = Box::leak(Box::new([text]));
            let refused = resolved(guard(&[]), found).await.unwrap_err();
            assert!(refused.contains("partner.example") && refused.contains("nothing was sent"), "{refused}");
            assert_eq!(resolved(guard(&["partner.example"]), found).await.unwrap(), [ip(text)]);
        }
        assert_eq!(resolved(guard(&[]), &["10.0.0.1", "8.8.8.8", "::1"]).await.unwrap(), [ip("8.8.8.8")]);
        assert_eq!(resolved(guard(&[]), &[]).await.unwrap(), Vec::<IpAddr>::new());
    }
}

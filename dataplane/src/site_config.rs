//! `ekiden site-config`: the `wg-quick` configuration of a site's adapter, from the hub's own configuration.
//!
//! What it makes is a whole file for the site; what the operator should know besides is in notes, so that the file can
//! be redirected or piped as it is. With a new key the file holds secrets, and is the only place that does: nothing is
//! stored.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use ipnet::IpNet;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use zeroize::Zeroizing;

use crate::config::{self, Desired, Errors, PrivateKey, Site, Tenant, Via};
use crate::tenants::DUMMY_V4;

/// What WireGuard adds to a packet when the path is IPv6: IPv6 40, UDP 8, message header 16, tag 16.
const OVERHEAD: u16 = 80;
/// The least that carries IPv6 inside (RFC 8200, section 5: 1280).
const LEAST_PATH_MTU: u16 = 1280 + OVERHEAD;
/// The MTU of an Ethernet path.
pub const ETHERNET_MTU: u16 = 1500;
/// Often enough for the UDP mappings of common NATs, as WireGuard's own documentation recommends.
const KEEPALIVE_S: u16 = 25;

/// What is asked for, and how the command line asks it.
#[derive(Args, Clone, Debug)]
pub struct SiteConfigArgs {
    /// The hub's configuration
    pub config: PathBuf,
    /// The tenant: its id or service code
    pub tenant: String,
    /// The site's name
    pub site: String,
    /// Where the site reaches the hub
    #[arg(long, value_name = "HOST:PORT")]
    pub endpoint: HubEndpoint,
    /// Make a key pair for the site; the private key is printed this once and stored nowhere
    #[arg(long)]
    pub new_key: bool,
    /// Draw the configuration as a QR code as well, on standard error
    #[arg(long)]
    pub qr: bool,
    /// The MTU of the path between the site and the hub, such as 1454 behind many PPPoE lines
    #[arg(long, value_name = "BYTES", default_value_t = ETHERNET_MTU)]
    pub path_mtu: u16,
}

/// What was made.
pub struct SiteConfig {
    /// The file, for standard output.
    pub text: Zeroizing<String>,
    /// The QR code, ready for a terminal; not for standard output, so that the file stays one.
    pub qr: Option<Zeroizing<String>>,
    /// What the operator should do or know, a line each, for standard error.
    pub notes: Vec<String>,
}

/// Why there is no configuration for this site.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The hub's configuration is wrong.
    #[error(transparent)]
    Config(#[from] Errors),
    /// No tenant, or no site, is called so; or the request contradicts itself.
    #[error("{0}")]
    Request(String),
    /// What was made could not be printed.
    #[error("could not print: {0}")]
    Print(#[from] io::Error),
}

/// Where a site reaches the hub: a host name or address, and a UDP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubEndpoint {
    host: String,
    port: NonZeroU16,
}

impl FromStr for HubEndpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |why: &str| {
            let right = "hub.example.net:51820, 192.0.2.1:51820 or [2001:db8::1]:51820 are right";
            Error::Request(format!("endpoint {text:?}: {why}; {right}"))
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(|| refuse("no port"))?;
        if text.parse::<Ipv6Addr>().is_ok() || host.parse::<Ipv6Addr>().is_ok() {
            return Err(refuse("IPv6 needs brackets and a port"));
        }
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let known = match in_brackets {
            Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
            None => is_host_name(host),
        };
        if !known {
            return Err(refuse("neither a host name nor an address"));
        }
        let port = port.parse().map_err(|_| refuse("a port is 1 to 65535"))?;
        Ok(Self { host: host.to_owned(), port })
    }
}

/// Letters, digits and hyphens between dots (RFC 1123, 2.1), IPv4 addresses among them.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.len() <= 253 && host.trim_end_matches('.').split('.').all(label)
}

impl fmt::Display for HubEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The command: the file goes to `out`, and what the operator should see besides to `aside`.
pub fn command(args: &SiteConfigArgs, out: &mut impl Write, aside: &mut impl Write) -> Result<(), Error> {
    let made = site_config(args)?;
    out.write_all(made.text.as_bytes())?;
    out.flush()?;
    if let Some(qr) = &made.qr {
        aside.write_all(qr.as_bytes())?;
    }
    for note in &made.notes {
        writeln!(aside, "{note}")?;
    }
    Ok(())
}

/// Makes the configuration of one site's adapter.
pub fn site_config(request: &SiteConfigArgs) -> Result<SiteConfig, Error> {
    if request.qr && !request.new_key {
        let why = "a QR code needs the site's private key, which only the site has; with --new-key it gets one in it";
        return Err(Error::Request(why.to_owned()));
    }
    if request.path_mtu < LEAST_PATH_MTU {
        return Err(Error::Request(format!(
            "path MTU {}: with {OVERHEAD} bytes for WireGuard, less than 1280 would be left; \
             at least {LEAST_PATH_MTU} is right",
            request.path_mtu
        )));
    }
    // A site that is about to get its first key may lack one.
    let desired = if request.new_key { config::load_draft(&request.config)? } else { config::load(&request.config)? };
    let tenant = find_tenant(&desired, &request.tenant)?;
    let site = find_site(tenant, &request.site)?;
    let key = match request.new_key {
        true => {
            let key = PrivateKey::random();
            Some(key.map_err(|error| Error::Request(format!("the kernel gives no random numbers: {error}")))?)
        }
        false => None,
    };

    let text = render(&desired, tenant, site, key.as_ref(), request);
    let qr = if request.qr { Some(draw(&text)?) } else { None };
    Ok(SiteConfig { notes: notes(&desired, site, key.as_ref(), request), text, qr })
}

fn find_tenant<'a>(desired: &'a Desired, wanted: &str) -> Result<&'a Tenant, Error> {
    let called = |tenant: &&Tenant| tenant.id.to_string() == wanted || tenant.service_code.as_deref() == Some(wanted);
    desired.tenants.iter().find(called).ok_or_else(|| {
        let ids: Vec<String> = desired.tenants.iter().map(|tenant| tenant.id.to_string()).collect();
        let codes = desired.tenants.iter().filter_map(|tenant| tenant.service_code.as_deref());
        unknown("tenant id or service code", wanted, ids.iter().map(String::as_str).chain(codes))
    })
}

fn find_site<'a>(tenant: &'a Tenant, wanted: &str) -> Result<&'a Site, Error> {
    tenant.sites.iter().find(|site| &*site.name == wanted).ok_or_else(|| {
        let kind = format!("site of tenant {}", tenant.id);
        unknown(&kind, wanted, tenant.sites.iter().map(|site| &*site.name))
    })
}

fn unknown<'a>(kind: &str, wanted: &str, known: impl Iterator<Item = &'a str> + Clone) -> Error {
    const FEW: usize = 10;
    let hint = match config::nearest(wanted, known.clone()) {
        Some(near) => format!("; did you mean {near:?}?"),
        None => match known.clone().take(FEW).collect::<Vec<_>>() {
            none if none.is_empty() => "; there are none".to_owned(),
            few => format!(
                "; there {} {}{}",
                if few.len() == 1 { "is" } else { "are" },
                few.join(", "),
                if known.count() > FEW { ", …" } else { "" }
            ),
        },
    };
    Error::Request(format!("no {kind} is {wanted:?}{hint}"))
}

/// The file, in the order in which `wg-quick` reads it.
fn render(
    desired: &Desired,
    tenant: &Tenant,
    site: &Site,
    key: Option<&PrivateKey>,
    request: &SiteConfigArgs,
) -> Zeroizing<String> {
    let service_code = tenant.service_code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
    let mut lines = Lines::default();
    lines.add(format!("# Site {} of tenant {}{service_code}, at hub {}", site.name, tenant.id, desired.hub.name));
    lines.add("[Interface]");
    match key {
        Some(key) => lines.secret("PrivateKey = ", &key.base64()),
        None => {
            lines.add("# The private key is the site's own and is not known here: it belongs to the public key");
            lines.add(format!("# {}", site.public_key));
            lines.add("# PrivateKey =");
        }
    }
    match site.address.is_empty() {
        false => lines.add(format!("Address = {}", list(&site.address))),
        true if site.prefixes.is_empty() => {
            lines.add("# Address: this site has no prefixes, so it can't send or receive yet")
        }
        true => lines
            .add(format!("# Address: none is configured for this site; any inside {} is right", list(&site.prefixes))),
    }
    if let Some(endpoint) = site.endpoint {
        lines.add("# The hub expects the site here and may speak first");
        lines.add(format!("ListenPort = {}", endpoint.port()));
    }
    let mtu = request.path_mtu - OVERHEAD;
    match site.mtu.map(NonZeroU16::get).filter(|configured| *configured < mtu) {
        // The hub sends it nothing longer: what it sends itself goes the same way.
        Some(configured) => {
            lines.add("# As the hub has it configured for this site");
            lines.add(format!("MTU = {configured}"));
        }
        None => {
            lines.add(format!("# {} of the path, less {OVERHEAD} that WireGuard over IPv6 needs", request.path_mtu));
            lines.add(format!("MTU = {mtu}"));
        }
    }
    lines.add("");
    lines.add("[Peer]");
    lines.add(format!("PublicKey = {}", desired.hub.public_key));
    match (&site.preshared_key, key) {
        (Some(preshared), Some(_)) => lines.secret("PresharedKey = ", &preshared.base64()),
        (Some(_), None) => {
            lines.add("# PresharedKey = the content of the preshared_key_file that the hub has for this site")
        }
        (None, _) => {}
    }
    lines.add(format!("Endpoint = {}", request.endpoint));
    let elsewhere =
        if tenant.routes.is_empty() { "The other sites of this tenant" } else { "What this tenant has elsewhere" };
    lines.add(format!("# {elsewhere}, and the hub, whose error messages must get through"));
    lines.add(format!("AllowedIPs = {}", list(&reachable_from(tenant, site))));
    lines.add(format!("PersistentKeepalive = {}", site.keepalive_s.map_or(KEEPALIVE_S, NonZeroU16::get)));
    lines.0
}

/// What a site reaches through the hub: the other sites' prefixes, those of servers at access ports, what routes lead to, and the
/// addresses of the hub itself. What is behind the site itself, too, it reaches without the hub.
fn reachable_from(tenant: &Tenant, site: &Site) -> Vec<IpNet> {
    let others = tenant.sites.iter().filter(|other| other.name != site.name).flat_map(|other| &other.prefixes).copied();
    let others = others.chain(tenant.access.iter().flat_map(|end| end.prefixes()));
    let others = others.chain(tenant.routes.iter().map(|route| route.prefix));
    let routes_here = tenant.routes.iter().filter(|route| route.via == Via::Site(site.name.clone()));
    let here: HashSet<IpNet> = site.prefixes.iter().copied().chain(routes_here.map(|route| route.prefix)).collect();
    let mut seen = HashSet::new();
    let others = others.filter(move |prefix| !here.contains(prefix) && seen.insert(*prefix));
    let has_v4 = tenant.access.iter().flat_map(|end| &end.addresses).any(|net| net.addr().is_ipv4())
        || tenant.hub_addresses.iter().any(IpAddr::is_ipv4);
    let dummy = (!has_v4).then_some(IpAddr::V4(DUMMY_V4));
    others.chain(tenant.hub_addresses.iter().copied().chain(dummy).map(IpNet::from)).collect()
}

fn list(nets: &[IpNet]) -> String {
    nets.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ")
}

/// Text that grows by lines and leaves no secret behind: `String`s that it outgrew would not be wiped.
struct Lines(Zeroizing<String>);

impl Default for Lines {
    fn default() -> Self {
        Self(Zeroizing::new(String::new()))
    }
}

impl Lines {
    fn add(&mut self, line: impl AsRef<str>) {
        self.secret("", line.as_ref());
    }

    fn secret(&mut self, name: &str, value: &str) {
        let needed = self.0.len() + name.len() + value.len() + 1;
        if needed > self.0.capacity() {
            let mut wider = Zeroizing::new(String::with_capacity(needed.next_power_of_two().max(1024)));
            wider.push_str(&self.0);
            self.0 = wider; // the old one is wiped here
        }
        self.0.push_str(name);
        self.0.push_str(value);
        self.0.push('\n');
    }
}

fn notes(desired: &Desired, site: &Site, key: Option<&PrivateKey>, request: &SiteConfigArgs) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(key) = key {
        notes.push(
            "The private key is printed this once and stored nowhere: keep the output, and keep it secret.".to_owned(),
        );
        notes.push(format!("Let the site {:?} at {} have this line, then restart the hub:", site.name, site.origin));
        notes.push(format!("public_key = \"{}\"", key.public()));
    }
    if request.endpoint.port != desired.hub.listen_port {
        notes.push(format!(
            "The hub listens on port {}, not {}: right only if something in front of it maps the one to the other.",
            desired.hub.listen_port, request.endpoint.port
        ));
    }
    notes
}

/// The configuration without its comments, drawn black on white whatever the terminal's colours are.
fn draw(text: &str) -> Result<Zeroizing<String>, Error> {
    const BLACK_ON_WHITE: &str = "\x1b[38;5;16;48;5;231m";
    const RESET: &str = "\x1b[0m";

    let mut bare = Lines::default();
    text.lines().filter(|line| !line.starts_with('#')).for_each(|line| bare.add(line));
    let code = QrCode::with_error_correction_level(bare.0.as_bytes(), EcLevel::L).map_err(|error| {
        let length = bare.0.len();
        Error::Request(format!(
            "the configuration ({length} bytes) makes no QR code: {error}; it takes at most 2953 bytes"
        ))
    })?;
    // The encoder's own copies aren't wiped: the program that draws ends right after.
    let picture = Zeroizing::new(code.render::<Dense1x2>().build());
    let mut lines = Lines::default();
    picture.lines().for_each(|line| lines.secret(BLACK_ON_WHITE, &format!("{line}{RESET}")));
    Ok(lines.0)
}

#[cfg(test)]
mod tests;

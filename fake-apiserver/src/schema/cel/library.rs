//! Kubernetes' own CEL functions. See `apiserver/pkg/cel/library` and `apiserver/pkg/cel/environment/base.go`.

use std::{any::Any, cmp::Ordering, net::IpAddr};

use ::cel::{
    Env, ExecutionError, add_member_overload, add_overload,
    common::{
        types::{CelBool, CelDouble, CelInt, CelList, CelOptional, CelString, DYN_TYPE, LIST_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
    extensions,
};
use regex::Regex;

use super::{authorizer, budget, comprehensions, patches};
use crate::base::{quantity::Quantity, status::go_quote};

/// The environment of all rules.
pub(super) fn environment() -> Env {
    let mut env = Env::stdlib();
    let registered = [
        env.add_extension(extensions::strings),
        env.add_extension(extensions::lists),
        env.add_extension(regexes),
        env.add_extension(lists),
        env.add_extension(sets),
        env.add_extension(urls),
        env.add_extension(addresses),
        env.add_extension(quantities),
        env.add_extension(semver::functions),
        env.add_extension(named_formats::functions),
        env.add_extension(optionals),
        env.add_extension(authorizer::functions),
        env.add_extension(comprehensions::functions),
        env.add_extension(patches::functions),
        env.add_extension(budget::functions),
    ];
    debug_assert!(registered.iter().all(Result::is_ok), "each function is declared once: {registered:?}");
    env
}

pub(super) type Registered = Result<(), ::cel::DeclarationError>;
pub(super) type Args<'b, 'v> = Vec<CowVal<'b, 'v>>;
pub(super) type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

pub(super) fn fail<T>(function: &str, message: impl ToString) -> Result<T, ExecutionError> {
    Err(ExecutionError::function_error(function, message))
}

/// A value of one of Kubernetes' own types.
macro_rules! opaque {
    ($name:ident, $inner:ty, $type:ident, $text:literal) => {
        static $type: Type = Type::new_unspecified_type($text);

        #[derive(Clone, Debug, PartialEq)]
        struct $name($inner);

        impl Val for $name {
            fn get_type(&self) -> &Type {
                &$type
            }

            fn cel_type() -> &'static Type {
                &$type
            }

            fn equals(&self, other: &dyn Val) -> bool {
                other.downcast_ref::<Self>() == Some(self)
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
                Box::new(self.clone())
            }

            fn as_any(&self) -> Option<&dyn Any> {
                Some(self)
            }
        }

        impl StaticVal for $name {}
    };
}

opaque!(UrlVal, Url, URL, "kubernetes.URL");
opaque!(IpVal, IpAddr, IP, "net.IP");
opaque!(CidrVal, Cidr, CIDR, "net.CIDR");
opaque!(QuantityVal, Quantity, QUANTITY, "kubernetes.Quantity");

mod named_formats;
mod semver;

// Texts

fn compile(function: &str, pattern: &str) -> Result<Regex, ExecutionError> {
    match Regex::new(pattern) {
        Ok(regex) => Ok(regex),
        Err(_) => fail(function, format!("Illegal regex: {pattern}")),
    }
}

fn find(text: &CelString<'_>, pattern: &CelString<'_>) -> Result<CelString<'static>, ExecutionError> {
    let regex = compile("find", pattern.inner())?;
    Ok(CelString::from(regex.find(text.inner()).map_or_else(String::new, |found| found.as_str().to_owned())))
}

fn find_all_up_to(text: &str, pattern: &str, limit: usize) -> Result<CelList<'static>, ExecutionError> {
    let regex = compile("findAll", pattern)?;
    let found = regex.find_iter(text).take(limit).map(|found| CelString::from(found.as_str().to_owned()));
    Ok(CelList::from(found.map(|text| Box::new(text) as Box<dyn Val>).collect::<Vec<_>>()))
}

fn find_all(text: &CelString<'_>, pattern: &CelString<'_>) -> Result<CelList<'static>, ExecutionError> {
    find_all_up_to(text.inner(), pattern.inner(), usize::MAX)
}

fn find_all_limited(
    text: &CelString<'_>,
    pattern: &CelString<'_>,
    limit: &CelInt,
) -> Result<CelList<'static>, ExecutionError> {
    find_all_up_to(text.inner(), pattern.inner(), usize::try_from(*limit.inner()).unwrap_or(usize::MAX))
}

fn regexes(env: &mut Env) -> Registered {
    add_member_overload!(env, fn find: (CelString<'_>, CelString<'_>) -> Result<CelString<'_>>)?;
    add_member_overload!(env, fn find_all: (CelString<'_>, CelString<'_>) -> Result<CelList<'_>>)?;
    add_member_overload!(env, fn find_all_limited: (CelString<'_>, CelString<'_>, CelInt) -> Result<CelList<'_>>, name = "findAll")
}

// Lists

pub(super) fn elements<'v>(list: &(dyn Val + 'v)) -> Vec<Box<dyn Val + 'v>> {
    let mut out = Vec::new();
    if let Some(list) = list.as_iterable() {
        let mut items = list.iter();
        while let Some(item) = items.next() {
            out.push(item.clone_as_boxed());
        }
    }
    out
}

fn compare(function: &str, a: &dyn Val, b: &dyn Val) -> Result<Ordering, ExecutionError> {
    match a.as_comparer() {
        Some(comparer) => comparer.compare(b),
        None => fail(function, "no such overload"),
    }
}

fn is_sorted<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let items = elements(args[0].as_ref());
    for pair in items.windows(2) {
        if compare("isSorted", pair[0].as_ref(), pair[1].as_ref())? == Ordering::Greater {
            return Ok(CowVal::owned(CelBool::from(false)));
        }
    }
    Ok(CowVal::owned(CelBool::from(true)))
}

fn extreme<'b, 'v>(args: &Args<'b, 'v>, function: &str, wanted: Ordering) -> Answer<'b, 'v> {
    let mut best: Option<Box<dyn Val + 'v>> = None;
    for item in elements(args[0].as_ref()) {
        let better = match &best {
            Some(best) => compare(function, item.as_ref(), best.as_ref())? == wanted,
            None => true,
        };
        if better {
            best = Some(item);
        }
    }
    match best {
        Some(best) => Ok(CowVal::Owned(best)),
        None => fail(function, format!("{function} called on empty list")),
    }
}

fn min<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    extreme(&args, "min", Ordering::Less)
}

fn max<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    extreme(&args, "max", Ordering::Greater)
}

fn sum<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let mut total: Option<Box<dyn Val + 'v>> = None;
    for item in elements(args[0].as_ref()) {
        total = Some(match total {
            None => item,
            Some(total) => match total.as_adder() {
                Some(adder) => adder.add(item.as_ref())?.into_owned(),
                None => return fail("sum", "no such overload"),
            },
        });
    }
    Ok(total.map_or_else(|| CowVal::owned(CelInt::from(0)), CowVal::Owned))
}

fn position(found: Option<usize>) -> CelInt {
    CelInt::from(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}

fn index_of<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let items = elements(args[0].as_ref());
    Ok(CowVal::owned(position(items.iter().position(|item| item.equals(args[1].as_ref())))))
}

fn last_index_of<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let items = elements(args[0].as_ref());
    Ok(CowVal::owned(position(items.iter().rposition(|item| item.equals(args[1].as_ref())))))
}

fn lists(env: &mut Env) -> Registered {
    env.add_member_overload("isSorted", "list_is_sorted", LIST_TYPE, vec![], is_sorted)?;
    env.add_member_overload("min", "list_min", LIST_TYPE, vec![], min)?;
    env.add_member_overload("max", "list_max", LIST_TYPE, vec![], max)?;
    env.add_member_overload("sum", "list_sum", LIST_TYPE, vec![], sum)?;
    env.add_member_overload("indexOf", "list_index_of", LIST_TYPE, vec![DYN_TYPE], index_of)?;
    env.add_member_overload("lastIndexOf", "list_last_index_of", LIST_TYPE, vec![DYN_TYPE], last_index_of)
}

// Optionals: version 2 of cel-go's library (`cel/library.go`).

fn optional<'b, 'v>(item: Option<Box<dyn Val + 'v>>) -> CowVal<'b, 'v> {
    CowVal::owned(item.map_or_else(CelOptional::none, CelOptional::of))
}

fn first<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    Ok(optional(elements(args[0].as_ref()).into_iter().next()))
}

fn last<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    Ok(optional(elements(args[0].as_ref()).pop()))
}

fn unwrap_optionals<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let mut found: Vec<Box<dyn Val + 'v>> = Vec::new();
    for item in elements(args[0].as_ref()) {
        let Some(item) = item.downcast_ref::<CelOptional<'_>>() else { return fail("unwrapOpt", "no such overload") };
        found.extend(item.option().map(Val::clone_as_boxed));
    }
    Ok(CowVal::owned(CelList::from(found)))
}

fn optionals(env: &mut Env) -> Registered {
    env.add_member_overload("first", "list_first", LIST_TYPE, vec![], first)?;
    env.add_member_overload("last", "list_last", LIST_TYPE, vec![], last)?;
    env.add_overload("optional.unwrap", "optional_unwrap", vec![LIST_TYPE], unwrap_optionals)?;
    env.add_member_overload("unwrapOpt", "optional_unwrapOpt", LIST_TYPE, vec![], unwrap_optionals)
}

fn contains_all(list: &dyn Val, wanted: &dyn Val) -> bool {
    let items = elements(list);
    elements(wanted).iter().all(|wanted| items.iter().any(|item| item.equals(wanted.as_ref())))
}

fn sets_contains<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    Ok(CowVal::owned(CelBool::from(contains_all(args[0].as_ref(), args[1].as_ref()))))
}

fn sets_equivalent<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let (a, b) = (args[0].as_ref(), args[1].as_ref());
    Ok(CowVal::owned(CelBool::from(contains_all(a, b) && contains_all(b, a))))
}

fn sets_intersects<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let (a, b) = (elements(args[0].as_ref()), elements(args[1].as_ref()));
    let meets = a.iter().any(|a| b.iter().any(|b| a.equals(b.as_ref())));
    Ok(CowVal::owned(CelBool::from(meets)))
}

fn sets(env: &mut Env) -> Registered {
    env.add_overload("sets.contains", "list_sets_contains_list", vec![LIST_TYPE, LIST_TYPE], sets_contains)?;
    env.add_overload("sets.equivalent", "list_sets_equivalent_list", vec![LIST_TYPE, LIST_TYPE], sets_equivalent)?;
    env.add_overload("sets.intersects", "list_sets_intersects_list", vec![LIST_TYPE, LIST_TYPE], sets_intersects)
}

// URLs

#[derive(Clone, Debug, PartialEq)]
struct Url {
    scheme: String,
    /// With the port.
    host: String,
    hostname: String,
    port: String,
    path: String,
    query: Vec<(String, String)>,
}

/// What Go's `url.ParseRequestURI` takes.
fn parse_url(text: &str) -> Result<Url, String> {
    let bad =
        |why: &str| Err(format!("URL parse error during conversion from string: parse {}: {why}", go_quote(text)));
    if text.is_empty() {
        return bad("empty url");
    }
    if text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return bad("net/url: invalid control character in URL");
    }
    let (scheme, rest) = match text.split_once(':') {
        Some((scheme, rest))
            if !scheme.is_empty()
                && scheme.as_bytes()[0].is_ascii_alphabetic()
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) =>
        {
            (scheme.to_lowercase(), rest)
        }
        _ if text.starts_with('/') => (String::new(), text),
        _ => return bad("invalid URI for request"),
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !scheme.is_empty() && !rest.starts_with('/') {
        return bad("invalid URI for request");
    }
    let (host, path) = match rest.strip_prefix("//").filter(|_| !scheme.is_empty()) {
        Some(rest) => rest.find('/').map_or((rest, ""), |at| rest.split_at(at)),
        None => ("", rest),
    };
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    if host.contains(' ') {
        return bad("invalid character \" \" in host name");
    }
    let split = if host.starts_with('[') { host.rfind("]:").map(|at| at + 1) } else { host.rfind(':') };
    let (hostname, port) = split.map_or((host, ""), |at| (&host[..at], &host[at + 1..]));
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return bad(&format!("invalid port {} after host", go_quote(&format!(":{port}"))));
    }
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (unescape(k), unescape(v)));
    Ok(Url {
        scheme,
        host: host.to_owned(),
        hostname: hostname.trim_matches(['[', ']']).to_owned(),
        port: port.to_owned(),
        path: path.to_owned(),
        query: query.collect(),
    })
}

fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = [bytes.next().unwrap_or_default(), bytes.next().unwrap_or_default()];
                let code = std::str::from_utf8(&digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
                out.extend(code);
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn url(text: &CelString<'_>) -> Result<UrlVal, ExecutionError> {
    parse_url(text.inner()).map(UrlVal).or_else(|error| fail("url", error))
}

fn is_url(text: &CelString<'_>) -> CelBool {
    CelBool::from(parse_url(text.inner()).is_ok())
}

fn get_scheme(url: &UrlVal) -> CelString<'static> {
    CelString::from(url.0.scheme.clone())
}

fn get_host(url: &UrlVal) -> CelString<'static> {
    CelString::from(url.0.host.clone())
}

fn get_hostname(url: &UrlVal) -> CelString<'static> {
    CelString::from(url.0.hostname.clone())
}

fn get_port(url: &UrlVal) -> CelString<'static> {
    CelString::from(url.0.port.clone())
}

fn get_escaped_path(url: &UrlVal) -> CelString<'static> {
    CelString::from(url.0.path.clone())
}

fn get_query<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    use ::cel::common::types::{CelMap, CelMapKey};
    let Some(url) = args[0].downcast_ref::<UrlVal>() else { return fail("getQuery", "no such overload") };
    let mut lists: std::collections::BTreeMap<String, Vec<Box<dyn Val + 'v>>> = std::collections::BTreeMap::new();
    for (key, value) in url.0.query.clone() {
        lists.entry(key).or_default().push(Box::new(CelString::from(value)));
    }
    let lists = lists
        .into_iter()
        .map(|(key, values)| (CelMapKey::from(key), Box::new(CelList::from(values)) as Box<dyn Val + 'v>));
    #[expect(clippy::disallowed_types, reason = "what CelMap is made of")]
    let map: std::collections::HashMap<_, _> = lists.collect();
    Ok(CowVal::owned(CelMap::from(map)))
}

fn urls(env: &mut Env) -> Registered {
    add_overload!(env, fn url: (CelString<'_>) -> Result<UrlVal>)?;
    add_overload!(env, fn is_url: (CelString<'_>) -> CelBool, name = "isURL")?;
    add_member_overload!(env, fn get_scheme: (UrlVal) -> CelString<'_>)?;
    add_member_overload!(env, fn get_host: (UrlVal) -> CelString<'_>)?;
    add_member_overload!(env, fn get_hostname: (UrlVal) -> CelString<'_>)?;
    add_member_overload!(env, fn get_port: (UrlVal) -> CelString<'_>)?;
    add_member_overload!(env, fn get_escaped_path: (UrlVal) -> CelString<'_>)?;
    env.add_member_overload("getQuery", "url_get_query", URL.to_owned(), vec![], get_query)
}

// Addresses

#[derive(Clone, Debug, PartialEq)]
struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl Cidr {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let address = strict_ip(address)?;
        let plain = bits == "0" || (!bits.starts_with('0') && bits.bytes().all(|byte| byte.is_ascii_digit()));
        let bits: u8 = bits.parse().ok().filter(|_| plain)?;
        (bits <= width(address)).then_some(Self { address, bits })
    }

    fn masked(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::from((u32::from(ip) & mask).to_be_bytes())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::from((u128::from(ip) & mask).to_be_bytes())
            }
        }
    }

    fn contains(&self, ip: IpAddr) -> bool {
        width(ip) == width(self.address) && Self { address: ip, bits: self.bits }.masked() == self.masked()
    }
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// An address as Go's `netip.ParseAddr` reads it, but no zones and no IPv4 in IPv6.
fn strict_ip(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().filter(|ip| match ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => ip.to_ipv4_mapped().is_none(),
    })
}

fn bad_ip(text: &str) -> String {
    format!(
        "IP Address {} parse error during conversion from string: ParseAddr({}): unable to parse IP",
        go_quote(text),
        go_quote(text)
    )
}

fn ip(text: &CelString<'_>) -> Result<IpVal, ExecutionError> {
    strict_ip(text.inner()).map_or_else(|| fail("ip", bad_ip(text.inner())), |ip| Ok(IpVal(ip)))
}

fn is_ip(text: &CelString<'_>) -> CelBool {
    CelBool::from(strict_ip(text.inner()).is_some())
}

fn ip_is_canonical(text: &CelString<'_>) -> Result<CelBool, ExecutionError> {
    match strict_ip(text.inner()) {
        Some(ip) => Ok(CelBool::from(ip.to_string() == text.inner())),
        None => fail("ip.isCanonical", bad_ip(text.inner())),
    }
}

fn family(ip: &IpVal) -> CelInt {
    CelInt::from(if ip.0.is_ipv4() { 4 } else { 6 })
}

fn is_unspecified(ip: &IpVal) -> CelBool {
    CelBool::from(ip.0.is_unspecified())
}

fn is_loopback(ip: &IpVal) -> CelBool {
    CelBool::from(ip.0.is_loopback())
}

fn is_link_local_multicast(ip: &IpVal) -> CelBool {
    CelBool::from(match ip.0 {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    })
}

fn is_link_local_unicast(ip: &IpVal) -> CelBool {
    CelBool::from(match ip.0 {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    })
}

fn is_global_unicast(ip: &IpVal) -> CelBool {
    let link_local = *is_link_local_unicast(ip).inner();
    let broadcast = matches!(ip.0, IpAddr::V4(ip) if ip.is_broadcast());
    CelBool::from(!(ip.0.is_unspecified() || ip.0.is_loopback() || ip.0.is_multicast() || link_local || broadcast))
}

fn ip_text(ip: &IpVal) -> CelString<'static> {
    CelString::from(ip.0.to_string())
}

fn cidr(text: &CelString<'_>) -> Result<CidrVal, ExecutionError> {
    let bad = || {
        format!(
            "network address parse error during conversion from string: network address parse error during conversion from string: netip.ParsePrefix({}): no '/'",
            go_quote(text.inner())
        )
    };
    Cidr::parse(text.inner()).map_or_else(|| fail("cidr", bad()), |cidr| Ok(CidrVal(cidr)))
}

fn is_cidr(text: &CelString<'_>) -> CelBool {
    CelBool::from(Cidr::parse(text.inner()).is_some())
}

fn contains_ip_text(cidr: &CidrVal, text: &CelString<'_>) -> Result<CelBool, ExecutionError> {
    Ok(CelBool::from(cidr.0.contains(ip(text)?.0)))
}

fn contains_ip(cidr: &CidrVal, ip: &IpVal) -> CelBool {
    CelBool::from(cidr.0.contains(ip.0))
}

fn contains_cidr(outer: &CidrVal, inner: &CidrVal) -> CelBool {
    CelBool::from(outer.0.bits <= inner.0.bits && outer.0.contains(inner.0.address))
}

fn contains_cidr_text(outer: &CidrVal, text: &CelString<'_>) -> Result<CelBool, ExecutionError> {
    Ok(contains_cidr(outer, &cidr(text)?))
}

fn cidr_ip(cidr: &CidrVal) -> IpVal {
    IpVal(cidr.0.address)
}

fn masked(cidr: &CidrVal) -> CidrVal {
    CidrVal(Cidr { address: cidr.0.masked(), bits: cidr.0.bits })
}

fn prefix_length(cidr: &CidrVal) -> CelInt {
    CelInt::from(i64::from(cidr.0.bits))
}

fn cidr_text(cidr: &CidrVal) -> CelString<'static> {
    CelString::from(format!("{}/{}", cidr.0.address, cidr.0.bits))
}

fn addresses(env: &mut Env) -> Registered {
    add_overload!(env, fn ip: (CelString<'_>) -> Result<IpVal>)?;
    add_overload!(env, fn is_ip: (CelString<'_>) -> CelBool, name = "isIP")?;
    add_overload!(env, fn ip_is_canonical: (CelString<'_>) -> Result<CelBool>, name = "ip.isCanonical")?;
    add_member_overload!(env, fn family: (IpVal) -> CelInt)?;
    add_member_overload!(env, fn is_unspecified: (IpVal) -> CelBool)?;
    add_member_overload!(env, fn is_loopback: (IpVal) -> CelBool)?;
    add_member_overload!(env, fn is_link_local_multicast: (IpVal) -> CelBool)?;
    add_member_overload!(env, fn is_link_local_unicast: (IpVal) -> CelBool)?;
    add_member_overload!(env, fn is_global_unicast: (IpVal) -> CelBool)?;
    add_overload!(env, fn ip_text: (IpVal) -> CelString<'_>, name = "string", id = "ip_to_string")?;
    add_overload!(env, fn cidr: (CelString<'_>) -> Result<CidrVal>)?;
    add_overload!(env, fn is_cidr: (CelString<'_>) -> CelBool, name = "isCIDR")?;
    add_member_overload!(env, fn contains_ip: (CidrVal, IpVal) -> CelBool, name = "containsIP")?;
    add_member_overload!(env, fn contains_ip_text: (CidrVal, CelString<'_>) -> Result<CelBool>, name = "containsIP")?;
    add_member_overload!(env, fn contains_cidr: (CidrVal, CidrVal) -> CelBool, name = "containsCIDR")?;
    add_member_overload!(env, fn contains_cidr_text: (CidrVal, CelString<'_>) -> Result<CelBool>, name = "containsCIDR")?;
    add_member_overload!(env, fn cidr_ip: (CidrVal) -> IpVal, name = "ip")?;
    add_member_overload!(env, fn masked: (CidrVal) -> CidrVal)?;
    add_member_overload!(env, fn prefix_length: (CidrVal) -> CelInt)?;
    add_overload!(env, fn cidr_text: (CidrVal) -> CelString<'_>, name = "string", id = "cidr_to_string")
}

// Quantities

fn quantity(text: &CelString<'_>) -> Result<QuantityVal, ExecutionError> {
    Quantity::parse(text.inner()).map(QuantityVal).or_else(|error| fail("quantity", error))
}

fn is_quantity(text: &CelString<'_>) -> CelBool {
    CelBool::from(Quantity::parse(text.inner()).is_ok())
}

fn is_integer(quantity: &QuantityVal) -> CelBool {
    CelBool::from(quantity.0.is_whole())
}

fn as_integer(quantity: &QuantityVal) -> Result<CelInt, ExecutionError> {
    if quantity.0.is_whole() {
        Ok(CelInt::from(quantity.0.value()))
    } else {
        fail("asInteger", "cannot convert value to integer")
    }
}

fn as_approximate_float(quantity: &QuantityVal) -> CelDouble {
    CelDouble::from(quantity.0.approximate())
}

fn sign(quantity: &QuantityVal) -> CelInt {
    CelInt::from(if quantity.0.is_zero() {
        0
    } else if quantity.0.is_negative() {
        -1
    } else {
        1
    })
}

fn quantity_add(a: &QuantityVal, b: &QuantityVal) -> QuantityVal {
    QuantityVal(a.0.plus(&b.0))
}

fn quantity_sub(a: &QuantityVal, b: &QuantityVal) -> QuantityVal {
    QuantityVal(a.0.minus(&b.0))
}

fn quantity_add_int(a: &QuantityVal, b: &CelInt) -> QuantityVal {
    QuantityVal(a.0.plus(&Quantity::whole(*b.inner())))
}

fn quantity_sub_int(a: &QuantityVal, b: &CelInt) -> QuantityVal {
    QuantityVal(a.0.minus(&Quantity::whole(*b.inner())))
}

fn quantity_less(a: &QuantityVal, b: &QuantityVal) -> CelBool {
    CelBool::from(a.0 < b.0)
}

fn quantity_greater(a: &QuantityVal, b: &QuantityVal) -> CelBool {
    CelBool::from(a.0 > b.0)
}

fn quantity_compare(a: &QuantityVal, b: &QuantityVal) -> CelInt {
    CelInt::from(a.0.cmp(&b.0) as i64)
}

fn quantities(env: &mut Env) -> Registered {
    add_overload!(env, fn quantity: (CelString<'_>) -> Result<QuantityVal>)?;
    add_overload!(env, fn is_quantity: (CelString<'_>) -> CelBool)?;
    add_member_overload!(env, fn is_integer: (QuantityVal) -> CelBool)?;
    add_member_overload!(env, fn as_integer: (QuantityVal) -> Result<CelInt>)?;
    add_member_overload!(env, fn as_approximate_float: (QuantityVal) -> CelDouble)?;
    add_member_overload!(env, fn sign: (QuantityVal) -> CelInt)?;
    add_member_overload!(env, fn quantity_add: (QuantityVal, QuantityVal) -> QuantityVal, name = "add")?;
    add_member_overload!(env, fn quantity_add_int: (QuantityVal, CelInt) -> QuantityVal, name = "add")?;
    add_member_overload!(env, fn quantity_sub: (QuantityVal, QuantityVal) -> QuantityVal, name = "sub")?;
    add_member_overload!(env, fn quantity_sub_int: (QuantityVal, CelInt) -> QuantityVal, name = "sub")?;
    add_member_overload!(env, fn quantity_less: (QuantityVal, QuantityVal) -> CelBool, name = "isLessThan")?;
    add_member_overload!(env, fn quantity_greater: (QuantityVal, QuantityVal) -> CelBool, name = "isGreaterThan")?;
    add_member_overload!(env, fn quantity_compare: (QuantityVal, QuantityVal) -> CelInt, name = "compareTo")
}

//! PEM and the outer form of certificates and requests (PKCS #10), with the words of Go's `encoding/asn1` and `crypto/x509`.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_ID: u8 = 0x06;

/// `organizationName`, 2.5.4.10.
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];

const TRUNCATED: &str = "asn1: syntax error: data truncated";

/// What a request says.
pub(super) struct Request<'a> {
    pub(super) organizations: Vec<String>,
    /// What is signed.
    signed: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
    key_algorithm: &'a [u8],
    curve: &'a [u8],
    key: &'a [u8],
}

struct Block {
    kind: String,
    headers: bool,
    bytes: Vec<u8>,
}

/// The blocks of a PEM text; what is between them is not looked at.
fn blocks(pem: &[u8]) -> Vec<Block> {
    let text = String::from_utf8_lossy(pem);
    let (mut found, mut open) = (Vec::new(), None::<(String, bool, String)>);
    for line in text.lines().map(str::trim_end) {
        let marked = |mark: &str| line.strip_prefix(mark).and_then(|rest| rest.strip_suffix("-----"));
        if let Some(kind) = marked("-----BEGIN ") {
            open = Some((kind.to_owned(), false, String::new()));
        } else if let Some(kind) = marked("-----END ") {
            let closed = open.take().filter(|(own, ..)| own == kind);
            found.extend(
                closed
                    .and_then(|(kind, headers, body)| Some(Block { kind, headers, bytes: BASE64.decode(body).ok()? })),
            );
        } else if let Some((_, headers, body)) = &mut open {
            if line.contains(':') {
                *headers = true;
            } else {
                body.push_str(line.trim());
            }
        }
    }
    found
}

/// One element of DER: its tag, its content, itself, and what comes after it.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
    rest: &'a [u8],
}

fn element(bytes: &[u8]) -> Result<Element<'_>, String> {
    let truncated = || TRUNCATED.to_owned();
    let [tag, first, ..] = bytes else { return Err(truncated()) };
    let (head, length) = if *first < 0x80 {
        (2, usize::from(*first))
    } else {
        let digits = usize::from(first & 0x7f);
        if digits == 0 || digits > 4 {
            return Err("asn1: structure error: length too large".into());
        }
        let digits_read = bytes.get(2..2 + digits).ok_or_else(truncated)?;
        (2 + digits, digits_read.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)))
    };
    let content = bytes.get(head..head.saturating_add(length)).ok_or_else(truncated)?;
    let (whole, rest) = bytes.split_at(head + length);
    Ok(Element { tag: *tag, content, whole, rest })
}

/// The element that must come next; `name` is the Go type that it is read into.
fn expect<'a>(bytes: &'a [u8], tag: u8, name: &str) -> Result<Element<'a>, String> {
    let found = element(bytes)?;
    if found.tag == tag {
        return Ok(found);
    }
    let head = found.whole.len() - found.content.len();
    let (class, number, compound) = (found.tag >> 6, found.tag & 0x1f, found.tag & 0x20 != 0);
    Err(format!(
        "asn1: structure error: tags don't match ({} vs {{class:{class} tag:{number} length:{} isCompound:{compound}}}) \
         {{optional:false explicit:false application:false private:false defaultValue:<nil> tag:<nil> stringType:0 timeType:0 \
         set:false omitEmpty:false}} {name} @{head}",
        tag & 0x1f,
        found.content.len()
    ))
}

fn bits<'a>(bytes: &'a [u8], name: &str) -> Result<&'a [u8], String> {
    let found = expect(bytes, BIT_STRING, name)?;
    found.content.split_first().map(|(_, bits)| bits).ok_or_else(|| TRUNCATED.to_owned())
}

/// Reads a request.
///
/// # Errors
/// Why it is none.
pub(super) fn parse_der(der: &[u8]) -> Result<Request<'_>, String> {
    let outer = expect(der, SEQUENCE, "certificateRequest")?;
    if !outer.rest.is_empty() {
        return Err("asn1: syntax error: trailing data".into());
    }
    let info = expect(outer.content, SEQUENCE, "tbsCertificateRequest")?;
    let algorithm = expect(info.rest, SEQUENCE, "AlgorithmIdentifier")?;
    let signature = bits(algorithm.rest, "BitString")?;
    let version = expect(info.content, INTEGER, "int")?;
    let subject = expect(version.rest, SEQUENCE, "RawValue")?;
    let key = expect(subject.rest, SEQUENCE, "publicKeyInfo")?;
    let key_algorithm = expect(key.content, SEQUENCE, "AlgorithmIdentifier")?;
    let key_id = expect(key_algorithm.content, OBJECT_ID, "ObjectIdentifier")?;
    let curve = element(key_id.rest).ok().filter(|curve| curve.tag == OBJECT_ID).map_or(&[][..], |curve| curve.content);
    Ok(Request {
        organizations: organizations(subject.content)?,
        signed: info.whole,
        algorithm: expect(algorithm.content, OBJECT_ID, "ObjectIdentifier")?.content,
        signature,
        key_algorithm: key_id.content,
        curve,
        key: bits(key_algorithm.rest, "BitString")?,
    })
}

fn organizations(mut names: &[u8]) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    while !names.is_empty() {
        let set = expect(names, SET, "RelativeDistinguishedNameSET")?;
        names = set.rest;
        let mut members = set.content;
        while !members.is_empty() {
            let member = expect(members, SEQUENCE, "AttributeTypeAndValue")?;
            members = member.rest;
            let kind = expect(member.content, OBJECT_ID, "ObjectIdentifier")?;
            let value = element(kind.rest)?;
            if kind.content == ORGANIZATION {
                found.push(String::from_utf8_lossy(value.content).into_owned());
            }
        }
    }
    Ok(found)
}

/// The organizations of a request in PEM.
pub(super) struct Parsed {
    pub(super) organizations: Vec<String>,
}

fn request_der(pem: &[u8]) -> Result<Vec<u8>, String> {
    match blocks(pem).into_iter().next().filter(|block| block.kind == "CERTIFICATE REQUEST") {
        Some(block) => Ok(block.bytes),
        None => Err("PEM block type must be CERTIFICATE REQUEST".into()),
    }
}

/// Upstream's `ParseCSR`.
///
/// # Errors
/// Why it is no request.
pub(super) fn parse(pem: &[u8]) -> Result<Parsed, String> {
    let der = request_der(pem)?;
    Ok(Parsed { organizations: parse_der(&der)?.organizations })
}

/// Upstream's `validateCSR`.
///
/// # Errors
/// Why it is no request, or that another key has signed it.
pub(super) fn check(pem: &[u8]) -> Result<(), String> {
    let der = request_der(pem)?;
    parse_der(&der)?.check_signature()
}

impl Request<'_> {
    fn check_signature(&self) -> Result<(), String> {
        const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
        const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
        const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
        const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
        const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
        let (last, family) = match self.algorithm.split_last() {
            Some((last, family)) => (*last, family),
            None => (0, self.algorithm),
        };
        let (by, failure): (&dyn VerificationAlgorithm, &str) = if self.algorithm == ED25519 {
            (&signature::ED25519, "x509: Ed25519 verification failure")
        } else if family == ECDSA && self.key_algorithm == EC {
            let by: &dyn VerificationAlgorithm = match (self.curve, last) {
                (P256, 2) => &signature::ECDSA_P256_SHA256_ASN1,
                (P256, 3) => &signature::ECDSA_P256_SHA384_ASN1,
                (P384, 2) => &signature::ECDSA_P384_SHA256_ASN1,
                (P384, 3) => &signature::ECDSA_P384_SHA384_ASN1,
                _ => return Ok(()), // other curves and sums cannot be checked here, and are believed
            };
            (by, "x509: ECDSA verification failure")
        } else if family == RSA {
            let by: &dyn VerificationAlgorithm = match last {
                0x0b => &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
                0x0c => &signature::RSA_PKCS1_2048_8192_SHA384,
                0x0d => &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
                _ => return Ok(()), // as above
            };
            (by, "crypto/rsa: verification error")
        } else {
            return Err("x509: cannot verify signature: algorithm unimplemented".into());
        };
        let key = UnparsedPublicKey::new(by, self.key);
        key.verify(self.signed, self.signature).map_err(|_| failure.to_owned())
    }
}

/// Upstream's `validateCertificate`; of a certificate only the outer form is looked at.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_certificate(pem: &[u8]) -> Result<(), String> {
    const MALFORMED: &str = "x509: malformed certificate";
    if pem.is_empty() {
        return Ok(());
    }
    let blocks = blocks(pem);
    if blocks.is_empty() {
        return Err("must contain at least one CERTIFICATE PEM block".into());
    }
    for block in blocks {
        if block.kind != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found \"{}\"", block.kind));
        }
        if block.headers {
            return Err("no PEM block headers are permitted".into());
        }
        let mut left = block.bytes.as_slice();
        if left.is_empty() {
            return Err("found CERTIFICATE PEM block containing 0 certificates".into());
        }
        while !left.is_empty() {
            let malformed = |_| MALFORMED.to_owned();
            let outer = expect(left, SEQUENCE, "").map_err(malformed)?;
            let inner = expect(outer.content, SEQUENCE, "").map_err(malformed)?;
            let algorithm = expect(inner.rest, SEQUENCE, "").map_err(malformed)?;
            bits(algorithm.rest, "").map_err(malformed)?;
            left = outer.rest;
        }
    }
    Ok(())
}

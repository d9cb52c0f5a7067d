//! Signed tokens: JSON Web Tokens as the server issues them, and the documents by which others can check them.
//!
//! Upstream: `pkg/serviceaccount/jwt.go` and `openidmetadata.go`, with an ECDSA P-256 key. The key is new in each cluster
//! and of chance that no seed gives: what a token says repeats from run to run, its signature does not.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::{
    digest,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey},
};
use serde_json::{Value, json};

/// What stands before the point of a P-256 key in its DER form (RFC 5480).
const DER_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A key, and its name.
pub(super) struct Signer {
    key: EcdsaKeyPair,
    chance: SystemRandom,
    id: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.id) // never the key
    }
}

impl Signer {
    /// A new key.
    pub(super) fn generate() -> Self {
        let chance = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &chance);
        let pkcs8 = made.expect("the system has random numbers");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &chance);
        let key = key.expect("a key that was just made is read");
        let der = [&DER_HEAD, key.public_key().as_ref()].concat();
        let id = BASE64.encode(digest::digest(&digest::SHA256, &der));
        Self { key, chance, id }
    }

    /// A token that says this.
    pub(super) fn sign(&self, claims: &Value) -> String {
        let head = BASE64.encode(json!({"alg": "ES256", "kid": self.id}).to_string());
        let signed = format!("{head}.{}", BASE64.encode(claims.to_string()));
        let signature = self.key.sign(&self.chance, signed.as_bytes()).expect("the system has random numbers");
        format!("{signed}.{}", BASE64.encode(signature))
    }

    /// What a token says, if this key has signed it.
    ///
    /// # Errors
    /// Upstream's words for a token of another key.
    pub(super) fn verify(&self, token: &str) -> Result<Value, &'static str> {
        const BROKEN: &str = "go-jose/go-jose: error in cryptographic primitive";
        let (signed, signature) = token.rsplit_once('.').ok_or(BROKEN)?;
        let (head, claims) = signed.split_once('.').ok_or(BROKEN)?;
        let head = read(head).ok_or(BROKEN)?;
        if head["kid"].as_str().is_some_and(|id| !id.is_empty() && id != self.id) {
            return Err("invalid signature, no keys found");
        }
        if head["alg"] != "ES256" {
            return Err(BROKEN);
        }
        let signature = BASE64.decode(signature).map_err(|_| BROKEN)?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        key.verify(signed.as_bytes(), &signature).map_err(|_| BROKEN)?;
        read(claims).ok_or(BROKEN)
    }

    /// The public key as a JSON Web Key Set.
    pub(super) fn key_set(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let (x, y) = point[1..].split_at(32); // the first byte says that both follow
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        }]})
    }
}

/// What a token claims to say; nobody has looked at its signature yet.
pub(super) fn claims(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    read(claims)
}

fn read(part: &str) -> Option<Value> {
    serde_json::from_slice(&BASE64.decode(part).ok()?).ok()
}

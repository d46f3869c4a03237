//! What a file is, and what its registry says it is.

use std::fmt::Write as _;

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// Digests of one file, in hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Digests {
    pub(super) sha1: String,
    pub(super) sha256: String,
    pub(super) sha384: String,
    pub(super) sha512: String,
}

/// The digest that a file must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Sha1(String),
    Sha256(String),
    Sha384(String),
    Sha512(String),
}

impl Expected {
    /// The strongest digest of a text such as `sha512-BASE64 sha1-BASE64`.
    pub(super) fn of_integrity(text: &str) -> Option<Self> {
        let hex = |name: &str, bytes: usize| {
            let found = text.split_whitespace().find_map(|part| part.strip_prefix(name)?.strip_prefix('-'))?;
            // Options may follow the digest.
            let found = found.split_once('?').map_or(found, |(digest, _)| digest);
            let digest = base64::engine::general_purpose::STANDARD.decode(found).ok()?;
            (digest.len() == bytes).then(|| hex::encode(digest))
        };
        let sha512 = hex("sha512", 64).map(Self::Sha512);
        sha512
            .or_else(|| hex("sha384", 48).map(Self::Sha384))
            .or_else(|| hex("sha256", 32).map(Self::Sha256))
            .or_else(|| hex("sha1", 20).map(Self::Sha1))
    }

    /// From digits, as indexes of Python projects and old npm packages give them.
    pub(super) fn of_digits(name: &str, digits: &str) -> Option<Self> {
        let digits = digits.to_ascii_lowercase();
        let fits = |length: usize| digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        match name {
            "sha1" if fits(40) => Some(Self::Sha1(digits)),
            "sha256" if fits(64) => Some(Self::Sha256(digits)),
            "sha384" if fits(96) => Some(Self::Sha384(digits)),
            "sha512" if fits(128) => Some(Self::Sha512(digits)),
            _ => None,
        }
    }

    pub(super) fn is_of(&self, digests: &Digests) -> bool {
        match self {
            Self::Sha1(digits) => *digits == digests.sha1,
            Self::Sha256(digits) => *digits == digests.sha256,
            Self::Sha384(digits) => *digits == digests.sha384,
            Self::Sha512(digits) => *digits == digests.sha512,
        }
    }

    /// With its name, for people and as the name of what is kept.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let (name, digits) = match self {
            Self::Sha1(digits) => ("sha1", digits),
            Self::Sha256(digits) => ("sha256", digits),
            Self::Sha384(digits) => ("sha384", digits),
            Self::Sha512(digits) => ("sha512", digits),
        };
        _ = write!(text, "{name}:{digits}");
        text
    }
}

/// All digests at once, while bytes come in.
#[derive(Clone, Default)]
pub(super) struct Hasher {
    sha1: Sha1,
    sha256: Sha256,
    sha384: Sha384,
    sha512: Sha512,
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.sha1.update(bytes);
        self.sha256.update(bytes);
        self.sha384.update(bytes);
        self.sha512.update(bytes);
    }

    pub(super) fn finish(self) -> Digests {
        Digests {
            sha1: hex::encode(self.sha1.finalize()),
            sha256: hex::encode(self.sha256.finalize()),
            sha384: hex::encode(self.sha384.finalize()),
            sha512: hex::encode(self.sha512.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_digest_counts() {
        let mut hasher = Hasher::default();
        hasher.update(b"a");
        hasher.update(b"bc");
        let digests = hasher.finish();
        let base64 =
            |digits: &str| base64::engine::general_purpose::STANDARD.encode(hex::decode(digits).expect("digits"));
        let sha1 = format!("sha1-{}", base64(&digests.sha1));
        let sha512 = format!("sha512-{}", base64(&digests.sha512));
        let other = format!("sha512-{}", base64(&"0".repeat(128)));
        let right = |text: &str| Expected::of_integrity(text).expect("a digest").is_of(&digests);
        assert!(right(&sha1) && right(&sha512) && right(&format!("{sha512}?option")));
        assert!(
            !right(&other) && !right(&format!("{sha1} {other}")),
            "the weaker one does not make up for the stronger"
        );
        for none in ["", "sha512", "sha512-", "sha512-AAAA", "md5-AAAA"] {
            assert_eq!(Expected::of_integrity(none), None, "{none}");
        }
        assert!(Expected::of_digits("sha256", &digests.sha256.to_uppercase()).expect("a digest").is_of(&digests));
        assert_eq!(Expected::of_digits("sha256", "12"), None);
        assert_eq!(Expected::of_digits("md5", &"0".repeat(32)), None);
    }
}

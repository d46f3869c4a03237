//! Credentials of registries. A secret is read anew for each request, so that a changed one takes effect without a restart,
//! and is held nowhere else: no value of this module prints it.

use std::path::PathBuf;

use base64::Engine as _;
use reqwest::header::HeaderValue;

/// Nobody's token is longer.
const MAX_BYTES: usize = 16 << 10;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Secret {
    File(PathBuf),
    /// Of the cell's own environment.
    Variable(String),
}

/// Who logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Credential {
    None,
    Bearer(Secret),
    Basic { user: String, password: Secret },
}

impl Secret {
    fn read(&self) -> Result<String, String> {
        let text = match self {
            Self::File(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("{} cannot be read ({error}); put the secret there", path.display()))?,
            Self::Variable(name) => std::env::var(name).map_err(|_| {
                format!("the variable {name} is not set; set it for `slipway up`, or name a file instead")
            })?,
        };
        let text = text.trim();
        let place = match self {
            Self::File(path) => path.display().to_string(),
            Self::Variable(name) => format!("the variable {name}"),
        };
        if text.is_empty() {
            return Err(format!("{place} is empty; put the secret there"));
        }
        if text.len() > MAX_BYTES || text.chars().any(char::is_control) {
            return Err(format!("{place} holds more than one line; leave the secret alone in it"));
        }
        Ok(text.to_owned())
    }
}

impl Credential {
    /// The value of `Authorization`; an error says which secret cannot be had, and never what it is.
    pub(super) fn header(&self) -> Result<Option<HeaderValue>, String> {
        let value = match self {
            Self::None => return Ok(None),
            Self::Bearer(token) => format!("Bearer {}", token.read()?),
            Self::Basic { user, password } => {
                let pair = format!("{user}:{}", password.read()?);
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
            }
        };
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| "the secret has characters that no header can hold; take another one".to_owned())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_each_time_and_never_shown() {
        let file = tempfile::NamedTempFile::new().expect("file");
        let secret = Secret::File(file.path().to_owned());
        let bearer = Credential::Bearer(secret.clone());
        let basic = Credential::Basic { user: "robot".to_owned(), password: secret };
        assert!(bearer.header().expect_err("empty").contains("is empty"));
        std::fs::write(file.path(), "first\n").expect("written");
        assert_eq!(bearer.header().expect("a header").expect("one"), "Bearer first");
        std::fs::write(file.path(), "second\n").expect("written");
        let header = basic.header().expect("a header").expect("one");
        assert_eq!(header, "Basic cm9ib3Q6c2Vjb25k");
        assert!(!format!("{header:?} {bearer:?} {basic:?}").contains("second"));
        std::fs::write(file.path(), "two\nlines").expect("written");
        let error = bearer.header().expect_err("two lines");
        assert!(error.contains("more than one line") && !error.contains("two"), "{error}");
        assert_eq!(Credential::None.header(), Ok(None));
    }
}

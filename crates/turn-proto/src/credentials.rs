//! With what a client shows that it may use a server.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::BASE64;
use zeroize::Zeroizing;

/// For how long a login counts that a shared secret makes. An allocation ends before, since its username must not
/// change (RFC 8656 section 7.1), so this is also how long one can last.
const VALIDITY: u64 = 24 * 3_600;
/// A login is replaced so long before it ends, because clocks differ.
const MARGIN: u64 = 3_600;

/// What a server knows its users by.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user of the server's (RFC 8489 section 9.2).
    LongTerm {
        /// Its name.
        username: String,
        /// Its password.
        password: Zeroizing<String>,
    },
    /// A secret that the server shares with whoever hands out logins that end
    /// (draft-uberti-behave-turn-rest-00, coturn's `use-auth-secret`).
    Shared {
        /// The secret.
        secret: Zeroizing<String>,
        /// What the logins are for, to be found in the server's log.
        name: String,
    },
}

/// A username and its password for one allocation.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The username.
    pub username: String,
    /// The password.
    pub password: Zeroizing<String>,
    /// How long it may be used; for ever if nothing is said.
    pub lasts: Option<Duration>,
}

impl Credentials {
    /// The login at this time, in Unix seconds.
    #[must_use]
    pub fn login(&self, wall: u64) -> Login {
        match self {
            Self::LongTerm { username, password } => {
                Login { username: username.clone(), password: password.clone(), lasts: None }
            }
            Self::Shared { secret, name } => {
                let username = format!("{}:{name}", wall.saturating_add(VALIDITY));
                let password = password_for(&username, secret);
                let lasts = Some(Duration::from_secs(VALIDITY - MARGIN));
                Login { username, password, lasts }
            }
        }
    }
}

/// The password that a shared secret gives a username.
fn password_for(username: &str, secret: &str) -> Zeroizing<String> {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    Zeroizing::new(BASE64.encode(hmac::sign(&key, username.as_bytes()).as_ref()))
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LongTerm { .. } => "Credentials(long-term)",
            Self::Shared { .. } => "Credentials(shared secret)",
        })
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    /// As `openssl dgst -sha1 -hmac sm-secret -binary | base64` has it.
    #[test]
    fn a_shared_secret_makes_the_password_that_others_compute() {
        let password = password_for("1700000000:alice", "sm-secret");
        assert_eq!(*password, "+WTWDnExoIC/+dt/oYugv0+Cyk0=");
    }

    #[test]
    fn a_login_of_a_shared_secret_names_its_end_and_is_replaced_before() {
        let credentials = Credentials::Shared { secret: secret("s"), name: "alice".into() };
        let login = credentials.login(1_700_000_000);
        assert_eq!(login.username, "1700086400:alice");
        assert!(login.lasts.is_some_and(|lasts| lasts < Duration::from_secs(VALIDITY)));
        assert_eq!(credentials.login(u64::MAX).username, format!("{}:alice", u64::MAX));
    }

    #[test]
    fn nothing_shows_a_secret() {
        let password = secret("hidden");
        let long = Credentials::LongTerm { username: "hidden".into(), password: password.clone() };
        let shared = Credentials::Shared { secret: password, name: "hidden".into() };
        let shown = format!("{long:?} {shared:?} {:?} {:?}", long.login(0), shared.login(0));
        assert!(!shown.contains("hidden"), "{shown}");
    }
}

//! Labels: what may be a name, and how a host's own name becomes one.

use thiserror::Error;

/// The longest label (RFC 1035 section 2.3.4), in bytes.
const MAX_LABEL: usize = 63;
/// Room that a name inside a zone may take, so that it stays within 255 bytes on the wire.
const MAX_RELATIVE: usize = 180;

/// Why a name or a prefix cannot be in a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameError {
    /// A label is empty, longer than 63 bytes or not of letters, digits and inner hyphens.
    #[error("a name has letters, digits and inner hyphens, at most 63 between two dots")]
    Label,
    /// The whole name is too long.
    #[error("the name is too long")]
    TooLong,
    /// A prefix does not end where a reverse name can be cut (RFC 1035 section 3.5, RFC 3596
    /// section 2.5).
    #[error("an IPv6 prefix must be a multiple of 4 bits long, an IPv4 prefix of 8")]
    Prefix,
    /// Two zones bear the same name.
    #[error("two networks have the same name; give one of them an alias")]
    DuplicateZone,
}

/// Checks one label and folds its case.
pub(crate) fn parse_label(text: &str) -> Result<String, NameError> {
    let inner = text.trim_start_matches('_');
    let fits = (1..=MAX_LABEL).contains(&text.len()) && text.len() - inner.len() <= 1;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !fits || inner.is_empty() || inner.starts_with('-') || inner.ends_with('-') {
        return Err(NameError::Label);
    }
    if !inner.bytes().all(allowed) {
        return Err(NameError::Label);
    }
    Ok(text.to_ascii_lowercase())
}

/// Checks a dotted name inside a zone; returns its labels from the top down.
pub(crate) fn parse_relative(text: &str) -> Result<Vec<String>, NameError> {
    if text.len() > MAX_RELATIVE {
        return Err(NameError::TooLong);
    }
    text.split('.').rev().map(parse_label).collect()
}

/// Makes a label of a host's own name: its first part, in lower case, with everything else than
/// letters and digits turned into single hyphens. `None` when nothing is left.
///
/// ```
/// assert_eq!(naming::host_label("Anna's MacBook.local").as_deref(), Some("anna-s-macbook"));
/// assert_eq!(naming::host_label("___"), None);
/// ```
#[must_use]
pub fn host_label(host: &str) -> Option<String> {
    let mut label = String::new();
    for character in host.split('.').next()?.chars() {
        if character.is_ascii_alphanumeric() {
            label.push(character.to_ascii_lowercase());
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
    }
    label.truncate(MAX_LABEL);
    label.truncate(label.trim_end_matches('-').len());
    (!label.is_empty()).then_some(label)
}

//! Passphrases: asked for at the terminal, given by the environment, or made.

use std::io::IsTerminal as _;

use rand_core::Rng as _;
use zeroize::Zeroizing;

use crate::clock;
use crate::exit::{Exit, Failure};

/// Letters and digits that nobody mistakes for others, as in z-base-32.
const ALPHABET: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";
/// Groups of five characters: 125 bits.
const GROUPS: usize = 5;

/// A passphrase with 125 bits of randomness, in groups that can be copied by hand.
pub(crate) fn generated() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; GROUPS * 5]);
    clock::rng().fill_bytes(bytes.as_mut_slice());
    let mut text = Zeroizing::new(String::with_capacity(GROUPS * 6));
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 && index % 5 == 0 {
            text.push('-');
        }
        text.push(char::from(ALPHABET[usize::from(byte % 32)]));
    }
    text
}

/// The passphrase in an environment variable.
pub(crate) fn given(variable: &str) -> Option<Zeroizing<String>> {
    std::env::var(variable).ok().map(Zeroizing::new)
}

/// The passphrase in an environment variable, or the answer at the terminal to `prompt`; a new one is asked for twice.
pub(crate) fn ask(
    variable: &str,
    prompt: &str,
    is_new: bool,
) -> Result<Zeroizing<String>, Failure> {
    if let Some(given) = given(variable) {
        return Ok(given);
    }
    if !std::io::stdin().is_terminal() {
        let text = format!("a passphrase is needed: run this at a terminal, or set {variable}");
        return Err(Failure::new(Exit::Usage, text));
    }
    let read = |prompt: &str| {
        let answer = rpassword::prompt_password(format!("{prompt}: "));
        answer
            .map(Zeroizing::new)
            .map_err(|error| Failure::new(Exit::Host, format!("the terminal: {error}")))
    };
    let answer = read(prompt)?;
    if is_new && *answer != *read(&format!("{prompt}, once more"))? {
        return Err(Failure::new(Exit::Usage, "the two passphrases differ; nothing was written"));
    }
    if answer.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            "an empty passphrase protects nothing; nothing was written",
        ));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_passphrases_are_groups_of_five_and_differ() {
        let (one, other) = (generated(), generated());
        assert_eq!(one.split('-').map(str::len).collect::<Vec<_>>(), [5; GROUPS]);
        assert_ne!(*one, *other);
    }
}

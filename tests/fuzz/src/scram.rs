//! What SASL takes from SCRAM, without its cryptography: here a proof is right if it is a zero.

use std::num::NonZeroU32;

#[derive(Debug)]
pub struct Verifier {
    pub salt: Vec<u8>,
    pub iterations: NonZeroU32,
}

impl Verifier {
    pub fn is_proof(&self, proof: &[u8], _signed: &str) -> bool {
        proof == b"0"
    }

    pub fn server_signature(&self, _signed: &str) -> [u8; 32] {
        [0; 32]
    }
}

pub fn unescaped(text: &str) -> Option<String> {
    let plain = text.replace("=2C", ",").replace("=3D", "\0");
    (!plain.contains('=')).then(|| plain.replace('\0', "="))
}

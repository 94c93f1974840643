//! Tokens go forward, and what is passed over is what would have been read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::protocol::tokenizer::{DEPTH_MAX, Token, Tokens};

/// Reads one value token by token; nothing if it is none, or nests too deep to be read.
fn walk(tokens: &mut Tokens<'_>) -> Option<()> {
    let mut depth = 0_u32;
    loop {
        match tokens.next().ok()?? {
            Token::Open => depth += 1,
            Token::Close => depth = depth.checked_sub(1)?,
            Token::Atom(atom) => assert!(!atom.is_empty()),
            Token::String(_) => {}
        }
        assert!(depth <= DEPTH_MAX);
        if depth == 0 {
            return Some(());
        }
    }
}

fn texts(tokens: &mut Tokens<'_>) {
    assert!(tokens.texts(9).unwrap_or_default().len() <= 9);
}

fn string(tokens: &mut Tokens<'_>) {
    let _: Result<_, _> = tokens.string();
}

fn number(tokens: &mut Tokens<'_>) {
    let _: Result<_, _> = tokens.number();
}

fuzz_target!(|octets: &[u8]| {
    let mut tokens = Tokens::new(octets);
    loop {
        let before = tokens.rest().len();
        let (mut walked, mut skipped) = (tokens.clone(), tokens.clone());
        let skips = skipped.skip();
        if walk(&mut walked).is_some() {
            assert_eq!(skips, Ok(()));
            assert_eq!(walked.rest(), skipped.rest());
        }
        for read in [texts, string, number] {
            let mut tokens = tokens.clone();
            read(&mut tokens);
            assert!(tokens.rest().len() <= before);
        }
        // Items and values in turn, as FETCH has them.
        let is_item = tokens.item().is_ok_and(|item| item.is_some());
        if !is_item && tokens.skip().is_err() {
            break;
        }
        assert!(tokens.rest().len() < before, "no token is empty");
    }
});

//! Remarks, ends of commands, continuations, capabilities and ID.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::protocol::{Code, Response};
use postrider_fuzz::responses;

const BEGINS: [&str; 8] = ["", "* OK ", "* BYE [", "p1 NO ", "+ ", "* CAPABILITY ", "* ENABLED ", "* ID "];

fuzz_target!(|input: (u8, &[u8])| {
    let (begin, octets) = input;
    for response in responses(BEGINS[usize::from(begin) % BEGINS.len()], octets, "") {
        match response {
            Response::Status(reply) | Response::Tagged(_, reply) => {
                assert!(reply.text.chars().count() <= 500);
                if let Some(Code::Named(name)) = reply.code {
                    assert!((1..=100).contains(&name.chars().count()));
                }
            }
            Response::Capabilities(list) | Response::Enabled(list) => {
                assert!(list.0.len() <= 500 && list.0.iter().all(|word| !word.is_empty()));
            }
            Response::Continue(text) => assert!(text.len() <= octets.len() * 3),
            Response::Id(fields) => assert!(fields.len() <= 60),
            _ => {}
        }
    }
});

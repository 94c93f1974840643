//! BODYSTRUCTURE: bounded in depth, parts and parameters.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_fuzz::protocol::{Part, Response};
use postrider_fuzz::responses;

fn measure(part: &Part, depth: usize) -> (usize, usize) {
    assert!(depth <= 40);
    assert!(part.children.is_empty() || part.major == "multipart");
    assert!(part.major.chars().all(|character| !character.is_ascii_uppercase()));
    let (mut parts, mut parameters) = (1, part.parameters.len() + part.disposition_parameters.len());
    for child in &part.children {
        let (of_child, of_child_parameters) = measure(child, depth + 1);
        parts += of_child;
        parameters += of_child_parameters;
    }
    (parts, parameters)
}

fuzz_target!(|octets: &[u8]| {
    for response in responses("* 1 FETCH (BODYSTRUCTURE ", octets, " UID 7)") {
        if let Response::Fetch(_, message) = response
            && let Some(structure) = message.structure
        {
            let (parts, parameters) = measure(&structure, 1);
            assert!(parts <= 2001 && parameters <= 10_000);
        }
    }
});

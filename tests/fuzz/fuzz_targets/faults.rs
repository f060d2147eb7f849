#![no_main]
#![allow(dead_code)]

#[path = "../../../src/cli/address.rs"]
mod address;
#[path = "../bodies.rs"]
mod bodies;
#[path = "../../common/diary.rs"]
mod diary;
#[path = "../../common/script.rs"]
mod script;

libfuzzer_sys::fuzz_target!(|text: &str| bodies::faults(text));

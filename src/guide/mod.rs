#![doc = include_str!("rustdoc_links.txt")]
#![doc = include_str!("guide.md")]
// Text only: compiled for its documentation and for the tests in it.
//
// The texts end with the targets of their links on GitHub. In CommonMark the first definition of a
// target counts, so `rustdoc_links.txt` comes before each text and defines them for rustdoc.

#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("01_blocking.md")]
pub mod _01_blocking {}
#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("02_busy.md")]
pub mod _02_busy {}
#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("03_poll.md")]
pub mod _03_poll {}
#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("04_drain.md")]
pub mod _04_drain {}
#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("05_slab.md")]
pub mod _05_slab {}
#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("06_partial_writes.md")]
pub mod _06_partial_writes {}
#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("07_back_pressure.md")]
pub mod _07_back_pressure {}
#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("08_linger.md")]
pub mod _08_linger {}
#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("09_descriptors.md")]
pub mod _09_descriptors {}
#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("10_timers_and_signals.md")]
pub mod _10_timers_and_signals {}
#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("11_simulator.md")]
pub mod _11_simulator {}
#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("exercises.md")]
pub mod exercises {}
#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("library.md")]
pub mod library {}
#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("own_server.md")]
pub mod own_server {}
#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("when.md")]
pub mod when {}
#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("states.md")]
pub mod states {}
#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("glossary.md")]
pub mod glossary {}
#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("last_bytes.md")]
pub mod last_bytes {}
#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("cost.md")]
pub mod cost {}
#[doc = include_str!("rustdoc_links.txt")]
#[doc = include_str!("stability.md")]
pub mod stability {}

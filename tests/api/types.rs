//! What the crate exports, and between which threads it moves.

use std::sync::Arc;

use campanile::{
    Accepted, Address, Background, Clock, CloseReason, ConnId, Control, Handle, Limits,
    ListenOptions, ListenerId, Outbox, Protocol, Reactor, SendError, Stats, Zone,
};

/// Compiles only if both hold.
fn is_send_and_sync<T: Send + Sync>() {}

#[test]
fn values_and_handles_move_between_threads() {
    is_send_and_sync::<(Handle, Background, SendError, SendError<Arc<[u8]>>)>();
    is_send_and_sync::<(Accepted, Address, CloseReason, ConnId, ListenerId)>();
    is_send_and_sync::<(Limits, ListenOptions, Stats, Clock, Zone)>();
    #[cfg(feature = "local-time")]
    is_send_and_sync::<campanile::ZoneError>();
}

/// A type that is `Send` has two impls of this trait: then the test below does not compile.
trait IsNotSend<Marker> {
    const CHECKED: bool = true;
}

struct Sends;
impl<T: ?Sized> IsNotSend<()> for T {}
impl<T: ?Sized + Send> IsNotSend<Sends> for T {}

#[test]
fn a_reactor_its_control_and_its_outboxes_stay_on_one_thread() {
    let checked = [
        <Reactor as IsNotSend<_>>::CHECKED,
        <Control<'static> as IsNotSend<_>>::CHECKED,
        <Outbox as IsNotSend<_>>::CHECKED,
        <dyn Protocol as IsNotSend<_>>::CHECKED,
    ];
    assert_eq!(checked, [true; 4]);
}

#[test]
fn the_root_of_the_crate_exports_this_and_no_more() {
    let expected = "Accepted Address Background Clock CloseReason ConnId Control Handle Limits \
        ListenOptions ListenerId Outbox Protocol Reactor SendError Stats Zone ZoneError daytime echo relay";
    let source = include_str!("../../src/lib.rs");
    let root = source.lines().filter_map(|line| line.strip_prefix("pub use "));
    let names = root.flat_map(|line| {
        let (_, names) = line.trim_end_matches(';').rsplit_once("::").unwrap();
        names.trim_matches(['{', '}']).split(", ")
    });
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    assert_eq!(names.join(" "), expected);
}

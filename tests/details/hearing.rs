//! What a protocol sends keeps its order.

use campanile::{Limits, Outbox, Protocol};

use super::sim::fake::World;
use super::{serving, turns};

#[test]
fn bytes_of_the_protocol_follow_the_data_sent_before_them() {
    /// Sends back what it receives, and as many bytes of its own.
    struct Chorus;
    impl Protocol for Chorus {
        fn on_data(&mut self, data: &[u8], out: &mut Outbox) {
            out.send(data);
            out.send(&vec![b'!'; data.len()]);
        }
    }
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), |_| Chorus);
    let client = world.connect(0);
    client.send(b"bim");
    turns(&mut reactor, 2);
    assert_eq!(client.received(), b"bim!!!");
}

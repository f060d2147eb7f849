//! Handles: messages, broadcasts, errors that give the content back, and wake-ups.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use campanile::services::Echo;
use campanile::{Handle, Limits, ListenOptions, Outbox, Protocol, Reactor, SendError, echo};

use super::sim::fake::{World, serving, settle};
use super::{Call, Each, Log, join, nowhere, seconds};

/// Answers with 5,000 dots, piece by piece, and keeps messages until the answer is complete.
#[derive(Default)]
struct Replier {
    left: usize,
    news: Vec<u8>,
}

impl Replier {
    fn advance(&mut self, out: &mut Outbox) {
        while self.left > 0 && !out.is_congested() {
            let piece = self.left.min(300);
            out.send(&[b'.'; 300][..piece]);
            self.left -= piece;
        }
        if self.left == 0 {
            out.send(&std::mem::take(&mut self.news));
        }
    }
}

impl Protocol for Replier {
    fn on_data(&mut self, _: &[u8], out: &mut Outbox) {
        self.left = 5000;
        self.advance(out);
    }
    fn on_drain(&mut self, out: &mut Outbox) {
        self.advance(out);
    }
    fn on_message(&mut self, bytes: &[u8], out: &mut Outbox) {
        self.news.extend_from_slice(bytes);
        self.advance(out);
    }
}

#[test]
fn messages_and_broadcasts_during_a_reply_follow_it() {
    let world = World::new();
    let limits = Limits::default().high_water(1000).low_water(100);
    let mut reactor = serving(&world, limits, |_| Replier::default());
    let (client, id) = join(&world, &mut reactor);
    client.make_room(2500);
    client.send(b"get");
    settle(&mut reactor);
    assert_eq!(client.received(), [b'.'; 2500]);
    reactor.handle().send(id, b"news, ").unwrap();
    reactor.handle().broadcast(None, *b"for all").unwrap();
    settle(&mut reactor);
    client.make_room(usize::MAX);
    settle(&mut reactor);
    let rest = client.received();
    assert_eq!((rest[..2500] == [b'.'; 2500], &rest[2500..]), (true, &b"news, for all"[..]));
}

#[test]
fn by_default_a_message_is_sent_to_the_peer_even_while_the_protocol_is_paused() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), |_| Box::new(Echo) as Box<dyn Protocol>);
    let (client, id) = join(&world, &mut reactor);
    reactor.with(id, |_: &mut Echo, out| out.pause()).unwrap();
    client.send(b"unread");
    reactor.handle().send(id, "text, ").unwrap();
    reactor.handle().send(id, vec![b'v', b'e', b'c']).unwrap();
    settle(&mut reactor);
    assert_eq!((client.received(), client.unread()), (b"text, vec".to_vec(), 6));
}

#[test]
fn one_broadcast_reaches_1500_connections_through_a_mailbox_of_one() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default().mailbox(1), echo());
    let clients: Vec<_> = (0..1500).map(|_| world.connect(0)).collect();
    settle(&mut reactor);
    let bytes: Arc<[u8]> = Arc::from(*b"news");
    reactor.handle().broadcast(None, Arc::clone(&bytes)).unwrap();
    settle(&mut reactor);
    assert!(clients.iter().all(|client| client.received() == b"news"));
    assert_eq!(Arc::strong_count(&bytes), 1, "the mailbox has let go of the bytes");
}

#[test]
fn a_broadcast_for_one_listener_reaches_its_open_connections_and_no_others() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), echo());
    let options = ListenOptions::default();
    let (told, tells) = channel();
    let second = reactor.listen_with(nowhere(), options, move |accepted| {
        told.send(accepted.listener).unwrap();
        Echo
    });
    let second = second.unwrap();
    let [first, ours, closed] = [0, 1, 1].map(|listener| world.connect(listener));
    let far = world.expect_connect();
    reactor.connect(nowhere(), Echo);
    far.establish();
    settle(&mut reactor);
    assert_eq!(tells.try_iter().collect::<Vec<_>>(), [second; 2]);
    closed.end();
    settle(&mut reactor);
    reactor.handle().broadcast(second, *b"news").unwrap();
    settle(&mut reactor);
    let received = [&first, &ours, &closed, &far].map(|client| client.received());
    assert_eq!(received, [&b""[..], b"news", b"", b""]);
    // The connections of a closed listener stay its own; the others follow in a broadcast for all,
    // except one that is not made yet.
    assert!(reactor.close_listener(second));
    world.expect_connect();
    reactor.connect(nowhere(), Echo);
    reactor.handle().broadcast(second, *b"more").unwrap();
    reactor.handle().broadcast(None, *b"!").unwrap();
    settle(&mut reactor);
    let received = [&first, &ours, &closed, &far].map(|client| client.received());
    assert_eq!(received, [&b"!"[..], b"more!", b"", b"!"]);
    assert_eq!(reactor.stats().gone, 0, "a broadcast misses no connection");
}

/// Counts its drops, and posts in them.
struct Dropped(Arc<AtomicUsize>, Handle);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        self.1.wake();
    }
}

#[test]
fn a_full_mailbox_gives_back_bytes_and_says_what_to_do() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default().mailbox(1), echo());
    let (client, id) = join(&world, &mut reactor);
    let handle = reactor.handle();
    handle.send(id, b"first, ").unwrap();
    let refused = handle.send(id, b"second").unwrap_err();
    assert_eq!(refused, SendError::Full(b"second".to_vec()));
    assert!(refused.to_string().ends_with("try again after its next turn"), "{refused}");
    assert_eq!(&*handle.broadcast(None, *b"all").unwrap_err().into_inner(), b"all");
    assert_eq!(handle.abort(id), Err(SendError::Full(())));
    settle(&mut reactor);
    handle.send(id, refused.into_inner()).unwrap();
    // A shutdown fits into a full mailbox.
    handle.shutdown(seconds(5));
    settle(&mut reactor);
    assert_eq!(client.received(), b"first, second");
    client.end();
    reactor.run().unwrap();
    assert!(!handle.is_closed(), "it may turn again");
}

#[test]
fn a_handle_that_outlives_its_reactor_is_closed_and_keeps_nothing() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), echo());
    let (_client, id) = join(&world, &mut reactor);
    let (handle, drops) = (reactor.handle(), Arc::default());
    let posted: Arc<[u8]> = Arc::from(*b"never taken");
    handle.broadcast(None, Arc::clone(&posted)).unwrap();
    let closure = Dropped(Arc::clone(&drops), handle.clone());
    handle.run(move |_| drop(closure)).unwrap();
    assert!(!handle.is_closed());
    drop(reactor);
    assert!(handle.is_closed());
    let dropped = || (Arc::strong_count(&posted), drops.load(Ordering::Relaxed));
    assert_eq!(dropped(), (1, 1), "what was posted is dropped with the reactor");
    for _ in 0..2000 {
        let error = handle.send(id, vec![7; 1 << 10]).unwrap_err();
        assert_eq!(error, SendError::Closed(vec![7; 1 << 10]));
    }
    let error = handle.broadcast(None, Arc::clone(&posted)).unwrap_err();
    assert!(error.to_string().contains("it is gone"), "{error}");
    assert!(Arc::ptr_eq(&error.into_inner(), &posted));
    let closure = Dropped(Arc::clone(&drops), handle.clone());
    assert_eq!(handle.run(move |_| drop(closure)), Err(SendError::Closed(())));
    assert_eq!(dropped(), (1, 2), "and what is posted later is refused");
}

#[test]
fn a_post_wakes_the_loop_only_if_no_wake_up_is_pending() {
    let world = World::new();
    let mut reactor = serving(&world, Limits::default(), echo());
    let (_client, id) = join(&world, &mut reactor);
    let (handle, before) = (reactor.handle(), world.wakes());
    for _ in 0..100 {
        handle.send(id, b"x").unwrap();
        handle.wake();
    }
    assert_eq!(world.wakes(), before + 1);
    settle(&mut reactor);
    handle.close(id).unwrap();
    assert_eq!(world.wakes(), before + 2, "the loop has read the mail, and sleeps again");
    settle(&mut reactor);
    drop(reactor);
    handle.wake();
    assert_eq!(world.wakes(), before + 2, "no loop is left to wake");
}

#[test]
fn posts_from_the_thread_of_the_loop_call_the_waker_once_a_turn() {
    let (world, log) = (World::new(), Log::default());
    let mut reactor = Reactor::with_kernel(world.kernel(), Limits::default());
    let (handle, kept) = (reactor.handle(), log.clone());
    let each = move |call: Call<'_>, out: &mut Outbox| match call {
        Call::Data(_) => (0..100).for_each(|_| handle.send(out.id(), b"x").unwrap()),
        Call::Message(_) => kept.add("message"),
        _ => {}
    };
    reactor.listen("127.0.0.1:0", move |_| Each(each.clone())).unwrap();
    let (client, _) = join(&world, &mut reactor);
    let before = world.wakes();
    client.send(b"go");
    settle(&mut reactor);
    assert_eq!((log.take().len(), world.wakes()), (100, before + 1));
}

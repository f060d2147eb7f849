//! Conversations through a relay: both ends of each are played from one seed.

use std::time::Duration;

use campanile::services::Upstream;
use campanile::{Limits, Reactor, relay};

use super::fake::{Client, Fake, NOW, World, serving};
use super::random::{Random, said};
use super::socket::Link;
use super::world::Selector;

/// More turns than any of this needs.
const MANY: usize = 100_000;

/// A client, and the server that the relay has connected to for it.
struct Pair {
    ends: [Client; 2],
    /// The bytes of each end that the other one has received, and that were compared.
    compared: [usize; 2],
    /// The end was reset while the relay could notice it, and had read no EOF of it.
    was_cut: [bool; 2],
    /// The end was reset after the relay had read its EOF.
    was_complete: [bool; 2],
}

/// A seeded run: returns its turns, or the rule that the relay broke.
pub fn run(seed: u64) -> Result<u64, String> {
    let mut game = Game::new(seed);
    for _ in 0..20 + game.random.below(100) {
        game.act();
        game.verdict()?;
    }
    game.finish()?;
    Ok(game.reactor.stats().turns)
}

struct Game {
    random: Random,
    world: World,
    reactor: Reactor<Fake>,
    pairs: Vec<Pair>,
    /// The most bytes that may wait in one direction.
    bound: usize,
    closes_on_failure: bool,
    violation: Option<String>,
    told: Vec<String>,
}

impl Game {
    fn new(seed: u64) -> Game {
        let mut random = Random::new(seed ^ 0x2e1a_7ed0);
        let selector = random.pick(&[Selector::Miser, Selector::Noise, Selector::Epoll]);
        let world = World::seeded(selector, seed, random.pick(&[1, 2, 3, 8, 1024]));
        let (high_water, read_buffer) =
            (random.pick(&[1, 2, 7, 64, 200, 1000]), random.pick(&[1, 5, 100, 4096]));
        let limits = Limits::default()
            .idle_timeout(None)
            .connect_timeout(Duration::from_secs(1_000_000))
            .linger_timeout(Duration::from_secs(1_000_000))
            .high_water(high_water)
            .low_water(random.below(high_water))
            .leftover_budget(random.pick(&[1, 3, 20, 300, 256 << 10]))
            .fresh_budget(random.pick(&[1, 2, 20, 100, 64 << 10]))
            .max_accepts_per_turn(random.pick(&[1, 2, 256]))
            .read_buffer(read_buffer);
        let closes_on_failure = random.percent(30);
        let addr = |port| std::net::SocketAddr::from(([10, 0, 0, 9], port));
        let upstream = Upstream::new([addr(1), addr(2)]).close_on_failure(closes_on_failure);
        let reactor = serving(&world, limits, relay(upstream));
        let bound = high_water + read_buffer - 1;
        let (pairs, violation, told) = Default::default();
        Game { random, world, reactor, pairs, bound, closes_on_failure, violation, told }
    }

    fn violate(&mut self, what: impl Into<String>) {
        self.violation.get_or_insert(what.into());
    }

    fn verdict(&self) -> Result<(), String> {
        let broken = self.violation.clone().or_else(|| self.world.violation());
        broken.map_or(Ok(()), |what| Err(format!("{what}\n{}", self.told.join("\n"))))
    }

    fn act(&mut self) {
        let action = self.random.below(100);
        match action {
            _ if self.pairs.is_empty() => self.connect(),
            0..=7 => self.connect(),
            8..=74 => self.act_afar(action),
            75..=79 => {
                let millis = self.random.pick(&[1, 10, 1_000, 5_000]);
                self.told.push(format!("sleep {millis} ms"));
                self.sleep(Duration::from_millis(millis));
            }
            80..=95 => (0..1 + self.random.below(6)).for_each(|_| self.turn()),
            _ => self.settle(),
        }
    }

    /// A client comes, and the turns follow in which the relay asks for its server.
    fn connect(&mut self) {
        let refused = |world: &World| {
            let server = world.expect_connect();
            server.socket(|socket| socket.link = Link::Refused(libc::ECONNREFUSED));
            server
        };
        let dial = self.random.below(6);
        match dial {
            0 => drop(refused(&self.world)),
            1 => self.world.expect_failed_connect(libc::ENETUNREACH),
            _ => {}
        }
        let server = match dial {
            5 => {
                drop(refused(&self.world));
                refused(&self.world)
            }
            _ => self.world.expect_connect(),
        };
        if self.random.percent(30) && dial < 5 {
            server.socket(|socket| socket.link = Link::Up);
        }
        let ends = [self.world.connect(0), server];
        for end in &ends {
            // A socket that has just connected can be written.
            let room = self.random.pick(&[1, 1, 10, 300, 1 << 20]);
            end.socket(|socket| socket.room = room);
        }
        let index = self.pairs.len();
        self.told.push(format!("connect {index}, dial {dial}"));
        self.pairs.push(Pair {
            ends,
            compared: [0; 2],
            was_cut: [false; 2],
            was_complete: [false; 2],
        });
        if self.random.percent(50) {
            self.send(index, 0);
        }
        for _ in 0..MANY {
            if self.world.has_dialled() {
                return;
            }
            self.turn();
        }
        self.violate("a client has come and no server is asked for");
    }

    /// One of the far ends does something.
    fn act_afar(&mut self, action: usize) {
        let recent = self.pairs.len().min(4);
        let all = if self.random.percent(50) { recent } else { self.pairs.len() };
        let index = self.pairs.len() - 1 - self.random.below(all);
        let side = self.random.below(2);
        let end = self.pairs[index].ends[side].clone();
        let link = end.socket(|socket| socket.link);
        if link != Link::Up {
            match (link, action) {
                (Link::Pending, 8..=20) => end.establish(),
                (Link::Pending, 21..=22) => {
                    end.refuse();
                    // The relay asks for the next address here, and not for that of a later pair.
                    self.settle();
                }
                _ => {}
            }
            self.told.push(format!("link of {index} {link:?} {action}"));
            return;
        }
        self.told.push(format!("{index}.{side} {action}"));
        let may_send = end.socket(|socket| !socket.fin && !socket.was_reset);
        match action {
            8..=34 if may_send => self.send(index, side),
            35..=44 => {
                if may_send {
                    end.end();
                }
            }
            45..=46 => self.reset(index, side),
            47..=49 => end.socket(|socket| socket.interrupts += 1),
            50..=54 => {
                let count = 1 + self.random.below(8);
                end.socket(|socket| socket.short = Some(count));
            }
            _ => end.make_room(self.random.pick(&[0, 1, 5, 40, 500, 1 << 20])),
        }
    }

    fn send(&mut self, index: usize, side: usize) {
        let end = &self.pairs[index].ends[side];
        let (sent, count) =
            (end.socket(|socket| socket.sent), self.random.pick(&[1, 2, 10, 100, 700]));
        let bytes: Vec<u8> = (sent..sent + count).map(|at| said(index * 2 + side, at)).collect();
        end.send(&bytes);
    }

    fn reset(&mut self, index: usize, side: usize) {
        let Pair { ends, was_cut, was_complete, .. } = &mut self.pairs[index];
        let keeps_data = self.random.percent(50);
        let can_notice =
            ends.iter().all(|end| !end.is_gone() && !end.socket(|socket| socket.was_reset));
        let has_ended = ends[side].socket(|socket| socket.eof);
        was_cut[side] |= can_notice && !has_ended;
        was_complete[side] |= can_notice && has_ended;
        ends[side].socket(|socket| {
            if !socket.was_reset {
                socket.reset(keeps_data)
            }
        });
        ends[side].notice_reset();
    }

    fn turn(&mut self) {
        self.sleep_once(NOW);
    }

    fn sleep_once(&mut self, timeout: Option<Duration>) {
        if let Err(error) = self.reactor.turn(timeout) {
            self.violate(format!("a turn failed: {error}"));
        }
        for index in 0..self.pairs.len() {
            for side in 0..2 {
                self.check(index, side);
            }
        }
    }

    fn sleep(&mut self, length: Duration) {
        let until = self.world.now() + length;
        while self.world.now() < until && self.violation.is_none() {
            self.sleep_once(Some(until - self.world.now()));
        }
    }

    fn settle(&mut self) {
        for _ in 0..MANY {
            self.turn();
            if self.is_quiet() || self.violation.is_some() {
                return self.check_progress();
            }
        }
        self.violate("the loop spins");
    }

    fn is_quiet(&self) -> bool {
        self.world.is_silent() && self.reactor.timeout() != NOW
    }

    /// Checks that nothing waits for a receiver that has room.
    fn check_progress(&mut self) {
        let waits = |from: &Client, to: &Client| {
            let is_up = |end: &Client| {
                !end.is_gone() && end.socket(|socket| socket.link == Link::Up && !socket.was_reset)
            };
            let has_more = from.socket(|socket| socket.unread() > 0 || (socket.fin && !socket.eof));
            let has_room = to.socket(|socket| socket.room > 0 && !socket.shut && !socket.aborted);
            is_up(from) && is_up(to) && has_more && has_room
        };
        let stuck = self.pairs.iter().position(|Pair { ends: [client, server], .. }| {
            waits(client, server) || waits(server, client)
        });
        if let Some(index) = stuck {
            let brief =
                self.pairs[index].ends.each_ref().map(|end| end.socket(|socket| socket.brief()));
            let what = "bytes or an EOF wait for a receiver that has room";
            self.violate(format!("{index}: {what}: {brief:#?}"));
        }
    }

    /// Checks the bytes from one end of a pair to the other one.
    fn check(&mut self, index: usize, side: usize) {
        let Pair { ends, compared, .. } = &mut self.pairs[index];
        let (from, to) = (&ends[side], &ends[1 - side]);
        let (read, sent, fin) = from.socket(|socket| (socket.read, socket.sent, socket.fin));
        let start = compared[side];
        let (written, is_wrong) = to.tape(|tape| {
            let mut news = tape.received[start..].iter().enumerate();
            let is_wrong = news.any(|(at, &byte)| byte != said(index * 2 + side, start + at));
            (tape.received.len(), is_wrong)
        });
        compared[side] = written;
        let is_over = from.is_gone() || to.is_gone();
        let was_reset = from.socket(|socket| socket.was_reset);
        let has_failed = from.socket(|socket| matches!(socket.link, Link::Refused(_)));
        let (shut, aborted) = to.socket(|socket| (socket.shut, socket.aborted));
        let may_end = aborted
            || (has_failed && self.closes_on_failure)
            || (fin && (was_reset || written == sent));
        let wrong = if is_wrong || written > read {
            "bytes lost, added or out of order".to_owned()
        } else if !is_over && read - written > self.bound {
            format!("{} bytes are held", read - written)
        } else if shut && !may_end {
            "an EOF that the sender has not sent".to_owned()
        } else {
            return;
        };
        self.violate(format!("{index}.{side}: {wrong}"));
    }

    /// Everything is well from now on: each conversation must come to its end.
    fn finish(&mut self) -> Result<(), String> {
        self.world.calm();
        for pair in &self.pairs {
            for end in &pair.ends {
                end.recover();
            }
        }
        self.settle();
        self.sleep(Duration::from_secs(10));
        self.settle();
        for index in 0..self.pairs.len() {
            self.check_end(index);
        }
        if self.reactor.connections() > 0 {
            self.violate(format!("{} connections are left", self.reactor.connections()));
        }
        self.verdict()
    }

    fn check_end(&mut self, index: usize) {
        let Pair { ends, was_cut, was_complete, .. } = &self.pairs[index];
        let was_reset = ends.each_ref().map(|end| end.socket(|socket| socket.was_reset));
        let is_refused = ends[1].socket(|socket| matches!(socket.link, Link::Refused(_)));
        let mut wrong = None;
        for side in 0..2 {
            let (from, to) = (&ends[side], &ends[1 - side]);
            let written = to.tape(|tape| tape.received.len());
            if is_refused {
                let client = &ends[0];
                let is_told =
                    if self.closes_on_failure { client.saw_eof() } else { client.saw_reset() };
                if !is_told && !was_reset[0] {
                    wrong = Some("was not told that no server can be reached");
                }
            } else if was_cut[side] && !was_reset[1 - side] && !to.saw_reset() {
                wrong = Some("was reset, and the other end was not");
            } else if was_complete[side]
                && !was_reset[1 - side]
                && (written != from.socket(|socket| socket.sent) || to.saw_reset())
            {
                wrong = Some("had ended its half before its reset, and the other end was reset");
            } else if was_reset == [false; 2] && written != from.socket(|socket| socket.sent) {
                wrong = Some("sent bytes that did not arrive");
            } else if was_reset == [false; 2] && (!to.saw_eof() || to.saw_reset()) {
                wrong = Some("ended its half, and the other end got no EOF");
            }
            if let Some(wrong) = wrong {
                return self.violate(format!("{index}.{side} {wrong}"));
            }
        }
    }
}

//! What one seed stands for: a configuration, and a list of actions that can be cut shorter.

use std::time::Duration;

use campanile::Limits;

use super::faults::Order;
use super::random::Random;
use super::socket::Service;
use super::world::{CHUNK, Selector};

/// One thing that happens between two turns of the loop. Whom it means is counted modulo those
/// there are, so a list stays meaningful when parts of it are cut out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Connect { listener: usize, ip: u8, room: usize, sends: usize, ends: bool },
    Send { who: usize, count: usize },
    Urgent { who: usize, behind: usize },
    End { who: usize },
    Reset { who: usize, keeps_data: bool },
    Read { who: usize, room: usize },
    Interrupt { who: usize },
    Short { who: usize, count: usize },
    Fail { who: usize, errno: i32 },
    Delay { who: usize, millis: u64 },
    FailAccept { listener: usize, errno: i32, times: usize },
    Break { listener: usize, errno: i32 },
    FailRegister { errno: i32 },
    InterruptPoll,
    Dial { service: Service, outcome: Dialled },
    Result { who: usize, errno: Option<i32> },
    HandleSend { who: usize },
    HandleClose { who: usize },
    HandleWake { who: usize },
    Pass { millis: u64 },
    Sleep { millis: u64 },
    Turn { times: usize },
    Settle,
    Shutdown { grace: u64 },
    // A fault of the language is added, the nth one ends, or all end.
    Fault(Order),
    Heal(usize),
    Mend,
}

/// How connect(2) goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialled {
    AtOnce(i32),
    Pending,
    Up,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub selector: Selector,
    pub capacity: usize,
    pub limits: Limits,
    pub services: Vec<Service>,
    pub actions: Vec<Action>,
    /// Whether the loop turns on a kernel that obeys the fault language.
    pub is_faulty: bool,
    /// Whether a line is printed for each turn.
    pub is_told: bool,
}

/// Every error that accept(2) may report for one connection: the next may be fine.
pub const PEER_ERRNOS: &[i32] = &[
    libc::EINTR,
    libc::ECONNABORTED,
    libc::ECONNRESET,
    libc::EPROTO,
    libc::ENETDOWN,
    libc::ENETUNREACH,
    #[cfg(unix)]
    libc::EHOSTDOWN,
    libc::EHOSTUNREACH,
    #[cfg(target_os = "linux")]
    libc::ENONET,
    libc::ENOPROTOOPT,
    libc::EOPNOTSUPP,
    libc::ETIMEDOUT,
    libc::EPERM,
];

/// Those after which nothing but a pause helps.
pub const SCARCE_ERRNOS: [i32; 5] =
    [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EIO];

/// What ends a listener for good.
pub const BROKEN_ERRNOS: [i32; 4] = [libc::EBADF, libc::EINVAL, libc::ENOTSOCK, libc::EFAULT];

const STREAM_ERRNOS: [i32; 6] = [
    libc::ECONNRESET,
    libc::ETIMEDOUT,
    libc::EHOSTUNREACH,
    libc::ENOBUFS,
    libc::ENOMEM,
    libc::EPIPE,
];

const CONNECT_ERRNOS: [i32; 5] =
    [libc::ECONNREFUSED, libc::ENETUNREACH, libc::ETIMEDOUT, libc::EMFILE, libc::EADDRNOTAVAIL];

impl Plan {
    pub fn of(seed: u64) -> Plan {
        let mut random = Random::new(seed);
        let selector = random.pick(&[Selector::Miser, Selector::Noise, Selector::Epoll]);
        let capacity = random.pick(&[1, 1, 2, 3, 8, 1024]);
        let limits = limits(&mut random);
        use Service::{Daytime, Echo, Moody, Producer, Punctual};
        let all = [Echo, Daytime, Producer, Moody, Moody, Punctual];
        let mut services = vec![Service::Echo];
        services.extend((0..1 + random.below(3)).map(|_| random.pick(&all)));
        let length = 20 + random.below(130);
        let actions = (0..length).map(|_| action(&mut random)).collect();
        let no = false;
        Plan { seed, selector, capacity, limits, services, actions, is_faulty: no, is_told: no }
    }

    /// The same seed, with faults of the language at the beginning and in between.
    pub fn faulty(seed: u64) -> Plan {
        let mut random = Random::new(seed ^ 0x00fa_0175);
        let mut plan = Plan { is_faulty: true, ..Plan::of(seed) };
        for _ in 0..1 + random.below(5) {
            let at = if random.percent(50) { 0 } else { random.below(plan.actions.len()) };
            plan.actions.insert(at, Action::Fault(Order::draw(&mut random)));
            if random.percent(40) {
                let later = at + 1 + random.below(plan.actions.len() - at);
                plan.actions.insert(later, Action::Heal(random.below(5)));
            }
        }
        if random.percent(20) {
            plan.actions.insert(random.below(plan.actions.len()), Action::Mend);
        }
        plan
    }

    /// The same with fewer actions.
    pub fn with(&self, actions: Vec<Action>) -> Plan {
        Plan { actions, ..self.clone() }
    }
}

fn limits(random: &mut Random) -> Limits {
    let millis = |random: &mut Random, choices: &[u64]| {
        let picked = random.pick(choices);
        (picked > 0).then(|| Duration::from_millis(picked))
    };
    let high_water = random.pick(&[1, 2, 7, 64, 200, 1000]);
    Limits::default()
        .max_connections(random.pick(&[1, 2, 3, 8, 100]))
        .max_per_peer(random.pick(&[None, None, None, Some(1), Some(3)]))
        .idle_timeout(millis(random, &[0, 0, 50, 1_000, 60_000]))
        .write_timeout(millis(random, &[0, 0, 30, 500]))
        .linger_timeout(Duration::from_millis(random.pick(&[0, 20, 500, 2_000])))
        .linger_bytes(random.pick(&[0, 10, 500, 1 << 20]))
        .max_lifetime(millis(random, &[0, 0, 0, 300, 5_000]))
        .connect_timeout(Duration::from_millis(random.pick(&[40, 1_000, 10_000])))
        .max_send_queue(high_water + random.pick(&[2 * CHUNK, 50, 1 << 20]))
        .high_water(high_water)
        .low_water(random.below(high_water))
        .leftover_budget(random.pick(&[1, 3, 20, 300, 256 << 10]))
        .fresh_budget(random.pick(&[1, 2, 20, 100, 64 << 10]))
        .max_accepts_per_turn(random.pick(&[1, 2, 256]))
        .read_buffer(random.pick(&[1, 5, 100, 4096]))
        .mailbox(random.pick(&[1, 3, 1024]))
}

fn action(random: &mut Random) -> Action {
    // The newest are meant more often: they are in the middle of something.
    let who = random.below(1 << 20);
    match random.below(100) {
        0..=17 => Action::Connect {
            listener: random.below(4),
            ip: random.below(3) as u8,
            room: random.pick(&[0, 1, 10, 300, 1 << 20]),
            sends: random.pick(&[0, 0, 1, 30, 1000]),
            ends: random.percent(20),
        },
        18..=31 => Action::Send { who, count: random.pick(&[1, 2, 10, 100, 700]) },
        32..=38 => Action::End { who },
        39..=41 => Action::Reset { who, keeps_data: random.percent(50) },
        42..=51 => Action::Read { who, room: random.pick(&[1, 5, 40, 500, 1 << 20]) },
        52..=53 => Action::Urgent { who, behind: random.pick(&[0, 1, 20]) },
        54 => Action::Interrupt { who },
        55..=57 => Action::Short { who, count: 1 + random.below(8) },
        58 => Action::Fail { who, errno: random.pick(&STREAM_ERRNOS) },
        59 => Action::Delay { who, millis: 1 + random.below(400) as u64 },
        60..=61 => {
            let all = if random.percent(60) { PEER_ERRNOS } else { &SCARCE_ERRNOS[..] };
            let errno = random.pick(all);
            let times = random.pick(&[1, 2, 3, 30]);
            Action::FailAccept { listener: random.below(4), errno, times }
        }
        62 if random.percent(30) => {
            Action::Break { listener: random.below(4), errno: random.pick(&BROKEN_ERRNOS) }
        }
        62 | 63 => Action::FailRegister { errno: random.pick(&[libc::ENOSPC, libc::ENOMEM]) },
        64 => Action::InterruptPoll,
        65..=67 => Action::Dial {
            service: random.pick(&[Service::Echo, Service::Producer, Service::Moody]),
            outcome: match random.below(5) {
                0 => Dialled::AtOnce(random.pick(&CONNECT_ERRNOS)),
                1 => Dialled::Up,
                _ => Dialled::Pending,
            },
        },
        68..=69 => {
            let errno = random.percent(40).then(|| random.pick(&CONNECT_ERRNOS));
            Action::Result { who, errno }
        }
        70..=72 => Action::HandleSend { who },
        73 => Action::HandleClose { who },
        74 => Action::HandleWake { who },
        75..=77 => Action::Pass { millis: random.pick(&[1, 20, 100, 1_000, 70_000]) },
        78..=84 => Action::Sleep { millis: random.pick(&[1, 10, 100, 1_000, 70_000]) },
        85..=95 => Action::Turn { times: 1 + random.below(6) },
        96 if random.percent(20) => {
            Action::Shutdown { grace: random.pick(&[0, 10, 1_000, 100_000]) }
        }
        _ => Action::Settle,
    }
}

//! `campanile serve`: both services from one loop.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use campanile::record::{Recorded, Recorder};
use campanile::services::{Daytime, Echo};
use campanile::sys::{Kernel, Mio};
use campanile::{Clock, Limits, Reactor};

use super::address::Place;
use super::args::Serve;
use super::connections_log::ConnectionsLog;
use super::failure::{FAILED, Failure, USAGE};
use super::listen::{Make, Sockets, listen};
use super::output::{Output, Sink};
use super::ready::ReadyFile;
use super::signals::Signals;
use super::systemd::Systemd;
use super::test_setup::TestSetup;
use super::{files, logging, pipe, proxy};

/// Descriptors reserved for everything that is not a connection.
const SPARE_FILES: u64 = 32;
/// Time for the queued output to be written at the end.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);

pub fn serve(args: &Serve) -> ExitCode {
    // Before any thread starts: it changes the environment.
    let mut sockets = Sockets {
        #[cfg(unix)]
        inherited: super::inherited::Inherited::from_env(),
        shared: args.reuse_port.then_some(args.backlog),
    };
    let output = Output::new(args.json || args.pipe);
    logging::start(args, &output);
    let code = match run(args, &output, &mut sockets) {
        Ok(()) => 0,
        Err(failure) => {
            output.say_first(Sink::Stderr, failure.to_string());
            failure.code
        }
    };
    output.finish(OUTPUT_TIMEOUT);
    ExitCode::from(code)
}

/// Runs on the plain kernel unless the arguments ask for faults, events or a recording.
fn run(args: &Serve, output: &Output, sockets: &mut Sockets) -> Result<(), Failure> {
    check(args)?;
    let recorder = args.record.as_deref().map(|path| recorder(path, args)).transpose()?;
    let outcome = run_recorded(args, output, sockets, recorder.as_ref());
    if let Some(recorder) = recorder {
        // If something is missing, it has logged a warning.
        recorder.finish(OUTPUT_TIMEOUT);
    }
    outcome
}

fn recorder(path: &Path, args: &Serve) -> Result<Recorder, Failure> {
    let recorder = Recorder::create(path).map_err(|error| {
        let what = format!("cannot create the recording {}: {error}", path.display());
        Failure::new(FAILED, what, "name a file that can be written, in a directory that exists")
    })?;
    Ok(recorder.record_bytes(args.record_bytes.0.unwrap_or(0)).services(args.services()))
}

fn run_recorded(
    args: &Serve,
    output: &Output,
    sockets: &mut Sockets,
    recorder: Option<&Recorder>,
) -> Result<(), Failure> {
    let limits = limits(args);
    let failed = |error: io::Error| {
        Failure::new(FAILED, format!("cannot create the event loop: {error}"), files::ADVICE)
    };
    if !TestSetup::is_wanted(args) {
        let kernel = Mio::new(limits.events).map_err(failed)?;
        let Some(recorder) = recorder else {
            return run_on(
                Reactor::with_kernel(kernel, limits),
                args,
                output,
                sockets,
                (None, None),
            );
        };
        let kernel = Recorded::new(kernel, Some(recorder.clone()), &limits).map_err(failed)?;
        let reactor = Reactor::with_kernel(kernel, limits);
        return run_on(reactor, args, output, sockets, (None, Some(recorder)));
    }
    let setup = TestSetup::new(args, output, recorder).map_err(|error| {
        let service = args.proxy.last().map_or("echo", |route| route.name);
        let advice = format!("write it as in --fault '{service} #3: reset after 5 bytes'");
        Failure::new(USAGE, error, advice)
    })?;
    let reactor = setup.reactor(limits, recorder).map_err(failed)?;
    run_on(reactor, args, output, sockets, (Some(&setup), recorder))
}

fn run_on<K: Kernel>(
    mut reactor: Reactor<K>,
    args: &Serve,
    output: &Output,
    sockets: &mut Sockets,
    (setup, recorder): (Option<&TestSetup>, Option<&Recorder>),
) -> Result<(), Failure> {
    let signals = watch_signals(&mut reactor).map_err(|error| {
        Failure::new(FAILED, format!("cannot install the signal handlers: {error}"), files::ADVICE)
    })?;
    let connections_log = ConnectionsLog::default();
    let upstreams = proxy::resolve(&args.proxy)?;
    let mut systemd = Systemd::from_env();
    let name = |service: &str| {
        if let Some(setup) = setup {
            setup.serving(service);
        }
        if let Some(recorder) = recorder {
            recorder.serving(service);
        }
    };
    let (log, routes) = (&connections_log, &args.proxy);
    let mut bound = bind(&mut reactor, args, sockets, &name, log)?;
    bound.extend(proxy::bind(&mut reactor, routes, upstreams, sockets, &name, log)?);
    warn_of_unused(sockets);
    let status = |(service, addr): &(_, _)| format!("{service} {addr}");
    let status = bound.iter().map(status).collect::<Vec<_>>().join(", ");
    let lines: String = bound.iter().map(|(service, addr)| format!("{service} {addr}\n")).collect();
    // Removed on every way out.
    let ready_file =
        args.ready_file.as_deref().map(|path| ReadyFile::write(path, &lines)).transpose()?;
    output
        .say_first(Sink::Stdout, setup.and_then(|setup| setup.listening(&bound)).unwrap_or(lines));
    if let (true, Some(setup)) = (args.pipe, setup) {
        pipe::obey_stdin(setup, reactor.handle()).map_err(|error| {
            let advice = "raise the limit of processes and threads: ulimit -u unlimited";
            let what = format!("cannot start the thread that reads stdin: {error}");
            Failure::new(FAILED, what, advice)
        })?;
    }
    if let Some(time) = &args.clock {
        log::info!("the clock stands still at {}", time.text);
    }
    systemd.ready(&format!("listening on {status}"));
    let begin_end = || setup.into_iter().for_each(TestSetup::release_time);
    let ended = turn_until_finished(
        &mut reactor,
        &signals,
        args.grace,
        begin_end,
        (&connections_log, &mut systemd),
    );
    connections_log.finish();
    ended.map_err(|error| {
        Failure::new(FAILED, format!("the loop failed: {error}"), "start the program again")
    })?;
    // Before the `stopped` event, which says that nothing is left.
    drop(ready_file);
    setup.map_or(Ok(()), TestSetup::stopped)
}

#[cfg_attr(not(unix), allow(unused_variables))]
fn warn_of_unused(sockets: &Sockets) {
    #[cfg(unix)]
    for name in sockets.inherited.unused() {
        log::warn!(
            "no address names the socket {name} that was passed, so its clients wait; add --echo fd:{name}, or remove the socket unit"
        );
    }
}

#[cfg_attr(not(unix), allow(unused_variables))]
fn watch_signals<K: Kernel>(reactor: &mut Reactor<K>) -> io::Result<Signals> {
    let signals = Signals::watch()?;
    // ANCHOR: self-pipe
    #[cfg(unix)]
    reactor.watch(&signals)?;
    Ok(signals)
}

/// Turns the loop until it has finished. A signal wakes it and is handled between two turns.
/// Not inlined, because the compiler does not optimize the caller, which runs once, for speed.
#[inline(never)]
fn turn_until_finished<K: Kernel>(
    reactor: &mut Reactor<K>,
    signals: &Signals,
    grace: Duration,
    begin_end: impl Fn(),
    (connections_log, systemd): (&ConnectionsLog, &mut Systemd),
) -> io::Result<()> {
    let (mut first_seen, mut is_armed) = (None, false);
    while !reactor.is_finished() {
        let mut timeout = None;
        if let (Some(signal), false) = (signals.latest(), is_armed) {
            let is_first = first_seen.is_none();
            // Before anything else: until then, a duplicate of the first signal ends the process.
            timeout = signals.merge(first_seen.get_or_insert_with(Instant::now).elapsed());
            if is_first {
                log::debug!("received signal {signal}; open connections have {grace:?} to finish");
                systemd.stopping(&format!(
                    "ending: {} open connections have {grace:?} to finish",
                    reactor.connections()
                ));
                begin_end();
                reactor.handle().shutdown(grace);
            }
            if timeout.is_none() {
                log::debug!("another signal ends the program at once");
                is_armed = true;
            }
        }
        let watchdog = systemd.watchdog(|| format!("{} open connections", reactor.connections()));
        let timeouts = [timeout, connections_log.write_sums(), watchdog];
        reactor.turn(timeouts.into_iter().flatten().min())?;
    }
    reactor.outcome()
}

/// Checks combinations of arguments that clap does not check.
fn check(args: &Serve) -> Result<(), Failure> {
    let is_off = |places: &[Place]| places.contains(&Place::Off);
    for (service, places) in [("daytime", &args.daytime), ("echo", &args.echo)] {
        if is_off(places) && places.len() > 1 {
            let what = format!("--{service} off cannot be combined with other addresses");
            let advice = format!("use --{service} off alone, or remove the off");
            return Err(Failure::new(USAGE, what, advice));
        }
    }
    if args.quiet && args.verbose > 0 {
        let advice = "remove one of them; CAMPANILE_QUIET or CAMPANILE_VERBOSE may have set it";
        return Err(Failure::new(USAGE, "--quiet and --verbose cannot be combined", advice));
    }
    if args.json && args.pipe {
        let advice = "use --pipe alone: it prints the same events";
        return Err(Failure::new(USAGE, "--json and --pipe cannot be combined", advice));
    }
    if args.manual_time && !args.pipe {
        let advice =
            "add --pipe, and send `advance 5s` to stdin; CAMPANILE_MANUAL_TIME may have set it";
        return Err(Failure::new(
            USAGE,
            "--manual-time needs --pipe, or no time would pass",
            advice,
        ));
    }
    proxy::check(args)?;
    if is_off(&args.daytime) && is_off(&args.echo) && args.proxy.is_empty() {
        let advice = "remove --daytime off or --echo off";
        return Err(Failure::new(USAGE, "both services are off, so nothing is served", advice));
    }
    Ok(())
}

/// Binds every listener and returns each address with its service. `name` is called with a service
/// before its listeners are bound.
fn bind<K: Kernel>(
    reactor: &mut Reactor<K>,
    args: &Serve,
    sockets: &mut Sockets,
    name: &dyn Fn(&str),
    connections_log: &ConnectionsLog,
) -> Result<Vec<(&'static str, String)>, Failure> {
    let mut all = Vec::new();
    let mut add = |service, bound: Vec<String>| {
        all.extend(bound.into_iter().map(|addr| (service, addr)));
    };
    if args.daytime != [Place::Off] {
        let daytime = Daytime::new(clock(args)?);
        let make = || -> Make<Daytime> {
            let (log, daytime) = (connections_log.clone(), daytime.clone());
            Box::new(move |new| {
                log.add("daytime", "Got a connection from", &new.peer);
                daytime.clone()
            })
        };
        name("daytime");
        add("daytime", listen(reactor, sockets, "daytime", &args.daytime, &make)?);
    }
    let make = || -> Make<Echo> {
        let log = connections_log.clone();
        Box::new(move |new| {
            log.add("echo", "Connected by", &new.peer);
            Echo
        })
    };
    name("echo");
    add("echo", listen(reactor, sockets, "echo", &args.echo, &make)?);
    Ok(all)
}

fn clock(args: &Serve) -> Result<Clock, Failure> {
    let zone = args.zone.zone().map_err(|error| {
        let advice = "set TZ to a name such as Europe/Berlin or a rule such as CET-1CEST,M3.5.0,M10.5.0/3, or use --zone utc";
        Failure::new(FAILED, error.to_string(), advice)
    })?;
    let clock = args.clock.as_ref().map_or_else(Clock::system, |time| time.clock());
    Ok(clock.in_zone(zone))
}

fn limits(args: &Serve) -> Limits {
    let mut limits = Limits::default();
    if !args.proxy.is_empty() {
        // One read instead of two fills the 64 KiB of a relay: 19 % fewer system calls for each GB.
        limits = limits.read_buffer(64 << 10);
    }
    let default = limits.max_connections;
    limits
        .max_connections(connections(args.max_connections, default))
        .max_per_peer(args.max_per_peer.0)
        .idle_timeout(args.idle.0)
        .linger_timeout(args.linger)
        .max_lifetime(args.lifetime.0)
        .backlog(args.backlog)
}

/// Returns the limit of connections: the wanted number, or fewer if the descriptors do not suffice.
fn connections(asked: Option<usize>, default: usize) -> usize {
    let wanted = asked.unwrap_or(default);
    let Some(files) = files::raise_limit() else {
        return wanted;
    };
    let open = std::fs::read_dir("/dev/fd").map_or(3, Iterator::count) as u64;
    let room = files.saturating_sub(open + SPARE_FILES).max(1);
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if asked.is_some() && wanted > room {
        log::warn!(
            "the limit of open files is {files}, so at most {room} connections are open at once instead of {wanted}; raise it with ulimit -n"
        );
    }
    wanted.min(room)
}

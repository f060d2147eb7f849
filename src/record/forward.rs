//! `forward!`: what a wrapper of a kernel or a stream does not change.

/// Implements the named methods of `Kernel`, `Stream` or `Write` for a wrapper: each calls the same
/// method of `self.inner`.
///
/// The signatures name types that the calling module imports. The methods that take a listener or a
/// stream suit a wrapper whose listeners and streams are those of `self.inner`.
#[rustfmt::skip]
macro_rules! forward {
    ($($method:ident)*) => { $(forward! { @$method })* };

    // Kernel
    (@poll) => { fn poll(&mut self, timeout: Option<std::time::Duration>) -> std::io::Result<()> {
        self.inner.poll(timeout)
    } };
    (@events) => { fn events(&self) -> impl Iterator<Item = Event> { self.inner.events() } };
    (@capacity) => { fn capacity(&self) -> usize { self.inner.capacity() } };
    (@now) => { fn now(&self) -> std::time::Instant { self.inner.now() } };
    (@waker) => { fn waker(&self) -> std::sync::Arc<dyn Wake> { self.inner.waker() } };
    (@listen) => { fn listen(&mut self, addr: &Address, key: usize, limits: &Limits)
        -> std::io::Result<Self::Listener> { self.inner.listen(addr, key, limits) } };
    (@adopt) => { fn adopt(&mut self, from: std::net::TcpListener, key: usize, limits: &Limits)
        -> std::io::Result<Self::Listener> { self.inner.adopt(from, key, limits) }
        #[cfg(unix)]
        fn adopt_unix(&mut self, from: std::os::unix::net::UnixListener, key: usize, limits: &Limits)
            -> std::io::Result<Self::Listener> { self.inner.adopt_unix(from, key, limits) } };
    // The listeners of the kernel inside, wrapped by `wrap`.
    (@wrapped_listeners) => {
        fn listen(&mut self, addr: &Address, key: usize, limits: &Limits)
            -> std::io::Result<Self::Listener> {
            let inner = self.inner.listen(addr, key, limits)?;
            self.wrap(inner, key, limits)
        }
        fn adopt(&mut self, from: std::net::TcpListener, key: usize, limits: &Limits)
            -> std::io::Result<Self::Listener> {
            let inner = self.inner.adopt(from, key, limits)?;
            self.wrap(inner, key, limits)
        }
        #[cfg(unix)]
        fn adopt_unix(&mut self, from: std::os::unix::net::UnixListener, key: usize, limits: &Limits)
            -> std::io::Result<Self::Listener> {
            let inner = self.inner.adopt_unix(from, key, limits)?;
            self.wrap(inner, key, limits)
        }
    };
    // `local_addr` of a kernel; a stream has one, too.
    (@listener_addr) => { fn local_addr(&self, of: &Self::Listener) -> std::io::Result<Address> {
        self.inner.local_addr(of)
    } };
    (@accept) => { fn accept(&mut self, listener: &mut Self::Listener)
        -> std::io::Result<(Self::Stream, Address)> { self.inner.accept(listener) } };
    (@set_backlog) => { fn set_backlog(&mut self, of: &Self::Listener, backlog: u32)
        -> std::io::Result<()> { self.inner.set_backlog(of, backlog) } };
    (@connect) => { fn connect(&mut self, addr: &Address, limits: &Limits, parent: Option<ConnId>)
        -> std::io::Result<Self::Stream> { self.inner.connect(addr, limits, parent) } };
    (@register) => { fn register(&mut self, stream: &mut Self::Stream, key: usize, writes: bool)
        -> std::io::Result<()> { self.inner.register(stream, key, writes) } };
    (@watch) => { #[cfg(unix)] fn watch(&mut self, fd: std::os::fd::BorrowedFd<'_>)
        -> std::io::Result<()> { self.inner.watch(fd) } };
    (@phase) => { fn phase(&mut self, phase: Phase) { self.inner.phase(phase); } };
    (@observe) => { fn observe(&mut self, id: ConnId, view: impl FnOnce() -> Snapshot) {
        self.inner.observe(id, view);
    } };

    // Write and Stream
    (@flush) => { fn flush(&mut self) -> std::io::Result<()> { self.inner.flush() } };
    (@abort) => { fn abort(&mut self) { self.inner.abort(); } };
    (@connected) => { fn connected(&mut self) -> std::io::Result<bool> { self.inner.connected() } };
    (@local_addr) => { fn local_addr(&self) -> std::io::Result<Address> { self.inner.local_addr() } };
    (@is_held) => { fn is_held(&self) -> bool { self.inner.is_held() } };
    (@ended) => { fn ended(&mut self, reason: &CloseReason) { self.inner.ended(reason); } };
}

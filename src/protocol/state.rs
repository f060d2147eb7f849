//! The state of a conversation.

/// Whether the peer may still send.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input {
    /// The peer may send.
    #[default]
    Open,
    /// The peer has ended its half: its EOF was read.
    Ended,
}

/// Whether we may still send.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// The protocol may send.
    #[default]
    Open,
    /// The protocol sends no more; the send queue is being delivered.
    Flushing,
    /// Our half has ended: the FIN is sent.
    Shut,
}

/// The state of a conversation: the connection keeps it, and the outbox carries it through a call.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) input: Input,
    pub(crate) output: Output,
    /// The protocol has closed: incoming bytes are discarded.
    pub(crate) closed: bool,
    /// The protocol has paused reading.
    pub(crate) paused: bool,
    /// [`Outbox::read_while_congested`]: the loop reads the peer even while the outbox is
    /// congested.
    pub(crate) reads_while_congested: bool,
    /// The send queue has reached high water, and not fallen to low water since.
    pub(crate) congested: bool,
}

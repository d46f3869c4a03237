//! Fair queueing: the time of a core is shared between clients, whoever has how many connections or requests.
//!
//! A core runs its tasks in the order in which they became ready. A client with a hundred busy connections, or with requests
//! by the thousand on one, would so have a hundred turns for each of its neighbour's. Here the tasks of one client address are
//! a [`Flow`]. In each round a flow has one [`QUANTUM`] of processor time. What comes after that queues, in its order. Flows
//! that queue get their next quantum one after the other, each when everything else that was ready has run and the kernel has
//! been asked for more. So a neighbour waits for one quantum at a time, however many clients are busy, and a core that has
//! nothing else to do gives a client all its time.
//!
//! Measured is the time of each poll. One that reads from a client ends when its quantum does ([`turn_is_over`]).

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Shorter keeps neighbours waiting less, longer costs fewer changes. A request takes some tens of microseconds.
const QUANTUM: Duration = Duration::from_micros(500);
/// Who is called has so much, also at the end of its flow's quantum: it would else come back with nothing done.
const LEAST: Duration = Duration::from_micros(100);

thread_local! {
    /// When the turn of the task that runs on this core ends.
    static TURN_ENDS: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A turn, which ends with this also when its task panics.
struct TurnGuard;

impl TurnGuard {
    fn until(end: Instant) -> Self {
        TURN_ENDS.set(Some(end));
        Self
    }
}

impl Drop for TurnGuard {
    fn drop(&mut self) {
        TURN_ENDS.set(None);
    }
}

/// Whether the running task has used its flow's time: it should come back later.
pub(super) fn turn_is_over() -> bool {
    TURN_ENDS.get().is_some_and(|end| Instant::now() >= end)
}

/// The flows of a core.
#[derive(Default)]
pub(crate) struct FairQueue {
    flows: RefCell<HashMap<IpAddr, Weak<Flow>>>,
    rounds: Rc<Rounds>,
}

impl FairQueue {
    /// The flow of a client, by [`client_key`](crate::limits::client_key).
    pub(super) fn flow(&self, client: IpAddr) -> Rc<Flow> {
        let mut flows = self.flows.borrow_mut();
        if let Some(flow) = flows.get(&client).and_then(Weak::upgrade) {
            return flow;
        }
        if flows.len() == flows.capacity() {
            flows.retain(|_, flow| flow.strong_count() > 0);
            // Where most are still there, the next look is as far away.
            let left = flows.len();
            flows.reserve(left);
        }
        let flow = Rc::new(Flow { rounds: Rc::clone(&self.rounds), ..Flow::default() });
        flows.insert(client, Rc::downgrade(&flow));
        flow
    }
}

#[derive(Default)]
struct Rounds {
    number: Cell<u64>,
    /// Flows whose tasks queue.
    waiting: RefCell<VecDeque<Rc<Flow>>>,
    /// The task that calls them is there.
    run: Cell<bool>,
}

impl Rounds {
    fn add(self: &Rc<Self>, flow: Rc<Flow>) {
        self.waiting.borrow_mut().push_back(flow);
        if !self.run.replace(true) {
            tokio::task::spawn_local(Rc::clone(self).run());
        }
    }

    /// Gives one flow after the other its turn, as long as anybody queues.
    async fn run(self: Rc<Self>) {
        let mut round = 0;
        loop {
            // Comes back behind what is ready now and what the kernel has to tell.
            tokio::task::yield_now().await;
            if round == 0 {
                self.number.set(self.number.get() + 1);
                round = self.waiting.borrow().len();
            }
            let Some(flow) = self.waiting.borrow_mut().pop_front() else {
                self.run.set(false);
                return;
            };
            round -= 1;
            if !flow.left().is_zero() {
                flow.call();
            }
            if flow.queue.borrow().is_empty() {
                flow.listed.set(false);
            } else {
                self.waiting.borrow_mut().push_back(flow);
            }
        }
    }
}

/// The tasks of one client on this core.
#[derive(Default)]
pub(crate) struct Flow {
    rounds: Rc<Rounds>,
    /// The round in which `used` was looked at last.
    round: Cell<u64>,
    /// What it has used of this round and of later ones.
    used: Cell<Duration>,
    queue: RefCell<VecDeque<Rc<QueuedTask>>>,
    /// One has been called and has not come yet. Nobody passes it.
    called: Cell<bool>,
    /// It is in [`Rounds::waiting`].
    listed: Cell<bool>,
}

impl Flow {
    /// What it may still use in this round. What it used beyond a quantum in others counts: not every poll ends in time.
    fn left(&self) -> Duration {
        let now = self.rounds.number.get();
        let passed = u32::try_from(now - self.round.replace(now)).unwrap_or(u32::MAX);
        self.used.set(self.used.get().saturating_sub(QUANTUM.saturating_mul(passed)));
        QUANTUM.saturating_sub(self.used.get())
    }

    fn enqueue(self: &Rc<Self>, task: &Rc<QueuedTask>, waker: &Waker) {
        task.set(State::Queued, Some(waker.clone()));
        self.queue.borrow_mut().push_back(Rc::clone(task));
        if !self.listed.replace(true) {
            self.rounds.add(Rc::clone(self));
        }
    }

    /// Calls the next one that queues, and is still there, unless one is on its way.
    fn call(&self) {
        while !self.called.get() {
            let Some(task) = self.queue.borrow_mut().pop_front() else { return };
            if task.state.get() == State::Queued {
                let waker = task.waker.take();
                task.set(State::Called, None);
                self.called.set(true);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// It asks when it is polled next.
    #[default]
    Outside,
    Queued,
    /// It is its turn.
    Called,
    /// Its task has gone.
    Left,
}

/// A task in the queue of its flow.
#[derive(Default)]
struct QueuedTask {
    state: Cell<State>,
    waker: RefCell<Option<Waker>>,
}

impl QueuedTask {
    fn set(&self, state: State, waker: Option<Waker>) {
        self.state.set(state);
        *self.waker.borrow_mut() = waker;
    }
}

/// A task of a flow.
pub(super) struct Fair<F> {
    inner: Pin<Box<F>>,
    /// `None` for those who are not measured.
    flow: Option<Rc<Flow>>,
    task: Rc<QueuedTask>,
}

impl<F> Fair<F> {
    pub(super) fn new(flow: Option<Rc<Flow>>, task: F) -> Self {
        Self { inner: Box::pin(task), flow, task: Rc::default() }
    }
}

impl<F: Future> Future for Fair<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let Some(flow) = &this.flow else { return this.inner.as_mut().poll(cx) };
        let called = match this.task.state.get() {
            State::Queued => {
                *this.task.waker.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            state => state == State::Called,
        };
        let left = flow.left();
        if called {
            flow.called.set(false);
            this.task.state.set(State::Outside);
        } else if left.is_zero() || flow.called.get() || !flow.queue.borrow().is_empty() {
            flow.enqueue(&this.task, cx.waker());
            return Poll::Pending;
        }
        let begun = Instant::now();
        let turn = TurnGuard::until(begun + left.max(LEAST));
        let polled = this.inner.as_mut().poll(cx);
        drop(turn);
        flow.used.set(flow.used.get() + begun.elapsed());
        if called && !flow.left().is_zero() {
            flow.call();
        }
        polled
    }
}

impl<F> Drop for Fair<F> {
    fn drop(&mut self) {
        let state = self.task.state.replace(State::Left);
        // Its turn is the next one's.
        if let (State::Called, Some(flow)) = (state, &self.flow) {
            flow.called.set(false);
            flow.call();
        }
    }
}

/// Runs what a connection by HTTP/2 has to run beside itself on the core that has the connection, as part of its flow.
#[derive(Clone)]
pub(super) struct InFlow(pub(super) Option<Rc<Flow>>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for InFlow {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(Fair::new(self.0.clone(), future));
    }
}

#[cfg(test)]
#[path = "fair_tests.rs"]
mod tests;

use std::net::Ipv4Addr;

use super::*;

/// Is busy in each of so many polls, for longer than a quantum.
struct Busy {
    polls: usize,
    count: Rc<Cell<usize>>,
}

impl Future for Busy {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(polls) = self.polls.checked_sub(1) else { return Poll::Ready(()) };
        self.polls = polls;
        self.count.set(self.count.get() + 1);
        while !turn_is_over() {
            std::hint::spin_loop();
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

fn client(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, number).into()
}

async fn on_one_core<F: Future>(test: F) -> F::Output {
    tokio::task::LocalSet::new().run_until(test).await
}

#[tokio::test]
async fn a_neighbour_waits_for_one_turn_at_a_time_whoever_has_how_much_to_do() {
    for clients in [1, 10] {
        a_neighbour_among(clients).await;
    }
}

async fn a_neighbour_among(clients: u8) {
    on_one_core(async {
        let queue = FairQueue::default();
        let count = Rc::new(Cell::new(0));
        let mut flood = Vec::new();
        for number in 0..50 {
            let busy = Busy { polls: 1000, count: Rc::clone(&count) };
            let flow = queue.flow(client(10 + number % clients));
            flood.push(tokio::task::spawn_local(Fair::new(Some(flow), busy)));
        }
        // Before it is known that they are busy, each has a turn.
        while count.get() <= usize::from(clients) {
            tokio::task::yield_now().await;
        }
        let seen = Rc::clone(&count);
        let neighbour = Fair::new(Some(queue.flow(client(2))), async move {
            let mut most = 0;
            for _ in 0..100 {
                let before = seen.get();
                tokio::task::yield_now().await;
                most = most.max(seen.get() - before);
            }
            most
        });
        let most = tokio::task::spawn_local(neighbour).await.expect("joined");
        // The rounds and the neighbour may pass each other once.
        assert!(most <= 2, "{most} turns of {clients} between two of the neighbour's");
        assert!(count.get() >= 50, "the flood goes on: {}", count.get());
        for one in flood {
            one.abort();
        }
    })
    .await;
}

#[tokio::test]
async fn tasks_of_a_client_come_in_turn_and_to_their_end() {
    on_one_core(async {
        let queue = FairQueue::default();
        let counts: Vec<Rc<Cell<usize>>> = (0..10).map(|_| Rc::default()).collect();
        let mut tasks = Vec::new();
        for count in &counts {
            let busy = Busy { polls: 20, count: Rc::clone(count) };
            tasks.push(tokio::task::spawn_local(Fair::new(Some(queue.flow(client(1))), busy)));
        }
        for task in &mut tasks {
            while !task.is_finished() {
                tokio::task::yield_now().await;
                let counts = counts.iter().map(|count| count.get());
                let (least, most) = (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0));
                assert!(most - least <= 1, "one had {most} turns and another {least}");
            }
        }
        assert!(counts.iter().all(|count| count.get() == 20));
        // With the last one the rounds end too.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        assert!(!queue.rounds.run.get() && queue.rounds.waiting.borrow().is_empty());
    })
    .await;
}

/// Is busy for many quanta in each poll, whatever it is told.
async fn stubborn(count: Rc<Cell<usize>>) {
    loop {
        count.set(count.get() + 1);
        let begun = Instant::now();
        while begun.elapsed() < 20 * QUANTUM {
            std::hint::spin_loop();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn time_over_the_quantum_is_charged_to_the_next_round() {
    on_one_core(async {
        let queue = FairQueue::default();
        let (stubborn_turns, turns) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let long = Fair::new(Some(queue.flow(client(1))), stubborn(Rc::clone(&stubborn_turns)));
        let long = tokio::task::spawn_local(long);
        let busy = Busy { polls: 200, count: Rc::clone(&turns) };
        tokio::task::spawn_local(Fair::new(Some(queue.flow(client(2))), busy)).await.expect("joined");
        // A twentieth, were the clock exact and the machine alone.
        let (long_turns, turns) = (stubborn_turns.get(), turns.get());
        assert!(long_turns * 4 < turns, "{long_turns} long turns beside {turns}");
        long.abort();
    })
    .await;
}

#[tokio::test]
async fn a_dropped_task_does_not_block_others() {
    on_one_core(async {
        let queue = FairQueue::default();
        let count = Rc::new(Cell::new(0));
        let busy = |polls| Fair::new(Some(queue.flow(client(1))), Busy { polls, count: Rc::clone(&count) });
        let tasks: Vec<_> = (0..20).map(|_| tokio::task::spawn_local(busy(10))).collect();
        tokio::task::yield_now().await;
        // Some queue, and one of them has been called.
        for task in tasks.iter().step_by(2) {
            task.abort();
        }
        for (number, task) in tasks.into_iter().enumerate() {
            let ended = tokio::time::timeout(Duration::from_secs(60), task).await.expect("it ends");
            assert_eq!(ended.is_ok(), number % 2 == 1);
        }
        assert!(count.get() >= 100);
    })
    .await;
}

#[test]
fn flows_of_clients_that_have_gone_are_forgotten() {
    let queue = FairQueue::default();
    let first = queue.flow(client(0));
    for number in 0..10_000_u32 {
        queue.flow(Ipv4Addr::from_bits(number).into());
    }
    assert!(queue.flows.borrow().len() < 100);
    assert!(Rc::ptr_eq(&first, &queue.flow(client(0))));
}

//! How a sandbox ends that was asked to. Needs root, busybox-static, nftables and btrfs-progs.

mod privileged;

use std::time::Duration;

use privileged::{Cell, LIMIT};
use slipway_cell_agent::sandbox::SandboxRuntime as _;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_polite_app_ends_by_itself_and_a_deaf_one_is_killed() {
    let cell = Cell::new().await;
    let polite = cell.script(0, "trap 'echo bye; exit 3' TERM; echo up; while true; do sleep 0.1; done");
    let deaf = cell.script(1, "trap '' TERM; echo up; while true; do sleep 0.1; done");
    for spec in [&polite, &deaf] {
        cell.runtime.start(spec.clone()).await.unwrap();
        cell.until_output(spec.id, "up").await;
    }
    let exit = cell.runtime.stop(polite.id, LIMIT).await.unwrap();
    assert_eq!((exit.code, exit.signal), (3, None));
    assert!(cell.output(polite.id).contains("bye"));
    let exit = cell.runtime.stop(deaf.id, Duration::from_millis(300)).await.unwrap();
    assert_eq!((exit.code, exit.signal, exit.platform_fault), (137, Some(9), false));
    for id in [polite.id, deaf.id] {
        cell.runtime.destroy(id).await.unwrap();
    }
    assert_eq!(cell.leftovers(), Vec::<String>::new());
}

/// A server with a worker: the master is asked to end, and lets its worker finish.
const MASTER: &str = "busybox printf '#!/bin/sh\\nread line; echo working >&2; until [ -e /tmp/finish ]; do sleep 0.1; done; \
     printf \"HTTP/1.0 200 OK\\r\\n\\r\\nfinished\"\\n' >/tmp/worker; chmod +x /tmp/worker; \
     trap 'echo asked; wait; exit 0' TERM; nc -l -p 8080 -e /tmp/worker & echo up; wait";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_is_answered_while_its_server_ends() {
    use std::io::{Read as _, Write as _};
    let cell = Cell::new().await;
    // As it is started, and below a shell that waits for it and does not pass signals on.
    let below = format!("cat >/tmp/master <<'END'\n{MASTER}\nEND\nsh /tmp/master; echo BAD the shell goes on");
    for (slot, script, signal) in [(0, MASTER.to_owned(), None), (1, below, Some(15))] {
        let spec = cell.script(slot, &script);
        cell.runtime.start(spec.clone()).await.unwrap();
        cell.until_output(spec.id, "up").await;
        cell.runtime.gate(slot, true).await.unwrap();
        let address = std::net::SocketAddr::new(cell.runtime.address(slot).into(), 8080);
        let mut request = None;
        privileged::eventually("the server listens", LIMIT, || {
            let connected = std::net::TcpStream::connect(address).map(|stream| request = Some(stream));
            async { connected }
        })
        .await;
        let mut request = request.unwrap();
        request.write_all(b"GET / HTTP/1.0\n").unwrap();
        cell.until_output(spec.id, "working").await;
        // As a stop does it.
        cell.runtime.gate(slot, false).await.unwrap();
        let finishes = async {
            cell.until_output(spec.id, "asked").await;
            let main = cell.process(spec.id);
            let finish = std::process::Command::new("nsenter")
                .args(["-t", &main.to_string(), "-m", "-p", "/bin/touch", "/tmp/finish"])
                .status();
            assert!(finish.unwrap().success());
        };
        let (exit, ()) = tokio::join!(cell.runtime.stop(spec.id, LIMIT), finishes);
        let mut answer = String::new();
        request.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200 OK") && answer.ends_with("finished"), "{answer:?}");
        let output = cell.output(spec.id);
        assert_eq!(output.matches("asked\n").count(), 1, "{output}");
        assert!(!output.contains("BAD"), "{output}");
        assert_eq!(exit.unwrap().signal, signal);
        cell.runtime.destroy(spec.id).await.unwrap();
    }
    assert_eq!(cell.leftovers(), Vec::<String>::new());
}

/// A program that has written the whole of its answer is done; its visitor has only begun to read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_arrives_after_its_program_has_ended() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    /// Fits into the kernel's buffer of the program, and not into the visitor's.
    const SIZE: usize = 24 << 10;
    let cell = Cell::new().await;
    let server = format!(
        "busybox printf '#!/bin/sh\\nread line; exec busybox dd if=/dev/zero bs={SIZE} count=1\\n' >/tmp/worker; \
         chmod +x /tmp/worker; echo up; nc -l -p 8080 -e /tmp/worker; echo sent; "
    );
    let stays = format!("{server} trap 'exit 5' TERM; while true; do sleep 0.1; done");
    let ends = format!("{server} exit 5");
    for (slot, script, stop, reads) in
        [(0, &stays, Some(LIMIT), true), (1, &ends, None, true), (2, &stays, Some(Duration::from_millis(300)), false)]
    {
        let spec = cell.script(slot, script);
        cell.runtime.start(spec.clone()).await.unwrap();
        cell.until_output(spec.id, "up").await;
        cell.runtime.gate(slot, true).await.unwrap();
        let address = std::net::SocketAddr::new(cell.runtime.address(slot).into(), 8080);
        let connected = std::sync::Mutex::new(None);
        let connected = &connected;
        privileged::eventually("the server listens", LIMIT, || async move {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4 << 10).unwrap();
            let stream = socket.connect(address).await?;
            *connected.lock().unwrap() = Some(stream);
            std::io::Result::Ok(())
        })
        .await;
        let mut visitor = connected.lock().unwrap().take().unwrap();
        visitor.write_all(b"GET / HTTP/1.0\n").await.unwrap();
        cell.until_output(spec.id, "sent").await;
        let reader = tokio::spawn(async move {
            // So that the end comes first.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let mut answer = Vec::new();
            if reads {
                tokio::time::timeout(LIMIT, visitor.read_to_end(&mut answer)).await.expect("in time").unwrap();
            }
            (answer.len(), visitor)
        });
        let exit = match stop {
            Some(grace) => cell.runtime.stop(spec.id, grace).await,
            None => cell.runtime.wait(spec.id).await,
        };
        let exit = exit.unwrap();
        assert_eq!((exit.code, exit.signal, exit.platform_fault), (5, None, false), "{script}");
        cell.runtime.destroy(spec.id).await.unwrap();
        let (come, _visitor) = reader.await.unwrap();
        assert_eq!(come, if reads { SIZE } else { 0 }, "{script}");
    }
    assert_eq!(cell.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_are_not_asked_to_end_and_go_with_their_master() {
    let cell = Cell::new().await;
    let worker = "trap 'echo BAD the worker was asked' TERM; echo worker; while true; do sleep 0.1; done";
    let script = format!("({worker}) & trap 'echo master; exit 4' TERM; while true; do sleep 0.1; done");
    let spec = cell.script(0, &script);
    cell.runtime.start(spec.clone()).await.unwrap();
    cell.until_output(spec.id, "worker").await;
    let exit = cell.runtime.stop(spec.id, LIMIT).await.unwrap();
    let output = cell.output(spec.id);
    assert_eq!((exit.code, exit.signal), (4, None), "{output}");
    assert!(output.contains("master") && !output.contains("BAD"), "{output}");

    // What a fallen shell leaves has the grace, and no more.
    let deaf = cell.script(1, "sh -c 'trap \"\" TERM; echo up; while true; do sleep 0.1; done'; echo BAD");
    cell.runtime.start(deaf.clone()).await.unwrap();
    cell.until_output(deaf.id, "up").await;
    let exit = cell.runtime.stop(deaf.id, Duration::from_millis(300)).await.unwrap();
    assert_eq!((exit.code, exit.signal), (143, Some(15)), "{exit:?}");
}

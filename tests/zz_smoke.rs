//! smoke
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use unbroken::{CloseReason, Config, LinkState, Listener};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smoke() {
    let mut listener = Listener::bind("127.0.0.1:0", Config::new()).await.unwrap();
    let sessions = listener.sessions();
    let mut client = unbroken::connect(listener.local_addr().unwrap(), Config::new())
        .await
        .unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    client.write_all(b"hello").await.unwrap();
    let mut b = [0; 5];
    server.read_exact(&mut b).await.unwrap();
    assert_eq!(&b, b"hello");
    let n = 50_000_000usize;
    let h = client.handle();
    let up = tokio::spawn(async move {
        let buf = vec![7u8; 65536];
        let mut left = n;
        while left > 0 {
            let k = left.min(buf.len());
            client.write_all(&buf[..k]).await.unwrap();
            left -= k;
        }
        client.shutdown().await.unwrap();
        let mut v = Vec::new();
        client.read_to_end(&mut v).await.unwrap();
        (v, client)
    });
    let mut got = 0;
    let mut buf = vec![0; 65536];
    for i in 0.. {
        let k = server.read(&mut buf).await.unwrap();
        if k == 0 {
            break;
        }
        assert!(buf[..k].iter().all(|b| *b == 7));
        got += k;
        if i % 50 == 0 {
            let t = h.clone();
            tokio::spawn(async move { t.migrate().await.unwrap() });
        }
    }
    assert_eq!(got, n);
    server.write_all(b"bye").await.unwrap();
    server.shutdown().await.unwrap();
    let (v, client) = up.await.unwrap();
    assert_eq!(v, b"bye");
    println!("{:?} {:?}", h.stats(), h.state());
    let mut sub = h.subscribe();
    sub.wait_for(|s| matches!(s, LinkState::Closed(CloseReason::Finished)))
        .await
        .unwrap();
    println!("{:?}", server.handle().state());
    drop(client);
    drop(server);
    tokio::time::timeout(Duration::from_secs(5), async {
        while sessions.count() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
}

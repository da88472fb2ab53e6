//! Calls of all four kinds, while every link is cut.

use futures_util::{StreamExt, stream};
use tokio::task::JoinSet;
use tonic::{Code, transport::Server};

use super::{
    Echo, channel, counted,
    numbers::{Number, Numbers},
    serve, until,
};
use crate::{
    bed::{Bed, Spoken, over_each},
    cutting_proxy::Close,
};

over_each!(
    a_stream_of_numbered_messages_each_way_arrives_whole_and_in_order,
    calls_of_all_kinds_at_once_get_their_answers,
);

async fn a_stream_of_numbered_messages_each_way_arrives_whole_and_in_order(spoken: Spoken) {
    const CUTS: u64 = 300;
    let (bed, listener) = Bed::start(spoken, 8 << 10).await;
    let (_serving, mut at) = serve(Server::builder(), listener);
    let mut client = Numbers::new(channel(&bed).await);
    let mut echo = Echo::open(&mut client).await;
    for _ in 0..CUTS {
        // At least one goes there and back over each link, and the others are anywhere when it is cut.
        echo.keep_on(Echo::AHEAD).await;
        bed.proxy.cut_now(Close::Reset);
    }
    echo.go_on(1).await;
    echo.end().await;
    until(&mut at, 0).await;
    bed.assert_cut(200);
    assert_eq!(bed.sessions().len(), 1);
}

async fn calls_of_all_kinds_at_once_get_their_answers(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 1 << 10).await;
    let (_serving, mut at) = serve(Server::builder(), listener);
    let client = Numbers::new(channel(&bed).await);
    let mut calls = JoinSet::new();
    for size in [50, 100, 150] {
        let mut client = client.clone();
        calls.spawn(async move {
            for n in 0..size {
                let next = client.next(Number::from(n)).await.expect("an answer");
                assert_eq!(next.into_inner(), (n + 1).into());
            }
            let last = client.next(Number::from(u64::MAX)).await;
            let status = last.expect_err("no number after the last");
            assert_eq!(status.code(), Code::OutOfRange);
            assert_eq!(status.message(), "it is the last one");
        });
    }
    for size in [100, 300, 500] {
        let mut client = client.clone();
        calls.spawn(async move {
            let numbers = client.count(Number::from(size)).await.expect("a stream");
            assert_eq!(counted(numbers.into_inner()).await, size);
            let numbers = stream::iter(0..size).map(Number::from);
            let sum = client.sum(numbers).await.expect("an answer");
            assert_eq!(sum.into_inner(), (size * (size - 1) / 2).into());
            let numbers = stream::iter(0..size).map(Number::from);
            let echoed = client.echo(numbers).await.expect("a stream");
            assert_eq!(counted(echoed.into_inner()).await, size);
        });
    }
    while let Some(done) = calls.join_next().await {
        done.expect("the right answers");
    }
    until(&mut at, 0).await;
    bed.assert_cut(8);
    assert_eq!(bed.sessions().len(), 1);
}

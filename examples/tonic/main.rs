//! gRPC: calls of all four kinds at once, while every link is cut after 20 ms.
//!
//! ```text
//! cargo run --example tonic
//! ```

use std::{error::Error, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use tonic::{
    Status,
    transport::{Endpoint, Server},
};
use tower::{ServiceBuilder, service_fn};
use unbroken::{Config, Connector, Listener, ResumableTransport, TcpConnector};

use numbers::{Number, Numbers};

#[path = "../support/cuts.rs"]
mod cuts;
mod numbers;

const NUMBERS: u64 = 20_000;
const ONE_BY_ONE: u64 = 2_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = Listener::bind("127.0.0.1:0", Config::new()).await?;
    let (addr, cuts) = cuts::before(listener.local_addr()?, Duration::from_millis(20)).await?;

    let (shut_down, asked) = tokio::sync::oneshot::channel();
    let server = tokio::spawn(async move {
        Server::builder()
            .serve_with_incoming_shutdown(service_fn(numbers::serve), listener, async {
                asked.await.unwrap_or(())
            })
            .await
    });

    // The channel keeps the session's handle to itself, so one is kept here.
    let (opened, mut sessions) = tokio::sync::mpsc::unbounded_channel();
    let connector = ServiceBuilder::new()
        .map_response(move |transport: ResumableTransport| {
            // Nobody may be listening any more.
            let _ = opened.send(transport.handle());
            transport
        })
        .service(Connector::new(TcpConnector::new(), Config::new()));
    let channel = Endpoint::from_shared(format!("http://{addr}"))?
        .connect_with_connector(connector)
        .await?;
    let session = sessions.recv().await.ok_or("no session")?;
    let client = Numbers::new(channel);

    tokio::try_join!(
        echo(client.clone()),
        count(client.clone()),
        sum(client.clone()),
        next(client),
    )?;
    // It has no calls any more, and the channel is gone.
    shut_down.send(()).map_err(|()| "no server")?;
    server.await??;

    println!(
        "{NUMBERS} numbers came back in order, {NUMBERS} were counted, {NUMBERS} added up, and {ONE_BY_ONE} calls answered: {} cuts, {} resumes, {} session",
        cuts.count(),
        session.stats().resumes,
        1 + sessions.len(),
    );
    Ok(())
}

/// Both ways at once, neither waiting for the other.
async fn echo(mut client: Numbers) -> Result<(), Status> {
    let numbers = stream::iter(0..NUMBERS).map(Number::from);
    in_order(client.echo(numbers).await?.into_inner()).await
}

async fn count(mut client: Numbers) -> Result<(), Status> {
    in_order(client.count(Number::from(NUMBERS)).await?.into_inner()).await
}

async fn sum(mut client: Numbers) -> Result<(), Status> {
    let numbers = stream::iter(0..NUMBERS).map(Number::from);
    let sum = client.sum(numbers).await?.into_inner();
    assert_eq!(sum, (NUMBERS * (NUMBERS - 1) / 2).into());
    Ok(())
}

async fn next(mut client: Numbers) -> Result<(), Status> {
    let mut number = Number::from(0);
    while number.value < ONE_BY_ONE {
        let following = client.next(number.clone()).await?.into_inner();
        assert_eq!(following, (number.value + 1).into());
        number = following;
    }
    Ok(())
}

async fn in_order(numbers: tonic::Streaming<Number>) -> Result<(), Status> {
    let one_more = |expected, number| async move {
        assert_eq!(number, Number::from(expected));
        Ok(expected + 1)
    };
    let numbers = numbers.try_fold(0, one_more).await?;
    assert_eq!(numbers, NUMBERS);
    Ok(())
}
